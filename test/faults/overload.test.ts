// More than the service can do: it refuses in time, stays quick with what is quick, and is soon itself again.
import { connect as connectSocket } from 'node:net'
import { expect, test } from 'vitest'
import { createApi, expectProblem, ownPage, product, type Response } from '../support/api.ts'
import {
  backends,
  blocked,
  createDatabase,
  lockTable,
  type TestDatabase,
} from '../support/database.ts'
import { scrape } from '../support/metrics.ts'
import { startProbe } from '../support/probe.ts'
import { startService } from '../support/service.ts'

const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms))

/** A database with one product, whose searches take so long, a few times over; all else is as ever. */
async function withSlowSearch(seconds: number): Promise<TestDatabase> {
  const database = await createDatabase()
  await database.sql`insert into products (name, price) values ('Blue mug', 1)`
  await database.sql.unsafe(`
    alter function to_search(text) rename to search_at_once;
    create function to_search(q text) returns tsquery language plpgsql volatile as
    $$ begin perform pg_sleep(${seconds}); return search_at_once(q); end $$`)
  return database
}

/** How many statements of the service the server is at. */
async function running({ sql, address }: TestDatabase): Promise<number> {
  const [row] = await sql<{ count: number }[]>`
    select count(*)::int from pg_stat_activity
    where datname = ${address.database} and application_name = 'larder' and state <> 'idle'`
  return row!.count
}

/** The connections of the service, by their backends. */
async function backendIds({ sql, address }: TestDatabase): Promise<number[]> {
  const rows = await sql<{ pid: number }[]>`
    select pid from pg_stat_activity
    where datname = ${address.database} and application_name = 'larder'`
  return rows.map(({ pid }) => pid)
}

async function timed(request: Promise<Response>) {
  const start = performance.now()
  const answer = await request
  return { answer, ms: performance.now() - start }
}

const quantile = (values: number[], part: number) =>
  values.toSorted((a, b) => a - b)[Math.min(values.length - 1, Math.floor(values.length * part))]!

test('400 clients with slow searches: the rest stays quick, refusals come in time, soon all is normal', async () => {
  const database = await withSlowSearch(0.2)
  const service = await startService({
    DATABASE_URL: database.url,
    POOL_TIMEOUT: '2',
    POOL_QUEUE: '300',
  })
  const api = createApi(service.url)
  const healthProbe = await startProbe(`${service.url}/health`)
  const readProbe = await startProbe(`${service.url}/products/1`)
  let flooding = true
  const searches: { answer: Response; ms: number }[] = []
  const flood = Array.from({ length: 400 }, async () => {
    while (flooding) {
      const search = await timed(api.get(ownPage('q=mug')))
      searches.push(search)
      if (search.answer.status !== 200) await pause(1000)
    }
  })
  const others = createApi(service.url)
  const writes: number[] = []
  let most = 0
  for (const until = performance.now() + 6000; performance.now() < until; await pause(20)) {
    const body = { name: 'Blue mug', price: writes.length }
    const { answer, ms } = await timed(others.put('/products/1', body))
    expect(answer.status).toBe(200)
    writes.push(ms)
    most = Math.max(most, await backends(database))
  }
  flooding = false
  await Promise.all(flood)
  const [health, reads] = [await healthProbe.stop(), await readProbe.stop()]
  const over = performance.now()
  await expect.poll(() => running(database)).toBe(0)
  for (let i = 0; i < 20; i++) expect((await api.get('/products?limit=5')).status).toBe(200)
  expect((await api.get('/products?q=mug')).status).toBe(200)
  expect(performance.now() - over).toBeLessThan(2000)

  const refused = searches.filter(({ answer }) => answer.status !== 200)
  // How many depends on the machine; that they go on does not.
  expect(searches.length - refused.length).toBeGreaterThan(10)
  expect(refused.length).toBeGreaterThan(100)
  for (const { answer } of refused) expectProblem(answer, 503, 'unavailable')
  // As the service has measured it: four hundred clients in one process are slow by themselves.
  const took = service.log.flatMap(({ msg, status, duration_ms }) =>
    msg === 'request' && status === 503 ? Number(duration_ms) : [],
  )
  expect(took.length).toBe(refused.length)
  expect(Math.max(...took)).toBeLessThan(3000)
  for (const probes of [health, reads]) {
    expect(new Set(probes.map(({ status }) => status))).toEqual(new Set([200]))
    const times = probes.map(({ ms }) => ms)
    expect(quantile(times, 0.5)).toBeLessThan(100)
    expect(Math.max(...times)).toBeLessThan(1000)
  }
  expect(quantile(writes, 0.5)).toBeLessThan(500)
  expect(most).toBeLessThanOrEqual(15)
})

test('searches, imports, exports, bulks and exact counts leave a third of the connections to others', async () => {
  const database = await createDatabase()
  await database.sql`insert into products (name, price, sku) values ('Blue mug', 1, 'MUG')`
  const settings = { POOL_SIZE: '2', POOL_MAX_OVERFLOW: '1', POOL_QUEUE: '30' }
  const service = await startService({ DATABASE_URL: database.url, ...settings })
  const api = createApi(service.url)
  // Whatever asks for words waits, and so does what writes to products.
  const lock = await lockTable(database, 'product_words')
  const bulk = [product()]
  const line = `${JSON.stringify(product())}\n`
  const slow = [
    api.get('/products?q=mug'),
    api.post('/products/bulk', bulk),
    api.post('/products/import', line, { 'content-type': 'application/x-ndjson' }),
    api.get('/products/export?q=mug'),
    api.get('/products?count=exact'),
    api.get('/products?sort=-price,name'),
    api.get('/products?price[gte]=1&sort=name'),
  ]
  await expect.poll(() => blocked(database)).toBe(2)
  for (const path of ['/products', '/products/1', '/products?sku=MUG', '/products?sort=-price']) {
    expect((await api.get(path)).status, path).toBe(200)
  }
  expect((await api.get('/products/changes')).status).toBe(200)
  expect((await api.get('/ready')).status).toBe(200)
  expect(await blocked(database)).toBe(2)
  await lock.release()
  for (const answer of await Promise.all(slow)) expect(answer.status).toBe(200)
})

test('when so many wait as may, the next is refused at once', async () => {
  const database = await createDatabase()
  const service = await startService({
    DATABASE_URL: database.url,
    POOL_SIZE: '1',
    POOL_MAX_OVERFLOW: '0',
    POOL_QUEUE: '5',
  })
  const api = createApi(service.url)
  const lock = await lockTable(database)
  const waiting = Array.from({ length: 6 }, () => api.get(ownPage()))
  await expect.poll(() => blocked(database)).toBe(1)
  await pause(200)
  const { answer, ms } = await timed(api.get(ownPage()))
  expectProblem(answer, 503, 'unavailable')
  expect(ms).toBeLessThan(1000)
  await lock.release()
  for (const answer of await Promise.all(waiting)) expect(answer.status).toBe(200)
  expect((await api.get('/products')).status).toBe(200)
})

test.for([
  ['a read', 'GET', '/products/1', undefined, undefined],
  ['a page with an estimate', 'GET', '/products?count=estimated', undefined, undefined],
  ['a search', 'GET', '/products?q=mug', undefined, undefined],
  ['an export', 'GET', '/products/export', undefined, undefined],
  ['a write', 'PUT', '/products/1', { name: 'Changed', price: 2 }, undefined],
  ['a removal', 'DELETE', '/products/1', undefined, undefined],
  ['a bulk', 'POST', '/products/bulk', [{ name: 'Never', price: 1 }], undefined],
  ['a write with a key', 'POST', '/products', { name: 'Never', price: 1 }, 'departed'],
] as const)('a client that leaves takes %s along', async ([, method, path, body, key]) => {
  const database = await createDatabase()
  await database.sql`insert into products (name, price) values ('Blue mug', 1)`
  const service = await startService({ DATABASE_URL: database.url })
  const api = createApi(service.url)
  const lock = await lockTable(database)
  const client = new AbortController()
  const headers: Record<string, string> = key ? { 'idempotency-key': key } : {}
  const gone = api.request(method, path, { body, headers, signal: client.signal })
  gone.catch(() => {})
  await expect.poll(() => blocked(database)).toBe(1)
  const connections = await backendIds(database)
  client.abort()
  await expect(gone).rejects.toThrow()
  await expect.poll(() => blocked(database), { timeout: 3000 }).toBe(0)
  await expect.poll(() => running(database)).toBe(0)
  // The service takes it back when it has made sure of it, a moment after the server has.
  const isBack = async () =>
    (await scrape(api)).value('database_pool_connections', { state: 'idle' }) === 1
  await expect.poll(isBack).toBe(true)
  await lock.release()
  expect((await api.get('/products')).body.items).toMatchObject([
    { id: 1, name: 'Blue mug', version: 1 },
  ])
  expect(await backendIds(database)).toEqual(connections)
  // Nothing is wrong, so nothing is said.
  expect(service.log.filter(({ level }) => level === 'warn' || level === 'error')).toEqual([
    expect.objectContaining({ msg: expect.stringContaining('API_KEYS') }),
  ])
})

test('a client that leaves takes along what waits behind its other answers', async () => {
  const database = await createDatabase()
  const service = await startService({ DATABASE_URL: database.url })
  const lock = await lockTable(database)
  const socket = connectSocket(Number(new URL(service.url).port), '127.0.0.1')
  for (let n = 0; n < 30; n++) socket.write(`GET ${ownPage()} HTTP/1.1\r\nHost: larder\r\n\r\n`)
  await expect.poll(() => blocked(database)).toBe(15)
  socket.destroy()
  await expect.poll(() => blocked(database), { timeout: 3000 }).toBe(0)
  await pause(200)
  expect(await blocked(database)).toBe(0)
  await lock.release()
})

test('a hundred departures a second: never more than fifteen backends, and nothing is left', async () => {
  const database = await withSlowSearch(60)
  const service = await startService({ DATABASE_URL: database.url })
  const api = createApi(service.url)
  let most = 0
  let asked = 0
  const until = performance.now() + 6000
  const leave = async () => {
    while (performance.now() < until) {
      const client = new AbortController()
      setTimeout(() => client.abort(), 100 + Math.random() * 300)
      asked++
      await api.request('GET', ownPage('q=mug'), { signal: client.signal }).catch(() => {})
    }
  }
  const watch = async () => {
    while (performance.now() < until) {
      most = Math.max(most, await backends(database))
      expect((await api.get('/products/1')).status).toBe(200)
      await pause(20)
    }
  }
  await Promise.all([...Array.from({ length: 25 }, leave), watch()])
  expect(asked).toBeGreaterThan(400)
  expect(most).toBeLessThanOrEqual(15)
  await expect.poll(() => running(database), { timeout: 3000 }).toBe(0)
  await expect.poll(() => backends(database)).toBeLessThanOrEqual(5)
  expect((await api.get('/products')).status).toBe(200)
})
