// The pool under load, as clients and operators see it: limits, time-outs, and quiet afterwards.
import { expect, test } from 'vitest'
import { createApi, expectProblem, ownPage } from '../support/api.ts'
import { backends, createDatabase, lockTable } from '../support/database.ts'
import { startService } from '../support/service.ts'

test('a locked table and forty readers: fifteen connections, the others 503 in time, five stay', async () => {
  const database = await createDatabase()
  const service = await startService({ DATABASE_URL: database.url, POOL_TIMEOUT: '1' })
  const api = createApi(service.url)
  const lock = await lockTable(database)
  let most = 0
  const watch = setInterval(() => {
    void backends(database).then((count) => (most = Math.max(most, count)))
  }, 20)

  const start = performance.now()
  const answers = Array.from({ length: 40 }, async () => {
    const answer = await api.get(ownPage())
    return { answer, afterMs: performance.now() - start }
  })
  let refused = 0
  for (const answer of answers) {
    void answer.then(({ answer }) => (refused += Number(answer.status === 503)))
  }
  await expect.poll(() => refused, { timeout: 5000 }).toBe(25)
  expect(await backends(database)).toBe(15)
  expect((await api.get('/health')).status).toBe(200)
  await lock.release()
  const all = await Promise.all(answers)
  clearInterval(watch)

  const late = all.filter(({ answer }) => answer.status === 503)
  expect(late).toHaveLength(25)
  for (const { answer, afterMs } of late) {
    expectProblem(answer, 503, 'unavailable')
    expect(afterMs).toBeGreaterThan(950)
    expect(afterMs).toBeLessThan(2500)
  }
  expect(all.filter(({ answer }) => answer.status === 200)).toHaveLength(15)
  expect(most).toBe(15)
  await expect.poll(() => backends(database)).toBe(5)
  expect(service.log.filter((line) => line['msg'] === 'request refused')).toHaveLength(25)
})

test('a waiter whose client goes away leaves the queue', async () => {
  const database = await createDatabase()
  const service = await startService({
    DATABASE_URL: database.url,
    POOL_SIZE: '1',
    POOL_MAX_OVERFLOW: '0',
    POOL_TIMEOUT: '10',
  })
  const api = createApi(service.url)
  const lock = await lockTable(database)
  const holder = api.get('/products')
  await expect.poll(() => backends(database)).toBe(1)
  const client = new AbortController()
  const gone = api.request('POST', '/products', {
    body: { name: 'never', price: 1 },
    signal: client.signal,
  })
  gone.catch(() => {})
  // The request has arrived when a later one on another connection has been answered.
  await new Promise((resolve) => setTimeout(resolve, 100))
  expect((await api.get('/health')).status).toBe(200)
  client.abort()
  await expect(gone).rejects.toThrow()
  await new Promise((resolve) => setTimeout(resolve, 100))
  await lock.release()
  expect((await holder).status).toBe(200)
  expect((await api.get('/products')).body.items).toEqual([])
  expect(service.log.filter((line) => line['msg'] === 'request refused')).toEqual([])
})

test('a statement past its limit is a 504, and the service goes on', async () => {
  const database = await createDatabase()
  const service = await startService({ DATABASE_URL: database.url, STATEMENT_TIMEOUT: '0.5' })
  const api = createApi(service.url)
  const lock = await lockTable(database)
  const start = performance.now()
  expectProblem(await api.get('/products'), 504, 'timeout')
  expect(performance.now() - start).toBeGreaterThan(450)
  expect(performance.now() - start).toBeLessThan(1500)
  await lock.release()
  expect((await api.get('/products')).status).toBe(200)
})
