// A database for each test file, cloned from the migrated template, and a look at its connections.
import { randomBytes } from 'node:crypto'
import postgres from 'postgres'
import { inject } from 'vitest'
import { startPostgres } from '../../src/cli/embedded-postgres.ts'
import { databaseUrl } from '../../src/config.ts'
import type { DatabaseAddress } from '../../src/database/connection.ts'
import { atTheEnd } from './clean-up.ts'
import { migrate } from './migrate.ts'

export interface TestDatabase {
  address: DatabaseAddress
  url: string
  /** A superuser's client on this database. */
  sql: postgres.Sql
  drop: () => Promise<void>
}

interface Options {
  /** Without any migration. */
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
  const address = { ...inject('postgres'), database: name }
  const sql = connect(address, 3)
  let dropped: Promise<void> | undefined
  const drop = async () => {
    await sql.end({ timeout: 1 })
    await asSuperuser((admin) => admin`drop database if exists ${admin(name)} with (force)`)
  }
  const database = { address, url: databaseUrl(address), sql, drop: () => (dropped ??= drop()) }
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
  const { address } = server
  await migrate(address, 'upgrade', 'head')
  const sql = connect(address, 3)
  const drop = () => sql.end({ timeout: 1 })
  atTheEnd(drop)
  return { address, url: databaseUrl(address), sql, drop }
}

/** A client of the tests' own; ends with `end()`. */
export function connect(address: DatabaseAddress, max = 1): postgres.Sql {
  const { sslMode, ...server } = address
  return postgres({
    ...server,
    max,
    ssl: sslMode === 'disable' ? false : sslMode,
    onnotice: () => {},
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
  const sql = connect(database.address)
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
