// What happens to databases: killed backends, a restart, a broken and a silent network.
import { beforeEach, expect, test } from 'vitest'
import { startPostgres } from '../../src/cli/embedded-postgres.ts'
import { databaseUrl } from '../../src/config.ts'
import {
  type Api,
  createApi,
  expectProblem,
  product,
  largeProduct,
  ownPage,
} from '../support/api.ts'
import { atTheEnd } from '../support/clean-up.ts'
import {
  backends,
  blocked,
  createDatabase,
  killBackends,
  lockTable,
  type TestDatabase,
} from '../support/database.ts'
import { migrate, SERVICE_ROLE } from '../support/migrate.ts'
import { type Proxy, startProxy } from '../support/proxy.ts'
import { startService } from '../support/service.ts'

let database: TestDatabase
let proxy: Proxy
let service: Awaited<ReturnType<typeof startService>>
let api: Api

beforeEach(async () => {
  database = await createDatabase()
  proxy = await startProxy(database.address)
  service = await startService({
    DATABASE_URL: databaseUrl(proxy.address),
    STATEMENT_TIMEOUT: '2',
    CONNECT_TIMEOUT: '2',
    POOL_TIMEOUT: '3',
  })
  api = createApi(service.url)
})

/** Opens the five connections that the pool keeps. */
async function warm() {
  const lock = await lockTable(database)
  const reads = Array.from({ length: 5 }, () => api.get(ownPage()))
  await expect.poll(() => blocked(database)).toBe(5)
  await lock.release()
  await Promise.all(reads)
}

const statuses = (count: number, request: () => Promise<{ status: number }>) =>
  Promise.all(Array.from({ length: count }, async () => (await request()).status))

test('all backends killed while idle: the next hundred requests succeed', async () => {
  for (let round = 0; round < 3; round++) {
    await warm()
    await expect.poll(() => backends(database)).toBe(5)
    expect(await killBackends(database)).toBe(5)
    const answers = await statuses(100, () => api.get(ownPage()))
    expect(new Set(answers)).toEqual(new Set([200]))
  }
  expect(await statuses(20, () => api.post('/products', largeProduct()))).not.toContain(503)
})

test('a write whose backend is killed is a 503, and the next one works', async () => {
  const lock = await lockTable(database)
  const write = api.post('/products', product())
  await expect.poll(() => blocked(database)).toBe(1)
  await killBackends(database)
  const lost = expectProblem(await write, 503, 'unavailable')
  expect(lost.detail).toContain('Whether a change was made is not known')
  await lock.release()
  expect((await api.post('/products', product())).status).toBe(201)
  expect((await api.get('/products')).body.items).toHaveLength(1)
  expect(service.process.exitCode).toBe(null)
})

test('a read whose backend is killed is tried again', async () => {
  const lock = await lockTable(database)
  const read = api.get('/products')
  await expect.poll(() => blocked(database)).toBe(1)
  await killBackends(database)
  await expect.poll(() => blocked(database)).toBe(1)
  await lock.release()
  expect((await read).status).toBe(200)
})

test('connections reset under requests: reads go on, writes are told, the process lives', async () => {
  await warm()
  const lock = await lockTable(database)
  const read = api.get('/products')
  const write = api.post('/products', product())
  await expect.poll(() => blocked(database)).toBe(2)
  proxy.reset()
  expectProblem(await write, 503, 'unavailable')
  await lock.release()
  expect((await read).status).toBe(200)
  const answers = await statuses(30, () => api.get(ownPage()))
  expect(new Set(answers)).toEqual(new Set([200]))
})

test('a server that is away is a 503 at once, and service is normal when it is back', async () => {
  await warm()
  proxy.refuse()
  proxy.reset()
  const start = performance.now()
  expectProblem(await api.get('/products'), 503, 'unavailable')
  const refused = expectProblem(await api.post('/products', product()), 503, 'unavailable')
  expect(refused.detail).toContain('Nothing was changed')
  expectProblem(await api.get('/ready'), 503, 'unavailable')
  expectProblem(await api.get('/db-test'), 503, 'unavailable')
  expect(performance.now() - start).toBeLessThan(1000)
  expect((await api.get('/health')).status).toBe(200)
  await proxy.pass()
  expect((await api.get('/products')).status).toBe(200)
  expect((await api.get('/ready')).status).toBe(200)
})

test.for([
  ['that returns', (network: Proxy) => network.silence()],
  ['that forgets its connections', (network: Proxy) => (network.lose(), network.silence())],
] as const)(
  'a silent network %s: an answer within the deadline, normal service within a second of its return',
  async ([, fall]) => {
    await warm()
    fall(proxy)
    const start = performance.now()
    const answers = await Promise.all([
      ...Array.from({ length: 20 }, () => api.get(ownPage())),
      ...Array.from({ length: 5 }, () => api.post('/products', largeProduct())),
    ])
    for (const answer of answers) expect([503, 504]).toContain(answer.status)
    // waiting for a connection (3 s), then for the statement (2 s and 1 s of grace), then a margin
    expect(performance.now() - start).toBeLessThan(8000)
    expect((await api.get('/health')).status).toBe(200)

    const during = [api.get('/products'), api.get('/products')] // still under way when it is back
    await new Promise((resolve) => setTimeout(resolve, 200))
    const back = performance.now()
    await proxy.pass()
    const afterwards = await statuses(30, () => api.get(ownPage()))
    expect(new Set(afterwards)).toEqual(new Set([200]))
    const normal = performance.now()
    await statuses(30, () => api.get('/products'))
    // Less what the same takes at any time, which on a busy machine is much.
    expect(normal - back - (performance.now() - normal)).toBeLessThan(1000)
    await Promise.all(during)
  },
)

test('a server that is stopped and started again', async () => {
  const first = await startPostgres()
  atTheEnd(() => first.stop())
  await migrate(first.address, 'upgrade')
  const own = await startService({
    DATABASE_URL: databaseUrl({ ...first.address, ...SERVICE_ROLE }),
  })
  const client = createApi(own.url)
  expect((await client.get('/products')).status).toBe(200)
  await first.stop()
  expectProblem(await client.get('/products'), 503, 'unavailable')
  const second = await startPostgres({ port: first.address.port })
  atTheEnd(() => second.stop())
  await migrate(second.address, 'upgrade')
  expect((await client.get('/products')).status).toBe(200)
  expect(own.process.exitCode).toBe(null)
})
