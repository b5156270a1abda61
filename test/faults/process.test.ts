// What happens to the process itself: no files left, nobody who reads its log, stopped, killed, frozen.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { freePort } from '../../src/cli/embedded-postgres.ts'
import { databaseUrl } from '../../src/config.ts'
import { createApi, expectProblem, product, ownPage, largeProduct } from '../support/api.ts'
import { atTheEnd } from '../support/clean-up.ts'
import { backends, createDatabase, killBackends } from '../support/database.ts'
import { environment } from '../support/environment.ts'
import { startService } from '../support/service.ts'
import { INSPECTABLE } from '../support/vitals.ts'
import { timeToNormal, withstand } from '../support/withstand.ts'

/** A command that lets what it becomes open so many files. */
const withFiles = (count: number) => ['/bin/sh', '-c', `ulimit -n ${count} && exec "$0" "$@"`]

test('no file descriptors left', async () => {
  const database = await createDatabase()
  const settings = { DATABASE_URL: database.url, ...INSPECTABLE }
  const service = await startService(settings, withFiles(96))
  await withstand({ service, database }, { rounds: 5, normalWithinMs: 1000 }, async (api) => {
    await killBackends(database)
    const lines = service.log.length
    // More than there is room for: some connect, and those have no room for the database.
    const requests = Array.from({ length: 200 }, () => api.get(ownPage()))
    const outcomes = await Promise.allSettled(requests)
    const answers = outcomes.filter((outcome) => outcome.status === 'fulfilled')
    expect(answers.length).toBeGreaterThan(0)
    for (const { value } of answers) {
      if (value.status === 200) continue
      expect(expectProblem(value, 503, 'unavailable').detail).toContain('Nothing was changed')
    }
    await api.close() // until they leave, their connections hold what there is
    // One line for each answer, and no flood besides.
    expect(service.log.length - lines).toBeLessThanOrEqual(2 * answers.length)
  })
})

test('a name that is not known any more, and known again', async () => {
  const database = await createDatabase()
  const folder = await mkdtemp(join(tmpdir(), 'larder-names-'))
  atTheEnd(() => rm(folder, { recursive: true }))
  const hosts = join(folder, 'hosts')
  const resolver = join(folder, 'resolv.conf')
  await writeFile(hosts, '127.0.0.1 larder-database\n')
  await writeFile(resolver, 'nameserver 127.0.0.1\noptions timeout:1 attempts:1\n') // nobody there
  // In a namespace of its own, so that the names of the machine stay as they are.
  const names = `mount --bind ${hosts} /etc/hosts && mount --bind ${resolver} /etc/resolv.conf`
  const within = ['unshare', '-rm', '/bin/sh', '-c', `${names} && exec "$0" "$@"`]
  const url = databaseUrl({ ...database.address, host: 'larder-database' })
  const service = await startService({ DATABASE_URL: url, ...INSPECTABLE }, within)
  await withstand({ service, database }, { rounds: 5, normalWithinMs: 1000 }, async (api) => {
    await writeFile(hosts, '')
    // What is connected goes on.
    expect((await api.get('/products')).status).toBe(200)
    await killBackends(database)
    const answers = await Promise.all([
      ...Array.from({ length: 5 }, () => api.get(ownPage())),
      ...Array.from({ length: 5 }, () => api.post('/products', largeProduct())),
    ])
    for (const answer of answers) {
      expect(expectProblem(answer, 503, 'unavailable').detail).toContain('Nothing was changed')
    }
    await writeFile(hosts, '127.0.0.1 larder-database\n')
  })
})

test('a service that is frozen in the middle of its requests goes on with them', async () => {
  const database = await createDatabase()
  const service = await startService({ DATABASE_URL: database.url, ...INSPECTABLE })
  await withstand({ service, database }, { rounds: 4, normalWithinMs: 1000 }, async (api) => {
    const requests = Array.from({ length: 20 }, () => api.post('/products', largeProduct()))
    service.process.kill('SIGSTOP')
    await new Promise((resolve) => setTimeout(resolve, 1500))
    service.process.kill('SIGCONT')
    for (const { status } of await Promise.all(requests)) expect(status).toBe(201)
  })
})

test('a transaction that the server ends, for its client is too slow', async () => {
  const database = await createDatabase()
  await database.sql.unsafe(`
    create function be_impatient() returns trigger language plpgsql as $$ begin
      perform set_config('idle_in_transaction_session_timeout', '200', false);
      return null;
    end $$;
    create trigger impatience after insert on products execute function be_impatient()`)
  const service = await startService({ DATABASE_URL: database.url, ...INSPECTABLE })
  const open = () => database.sql`
    select from pg_stat_activity
    where datname = current_database() and application_name = 'larder' and backend_xid is not null`
  await withstand({ service, database }, { rounds: 5, normalWithinMs: 1000 }, async (api) => {
    async function* rows() {
      for (let n = 0; n < 600; n++) yield `${JSON.stringify(product())}\n`
      await expect.poll(async () => (await open()).length).toBe(1)
      await expect.poll(async () => (await open()).length).toBe(0)
      yield `${JSON.stringify(product())}\n`
    }
    const headers = { 'content-type': 'application/x-ndjson' }
    const answer = await api.request('POST', '/products/import', { body: rows(), headers })
    expectProblem(answer, 503, 'unavailable')
    expect((await database.sql`select from products`).length).toBe(0)
  })
})

test.for([
  ['standard output', ['ignore', 'pipe', 'ignore']],
  ['both outputs', ['ignore', 'pipe', 'pipe']],
] as const)('a log that lost its reader (%s) holds nothing up', async ([, stdio]) => {
  const database = await createDatabase()
  const port = await freePort()
  const child = spawn(process.execPath, [join(import.meta.dirname, '../../src/node.ts')], {
    ...environment({ DATABASE_URL: database.url, HOST: '127.0.0.1', PORT: String(port) }),
    stdio: [...stdio],
  })
  atTheEnd(async () => child.kill('SIGKILL'))
  await once(child.stdout!, 'data')
  child.stdout!.destroy()
  child.stderr?.destroy()
  const url = `http://127.0.0.1:${port}`
  const api = createApi(url)
  await expect
    .poll(() =>
      api.get('/health').then(
        ({ status }) => status,
        () => 0,
      ),
    )
    .toBe(200)
  await timeToNormal(url)
  for (let n = 0; n < 10; n++) {
    const answers = await Promise.all(Array.from({ length: 50 }, () => api.get('/products/0')))
    for (const { status } of answers) expect(status).toBe(422)
  }
  const start = performance.now()
  child.kill('SIGTERM')
  expect(await once(child, 'exit')).toEqual([0, null])
  expect(performance.now() - start).toBeLessThan(3000)
})

test.for(['SIGTERM', 'SIGKILL'] as const)(
  '%s under load and a new start, twice in a row',
  async (signal) => {
    const database = await createDatabase()
    const port = await freePort()
    const settings = { DATABASE_URL: database.url, PORT: String(port) }
    let acknowledged = 0
    let last = 0
    for (let round = 0; round < 2; round++) {
      const service = await startService(settings)
      await timeToNormal(service.url)
      let over = false
      const client = async () => {
        const api = createApi(service.url)
        while (!over) {
          const answer = await api.post('/products', product()).catch(() => undefined)
          if (answer?.status === 201) acknowledged++
          // What was taken is answered: nothing but 201, or no answer at all.
          if (answer) expect(answer.status, answer.text).toBe(201)
          else if (signal === 'SIGTERM') return
        }
      }
      const clients = Promise.all(Array.from({ length: 20 }, client))
      const enough = acknowledged + 100
      await expect.poll(() => acknowledged).toBeGreaterThan(enough)
      const code = await service.stop(signal)
      expect(code).toBe(signal === 'SIGTERM' ? 0 : null)
      over = true
      await clients
      // The server notices by itself that its client is gone.
      await expect.poll(() => backends(database), { timeout: 3000 }).toBe(0)
      const [row] = await database.sql<{ count: number }[]>`select count(*)::int from products`
      const stored = row!.count
      // Of those that a kill left without an answer, each may be there or not.
      expect(stored).toBeGreaterThanOrEqual(acknowledged)
      expect(stored).toBeLessThanOrEqual(
        signal === 'SIGTERM' ? acknowledged : acknowledged + 20 * (round + 1),
      )
      expect(stored).toBeGreaterThan(last)
      last = stored
    }
  },
)

test('an import whose service is killed leaves nothing, and nobody waits for it', async () => {
  const database = await createDatabase()
  for (let round = 0; round < 3; round++) {
    const service = await startService({ DATABASE_URL: database.url })
    async function* rows() {
      for (let n = 0; n < 2000; n++) yield `${JSON.stringify(product({ sku: `IMPORT-${n}` }))}\n`
      await new Promise((resolve) => setTimeout(resolve, 60_000).unref())
    }
    const importing = createApi(service.url).request('POST', '/products/import', {
      body: rows(),
      headers: { 'content-type': 'application/x-ndjson' },
    })
    importing.catch(() => {})
    const open = () => database.sql`
      select from pg_stat_activity
      where datname = current_database() and application_name = 'larder'
        and state = 'idle in transaction' and backend_xid is not null`
    await expect.poll(async () => (await open()).length).toBe(1)
    await service.stop('SIGKILL')
    const start = performance.now()
    await expect(importing).rejects.toThrow()
    const next = createApi((await startService({ DATABASE_URL: database.url })).url)
    // Would wait for the import if its transaction were there still.
    const taken = await next.post('/products', product({ sku: 'IMPORT-7' }))
    expect(taken.status).toBe(201)
    expect(performance.now() - start).toBeLessThan(10_000)
    expect((await next.get('/products')).body.items).toHaveLength(1)
    expect((await next.delete(`/products/${taken.body.id}`)).status).toBe(204)
  }
})
