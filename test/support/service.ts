// The Node door as its users start it: with settings, and stopped by a signal.
import { join } from 'node:path'
import type { Settings } from './environment.ts'
import { listening, run, type Running, type Service } from './process.ts'
import about from '../../package.json' with { type: 'json' }

const door = join(import.meta.dirname, '../../src/node.ts')
/** Those of `npm start`. */
const flags = about.scripts.start.split(' ').filter((part) => part.startsWith('--'))

/** Starts the service on a free port of 127.0.0.1; it ends with the test, or with the file. */
export function startService(settings: Settings, within?: string[]): Promise<Service> {
  return listening(spawnService(settings, within), 'SIGKILL')
}

/** Runs the service until it ends by itself: a start that is expected to fail. */
export async function runService(settings: Settings) {
  const startedAt = performance.now()
  const { exited, output, log } = spawnService(settings)
  const { code } = await exited
  return { code, output: output(), log, durationMs: performance.now() - startedAt }
}

/** Starts the process and waits for nothing. */
export function spawnService(settings: Settings, within?: string[]): Running {
  return run([...flags, door], { HOST: '127.0.0.1', PORT: '0', ...settings }, 'SIGKILL', within)
}
