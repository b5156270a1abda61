// Each fault of a database and of its network, many times: what clients see, that the process lives,
// that nothing leaks, and how soon service is normal again. docs/faults.md has them all in a table.
import { beforeAll, beforeEach, expect, test } from 'vitest'
import { databaseUrl } from '../../src/config.ts'
import {
  type Api,
  createApi,
  expectProblem,
  type Response,
  ownPage,
  largeProduct,
} from '../support/api.ts'
import {
  blocked,
  createDatabase,
  killBackends,
  lockTable,
  type TestDatabase,
} from '../support/database.ts'
import { scrape } from '../support/metrics.ts'
import { type Proxy, startProxy } from '../support/proxy.ts'
import { startService } from '../support/service.ts'
import { INSPECTABLE } from '../support/vitals.ts'
import { type Fault, withstand } from '../support/withstand.ts'

const CONNECTIONS = 'database_pool_connections'
const UNKNOWN = 'Whether a change was made is not known'
const UNCHANGED = 'Nothing was changed'

let database: TestDatabase
let proxy: Proxy

beforeAll(async () => {
  database = await createDatabase()
  proxy = await startProxy(database.address)
  // More than 64 kB of memory hold when a hundred of them are sorted.
  await database.sql`
    insert into products (name, price, stock, description)
    select 'long', 1, 1, (select string_agg(md5((n * m)::text), '') from generate_series(1, 45) as m)
    from generate_series(1, 200) as n`
})

/** What a test that failed has left behind is not the next one's. */
beforeEach(async () => {
  await reset()
  await proxy.pass()
  proxy.reset()
})

const start = (settings: Record<string, string> = {}) =>
  startService({ DATABASE_URL: databaseUrl(proxy.address), ...INSPECTABLE, ...settings })

/** Requests that wait for a lock: five are sent, and under way. */
async function underWay(api: Api) {
  const lock = await lockTable(database)
  const reads = Array.from({ length: 3 }, () => api.get(ownPage()))
  const writes = Array.from({ length: 2 }, () => api.post('/products', largeProduct()))
  await expect.poll(() => blocked(database)).toBe(5)
  return { lock, reads: Promise.all(reads), writes: Promise.all(writes) }
}

/** A write of several statements: it has a key. */
const keyed = (api: Api) =>
  api.post('/products', largeProduct(), { 'idempotency-key': crypto.randomUUID() })

/** Does not wait until they are gone, as the clients do not. */
const kill = () => database.sql`
  select pg_terminate_backend(pid) from pg_stat_activity
  where datname = current_database() and application_name = 'larder'`

/** Those alone that have a statement: a read that is tried again finds another connection whole. */
const killBusy = () => database.sql`
  select pg_terminate_backend(pid) from pg_stat_activity
  where datname = current_database() and application_name = 'larder' and state = 'active'`

/** Settings of the database for the connections that are opened from now on. */
async function set(settings: Record<string, string>) {
  const name = database.sql(database.address.database)
  for (const [setting, value] of Object.entries(settings)) {
    await database.sql`alter database ${name} set ${database.sql(setting)} = ${database.sql(value)}`
  }
  await killBackends(database)
}

const reset = () =>
  database.sql`alter database ${database.sql(database.address.database)} reset all`

const isUnknown = (answer: Response, status = 503, code = 'unavailable') =>
  expect(expectProblem(answer, status, code).detail).toContain(UNKNOWN)
const isUnchanged = (answer: Response, status = 503, code = 'unavailable') =>
  expect(expectProblem(answer, status, code).detail).toContain(UNCHANGED)

test.for<[what: string, fault: Fault]>([
  [
    'backends killed before their statements',
    async (api) => {
      const { lock, reads, writes } = await underWay(api)
      await lock.release()
      await Promise.all([reads, writes])
      expect(await killBackends(database)).toBeGreaterThanOrEqual(5)
      // What the server has closed is on its way, and a write that meets it is one that is under way.
      await expect
        .poll(async () => (await scrape(api)).value(CONNECTIONS, { state: 'idle' }))
        .toBe(0)
      const answers = await Promise.all([
        ...Array.from({ length: 10 }, () => api.get(ownPage())),
        ...Array.from({ length: 10 }, () => api.post('/products', largeProduct())),
      ])
      expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([200, 201]))
    },
  ],
  [
    'backends killed during their statements',
    async (api) => {
      const { lock, reads, writes } = await underWay(api)
      await killBusy()
      for (const write of await writes) isUnknown(write)
      await lock.release()
      for (const read of await reads) expect(read.status).toBe(200)
    },
  ],
  [
    'a backend killed between two statements of a transaction',
    async (api) => {
      const held = proxy.holdBack('update idempotency_keys')
      const write = keyed(api)
      await held
      await kill()
      isUnknown(await write)
    },
  ],
  [
    'a backend killed before COMMIT arrives',
    async (api) => {
      const held = proxy.holdBack('commit')
      const write = keyed(api)
      await held
      await kill()
      isUnknown(await write)
    },
  ],
  [
    'connections reset under statements',
    async (api) => {
      const { lock, reads, writes } = await underWay(api)
      proxy.reset()
      for (const write of await writes) isUnknown(write)
      await lock.release()
      for (const read of await reads) expect(read.status).toBe(200)
    },
  ],
  [
    'connections half-closed under statements',
    async (api) => {
      const { lock, reads, writes } = await underWay(api)
      proxy.cut()
      for (const write of await writes) isUnknown(write)
      await lock.release()
      for (const read of await reads) expect(read.status).toBe(200)
    },
  ],
  [
    'connections refused',
    async (api) => {
      proxy.refuse()
      proxy.reset()
      await api.get('/health') // by now the service has heard of it
      const answers = await Promise.all([
        ...Array.from({ length: 20 }, () => api.get('/products')),
        ...Array.from({ length: 20 }, () => api.post('/products', largeProduct())),
      ])
      for (const answer of answers) isUnchanged(answer)
      await proxy.pass()
    },
  ],
  [
    'a statement past the limit for locks',
    async (api) => {
      await set({ lock_timeout: '50' })
      const lock = await lockTable(database)
      const reads = Array.from({ length: 5 }, () => api.get('/products'))
      const writes = Array.from({ length: 5 }, () => api.post('/products', largeProduct()))
      for (const answer of await Promise.all([...reads, ...writes])) {
        isUnchanged(answer, 504, 'timeout')
      }
      await reset()
      await lock.release()
    },
  ],
  [
    'no room for temporary files',
    async (api) => {
      await set({ temp_file_limit: '0', work_mem: '64' })
      const answers = await Promise.all(
        Array.from({ length: 5 }, () => api.get('/products?sort=-stock,name&limit=100')),
      )
      for (const answer of answers) isUnchanged(answer)
      await reset()
    },
  ],
])('%s', async ([, fault]) => {
  const service = await start()
  await withstand({ service, database }, { rounds: 10, normalWithinMs: 1000 }, fault)
})

/** With short limits, for each of these takes as long as they are. */
const impatient = {
  STATEMENT_TIMEOUT: '0.2', // and a second of grace
  CONNECT_TIMEOUT: '0.5',
  POOL_TIMEOUT: '0.5',
}

test.for<[what: string, fault: Fault]>([
  [
    'a statement past its limit',
    async (api) => {
      const lock = await lockTable(database)
      const writes = Array.from({ length: 10 }, () => api.post('/products', largeProduct()))
      for (const answer of await Promise.all(writes)) isUnchanged(answer, 504, 'timeout')
      await lock.release()
    },
  ],
  [
    'the answer to a COMMIT that never comes',
    async (api) => {
      proxy.loseAnswerTo('commit')
      isUnknown(await keyed(api), 504, 'timeout')
      await proxy.pass()
      proxy.reset() // what the keepalive of either side does in the end
    },
  ],
  [
    'every connection lent',
    async (api) => {
      const lock = await lockTable(database)
      const keys = Array.from({ length: 40 }, () => keyed(api))
      for (const answer of await Promise.all(keys)) expect([503, 504]).toContain(answer.status)
      await lock.release()
    },
  ],
  [
    'a silent network',
    async (api) => {
      proxy.silence()
      const answers = await Promise.all([
        ...Array.from({ length: 20 }, () => api.get('/products')),
        ...Array.from({ length: 5 }, () => api.post('/products', largeProduct())),
      ])
      for (const answer of answers) expect([503, 504]).toContain(answer.status)
      await proxy.pass()
    },
  ],
  [
    'a network that forgets its connections',
    async (api) => {
      const reads = () => Array.from({ length: 20 }, () => api.get(ownPage()))
      await Promise.all(reads())
      proxy.lose()
      const writes = Array.from({ length: 5 }, () => api.post('/products', largeProduct()))
      for (const read of await Promise.all(reads())) expect([200, 503, 504]).toContain(read.status)
      const answers = await Promise.all(writes)
      expect(answers.map(({ status }) => status)).toContain(504)
      for (const answer of answers) if (answer.status === 504) isUnknown(answer, 504, 'timeout')
      proxy.reset() // what the keepalive of either side does in the end
    },
  ],
])('%s', async ([, fault]) => {
  const service = await start(impatient)
  await withstand({ service, database }, { rounds: 3, normalWithinMs: 2000 }, fault)
})

test('connections replaced for their age under load', async () => {
  // Longer than it takes to fill the pool before a look, or of those that it keeps some are too old.
  const service = await start({ POOL_RECYCLE: '1' })
  await withstand({ service, database }, { rounds: 4, normalWithinMs: 1000 }, async (api) => {
    const until = performance.now() + 2500
    const client = async () => {
      while (performance.now() < until) {
        expect((await api.get(ownPage())).status).toBe(200)
        expect((await keyed(api)).status).toBe(201)
      }
    }
    await Promise.all(Array.from({ length: 20 }, client))
  })
})

const message = (type: string, body: string | Uint8Array) => {
  const bytes = Buffer.alloc(5 + body.length, type)
  bytes.writeUInt32BE(4 + body.length, 1)
  bytes.set(Buffer.from(body), 5)
  return bytes
}

test.for<[what: string, said: Uint8Array]>([
  ['HTTP', Buffer.from('HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n')],
  ['SSH', Buffer.from('SSH-2.0-OpenSSH_9.6\r\n')],
  ['that all is well, and no more', message('R', '\0\0\0\0')],
  ['a way to log in that is not known', message('R', '\0\0\0\x63')],
  ['noise', crypto.getRandomValues(new Uint8Array(1000))],
])('a server that answers with %s', async ([, said]) => {
  const service = await start(impatient)
  await withstand({ service, database }, { rounds: 3, normalWithinMs: 2000 }, async (api) => {
    proxy.babble(said)
    proxy.reset()
    const answers = await Promise.all([
      ...Array.from({ length: 5 }, () => api.get('/products')),
      ...Array.from({ length: 5 }, () => api.post('/products', largeProduct())),
    ])
    for (const answer of answers) expect(answer.status, answer.text).toBe(503)
    await proxy.pass()
  })
})

test('a server that breaks the rules of a login ends the service in good order', async () => {
  const service = await start({ CONNECT_TIMEOUT: '0.5' })
  const api = createApi(service.url)
  const { lock, reads, writes } = await underWay(api)
  // The driver fails in a promise that it gives to nobody, so that nobody can catch it.
  proxy.babble(message('R', '\0\0\0\x0br=abc'))
  isUnchanged(await api.get('/products'))
  await service.logged('draining')
  await lock.release()
  for (const answer of [...(await reads), ...(await writes)]) {
    expect([200, 201]).toContain(answer.status)
  }
  expect(await service.exited).toEqual({ code: 1, signal: null })
})
