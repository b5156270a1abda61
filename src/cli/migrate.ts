// `npm run migrate`: brings the database's schema forward or back, with the files in `migrations/`.
//
// The files, their order and their table are node-pg-migrate's, so `npx node-pg-migrate up` works on
// them, too. Each file is its own transaction. What PostgreSQL refuses to do in one goes into a file
// `<prefix>_<name>.js` that begins by taking away what a failed try of it may have left behind:
//
//   export const up = (pgm) => {
//     pgm.noTransaction()
//     pgm.sql('drop index concurrently if exists products_stock_idx')
//     pgm.sql('create index concurrently products_stock_idx on products (stock)')
//   }
import { readFile, writeFile } from 'node:fs/promises'
import { basename, extname, relative } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { PG_MIGRATE_LOCK_ID, runner } from 'node-pg-migrate'
import { getMigrationFilePaths } from 'node-pg-migrate/migration'
import { Client, DatabaseError } from 'pg'
import { readOwner, readSettings, type Settings } from '../config.ts'
import { loadEnvironment, readText } from './environment.ts'
import { admit, type Role } from './service-role.ts'

const folder = fileURLToPath(new URL('../../migrations', import.meta.url))
const listFile = fileURLToPath(new URL('../database/migrations.ts', import.meta.url))

/** For each lock that a statement needs, and for another run of the migrations to end. */
const LOCK_TIMEOUT_MS = 60_000
const LOCK_POLL_MS = 100

const usage = `usage: npm run migrate -- <command>
  current              the newest migration that is applied, and those that are pending
  create "add brand"   a new file in migrations/
  upgrade [head or n]  applies all pending migrations, or the next n
  downgrade -n         reverts the last n migrations; "downgrade base" reverts all`

const upgradeTo = /^(head|[1-9]\d{0,5})$/
const downgradeBy = /^(base|-?[1-9]\d{0,5})$/

type Direction = 'up' | 'down'

const words = {
  up: { verb: 'apply', done: 'applied', left: 'pending' },
  down: { verb: 'revert', done: 'reverted', left: 'applied' },
}

process.exitCode = await main(process.argv.slice(2)).catch((error: unknown) => {
  console.error(`migrate: ${reason(error)}`)
  return 1
})

async function main([command, ...rest]: string[]): Promise<number> {
  const [word] = rest
  if (command === 'create' && word !== undefined) {
    await create(rest.join(' '))
  } else if (command === 'current' && word === undefined) {
    await withDatabase(current)
  } else if (command === 'upgrade' && rest.length <= 1 && upgradeTo.test(word ?? 'head')) {
    await withDatabase((client, service) =>
      migrate(client, 'up', Number(word) || Infinity, service),
    )
  } else if (command === 'downgrade' && rest.length === 1 && downgradeBy.test(word ?? '')) {
    await withDatabase((client, service) =>
      migrate(client, 'down', Math.abs(Number(word)) || Infinity, service),
    )
  } else {
    console.error(usage)
    return 2
  }
  return 0
}

async function current(client: Client): Promise<void> {
  const { applied, pending } = await readState(client)
  console.log(`current: ${applied.at(-1) ?? 'none'}`)
  console.log(['pending:', ...pending.map(nameOf)].join('\n  ') + (pending.length ? '' : ' none'))
}

async function migrate(
  client: Client,
  direction: Direction,
  count: number,
  service: Role | undefined,
): Promise<void> {
  const { verb, done, left } = words[direction]
  await lock(client)
  const { applied, files, pending } = await readState(client)
  const candidates =
    direction === 'up'
      ? pending
      : applied.map((name) => files.find((path) => nameOf(path) === name) ?? name).toReversed()
  if (count !== Infinity && count > candidates.length) {
    throw new Error(`cannot ${verb} ${count} of ${candidates.length} ${left} migrations`)
  }
  if (candidates.length === 0) console.log('nothing to do')
  // One at a time, so that each is reported when it is done and a failure has a name.
  for (const path of candidates.slice(0, count)) {
    await step(client, direction, path)
    console.log(`${done} ${nameOf(path)}`)
  }
  // Also when there was nothing to do: the role may be new.
  if (service) for (const line of await admit(client, service)) console.log(line)
}

async function step(client: Client, direction: Direction, path: string): Promise<void> {
  try {
    await runner({
      dbClient: client,
      dir: folder,
      schema: 'public',
      migrationsTable: 'pgmigrations',
      direction,
      count: 1,
      checkOrder: true,
      singleTransaction: false,
      noLock: true, // lock() has it already
      logger: { info: ignore, warn: ignore, error: ignore },
    })
  } catch (error) {
    const place = await lineOf(error, direction, path)
    const { verb } = words[direction]
    throw new Error(`cannot ${verb} ${basename(path)}${place}: ${reason(error)}`, { cause: error })
  }
}

/**
 * Waits for other runs to end, node-pg-migrate's own among them: the lock is the same. It asks again
 * and again where `advisoryLockMode: 'wait'` would block in one statement, because `create index
 * concurrently` waits for every running statement: the two then wait for each other, and PostgreSQL
 * kills one of them (40P01) and leaves an invalid index.
 */
async function lock(client: Client): Promise<void> {
  const giveUp = Date.now() + LOCK_TIMEOUT_MS
  const query = 'select pg_try_advisory_lock($1) as locked'
  while (!(await client.query<{ locked: boolean }>(query, [PG_MIGRATE_LOCK_ID])).rows[0]?.locked) {
    if (Date.now() > giveUp) {
      throw new Error(`another migration is still running after ${LOCK_TIMEOUT_MS / 1000} s`)
    }
    await sleep(LOCK_POLL_MS)
  }
}

/** Names of what is applied, oldest first; paths of what there is, and of what is to come. */
async function readState(client: Client) {
  const files = await getMigrationFilePaths(folder)
  const table = await client.query<{ found: boolean }>(
    `select to_regclass('public.pgmigrations') is not null as found`,
  )
  const { rows } = table.rows[0]?.found
    ? await client.query<{ name: string }>(
        'select name from public.pgmigrations order by run_on, id',
      )
    : { rows: [] }
  const applied = rows.map((row) => row.name)
  return { applied, files, pending: files.filter((path) => !applied.includes(nameOf(path))) }
}

async function create(description: string): Promise<void> {
  const slug = description
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, '-')
    .replace(/^-|-$/g, '')
  if (!slug) throw new Error('a description needs letters from a to z or digits')
  const names = (await getMigrationFilePaths(folder)).map(nameOf)
  const name = `${nextPrefix(names.at(-1))}_${slug}`
  const path = `${folder}/${name}.sql`
  await writeFile(path, '-- Up Migration\n\n-- Down Migration\n', { flag: 'wx' })
  await writeList([...names, name])
  console.log(relative(process.cwd(), path))
}

/** The time, or one after the newest migration's, should that lie ahead: their order is by name. */
function nextPrefix(newest = ''): string {
  const time = /^(\d{4})(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)(\d{3})_.*/
  const taken = Date.parse(newest.replace(time, '$1-$2-$3T$4:$5:$6.$7Z')) || 0
  return new Date(Math.max(Date.now(), taken + 1)).toISOString().replace(/\D/g, '')
}

/** Laid out as Prettier does. */
async function writeList(names: string[]): Promise<void> {
  const [comment = ''] = (await readFile(listFile, 'utf8')).split(/^export /m)
  const list = names.map((name) => `'${name}'`)
  const line = `export const migrations: readonly string[] = [${list.join(', ')}]`
  const lines = line.replace(/\[[^[]*\]$/, `[\n${list.map((item) => `  ${item},\n`).join('')}]`)
  await writeFile(listFile, `${comment}${line.length <= 100 ? line : lines}\n`)
}

async function withDatabase(
  use: (client: Client, service: Role | undefined) => Promise<void>,
): Promise<void> {
  const environment = loadEnvironment()
  const settings = readSettings(environment, readText)
  const { user, password } = settings.database
  const owner = readOwner(environment, readText)
  const service = owner && owner.user !== user ? { user, password } : undefined
  const client = await connect({ ...settings, database: { ...settings.database, ...owner } })
  // Left alone, the event would end the process with a stack; it is the reason for what fails next.
  let lost: unknown
  client.on('error', (error) => (lost ??= error))
  try {
    await use(client, service)
  } catch (error) {
    if (!lost || reason(error).includes(reason(lost))) throw error
    throw new Error(`${reason(error)}: ${reason(lost)}`, { cause: error })
  } finally {
    await client.end() // also gives the lock back and ends a failed file's transaction
  }
}

async function connect({ database: address, startUp, pool }: Settings): Promise<Client> {
  const { sslMode, authority, ...server } = address
  for (let attempt = 1; ; attempt++) {
    const client = new Client({
      ...server,
      ssl: sslMode !== 'disable' && {
        rejectUnauthorized: sslMode === 'verify-full',
        ...(authority ? { ca: authority } : {}),
      },
      application_name: 'larder-migrate',
      connectionTimeoutMillis: pool.connectTimeoutMs,
      // A long statement is a silent connection, which routers forget after some minutes.
      keepAlive: true,
      keepAliveInitialDelayMillis: 60_000,
      options: `-c lock_timeout=${LOCK_TIMEOUT_MS} -c statement_timeout=0`,
    })
    try {
      await client.connect()
      return client
    } catch (error) {
      const { host, port, user, database } = server
      const message = `cannot connect to ${database} on ${host}:${port} as ${user}: ${reason(error)}`
      if (attempt >= startUp.attempts || !mayPass(error)) throw new Error(message, { cause: error })
      console.error(
        `migrate: ${message}; attempt ${attempt} of ${startUp.attempts}, the next in ${startUp.delayMs / 1000} s`,
      )
      await sleep(startUp.delayMs)
    }
  }
}

/** Refused, no such name yet, starting up: a database that is about to be there. */
function mayPass(error: unknown): boolean {
  const code = error instanceof Error && 'code' in error ? error.code : undefined
  return ['ECONNREFUSED', 'ENOTFOUND', 'EAI_AGAIN', '57P03'].some((passing) => passing === code)
}

/** PostgreSQL counts characters from where the file's section for this direction begins. */
async function lineOf(error: unknown, direction: Direction, path: string): Promise<string> {
  const position = error instanceof DatabaseError ? Number(error.position) : NaN
  if (!(position > 0) || extname(path) !== '.sql') return ''
  const text = await readFile(path, 'utf8')
  const marker = new RegExp(`^\\s*--[\\s-]*${direction}\\s+migration`, 'im')
  const start = Math.max(0, text.search(marker))
  const section = Array.from(text.slice(start))
  const before = text.slice(0, start) + section.slice(0, position - 1).join('')
  return `, line ${before.split('\n').length}`
}

function reason(error: unknown): string {
  if (error instanceof AggregateError) return error.errors.map(reason).join('; ')
  if (error instanceof DatabaseError) {
    const { message, code, detail, hint } = error
    return [`${message} (${code})`, detail, hint].filter(Boolean).join('; ')
  }
  return error instanceof Error ? error.message : String(error)
}

function nameOf(path: string): string {
  return basename(path, extname(path))
}

function ignore(): void {}
