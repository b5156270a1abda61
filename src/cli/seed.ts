// `npm run seed -- 1000000`: adds made-up products to see the service with, all of them or none.
//
// They go in as rows of anybody's do: past every constraint, index and trigger, with readers and
// writers beside them. Two connections share the work, each in one transaction, and both commit when
// the last row of either is in; what ends the command before that leaves nothing behind.
import { fileURLToPath } from 'node:url'
import { readDatabaseAddress, readOwner, SettingsError } from '../config.ts'
import type { DatabaseAddress } from '../database/connection.ts'
import { createPool, type Pool } from '../database/pool.ts'
import { pendingMigrations, serverVersion } from '../database/verification.ts'
import { rootCause } from '../operations/log.ts'
import { loadEnvironment, readText } from './environment.ts'
import { DEVELOPMENT, findPostgres, startPostgres } from './embedded-postgres.ts'
import { insertMadeUp } from './made-up-products.ts'
import { onInterrupt } from './processes.ts'

/** With one connection, a million products took 1.8 times as long on two processors. */
const CONNECTIONS = 2
/** A statement of so many takes less than a second; the time of a product is the same from 5,000 on. */
const BATCH = 10_000
const BAR_WIDTH = 30
const INTERRUPTED = 130

const usage = 'usage: npm run seed -- 1000000, the number of products to add: 1 to 99999999'

interface Target {
  address: DatabaseAddress
  /** What to do when it is not there, and when its tables are not. */
  remedies: { database: string; tables: string }
  stop(): Promise<void>
}

const stopping = new AbortController()
const { signal } = stopping
/** Between the two commits nothing is given up. */
let committing = false

onInterrupt(
  () => (committing ? undefined : stopping.abort()),
  () => process.exit(INTERRUPTED),
)
process.exit(await main(process.argv.slice(2)))

async function main(parameters: string[]): Promise<number> {
  try {
    const [number = ''] = parameters
    if (parameters.length !== 1 || !/^[1-9]\d{0,7}$/.test(number)) throw new Error(usage)
    const target = await findTarget()
    try {
      await seed(target, Number(number))
    } finally {
      await target.stop()
    }
    return 0
  } catch (error) {
    const reason = signal.aborted ? 'interrupted: no product was added' : messageOf(error)
    process.stderr.write(`seed: ${reason.replaceAll(/\s*\n\s*/g, ' ')}\n`)
    return signal.aborted ? INTERRUPTED : 1
  }
}

/** The database that the settings name, or else that of `npm run dev`, which may be running or not. */
async function findTarget(): Promise<Target> {
  const environment = loadEnvironment()
  const isNamed = Object.entries(environment).some(
    ([name, value]) => /^(DATABASE_URL|POSTGRES_[A-Z]+)$/.test(name) && value,
  )
  if (isNamed) {
    // The service's role could write the products, but not have them analyzed.
    const owner = readOwner(environment, readText)
    const address = { ...readDatabaseAddress(environment, readText), ...owner }
    const remedies = { database: 'create it first', tables: 'npm run migrate -- upgrade' }
    return { address, remedies, stop: async () => {} }
  }
  const folder = fileURLToPath(new URL(`../../${DEVELOPMENT.folder}`, import.meta.url))
  const running = await findPostgres(folder)
  const server = running ? undefined : await startPostgres({ folder })
  return {
    address: { ...(running ?? server!.address), database: DEVELOPMENT.database },
    remedies: { database: 'npm run dev makes it', tables: 'npm run dev' },
    stop: async () => server?.stop(),
  }
}

async function seed({ address, remedies }: Target, total: number): Promise<void> {
  const startedAt = performance.now()
  const seconds = () => ((performance.now() - startedAt) / 1000).toFixed(1)
  const pool = openPool(address)
  signal.addEventListener('abort', () => void pool.close(0))
  try {
    signal.throwIfAborted()
    const { host, port, database } = address
    await serverVersion(pool).catch((error: unknown) => {
      const isMissing = (error as { code?: unknown }).code === '3D000'
      const way = isMissing ? remedies.database : 'check DATABASE_URL or POSTGRES_*'
      const cause = rootCause(error)
      throw new Error(`cannot use ${database} on ${host}:${port} (${cause}): ${way}`)
    })
    const pending = await pendingMigrations(pool)
    if (pending.length > 0) {
      throw new Error(`${database} lacks ${pending.join(', ')}: run ${remedies.tables}`)
    }
    await fill(pool, total, progress(total))
    // For the planner's statistics, the map of what is visible, and the words that wait to be sorted
    // into their index, which each search reads one by one until then.
    console.log(`added after ${seconds()} s; vacuum and analyze`)
    await pool.write((sql) => sql`vacuum (analyze) products, product_words`)
    const count = total.toLocaleString('en')
    console.log(`added ${count} products to ${database} on ${host}:${port} in ${seconds()} s`)
  } finally {
    await pool.close(0)
  }
}

function openPool(address: DatabaseAddress): Pool {
  return createPool({
    address,
    size: CONNECTIONS,
    maxOverflow: 0,
    timeoutMs: 10_000,
    queue: Infinity,
    recycleMs: 3_600_000,
    prePing: false,
    connectTimeoutMs: 10_000,
    queryTimeoutMs: 3_600_000,
    gather: undefined,
    begin: 'begin',
    endSockets: true,
    parameters: {
      application_name: 'larder-seed',
      statement_timeout: 0,
      idle_in_transaction_session_timeout: 0,
      // When this process is gone, its transactions end.
      client_connection_check_interval: 1000,
      // What a trigger sees of a batch stays in memory.
      work_mem: '64MB',
    },
  })
}

/** @throws what the first failure was; then nothing was added */
async function fill(pool: Pool, total: number, onProgress: (done: number) => void): Promise<void> {
  const givingUp = new AbortController()
  const either = AbortSignal.any([signal, givingUp.signal])
  const lastId = await pool.read(async (sql) => {
    const rows = await sql<{ id: number }[]>`
      select coalesce(pg_sequence_last_value(pg_get_serial_sequence('products', 'id')::regclass), 0) as id`
    return rows[0]!.id
  })
  const { promise: allFilled, resolve } = Promise.withResolvers<void>()
  let left = total
  let done = 0
  const part = () =>
    pool.transfer(async (sql) => {
      while (left > 0) {
        const count = Math.min(BATCH, left)
        left -= count
        await insertMadeUp(sql, count, { lastId, total })
        onProgress((done += count))
      }
      if (done === total) {
        committing = true
        resolve()
      }
      await Promise.race([allFilled, aborted(either)])
    }, either)
  try {
    const parts = Array.from({ length: CONNECTIONS }, () =>
      part().catch((error: unknown) => {
        givingUp.abort(error)
        throw error
      }),
    )
    await Promise.all(parts)
  } catch (error) {
    throw givingUp.signal.reason ?? error
  } finally {
    committing = false
  }
}

function aborted(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    if (signal.aborted) reject(signal.reason)
    signal.addEventListener('abort', () => reject(signal.reason))
  })
}

/** A bar on one line of a terminal; where there is none, a line for each quarter. */
function progress(total: number): (done: number) => void {
  const { stdout } = process
  const of = total.toLocaleString('en')
  let quarter = 0
  return (done) => {
    const share = done / total
    if (stdout.isTTY) {
      const bar = '█'.repeat(Math.round(share * BAR_WIDTH)).padEnd(BAR_WIDTH, '░')
      const count = `${done.toLocaleString('en')} of ${of}`
      stdout.write(`\r${bar} ${count}${done === total ? '\n' : ''}`)
    } else if (Math.floor(share * 4) > quarter) {
      quarter = Math.floor(share * 4)
      console.log(`${done.toLocaleString('en')} of ${of} products`)
    }
  }
}

function messageOf(error: unknown): string {
  return error instanceof SettingsError ? error.message : rootCause(error)
}
