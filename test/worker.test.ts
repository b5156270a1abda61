// What is the Worker's alone: its binding, its connections, and that a fault of one request stays there.
import { expect, test } from 'vitest'
import { databaseUrl } from '../src/config.ts'
import { createApi, expectProblem, product } from './support/api.ts'
import { backends, blocked, createDatabase, killBackends, lockTable } from './support/database.ts'
import { makeKey } from './support/keys.ts'
import { startProxy } from './support/proxy.ts'
import { startWorker } from './support/worker.ts'

test('without the binding every request that needs it fails, and the log says what to do', async () => {
  const worker = await startWorker({})
  const api = createApi(worker.url)
  expect((await api.get('/health')).status).toBe(200)
  const problem = expectProblem(await api.get('/ready'), 503, 'unavailable')
  expect(problem.detail).toContain('HYPERDRIVE is missing')
  expectProblem(await api.get('/products'), 500, 'internal')
  expectProblem(await api.post('/products', product()), 500, 'internal')
  await expect.poll(() => JSON.stringify(worker.log)).toContain('The binding HYPERDRIVE is missing')
})

test('with settings that are not valid every request fails, and the log names the faults', async () => {
  const { key, headers, entry } = makeKey('ci', 'admin')
  const settings = { API_KEYS: `${entry},${key}`, PUBLIC_READS: 'maybe', CORS_ORIGINS: key }
  const { url: databaseUrl } = await createDatabase()
  const worker = await startWorker({ databaseUrl, settings })
  // Past the check of answers: the document tells of a service that is set up.
  async function ask(method: string, path: string) {
    const given = { ...headers, 'x-request-id': 'mine' }
    const answer = await fetch(worker.url + path, { method, headers: given })
    const text = await answer.text()
    const { status } = answer
    return { status, headers: Object.fromEntries(answer.headers), text, body: JSON.parse(text) }
  }
  for (const path of ['/health', '/ready', '/products', '/nowhere', '/docs', '/openapi.json']) {
    const answer = await ask('GET', path)
    expect(expectProblem(answer, 503, 'unavailable').request_id).toBe('mine')
  }
  expectProblem(await ask('POST', '/products'), 503, 'unavailable')
  expectProblem(await ask('OPTIONS', '/products'), 503, 'unavailable')
  await expect
    .poll(() => worker.log.filter(({ level }) => level === 'error'))
    .toEqual([
      expect.objectContaining({
        faults: [
          'API_KEYS entry 2 must look like name:scope:sha256hex',
          'PUBLIC_READS must be true or false',
          'CORS_ORIGINS must be * or origins such as https://shop.example.com, separated by commas',
        ],
      }),
    ])
  expect(worker.output()).not.toContain(key)
})

test('no connection outlives its request', async () => {
  const database = await createDatabase()
  const api = createApi((await startWorker({ databaseUrl: database.url })).url)
  for (let i = 0; i < 5; i++) expect((await api.get('/products')).status).toBe(200)
  await expect.poll(() => backends(database)).toBe(0)
})

test('a request is one round trip, when its connection is there', async () => {
  const database = await createDatabase()
  const proxy = await startProxy(database.address)
  const api = createApi((await startWorker({ databaseUrl: databaseUrl(proxy.address) })).url)
  for (const ask of [
    () => api.get('/ready'),
    () => api.post('/products', product(), { 'idempotency-key': 'one-trip' }),
    () => api.get('/products/1'),
    () => api.get('/products?price[gte]=1&q=a'),
    () => api.patch('/products/1', { stock: 3, attributes: { lid: true } }),
    () => api.put('/products/1', product()),
    () => api.delete('/products/1'),
  ]) {
    const before = proxy.trips()
    expect((await ask()).status).toBeLessThan(300)
    // The server is greeted, and the password takes two: Hyperdrive does that on its own side.
    expect(proxy.trips() - before).toBe(4)
  }
})

test('a killed backend fails its request alone', async () => {
  const database = await createDatabase()
  const api = createApi((await startWorker({ databaseUrl: database.url })).url)
  const lock = await lockTable(database)
  const write = api.post('/products', product())
  const others = Promise.all([1, 2, 3].map(() => api.get('/health')))
  await expect.poll(() => blocked(database)).toBe(1)
  await killBackends(database)
  expectProblem(await write, 503, 'unavailable')
  await lock.release()
  expect((await others).map((answer) => answer.status)).toEqual([200, 200, 200])
  expect((await api.post('/products', product())).status).toBe(201)
})

test('a password with any character goes through', async () => {
  const database = await createDatabase()
  const role = `worker ${database.address.database}`
  const { sql } = database
  await sql.unsafe(`create role "${role}" superuser login password 'p@ss/w:rd?#%25 ü'`)
  const url = databaseUrl({ ...database.address, user: role, password: 'p@ss/w:rd?#%25 ü' })
  const api = createApi((await startWorker({ databaseUrl: url })).url)
  expect((await api.get('/products')).status).toBe(200)
  await sql.unsafe(`drop role "${role}"`)
})

test('its log has one line for each request, and no secret', async () => {
  const database = await createDatabase()
  const worker = await startWorker({ databaseUrl: database.url })
  await createApi(worker.url).get('/products', { 'x-request-id': 'log-me' })
  await expect
    .poll(() => worker.log.filter((line) => line['request_id'] === 'log-me'))
    .toEqual([
      expect.objectContaining({ level: 'info', method: 'GET', path: '/products', status: 200 }),
    ])
  expect(worker.output()).not.toContain(`:${database.address.password}@`)
})

test('a server that is away is a 503', async () => {
  const database = await createDatabase()
  const proxy = await startProxy(database.address)
  const worker = await startWorker({ databaseUrl: databaseUrl(proxy.address) })
  const api = createApi(worker.url)
  expect((await api.get('/products')).status).toBe(200)
  proxy.refuse()
  proxy.reset()
  expectProblem(await api.get('/products'), 503, 'unavailable')
  expectProblem(await api.post('/products', product()), 503, 'unavailable')
  expectProblem(await api.get('/ready'), 503, 'unavailable')
  await proxy.pass()
  expect((await api.get('/products')).status).toBe(200)
})

test('a LOG_LEVEL that is none does not stop it', async () => {
  const database = await createDatabase()
  const settings = { LOG_LEVEL: 'loud' }
  const worker = await startWorker({ databaseUrl: database.url, settings })
  expect((await createApi(worker.url).get('/health')).status).toBe(200)
  await expect.poll(() => JSON.stringify(worker.log)).toContain('LOG_LEVEL must be one of')
})

test('the limit counts whom the platform heard, and an IPv6 client once', async () => {
  const { url: databaseUrl } = await createDatabase()
  const api = createApi((await startWorker({ databaseUrl, rateLimit: '3/60' })).url)
  const ask = async (address: string) =>
    (await api.get('/nowhere', { 'cf-connecting-ip': address })).status
  const refused = async (address: (n: number) => string) => {
    // A window may end on the way.
    for (let n = 0; n <= 6; n++) if ((await ask(address(n))) === 429) return true
    return false
  }
  expect(await refused(() => '203.0.113.1')).toBe(true)
  expect(await ask('203.0.113.2')).toBe(404)
  expect(await refused((n) => `2001:db8:1:2::${n}`)).toBe(true)
  expect(await refused((n) => `2001:db8:1:${n + 3}::1`)).toBe(false)
})

test('a RATE_LIMIT without the binding limits nothing, and the log says so', async () => {
  const { url: databaseUrl } = await createDatabase()
  const worker = await startWorker({ databaseUrl, settings: { RATE_LIMIT: '1/60' } })
  const api = createApi(worker.url)
  for (let n = 0; n < 3; n++) expect((await api.get('/nowhere')).status).toBe(404)
  await expect.poll(() => JSON.stringify(worker.log)).toContain('RATE_LIMIT has no effect')
})
