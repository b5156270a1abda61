// The PostgreSQL of the bench, with a large database of products and a small one.
import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { promisify } from 'node:util'
import postgres from 'postgres'
import { startPostgres } from '../../src/cli/embedded-postgres.ts'
import { databaseUrl } from '../../src/config.ts'
import type { DatabaseAddress } from '../../src/database/connection.ts'
import { environment } from '../support/environment.ts'
import { migrate, SERVICE_ROLE } from '../support/migrate.ts'

export interface Databases {
  large: Database
  small: Database
  processId: number
  stop: () => Promise<void>
}

export interface Database {
  products: number
  /** The way in of the service and of all its peers. */
  url: string
  /** The owner's, for what has to be done between the rounds. */
  owner: postgres.Sql
}

const SMALL = 10_000

const settings = {
  // The large database, 1.5 GB, is in memory as a whole: what is measured is CPU time, not the disk.
  shared_buffers: '4GB',
  max_connections: '300',
  // As in production: a write is answered when it is on the disk.
  fsync: 'on',
  // What PostgreSQL does now and then would be in the round of whoever is measured just then: it is
  // done between the rounds instead.
  autovacuum: 'off',
  checkpoint_timeout: '1d',
  max_wal_size: '16GB',
}

export async function createDatabases(products: number): Promise<Databases> {
  const server = await startPostgres({ settings })
  const opened: Database[] = []
  const stop = async () => {
    for (const { owner } of opened) await owner.end({ timeout: 1 })
    await server.stop()
  }
  try {
    const create = async (name: string, count: number) => {
      const database = await createDatabase({ ...server.address, database: name }, count)
      opened.push(database)
      return database
    }
    const large = await create('large', products)
    const small = await create('small', Math.min(SMALL, products))
    return { large, small, processId: server.processId, stop }
  } catch (error) {
    await stop()
    throw error
  }
}

async function createDatabase(address: DatabaseAddress, products: number): Promise<Database> {
  const admin = connect({ ...address, database: 'postgres' })
  await admin`create database ${admin(address.database)}`
  await admin.end()
  await migrate(address, 'upgrade', 'head')
  const seed = join(import.meta.dirname, '../../src/cli/seed.ts')
  const options = environment({ DATABASE_URL: databaseUrl(address) })
  await promisify(execFile)(process.execPath, [seed, String(products)], options)
  const owner = connect(address)
  await keepKeys(owner)
  await tidy(owner)
  await warm(owner)
  const { user, password } = SERVICE_ROLE
  const { host, port, database } = address
  return { products, url: `postgres://${user}:${password}@${host}:${port}/${database}`, owner }
}

/**
 * The keys of a service in use. A table that autovacuum has found empty is read from end to end, also
 * by statements that were planned then and meet many rows, until it comes again; here it does not.
 */
async function keepKeys(owner: postgres.Sql): Promise<void> {
  await owner`insert into idempotency_keys (caller, key) select '', n from generate_series(1, 10000) as n`
}

/** Otherwise who is measured first reads from the disk, and pays for the next one. */
async function warm(owner: postgres.Sql): Promise<void> {
  await owner`create extension pg_prewarm`
  await owner`
    select pg_prewarm(oid) from pg_class
    where relnamespace = 'public'::regnamespace and relkind in ('r', 'i')`
}

/** What autovacuum and the checkpointer would do some time. */
export async function tidy(owner: postgres.Sql): Promise<void> {
  await owner`vacuum analyze`
  await owner`checkpoint`
}

function connect({ host, port, user, password, database }: DatabaseAddress): postgres.Sql {
  return postgres({ host, port, user, password, database, max: 1, onnotice: () => {} })
}
