// A database for each test file, cloned from the migrated template, and a look at its connections.
import { randomBytes } from 'node:crypto'
import postgres from 'postgres'
import { inject } from 'vitest'
import { startPostgres } from '../../src/cli/embedded-postgres.ts'
import { databaseUrl } from '../../src/config.ts'
import type { DatabaseAddress } from '../../src/database/connection.ts'
import { atTheEnd } from './clean-up.ts'
import { migrate, SERVICE_ROLE } from './migrate.ts'

export interface TestDatabase {
  /** The way in of the service, whose role has the rights it needs and no others. */
  address: DatabaseAddress
  url: string
  /** The way in of the tables' owner, a superuser. */
  owner: DatabaseAddress
  /** The owner's client on this database. */
  sql: postgres.Sql
  drop: () => Promise<void>
}

interface Options {
  /** Without any migration; then the owner's way in is the only one. */
  empty?: boolean
  /** How its name begins. */
  name?: string
}

/** Creates a database that is dropped at the end of the test, or of the file. */
export async function createDatabase(options: Options = {}): Promise<TestDatabase> {
  const name = `${options.name ?? 'larder'}_${randomBytes(6).toString('hex')}`
  const template = options.empty ? 'template0' : inject('template')
  // A copy of the files takes 15 ms, and through the log, which is PostgreSQL's default, 20 to 80.
  await asSuperuser(
    (sql) => sql`create database ${sql(name)} template ${sql(template)} strategy file_copy`,
  )
  const owner = { ...inject('postgres'), database: name }
  const address = options.empty ? owner : { ...owner, ...SERVICE_ROLE }
  const sql = connect(owner, 3)
  // The rights on a database itself are not copied with it.
  await sql`revoke temporary on database ${sql(name)} from public`
  await sql`grant temporary on database ${sql(name)} to ${sql(SERVICE_ROLE.user)}`
  let dropped: Promise<void> | undefined
  const drop = async () => {
    await sql.end({ timeout: 1 })
    await asSuperuser((admin) => admin`drop database if exists ${admin(name)} with (force)`)
  }
  const url = databaseUrl(address)
  const database = { address, url, owner, sql, drop: () => (dropped ??= drop()) }
  atTheEnd(database.drop)
  return database
}

/**
 * A migrated database on a server of its own: what is committed shows in the change feed when no
 * transaction of the server is open that began before, and other test files have such transactions.
 */
export async function createServer(settings: Record<string, string> = {}): Promise<TestDatabase> {
  const server = await startPostgres({
    settings: { autovacuum: 'off', max_connections: '300', ...settings },
  })
  atTheEnd(() => server.stop())
  const owner = server.address
  await migrate(owner, 'upgrade', 'head')
  const address = { ...owner, ...SERVICE_ROLE }
  const sql = connect(owner, 3)
  const drop = () => sql.end({ timeout: 1 })
  atTheEnd(drop)
  return { address, url: databaseUrl(address), owner, sql, drop }
}

/**
 * A client of the tests' own; ends with `end()`. Without `fetchTypes` it reads no arrays, and a server
 * that goes away at its first statement raises no rejection that nobody could catch.
 */
export function connect(address: DatabaseAddress, max = 1, fetchTypes = true): postgres.Sql {
  const { sslMode, ...server } = address
  return postgres({
    ...server,
    max,
    ssl: sslMode === 'disable' ? false : sslMode,
    onnotice: () => {},
    fetch_types: fetchTypes,
    connection: { application_name: 'larder-test' },
  })
}

/** How many connections the service has open. */
export async function backends({ sql, address }: TestDatabase): Promise<number> {
  const [row] = await sql<{ count: number }[]>`
    select count(*)::int from pg_stat_activity
    where datname = ${address.database} and application_name = 'larder'`
  return row!.count
}

/** How many connections of the service wait for a lock. */
export async function blocked({ sql, address }: TestDatabase): Promise<number> {
  const [row] = await sql<{ count: number }[]>`
    select count(*)::int from pg_stat_activity
    where datname = ${address.database} and application_name = 'larder' and wait_event_type = 'Lock'`
  return row!.count
}

/** Ends every connection of the service, as an administrator does; returns how many there were. */
export async function killBackends({ sql, address }: TestDatabase): Promise<number> {
  const killed = await sql`
    select pg_terminate_backend(pid, 5000) from pg_stat_activity
    where datname = ${address.database} and application_name = 'larder'`
  return killed.length
}

/** Holds a table against everybody, readers too, until it is released. */
export async function lockTable(database: TestDatabase, table = 'products') {
  const sql = connect(database.owner)
  const release = () => sql.end({ timeout: 1 })
  atTheEnd(release)
  await sql`begin`
  await sql`lock table ${sql(table)} in access exclusive mode`
  return { release }
}

async function asSuperuser<T>(use: (sql: postgres.Sql) => Promise<T>): Promise<T> {
  const sql = connect(inject('postgres'))
  try {
    return await use(sql)
  } finally {
    await sql.end({ timeout: 1 })
  }
}
