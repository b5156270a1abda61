// Loaded into every Node process of a coverage run: writes down which of `src` has run there.
//
// Not Node's own NODE_V8_COVERAGE, which writes when a process ends, and once: most services of the
// tests are ended by a signal, and many by one that leaves no time to write.
import { readFileSync, writeFileSync } from 'node:fs'
import { type Profiler, Session } from 'node:inspector'
import { join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'

/** What ran later is lost when a test kills the process, as those that crash it do. */
const EVERY_MS = 250

const root = join(import.meta.dirname, '../..')
const folder = process.env['COVERAGE_FOLDER']!
const places = new Map<string, string | undefined>()
let written = 0

const session = new Session()
session.connect()
session.post('Profiler.enable')
session.post('Profiler.startPreciseCoverage', { callCount: true, detailed: true })
setInterval(write, EVERY_MS).unref()
process.on('exit', write)
// The service takes its listeners away before it exits.
const exit = process.exit.bind(process)
process.exit = (code) => {
  write()
  return exit(code)
}
// How Vitest ends the processes of its own.
process.on('SIGTERM', () => {
  write()
  if (process.listenerCount('SIGTERM') > 1) return
  process.removeAllListeners('SIGTERM')
  process.kill(process.pid, 'SIGTERM')
})
// How the tests end a process in such a run.
process.on('SIGALRM', () => {
  write()
  process.kill(process.pid, 'SIGKILL')
})

/** What has run since the last time. */
function write() {
  session.post('Profiler.takePreciseCoverage', (error, taken) => {
    if (error) throw error
    const result: Profiler.ScriptCoverage[] = []
    for (const script of taken.result) {
      const url = placeOf(script.url)
      if (url !== undefined) result.push({ ...script, url })
    }
    if (result.length === 0) return
    const name = `${process.pid}-${Math.trunc(performance.timeOrigin)}-${written++}.json`
    writeFileSync(join(folder, name), JSON.stringify({ result }))
  })
}

/** The file of `src` that a script is, also in a copy of the checkout, if it has not been changed there. */
function placeOf(url: string): string | undefined {
  if (!url.startsWith('file:') || url.includes('/node_modules/')) return undefined
  if (!places.has(url)) places.set(url, original(url))
  return places.get(url)
}

function original(url: string): string | undefined {
  const path = fileURLToPath(url)
  const own = path.slice(path.lastIndexOf('/src/') + 1)
  if (!own.startsWith('src/')) return undefined
  try {
    const place = join(root, own)
    return readFileSync(place).equals(readFileSync(path)) ? pathToFileURL(place).href : undefined
  } catch {
    return undefined // there is no such file in this checkout
  }
}
