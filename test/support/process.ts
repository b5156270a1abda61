// A door of the service as a process of its own, and its output as a test reads it.
import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { atTheEnd } from './clean-up.ts'
import { environment, type Settings } from './environment.ts'

/** Longer than a start with all its attempts to connect. */
const START_TIMEOUT_MS = 25_000

/** A line of the log; one that is no JSON object is `{ unparsed }`, so that a test can find it. */
export type LogLine = Record<string, unknown>

export interface Service extends Running {
  url: string
}

export interface Running {
  process: ChildProcess
  /** Standard output so far. */
  log: LogLine[]
  /** Standard output and standard error so far. */
  output: () => string
  /** The first line with this `msg`, now or when it comes; rejects when the process ends before. */
  logged: (msg: string) => Promise<LogLine>
  exited: Promise<{ code: number | null; signal: NodeJS.Signals | null }>
  /** Asks it to end and waits until it has; the exit code is null when a signal killed it. */
  stop: (signal?: NodeJS.Signals) => Promise<number | null>
}

/**
 * Starts a process that ends with the test, or with the file, by the signal given.
 * @param within a command that takes another one and becomes it, such as `nice`
 */
export function run(
  command: string[],
  settings: Settings,
  end: NodeJS.Signals,
  within: string[] = [],
): Running {
  const [program, ...parameters] = [...within, process.execPath, ...command]
  const child = spawn(program!, parameters, {
    ...environment(settings),
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const log: LogLine[] = []
  let output = ''
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text: string) => (output += text))
  }
  const lines = createInterface(child.stdout).on('line', (line) => log.push(parseLine(line)))
  // 'close' comes after 'exit', when all output has been read.
  const exited = once(child, 'close').then(([code, signal]) => ({ code, signal }))

  const logged = (msg: string) =>
    new Promise<LogLine>((resolve, reject) => {
      const look = () => {
        const found = log.find((line) => line['msg'] === msg)
        if (found) resolve(found)
      }
      lines.on('line', look)
      void exited.then(({ code, signal }) =>
        reject(new Error(`no "${msg}" before the exit with ${code ?? signal}:\n${output}`)),
      )
      look()
    })

  const stop = async (signal: NodeJS.Signals = 'SIGTERM') => {
    child.kill(signal)
    return (await exited).code
  }
  leash(child, end)
  atTheEnd(() => stop(end))
  return { process: child, log, output: () => output, logged, exited, stop }
}

/** @throws {Error} with its exit code and output when it does not come to listen on 127.0.0.1 */
export async function listening(running: Running, end: NodeJS.Signals): Promise<Service> {
  const timer = setTimeout(() => running.process.kill(end), START_TIMEOUT_MS)
  const { port } = await running.logged('listening').finally(() => clearTimeout(timer))
  return { ...running, url: `http://127.0.0.1:${String(port)}` }
}

/**
 * Ends the process when this one is gone without having done so, even when it was killed: a shell
 * reads from a pipe whose other end closes with this process.
 */
function leash(child: ChildProcess, signal: NodeJS.Signals) {
  const script = `read -r ended || kill -${signal.slice(3)} "$0"`
  const shell = spawn('/bin/sh', ['-c', script, String(child.pid)], {
    stdio: ['pipe', 'ignore', 'ignore'],
    detached: true,
  })
  child.once('exit', () => shell.stdin.end('ended\n'))
}

function parseLine(line: string): LogLine {
  try {
    const parsed: unknown = JSON.parse(line)
    if (typeof parsed === 'object' && parsed !== null) return parsed as LogLine
  } catch {
    // The answer is the same as for JSON that is no object.
  }
  return { unparsed: line }
}
