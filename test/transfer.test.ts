// Holds that any number of products go in and out through little memory, all of them or none.
import { createReadStream, createWriteStream } from 'node:fs'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import { beforeAll, expect, test } from 'vitest'
import { type Api, createApi, expectProblem } from './support/api.ts'
import { atTheEnd } from './support/clean-up.ts'
import { createDatabase, type TestDatabase } from './support/database.ts'
import { startService } from './support/service.ts'

/** A million take five minutes. */
const ROWS = Number(process.env['TRANSFER_ROWS'] ?? 200_000)
const MINUTES = 60_000
const NDJSON = { 'content-type': 'application/x-ndjson' }

let database: TestDatabase
let service: Awaited<ReturnType<typeof startService>>
let api: Api
let file: string

beforeAll(async () => {
  database = await createDatabase()
  service = await startService({ DATABASE_URL: database.url })
  api = createApi(service.url)
  const folder = await mkdtemp(join(tmpdir(), 'larder-transfer-'))
  atTheEnd(() => rm(folder, { recursive: true }))
  file = join(folder, 'products')
})

const product = (n: number) => ({
  sku: n % 5 ? `SKU-${n}` : null,
  name: `Product number ${n}, "é"`,
  description: n % 3 ? `What there is to say of ${n},\nin two lines.` : null,
  price: n % 100_000,
  currency: n % 2 ? 'USD' : 'EUR',
  stock: n % 1000,
  attributes: { colour: n % 7 ? 'blue' : 'rosé', size: n % 10, tags: ['a', 'b,c'] },
})

/** Of so many products, one of which may be bad. */
async function* lines(count: number, bad?: number) {
  for (let n = 1; n <= count; n += 500) {
    const rows = Array.from({ length: Math.min(500, count - n + 1) }, (_, index) => n + index)
    const write = (row: number) =>
      JSON.stringify({ ...product(row), ...(row === bad && { price: -1 }) })
    yield rows.map((row) => `${write(row)}\n`).join('')
  }
}

const send = (body: AsyncIterable<unknown>) =>
  api.request('POST', '/products/import', { body, headers: NDJSON })

/** What the rows hold that is not the server's, in their order, and how many there are. */
async function contents() {
  const [row] = await database.sql`
    select count(*)::integer as count, md5(string_agg(md5(
      (sku, name, description, price, currency, stock, attributes)::text), '' order by id)) as hash
    from products`
  return row
}

async function residentMegabytes() {
  const status = await readFile(`/proc/${service.process.pid}/status`, 'utf8')
  return Number(/VmRSS:\s+(\d+)/.exec(status)![1]) / 1024
}

/** By how much the memory of the service grows while something runs, at its worst, in MB. */
async function growthDuring(work: () => Promise<unknown>): Promise<number> {
  const start = await residentMegabytes()
  let most = start
  const timer = setInterval(() => {
    void residentMegabytes().then((now) => (most = Math.max(most, now)))
  }, 50)
  try {
    await work()
  } finally {
    clearInterval(timer)
  }
  return most - start
}

test(
  'many products: a bad line, an import, an export, and an import of that',
  {
    timeout: 40 * MINUTES,
  },
  async () => {
    const bad = ROWS * 0.9
    const grown = await growthDuring(async () => {
      const problem = expectProblem(await send(lines(ROWS, bad)), 422, 'validation')
      expect(problem.errors).toEqual([
        { line: bad, pointer: '#/price', code: 'too_small', detail: 'must be at least 0' },
      ])
      expect(await contents()).toMatchObject({ count: 0 })

      expect((await send(lines(ROWS))).body).toEqual({ inserted: ROWS, updated: 0 })
      const before = await contents()
      expect(before).toMatchObject({ count: ROWS })

      const answer = await api.open('GET', '/products/export')
      await pipeline(answer, createWriteStream(file))
      await database.sql`truncate products`

      expect((await send(createReadStream(file))).body).toEqual({ inserted: ROWS, updated: 0 })
      expect(await contents()).toEqual(before)
    })
    expect(grown).toBeLessThan(100)
  },
)

test(
  'clients that neither go on nor go away hold nothing for long',
  {
    timeout: 4 * MINUTES,
  },
  async () => {
    await database.sql`truncate products`
    await database.sql`
    insert into products (name, price, description)
    select 'Product ' || n, n, repeat('x', 5000) from generate_series(1, 6000) as n`
    async function* half() {
      yield* lines(2000)
      await sleep(90_000)
    }
    async function* byteByByte() {
      for (;;) {
        yield ' '
        await sleep(1000)
      }
    }
    const importing = send(half())
    const dawdling = send(byteByByte())
    const exporting = await api.open('GET', '/products/export')
    const waiting = async () => {
      const [row] = await database.sql<{ count: number }[]>`
      select count(*)::int from pg_stat_activity
      where datname = ${database.address.database} and state = 'idle in transaction'`
      return row!.count
    }
    await expect.poll(waiting).toBe(3)
    await expect.poll(waiting, { timeout: 2 * MINUTES, interval: 500 }).toBe(0)
    for (const late of [importing, dawdling]) expectProblem(await late, 408, 'request_timeout')
    await expect(pipeline(exporting, createWriteStream('/dev/null'))).rejects.toThrow('aborted')
    expect(exporting.complete).toBe(false)
    expect(service.log.filter(({ msg }) => msg === 'answer broken off')).toHaveLength(1)
    expect(await contents()).toMatchObject({ count: 6000 })
  },
)
