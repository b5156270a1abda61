// The processes of the bench: started, read in /proc as whole trees, and stopped; none outlives the bench.
import { type ChildProcess, fork, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync, readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { hasEnded, leash } from '../../src/cli/processes.ts'
import { environment, type Settings } from '../support/environment.ts'

export interface Process {
  child: ChildProcess
  pid: number
  stop: () => Promise<void>
}

/** Of /proc: the kernel shows it so on every machine that Node runs on. */
const TICKS_A_SECOND = 100
const STOP_MS = 20_000

/**
 * What it writes on standard output goes nowhere: a log is written, as in production, and nobody has to
 * read it here, on processors that are being measured.
 * @throws {Error} when there is no such program
 */
export async function startProcess(
  program: string,
  parameters: string[],
  settings: Settings,
): Promise<Process> {
  const child = spawn(program, parameters, {
    ...environment(settings),
    stdio: ['ignore', 'ignore', 'inherit'],
  })
  await new Promise((resolve, reject) => {
    child.once('spawn', resolve)
    child.once('error', reject)
  })
  const ended = leash(child, 'kill -s KILL "$0"')
  return {
    child,
    pid: child.pid!,
    async stop() {
      const late = setTimeout(() => child.kill('SIGKILL'), STOP_MS)
      child.kill('SIGTERM')
      await ended
      clearTimeout(late)
    },
  }
}

/** @throws {Error} when the process ends before, or does not answer for a minute */
export async function firstAnswer(url: string, { child }: Process): Promise<void> {
  const deadline = performance.now() + 60_000
  while (performance.now() < deadline && !hasEnded(child)) {
    const answer = await fetch(url, { headers: { connection: 'close' } }).catch(() => undefined)
    await answer?.arrayBuffer()
    if (answer?.ok) return
    await sleep(1)
  }
  throw new Error(`${child.spawnargs.join(' ')} did not answer ${url}`)
}

/** The CPU seconds of a process and all below it, those that have ended among them. */
export function cpuSeconds(root: number): number {
  let ticks = 0
  for (const { used } of tree(root)) ticks += used
  return ticks / TICKS_A_SECOND
}

/** The resident memory of a process and all below it. */
export function residentBytes(root: number): number {
  let kilobytes = 0
  for (const { pid } of tree(root)) {
    const status = readFileSync(`/proc/${pid}/status`, 'utf8')
    kilobytes += Number(/VmRSS:\s+(\d+)/.exec(status)?.[1] ?? 0)
  }
  return kilobytes * 1024
}

/** The CPU seconds of the machine: all that passed, and those in which it did nothing. */
export function machineSeconds(): { all: number; idle: number } {
  const [line = ''] = readFileSync('/proc/stat', 'utf8').split('\n')
  // user, nice, system, idle, iowait, irq, softirq, steal
  const ticks = line.split(/\s+/).slice(1, 9).map(Number)
  const all = ticks.reduce((sum, n) => sum + n, 0)
  return { all: all / TICKS_A_SECOND, idle: (ticks[3]! + ticks[4]!) / TICKS_A_SECOND }
}

function tree(root: number): { pid: number; used: number }[] {
  const children = new Map<number, number[]>()
  const used = new Map<number, number>()
  for (const name of readdirSync('/proc')) {
    if (!/^\d+$/.test(name)) continue
    let line: string
    try {
      line = readFileSync(`/proc/${name}/stat`, 'utf8')
    } catch {
      continue // it has ended since
    }
    // The name, in parentheses, may hold anything.
    const fields = line.slice(line.lastIndexOf(')') + 2).split(' ')
    const [parent, pid] = [Number(fields[1]), Number(name)]
    children.set(parent, [...(children.get(parent) ?? []), pid])
    // utime, stime, and the same of the children that have ended
    used.set(
      pid,
      fields.slice(11, 15).reduce((sum, ticks) => sum + Number(ticks), 0),
    )
  }
  if (!used.has(root)) throw new Error(`process ${root} is gone`)
  const found = [root]
  for (const pid of found) found.push(...(children.get(pid) ?? []))
  return found.map((pid) => ({ pid, used: used.get(pid)! }))
}

export interface Worker<Order, Answer> {
  ask: (order: Order) => Promise<Answer>
  stop: () => void
}

/** A module in a process of its own, which answers one order after the other. */
export function startWorker<Order extends object, Answer>(module: string): Worker<Order, Answer> {
  const child = fork(module, { ...environment({}), execArgv: [] })
  return {
    async ask(order) {
      const answered = new AbortController()
      const ended = once(child, 'exit', { signal: answered.signal }).then(([code]) => {
        throw new Error(`${module} ended with ${code}`)
      })
      try {
        const answer = once(child, 'message', { signal: answered.signal })
        child.send(order)
        const [result] = (await Promise.race([answer, ended])) as [Answer]
        return result
      } finally {
        ended.catch(() => {}) // that it was no longer waited for
        answered.abort()
      }
    },
    stop: () => child.disconnect(),
  }
}
