// What an operator can read: each answer is counted, the pool and the process are seen, labels stay few.
import { readFile } from 'node:fs/promises'
import { beforeAll, expect, test } from 'vitest'
import { createApp } from '../src/app.ts'
import { type Api, createApi, expectProblem, product, ownPage } from './support/api.ts'
import { blocked, createDatabase, lockTable, type TestDatabase } from './support/database.ts'
import { scrape } from './support/metrics.ts'
import { startService } from './support/service.ts'
import { startWorker } from './support/worker.ts'

let database: TestDatabase
let url: string
let api: Api

beforeAll(async () => {
  database = await createDatabase()
  const settings = { POOL_SIZE: '2', POOL_MAX_OVERFLOW: '1', POOL_TIMEOUT: '1', POOL_QUEUE: '2' }
  ;({ url } = await startService({ DATABASE_URL: database.url, ...settings }))
  api = createApi(url)
})

const routes = createApp({ access: undefined, corsOrigins: undefined }).routes.flatMap(
  ({ method, path }) => (method === 'ALL' ? [] : path),
)

const COUNT = 'http_request_duration_seconds_count'

/** How many answers more with these labels there are after `work`. */
async function counted(labels: Record<string, string>, work: () => Promise<unknown>) {
  const before = (await scrape(api)).value(COUNT, labels) ?? 0
  await work()
  return ((await scrape(api)).value(COUNT, labels) ?? 0) - before
}

test('each answer is counted by method, route and status', async () => {
  const { id } = (await api.post('/products', product())).body
  const cases: [labels: Record<string, string>, work: () => Promise<unknown>][] = [
    [{ method: 'GET', route: '/products/:id', status: '200' }, () => api.get(`/products/${id}`)],
    [{ method: 'HEAD', route: '/products/:id', status: '200' }, () => api.head(`/products/${id}`)],
    [{ method: 'GET', route: '/products/:id', status: '404' }, () => api.get('/products/999')],
    [{ method: 'GET', route: '/products/:id', status: '422' }, () => api.get('/products/x')],
    [{ method: 'GET', route: '/products', status: '200' }, () => api.get('/products?limit=1')],
    [{ method: 'POST', route: '/products', status: '201' }, () => api.post('/products', product())],
    [{ method: 'POST', route: '/products', status: '415' }, () => api.post('/products', '{')],
    [{ method: 'GET', route: '/products/changes' }, () => api.get('/products/changes')],
    [{ method: 'GET', route: '/products/export' }, () => api.get('/products/export')],
    [{ method: 'GET', route: '/docs/:part' }, () => api.get('/docs/start.js')],
    [{ method: 'GET', route: '/health', status: '200' }, () => api.get('/health')],
    [{ method: 'GET', route: 'none', status: '404' }, () => api.get('/nowhere')],
    [{ method: 'POST', route: 'none', status: '405' }, () => api.post('/health')],
    [{ method: 'other', route: 'none', status: '405' }, () => api.request('PURGE', '/health')],
  ]
  for (const [labels, work] of cases) {
    expect(await counted(labels, work), JSON.stringify(labels)).toBe(1)
  }
  // The first scrape counts by the time of the second.
  expect(await counted({ route: '/metrics', status: '200' }, async () => {})).toBe(1)
})

test('the time of an answer is in its bucket', async () => {
  const labels = { method: 'GET', route: '/products', status: '200' }
  const lock = await lockTable(database)
  const before = await scrape(api)
  const waiting = api.get('/products')
  await expect.poll(() => blocked(database)).toBe(1)
  await new Promise((resolve) => setTimeout(resolve, 300))
  await lock.release()
  await waiting
  const after = await scrape(api)
  const more = (name: string, also = {}) =>
    after.value(name, { ...labels, ...also })! - (before.value(name, { ...labels, ...also }) ?? 0)
  expect(more(COUNT)).toBe(1)
  expect(more('http_request_duration_seconds_sum')).toBeGreaterThan(0.3)
  const bucket = (le: string) => more('http_request_duration_seconds_bucket', { le })
  expect([bucket('0.1'), bucket('0.25'), bucket('30'), bucket('+Inf')]).toEqual([0, 0, 1, 1])
})

test('the pool and the requests that wait for it are seen', async () => {
  const pool = async () => {
    const { value } = await scrape(api)
    const connections = (state: string) => value('database_pool_connections', { state })!
    return {
      // One that is new is opening until its first statement has had an answer.
      lent: connections('in_use') + connections('opening'),
      idle: connections('idle'),
      waiting: value('database_pool_waiting'),
      max: value('database_pool_max'),
      in_flight: value('http_requests_in_flight'),
    }
  }
  await api.get('/db-test')
  const none = { lent: 0, waiting: 0, max: 3, in_flight: 1 } // the one that asks
  await expect.poll(pool).toMatchObject(none)
  const total = async (what: string) => (await scrape(api)).value(`database_pool_${what}_total`)!
  const before = { timeouts: await total('timeouts'), refusals: await total('refusals') }

  const lock = await lockTable(database)
  const requests = Array.from({ length: 5 }, () => api.get(ownPage()))
  await expect.poll(pool).toEqual({ ...none, lent: 3, idle: 0, waiting: 2, in_flight: 6 })
  expect((await scrape(api)).value('http_connections')).toBeGreaterThanOrEqual(6)
  // The queue is full.
  expect((await api.get(ownPage())).status).toBe(503)
  expect((await total('refusals')) - before.refusals).toBe(1)
  // The two that wait give up after POOL_TIMEOUT.
  await expect.poll(pool).toMatchObject({ lent: 3, waiting: 0, in_flight: 4 })
  expect((await total('timeouts')) - before.timeouts).toBe(2)
  await lock.release()
  const statuses = (await Promise.all(requests)).map(({ status }) => String(status))
  expect(statuses.toSorted()).toEqual(['200', '200', '200', '503', '503'])
  await expect.poll(pool).toMatchObject({ ...none, idle: 2 })
})

test('the process is seen', async () => {
  const { value } = await scrape(api)
  for (const name of [
    'process_resident_memory_bytes',
    'process_cpu_seconds_total',
    'process_start_time_seconds',
    'process_open_fds',
    'nodejs_heap_size_used_bytes',
    'nodejs_eventloop_lag_p99_seconds',
    'nodejs_gc_duration_seconds_count',
  ]) {
    expect(value(name), name).toBeGreaterThan(0)
  }
  const { version } = JSON.parse(await readFile('package.json', 'utf8')) as { version: string }
  expect(value('larder_info', { version })).toBe(1)
})

test('housekeeping says when it was done', async () => {
  const doneAt = async () =>
    (await scrape(api)).value('housekeeping_last_success_timestamp_seconds')
  await expect.poll(doneAt, { timeout: 30_000 }).toBeDefined()
  expect(Math.abs((await doneAt())! - Date.now() / 1000)).toBeLessThan(60)
})

test('clients make no labels', async () => {
  const methods = ['GET', 'PURGE', 'PROPFIND', 'M-SEARCH', 'TRACE', 'QUERY', 'LINK', 'OPTIONS']
  const ask = (n: number) =>
    api.request(methods[n % methods.length]!, `/${n}/${'x'.repeat(n % 50)}`, {
      headers: { 'x-request-id': `id-${n}`, 'user-agent': `agent-${n}` },
    })
  for (let n = 0; n < 50; n++) await ask(n)
  for (const path of ['/products/1"}', '/%', '/%0A', '/products/é', '/constructor']) {
    await api.get(encodeURI(path))
  }
  const before = await scrape(api)
  for (let n = 50; n < 1000; n += 10) {
    await Promise.all(Array.from({ length: 10 }, (_, i) => ask(n + i)))
    await api.get(`/products/${n}`)
    await api.get(`/products?q=${n}&price=${n}`)
  }
  const after = await scrape(api)
  const answers = after.all(COUNT)
  const known = ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS', 'other']
  for (const { labels } of answers) {
    expect(Object.keys(labels).toSorted()).toEqual(['method', 'route', 'status'])
    expect(known).toContain(labels['method'])
    expect([...routes, 'none']).toContain(labels['route'])
    expect(labels['status']).toMatch(/^[2-5]\d\d$/)
  }
  expect(answers.length).toBe(before.all(COUNT).length)
  expect(after.value(COUNT, { route: 'none' })).toBeGreaterThanOrEqual(1000)
})

test('there are none on Workers', async () => {
  const worker = createApi((await startWorker({ databaseUrl: database.url })).url)
  expectProblem(await worker.get('/metrics'), 404, 'not_found')
})
