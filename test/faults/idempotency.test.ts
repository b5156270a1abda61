// An Idempotency-Key is for what nobody can know otherwise: whether a write whose answer was lost took effect.
import { beforeEach, expect, test } from 'vitest'
import { databaseUrl } from '../../src/config.ts'
import { createApi, expectProblem, product, type Response } from '../support/api.ts'
import { atTheEnd } from '../support/clean-up.ts'
import { connect, createDatabase, type TestDatabase } from '../support/database.ts'
import { type Proxy, startProxy } from '../support/proxy.ts'
import { startService } from '../support/service.ts'

const KEY = { 'idempotency-key': 'order-66' }

let database: TestDatabase
let proxy: Proxy

beforeEach(async () => {
  database = await createDatabase()
  proxy = await startProxy(database.address)
})

const rows = () => database.sql<{ id: number }[]>`select id::int from products`

/** The answer that nobody has seen yet, held against what a reader sees. */
async function expectFirstAnswer(answer: Response, get: (path: string) => Promise<Response>) {
  expect(answer.status, answer.text).toBe(201)
  expect(answer.headers['idempotency-replayed']).toBe('true')
  const [row, ...others] = await rows()
  expect(others).toEqual([])
  expect(answer.headers['location']).toBe(`/products/${row!.id}`)
  expect(answer.text).toBe((await get(`/products/${row!.id}`)).text)
}

test('killed between commit and answer, sent again: the first answer, one row', async () => {
  const service = await startService({ DATABASE_URL: databaseUrl(proxy.address) })
  const body = product()
  proxy.loseAnswerTo(body.sku) // it is in the statement's parameter
  const lost = createApi(service.url)
    .post('/products', body, KEY)
    .catch((error: unknown) => error)
  await expect.poll(async () => (await rows()).length).toBe(1)
  await service.stop('SIGKILL')
  expect(await lost).toBeInstanceOf(Error)

  const next = createApi((await startService({ DATABASE_URL: database.url })).url)
  await expectFirstAnswer(await next.post('/products', body, KEY), next.get)
  expect((await next.post('/products', product(), KEY)).status).toBe(422)
})

test('an outcome that is not known is known by sending it again', async () => {
  const service = await startService({
    DATABASE_URL: databaseUrl(proxy.address),
    STATEMENT_TIMEOUT: '1',
  })
  const api = createApi(service.url)
  const body = product()
  proxy.loseAnswerTo(body.sku) // it is in the statement's parameter
  const unknown = expectProblem(await api.post('/products', body, KEY), 504, 'timeout')
  expect(unknown.detail).toContain('not known')
  const again = createApi((await startService({ DATABASE_URL: database.url })).url)
  await expectFirstAnswer(await again.post('/products', body, KEY), again.get)
})

test('a commit that was never sent leaves the key free', async () => {
  const service = await startService({ DATABASE_URL: databaseUrl(proxy.address) })
  const api = createApi(service.url)
  const body = [product()]
  proxy.loseAnswerTo('savepoint work')
  const lost = api.post('/products/bulk', body, KEY).catch((error: unknown) => error)
  const open = () => database.sql`
    select from pg_stat_activity
    where datname = current_database() and application_name = 'larder'
      and state = 'idle in transaction'`
  await expect.poll(async () => (await open()).length).toBe(1)
  await service.stop('SIGKILL')
  expect(await lost).toBeInstanceOf(Error)

  const next = createApi((await startService({ DATABASE_URL: database.url })).url)
  const answer = await next.post('/products/bulk', body, KEY)
  expect(answer.status, answer.text).toBe(200)
  expect(answer.headers).not.toHaveProperty('idempotency-replayed')
  expect(await rows()).toHaveLength(1)
})

test('a limit of statements that is shorter than the wait for a twin: the same answer', async () => {
  const service = await startService({ DATABASE_URL: database.url, STATEMENT_TIMEOUT: '1' })
  const api = createApi(service.url)
  const twin = connect(database.owner)
  atTheEnd(() => twin.end())
  await twin`begin`
  await twin`insert into idempotency_keys (caller, key) values ('', ${KEY['idempotency-key']})`
  const body = product()
  // The second time the statement is one that its connection knows, and is sent in another way.
  for (let n = 0; n < 2; n++) {
    const refused = await api.post('/products', body, KEY)
    expectProblem(refused, 409, 'conflict')
    expect(refused.headers).toHaveProperty('retry-after')
  }
  await twin`rollback`
  expect((await api.post('/products', body, KEY)).status).toBe(201)
})
