// What happens to a PostgreSQL server as a whole: stopped, crashed, in recovery, full, demoted, silent.
import { beforeAll, beforeEach, expect, test } from 'vitest'
import {
  type Api,
  createApi,
  expectProblem,
  product,
  type Response,
  ownPage,
  largeProduct,
} from '../support/api.ts'
import { blocked, connect, killBackends, lockTable } from '../support/database.ts'
import { scrape } from '../support/metrics.ts'
import { type Server, startServer } from '../support/server.ts'
import { spawnService, startService } from '../support/service.ts'
import { INSPECTABLE } from '../support/vitals.ts'
import { withstand } from '../support/withstand.ts'

let server: Server

beforeAll(async () => {
  server = await startServer({
    max_connections: '25',
    // There is no such standby: whoever waits for it waits for ever.
    synchronous_standby_names: 'nobody',
    synchronous_commit: 'local',
  })
})

/** What a test that failed has left behind is not the next one's. */
beforeEach(() => server.start())

const start = (settings: Record<string, string> = {}) =>
  startService({ DATABASE_URL: server.url, ...INSPECTABLE, ...settings })

const UNCHANGED = 'Nothing was changed'
const isUnchanged = (answer: Response) =>
  expect(expectProblem(answer, 503, 'unavailable').detail).toContain(UNCHANGED)

/** Ten clients that go on whatever they are answered, until `end`: the statuses that they got. */
function load(api: Api) {
  let over = false
  const seen = new Set<number>()
  const client = async (number: number) => {
    while (!over) {
      const answer = await (number % 2
        ? api.get(ownPage('limit=5'))
        : api.post('/products', largeProduct()))
      seen.add(answer.status)
      if (answer.status >= 500) await new Promise((resolve) => setTimeout(resolve, 20))
    }
  }
  const clients = Promise.all(Array.from({ length: 10 }, (_, number) => client(number)))
  clients.catch(() => {}) // it is awaited at the end
  const end = async () => {
    over = true
    await clients
    return [...seen].toSorted((a, b) => a - b)
  }
  return { seen, end }
}

test.for<[what: string, stop: (api: Api) => Promise<unknown>]>([
  ['a server that is stopped, and started again', () => server.stop('fast')],
  ['a server that is stopped at once, and started again', () => server.stop('immediate')],
  [
    'a server that waits for its clients before it stops, and takes no new ones',
    async (api) => {
      server.signal('smart')
      const reads = Array.from({ length: 40 }, () => api.get(ownPage()))
      for (const { status } of await Promise.all(reads)) expect([200, 503]).toContain(status)
      await server.stop('fast')
    },
  ],
])('%s, under load', async ([, stop]) => {
  const service = await start()
  await withstand(
    { service, database: server },
    { rounds: 3, normalWithinMs: 2000 },
    async (api) => {
      const { seen, end } = load(api)
      await expect.poll(() => [...seen].toSorted((a, b) => a - b)).toEqual([200, 201])
      await stop(api)
      await expect.poll(() => seen.has(503)).toBe(true)
      // A write may still meet a connection that is about to close, and then nobody knows.
      await expect
        .poll(async () => (await api.post('/products', largeProduct())).body.detail)
        .toContain(UNCHANGED)
      await server.start()
      return async () => expect(await end()).toEqual([200, 201, 503])
    },
  )
})

test('a backend that crashes and takes all others with it', async () => {
  const service = await start()
  await withstand(
    { service, database: server },
    { rounds: 3, normalWithinMs: 2000 },
    async (api) => {
      const { seen, end } = load(api)
      await expect.poll(() => [...seen].toSorted((a, b) => a - b)).toEqual([200, 201])
      // With all of them under way: between two requests of theirs nobody notices that it crashed.
      const lock = await lockTable(server)
      await expect.poll(() => blocked(server)).toBe(10)
      const [victim] = await server.sql<{ pid: number }[]>`
        select pid from pg_stat_activity where application_name = 'larder' limit 1`
      process.kill(victim!.pid, 'SIGKILL')
      await expect.poll(() => seen.has(503)).toBe(true)
      await lock.release()
      return async () => expect(await end()).toEqual([200, 201, 503])
    },
  )
})

test('a crash whose recovery takes its time, under a service that runs', async () => {
  const service = await start()
  await withstand(
    { service, database: server },
    { rounds: 3, normalWithinMs: 2000 },
    async (api) => {
      expect((await api.post('/products', largeProduct())).status).toBe(201)
      const release = await server.holdRecovery()
      await server.stop('immediate')
      const ready = server.start()
      await expect.poll(async () => (await api.get('/products')).status).toBe(503)
      // It is there, and lets nobody in.
      const told = () => service.log.some(({ reason }) => String(reason).includes('(57P03)'))
      await expect
        .poll(async () => {
          isUnchanged(await api.post('/products', largeProduct()))
          return told()
        })
        .toBe(true)
      service.log.length = 0
      await release()
      await ready
    },
  )
})

test('a start that meets a server in recovery waits for it', async () => {
  const release = await server.holdRecovery()
  await server.stop('immediate')
  const ready = server.start()
  const service = spawnService({
    DATABASE_URL: server.url,
    CONNECT_MAX_RETRIES: '1000',
    CONNECT_RETRY_DELAY: '0.05',
  })
  const recovering = ({ msg, reason }: Record<string, unknown>) =>
    msg === 'the database does not answer yet' &&
    /starting up|not yet accepting/.test(String(reason))
  await expect.poll(() => service.log.filter(recovering).length).toBeGreaterThan(3)
  await release()
  await ready
  const { port } = await service.logged('listening')
  expect((await createApi(`http://127.0.0.1:${String(port)}`).get('/products')).status).toBe(200)
})

test('a server that falls silent and goes on', async () => {
  const service = await start({
    STATEMENT_TIMEOUT: '0.2', // and a second of grace
    CONNECT_TIMEOUT: '0.5',
    POOL_TIMEOUT: '0.5',
  })
  await withstand(
    { service, database: server },
    { rounds: 3, normalWithinMs: 2000 },
    async (api) => {
      await server.signalAll('SIGSTOP')
      const answers = await Promise.all([
        ...Array.from({ length: 20 }, () => api.get(ownPage())),
        ...Array.from({ length: 5 }, () => api.post('/products', largeProduct())),
      ])
      await server.signalAll('SIGCONT')
      for (const { status } of answers) expect([503, 504]).toContain(status)
    },
  )
})

test('a server that becomes a standby is read from, and written to when it is promoted', async () => {
  const service = await start()
  await withstand(
    { service, database: server },
    { rounds: 3, normalWithinMs: 2000 },
    async (api) => {
      await server.standBy()
      await server.stop('fast')
      await server.start()
      expect((await api.get(ownPage())).status).toBe(200)
      const writes = await Promise.all(
        Array.from({ length: 20 }, () => api.post('/products', largeProduct())),
      )
      for (const write of writes) isUnchanged(write)
      const key = { 'idempotency-key': crypto.randomUUID() }
      isUnchanged(await api.post('/products', product(), key))
      await server.promote()
    },
  )
})

test('a server without a connection to spare', async () => {
  const service = await start()
  await withstand(
    { service, database: server },
    { rounds: 4, normalWithinMs: 1000 },
    async (api) => {
      await killBackends(server)
      const taken = []
      for (;;) {
        const one = connect(server.address)
        const refused = await one`select 1`.then(
          () => false,
          () => true,
        )
        if (refused) break
        taken.push(one)
      }
      const answers = await Promise.all([
        ...Array.from({ length: 10 }, () => api.get(ownPage())),
        ...Array.from({ length: 10 }, () => api.post('/products', largeProduct())),
      ])
      for (const answer of answers) isUnchanged(answer)
      await Promise.all(taken.map((one) => one.end({ timeout: 1 })))
    },
  )
})

test('a backend killed during COMMIT', async () => {
  const service = await start()
  const commits = () => server.sql<{ pid: number }[]>`
    select pid from pg_stat_activity
    where application_name = 'larder' and wait_event = 'SyncRep'
      and (query = 'commit' or query like '%insert into products%')` // housekeeping commits, too
  const stored = async (sku: string) =>
    (await server.sql`select from products where sku = ${sku}`).length
  await withstand(
    { service, database: server },
    { rounds: 4, normalWithinMs: 1000 },
    async (api) => {
      await server.sql`alter database postgres set synchronous_commit = on`
      await killBackends(server)
      // A write that went out on a connection whose end is on its way would be lost before its time.
      await expect
        .poll(async () => (await scrape(api)).value('database_pool_connections', { state: 'idle' }))
        .toBe(0)
      const body = product()
      const key = { 'idempotency-key': crypto.randomUUID() }
      const write = api.post('/products', body, key)
      await expect.poll(async () => (await commits()).length).toBe(1)
      // It has committed, and has not said so: a second look at the same table shows it only now.
      expect(await stored(body.sku)).toBe(0)
      await server.sql`alter database postgres reset synchronous_commit`
      await killBackends(server)
      const lost = expectProblem(await write, 503, 'unavailable')
      expect(lost.detail).toContain('Whether a change was made is not known')
      expect(await stored(body.sku)).toBe(1)
      const again = await api.post('/products', body, key)
      expect(again.status).toBe(201)
      expect(again.headers).toHaveProperty('idempotency-replayed')
    },
  )
})
