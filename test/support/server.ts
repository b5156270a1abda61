// A PostgreSQL of the test's own that can be stopped in every way, stand by, and be slow to recover.
import { execFile } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { expect } from 'vitest'
import { type EmbeddedPostgres, startPostgres } from '../../src/cli/embedded-postgres.ts'
import { databaseUrl } from '../../src/config.ts'
import { atTheEnd } from './clean-up.ts'
import { connect, type TestDatabase } from './database.ts'
import { migrate, SERVICE_ROLE } from './migrate.ts'

export type StopMode = keyof typeof signals

export interface Server extends TestDatabase {
  /** The process of the server itself, whose children are the backends. */
  processId: () => number
  /** smart waits for its clients, fast cuts them off, immediate is a crash. Returns when it is gone. */
  stop: (mode: StopMode) => Promise<void>
  /** Asks it to stop, and does not wait. */
  signal: (mode: StopMode) => void
  /** Starts it again, if it was stopped, on the same data and port; returns when it is ready. */
  start: () => Promise<void>
  /** From the next start on it stays in recovery, and lets nobody in, until it is released. */
  holdRecovery: () => Promise<() => Promise<void>>
  /** From the next start on it is a standby that can be read, until `promote`. */
  standBy: () => Promise<void>
  promote: () => Promise<void>
  /** All its processes fall silent, or go on. */
  signalAll: (signal: 'SIGSTOP' | 'SIGCONT') => Promise<void>
}

const signals = { smart: 'SIGTERM', fast: 'SIGINT', immediate: 'SIGQUIT' } as const

/** Its data is kept until the end of the test, or of the file. */
export async function startServer(settings: Record<string, string> = {}): Promise<Server> {
  const kept = {
    folder: join(tmpdir(), `larder-server-${randomBytes(6).toString('hex')}`),
    settings: { fsync: 'off', full_page_writes: 'off', ...settings },
  }
  let current: EmbeddedPostgres = await startPostgres(kept)
  const { address: owner, folder } = current
  const address = { ...owner, ...SERVICE_ROLE }
  atTheEnd(async () => {
    if (reaches(current.processId, 0)) await signalAll('SIGCONT') // it may have been left silent
    await current.stop()
    await rm(folder, { recursive: true, force: true })
  })
  await migrate(owner, 'upgrade', 'head')
  const sql = connect(owner, 3)
  const drop = () => sql.end({ timeout: 1 })
  atTheEnd(drop)
  const inFolder = (name: string) => join(folder, name)

  async function signalAll(signal: 'SIGSTOP' | 'SIGCONT') {
    const { stdout } = await promisify(execFile)('ps', ['-A', '-o', 'pid=,ppid='])
    const children = stdout
      .trim()
      .split('\n')
      .map((line) => line.trim().split(/\s+/).map(Number))
      .filter(([, parent]) => parent === current.processId)
    for (const pid of [current.processId, ...children.map(([pid]) => pid!)]) {
      reaches(pid, signal)
    }
  }

  return {
    address,
    url: databaseUrl(address),
    owner,
    sql,
    drop,
    processId: () => current.processId,
    signal: (mode) => void process.kill(current.processId, signals[mode]),
    async stop(mode) {
      process.kill(current.processId, signals[mode])
      await expect.poll(() => reaches(current.processId, 0), { timeout: 30_000 }).toBe(false)
      await current.stop()
    },
    async start() {
      if (reaches(current.processId, 0)) return
      current = await startPostgres({ ...kept, port: address.port })
    },
    async holdRecovery() {
      const bolt = await mkdtemp(join(tmpdir(), 'larder-bolt-'))
      atTheEnd(() => rm(bolt, { recursive: true, force: true }))
      await chmod(bolt, 0o755)
      // An archive that is slow to say that it has nothing.
      const command = `while [ -e ${bolt} ]; do sleep 0.05; done; false`
      await writeFile(inFolder('postgresql.auto.conf'), `restore_command = '${command}'\n`)
      await writeFile(inFolder('recovery.signal'), '')
      return () => rm(bolt, { recursive: true })
    },
    async standBy() {
      await writeFile(inFolder('standby.signal'), '')
    },
    async promote() {
      await sql`select pg_promote()`
    },
    signalAll,
  }
}

/** Whether the process is there to get it: a backend may have ended since it was listed. */
function reaches(pid: number, signal: NodeJS.Signals | 0): boolean {
  try {
    return process.kill(pid, signal)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ESRCH') return false
    throw error
  }
}
