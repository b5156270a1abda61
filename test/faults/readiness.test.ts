// Holds that a probe of /ready gets its answer while it still listens, whatever the database does.
import { expect, test } from 'vitest'
import { createApi, expectProblem } from '../support/api.ts'
import { createDatabase, lockTable } from '../support/database.ts'
import { databaseUrl } from '../../src/config.ts'
import { startProxy } from '../support/proxy.ts'
import { startService } from '../support/service.ts'

/** Two seconds are promised; on a busy machine it is a little more. */
const IN_TIME_MS = 4000

test('/ready is 503 within two seconds when the database is silent, and 200 when it is back', async () => {
  const database = await createDatabase()
  const proxy = await startProxy(database.address)
  const settings = { DATABASE_URL: databaseUrl(proxy.address) }
  const api = createApi((await startService(settings)).url)
  expect((await api.get('/ready')).status).toBe(200)
  proxy.silence()
  const start = performance.now()
  const { detail } = expectProblem(await api.get('/ready'), 503, 'unavailable')
  expect(performance.now() - start).toBeLessThan(IN_TIME_MS)
  expect(detail).toContain('did not answer within 2 s')
  expect((await api.get('/health')).status).toBe(200)
  await proxy.pass()
  await expect.poll(async () => (await api.get('/ready')).status).toBe(200)
})

test('/ready is 503 within two seconds when the migrations are locked, and 200 afterwards', async () => {
  const database = await createDatabase()
  const api = createApi((await startService({ DATABASE_URL: database.url })).url)
  const lock = await lockTable(database, 'pgmigrations')
  const start = performance.now()
  const { detail } = expectProblem(await api.get('/ready'), 503, 'unavailable')
  expect(performance.now() - start).toBeLessThan(IN_TIME_MS)
  expect(detail).toContain('did not answer within 2 s')
  await lock.release()
  await expect.poll(async () => (await api.get('/ready')).status).toBe(200)
})
