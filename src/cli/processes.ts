// What the commands that start other processes share: none of those outlives the command, and
// Ctrl-C means one thing.
import { spawn, type ChildProcess, type SpawnOptions } from 'node:child_process'
import { once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'

export interface Group {
  leader: ChildProcess
  /** Its exit code, null when a signal ended it. */
  ended: Promise<number | null>
}

/**
 * Follows `orders`, a shell script with the child's process id as $0, when this process is gone
 * before the child, even by SIGKILL: a shell reads from a pipe whose other end closes then.
 * @returns when the child has ended, for whatever reason: its exit code
 */
export async function leash(
  child: ChildProcess,
  orders: string,
  parameters: string[] = [],
  options: SpawnOptions = {},
): Promise<number | null> {
  const script = `read -r ended && exit\n${orders}`
  const shell = spawn('/bin/sh', ['-c', script, String(child.pid), ...parameters], {
    ...options,
    stdio: ['pipe', 'ignore', 'ignore'],
    detached: true,
  })
  const released = once(shell, 'exit')
  try {
    const [code] = (await once(child, 'exit')) as [number | null]
    return code
  } finally {
    shell.stdin.on('error', () => undefined).end('ended\n')
    await released
  }
}

/** Starts a program in a process group of its own, which a terminal's Ctrl-C does not reach. */
export function startGroup(program: string, parameters: string[], env: NodeJS.ProcessEnv): Group {
  const leader = spawn(program, parameters, {
    env,
    stdio: ['ignore', 'inherit', 'inherit'],
    detached: true,
  })
  return { leader, ended: leash(leader, 'kill -s TERM -- "-$0"') }
}

export async function endGroup({ leader, ended }: Group): Promise<void> {
  // Not to the whole group: the leader passes it on, and a second one would cut draining short.
  leader.kill('SIGTERM')
  await ended
  // What the leader left behind, such as a service that `node --watch` was just restarting.
  signalGroup(leader, 'SIGTERM')
  for (let waits = 0; waits < 50 && signalGroup(leader, 0); waits++) await sleep(100)
  signalGroup(leader, 'SIGKILL')
}

/** @returns whether anybody was there to hear it */
export function signalGroup({ pid }: ChildProcess, signal: NodeJS.Signals | 0): boolean {
  try {
    return pid !== undefined && process.kill(-pid, signal)
  } catch {
    return false
  }
}

/** Ctrl-C reaches the whole process group, and npm passes it on once more: that is one press. */
export function onInterrupt(first: () => void, again: () => void): void {
  let pressedAt: number | undefined
  const press = () => {
    if (pressedAt === undefined) {
      pressedAt = performance.now()
      first()
    } else if (performance.now() - pressedAt > 1000) {
      again()
    }
  }
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, press)
}

export const hasEnded = (child: ChildProcess) =>
  child.exitCode !== null || child.signalCode !== null
