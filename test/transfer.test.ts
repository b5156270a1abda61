// Holds that a million products go in and out through little memory, all of them or none.
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

const ROWS = Number(process.env['ROWS'] ?? 1_000_000)
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

async function* lines(count: number) {
  for (let n = 1; n <= count; n += 500) {
    const rows = Array.from({ length: Math.min(500, count - n + 1) }, (_, index) => n + index)
    yield rows.map((row) => `${JSON.stringify(product(row))}\n`).join('')
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

/** By how much the memory of the service grows while something runs, at its worst. */
async function growthDuring(what: string, work: () => Promise<unknown>) {
  const start = await residentMegabytes()
  const began = performance.now()
  let most = start
  let over = false
  const watching = (async () => {
    while (!over) {
      most = Math.max(most, await residentMegabytes())
      await sleep(50)
    }
  })()
  await work().finally(() => (over = true))
  await watching
  console.log(what, Math.round(performance.now() - began), 'ms', start, most)
  return most - start
}

test('import, export and import of a million products', { timeout: 15 * MINUTES }, async () => {
  const grown: number[] = []
  grown.push(
    await growthDuring('import', async () => {
      expect((await send(lines(ROWS))).body).toEqual({ inserted: ROWS, updated: 0 })
    }),
  )
  const before = await contents()
  expect(before).toMatchObject({ count: ROWS })

  grown.push(
    await growthDuring('export', async () => {
      const answer = await api.open('GET', '/products/export')
      await pipeline(answer, createWriteStream(file))
    }),
  )
  await database.sql`truncate products`

  grown.push(
    await growthDuring('again', async () => {
      expect((await send(createReadStream(file))).body).toEqual({ inserted: ROWS, updated: 0 })
    }),
  )
  expect(await contents()).toEqual(before)
  expect(Math.max(...grown), `grew by ${grown.join(', ')} MB`).toBeLessThan(100)
})
