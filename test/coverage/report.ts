// What the tests have run of `src`, by file, and the places that none of them reached.
import { glob, readdir, readFile } from 'node:fs/promises'
import type { Profiler } from 'node:inspector'
import { stripTypeScriptTypes } from 'node:module'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { mergeScriptCovs } from '@bcoe/v8-coverage'
import convert from 'ast-v8-to-istanbul'
import coverage, { type FileCoverage, type Range } from 'istanbul-lib-coverage'
import { parseAstAsync } from 'vitest/node'

const root = join(import.meta.dirname, '../..')
/** Runs in workerd alone, which does not tell what it has run; and what holds types and no code. */
const unmeasured = ['src/worker.ts']

/** `folder` holds what the processes of the run have written down. */
export async function report(folder: string): Promise<string> {
  const scripts = await merge(folder)
  const map = coverage.createCoverageMap()
  for await (const name of glob('src/**/*.ts', { cwd: root })) {
    if (unmeasured.includes(name)) continue
    const url = pathToFileURL(join(root, name)).href
    const source = await readFile(join(root, name), 'utf8')
    // As Node does it: what is no JavaScript becomes blank, so every position stays.
    const code = stripTypeScriptTypes(source)
    const functions = scripts.get(url)?.functions ?? []
    map.merge(await convert({ code, ast: parseAstAsync(code), coverage: { url, functions } }))
  }
  const lines: string[] = []
  for (const path of map.files().toSorted()) {
    const file = map.fileCoverageFor(path)
    lines.push(row(path.slice(root.length + 1), file.toSummary()))
    lines.push(...missed(file, await readFile(path, 'utf8')))
  }
  lines.push(row('src', map.getCoverageSummary()))
  lines.push(`not measured: ${unmeasured.join(', ')}`)
  return lines.join('\n')
}

async function merge(folder: string): Promise<Map<string, Profiler.ScriptCoverage>> {
  const scripts = new Map<string, Profiler.ScriptCoverage>()
  for (const name of await readdir(folder)) {
    const { result } = JSON.parse(await readFile(join(folder, name), 'utf8')) as {
      result: Profiler.ScriptCoverage[]
    }
    for (const script of result) {
      const before = scripts.get(script.url)
      scripts.set(script.url, mergeScriptCovs(before ? [before, script] : [script])!)
    }
  }
  return scripts
}

function row(name: string, { lines, branches }: coverage.CoverageSummary): string {
  const share = ({ covered, total, pct }: coverage.Totals) =>
    `${String(pct).padStart(6)} % (${covered}/${total})`.padEnd(22)
  return `${name.padEnd(36)} lines ${share(lines)} branches ${share(branches)}`.trimEnd()
}

/** What no test has run, each with the code that stands there. */
function missed({ statementMap, s, branchMap, b }: FileCoverage, source: string): string[] {
  const code = source.split('\n')
  const places: { what: string; place: Range }[] = []
  for (const [id, place] of Object.entries(statementMap)) {
    if (s[id] === 0) places.push({ what: 'statement', place })
  }
  for (const [id, { type, locations, loc }] of Object.entries(branchMap)) {
    for (const [index, place] of locations.entries()) {
      const isThere = place.start.line !== undefined // an `else` that is not written has no place
      if (b[id]![index] === 0) places.push({ what: type, place: isThere ? place : loc })
    }
  }
  return places
    .toSorted((one, other) => one.place.start.line - other.place.start.line)
    .map(({ what, place: { start } }) => {
      const text = code[start.line - 1]!
      return `  ${start.line}:${start.column + 1} ${what}: ${text.slice(start.column).trim() || text.trim()}`
    })
}
