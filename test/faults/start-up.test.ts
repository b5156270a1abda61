// A start succeeds only when it is right, waits where waiting helps, and says what is wrong.
import { createServer } from 'node:net'
import { once } from 'node:events'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { spawn } from 'node:child_process'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { createApi, expectProblem } from '../support/api.ts'
import { atTheEnd } from '../support/clean-up.ts'
import { createDatabase } from '../support/database.ts'
import { bare } from '../support/environment.ts'
import { makeKey } from '../support/keys.ts'
import { run } from '../support/process.ts'
import { startProxy } from '../support/proxy.ts'
import { runService, spawnService, startService } from '../support/service.ts'
import { databaseUrl } from '../../src/config.ts'
import { migrations } from '../../src/database/migrations.ts'

const quick = { CONNECT_RETRY_DELAY: '0.05' }

/** What the service wrote last. */
const lastLine = (output: string) => output.trimEnd().split('\n').at(-1)!

test('without settings one message names what is missing, exit code 1', async () => {
  const { code, output } = await runService({})
  expect(code).toBe(1)
  expect(output).toBe(
    'the settings are not complete:\n' +
      '  POSTGRES_USER is required\n  POSTGRES_PASSWORD is required\n  POSTGRES_DB is required\n',
  )
})

test('without a server: five attempts two seconds apart, exit code 1, the cause in the last line', async () => {
  const database = await createDatabase()
  const proxy = await startProxy(database.address)
  proxy.refuse()
  const { code, output, log, durationMs } = await runService({
    DATABASE_URL: databaseUrl(proxy.address),
  })
  expect(code).toBe(1)
  expect(log.map((line) => line['level'])).toEqual(['warn', 'warn', 'warn', 'warn', 'fatal'])
  expect(log.slice(0, 4).map((line) => line['attempt'])).toEqual([1, 2, 3, 4])
  expect(lastLine(output)).toContain('ECONNREFUSED')
  expect(durationMs).toBeGreaterThan(8000)
  expect(durationMs).toBeLessThan(12_000)
  const times = log.map((line) => Date.parse(String(line['time'])))
  for (let i = 1; i < times.length; i++) {
    expect(times[i]! - times[i - 1]!).toBeGreaterThan(1950)
    expect(times[i]! - times[i - 1]!).toBeLessThan(2700)
  }
})

test('a server that comes up three seconds late is waited for', async () => {
  const database = await createDatabase()
  const proxy = await startProxy(database.address)
  proxy.refuse()
  const late = new Promise((resolve) => setTimeout(resolve, 3000)).then(() => proxy.pass())
  const service = await startService({ DATABASE_URL: databaseUrl(proxy.address) })
  await late
  expect((await createApi(service.url).get('/products')).status).toBe(200)
  expect(service.log.find((line) => line['msg'] === 'database ready')).toMatchObject({
    version: expect.stringMatching(/^PostgreSQL \d+/),
  })
})

test('nothing listens before the database has answered', async () => {
  const database = await createDatabase()
  const proxy = await startProxy(database.address)
  proxy.silence()
  const probe = createServer().listen(0, '127.0.0.1')
  await once(probe, 'listening')
  const { port } = probe.address() as { port: number }
  probe.close()
  const service = spawnService({ DATABASE_URL: databaseUrl(proxy.address), PORT: String(port) })
  const health = () => fetch(`http://127.0.0.1:${port}/health`).then((answer) => answer.status)
  await expect.poll(() => proxy.open()).toBe(1)
  await expect(health()).rejects.toThrow()
  await proxy.pass()
  await service.logged('listening')
  expect(await health()).toBe(200)
})

test.for([
  ['a wrong password', { POSTGRES_PASSWORD: 'not-the-s3cr3t' }, '28P01'],
  ['an unknown database', { POSTGRES_DB: 'nowhere' }, '3D000'],
  ['an unknown user', { POSTGRES_USER: 'nobody-here' }, '28'],
  ['a server without TLS', { POSTGRES_SSLMODE: 'require' }, 'TLS'],
] as const)('%s ends the start at once, without the secret', async ([, wrong, sign]) => {
  const { address } = await createDatabase()
  const { code, output, log, durationMs } = await runService({
    POSTGRES_HOST: address.host,
    POSTGRES_PORT: String(address.port),
    POSTGRES_USER: address.user,
    POSTGRES_PASSWORD: address.password,
    POSTGRES_DB: address.database,
    CONNECT_RETRY_DELAY: '10',
    ...wrong,
  })
  expect(code).toBe(1)
  expect(log).toHaveLength(1)
  expect(log[0]).toMatchObject({ level: 'fatal' })
  expect(lastLine(output)).toContain(sign)
  expect(durationMs).toBeLessThan(5000)
  expect(output).not.toContain('s3cr3t')
  expect(output).not.toContain(`:${address.password}@`)
})

test('a host that is not in the DNS yet is waited for', async () => {
  const { code, log } = await runService({
    ...quick,
    CONNECT_MAX_RETRIES: '3',
    DATABASE_URL: 'postgres://u:p@db.invalid/d',
  })
  expect(code).toBe(1)
  expect(log.map((line) => line['level'])).toEqual(['warn', 'warn', 'fatal'])
  expect(JSON.stringify(log.at(-1))).toMatch(/ENOTFOUND|EAI_AGAIN/)
})

test('a server that hangs up on everybody is waited for, and asked once an attempt', async () => {
  let connections = 0
  const server = createServer((socket) => {
    connections++
    socket.on('error', () => {}).end()
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  atTheEnd(async () => server.close())
  const { port } = server.address() as { port: number }
  const { code, durationMs } = await runService({
    ...quick,
    CONNECT_MAX_RETRIES: '3',
    DATABASE_URL: `postgres://u:p@127.0.0.1:${port}/d`,
  })
  expect(code).toBe(1)
  expect(connections).toBe(3)
  expect(durationMs).toBeLessThan(3000)
})

test('pending migrations are named, and keep the service from being ready', async () => {
  const database = await createDatabase({ empty: true })
  const service = await startService({ DATABASE_URL: database.url })
  expect(await service.logged('migrations are pending: npm run migrate -- upgrade')).toMatchObject({
    level: 'warn',
    pending: migrations,
  })
  const api = createApi(service.url)
  const problem = expectProblem(await api.get('/ready'), 503, 'unavailable')
  expect(problem.detail).toContain(migrations[0])
  expect((await api.get('/health')).status).toBe(200)
  expectProblem(await api.get('/products'), 500, 'internal')
})

test('a port that is taken ends the start', async () => {
  const database = await createDatabase()
  const service = await startService({ DATABASE_URL: database.url })
  const { port } = new URL(service.url)
  const second = await runService({ DATABASE_URL: database.url, PORT: port })
  expect(second.code).toBe(1)
  expect(lastLine(second.output)).toContain('EADDRINUSE')
})

test('passwords and names may have any character', async () => {
  const database = await createDatabase({ name: 'a b/c%41?ü' })
  const password = `p@ss/w:rd?#%25 "ü'`
  const role = `r@le ${database.address.database}`
  const { sql } = database
  await sql.unsafe(
    `create role "${role}" superuser login password '${password.replace(`'`, `''`)}'`,
  )
  atTheEnd(async () => void (await sql.unsafe(`drop role "${role}"`)))
  const settings = {
    POSTGRES_HOST: database.address.host,
    POSTGRES_PORT: String(database.address.port),
    POSTGRES_USER: role,
    POSTGRES_PASSWORD: password,
    POSTGRES_DB: database.address.database,
  }
  const byParts = await startService(settings)
  expect((await createApi(byParts.url).get('/products')).status).toBe(200)
  const url = databaseUrl({ ...database.address, user: role, password })
  const byUrl = await startService({ DATABASE_URL: url })
  expect((await createApi(byUrl.url).get('/products')).status).toBe(200)
  expect(byParts.output() + byUrl.output()).not.toContain(password)
})

test('the service, the migrations and the products to see it with take their secrets from files', async () => {
  const { address, owner } = await createDatabase()
  const folder = await mkdtemp(join(tmpdir(), 'larder-secrets-'))
  atTheEnd(() => rm(folder, { recursive: true }))
  const secret = async (name: string, text: string) => {
    await writeFile(join(folder, name), `${text}\n`)
    return join(folder, name)
  }
  const { entry, headers } = makeKey('ci', 'read')
  const settings = {
    POSTGRES_HOST: address.host,
    POSTGRES_PORT: String(address.port),
    POSTGRES_DB: address.database,
    POSTGRES_USER_FILE: await secret('user', address.user),
    POSTGRES_PASSWORD_FILE: await secret('password', address.password),
    API_KEYS_FILE: await secret('keys', entry),
  }
  const api = createApi((await startService(settings)).url)
  expect((await api.get('/products')).status).toBe(401)
  expect((await api.get('/products', headers)).status).toBe(200)

  const asOwner = {
    ...settings,
    POSTGRES_OWNER: owner.user,
    POSTGRES_OWNER_PASSWORD_FILE: await secret('owner', owner.password),
  }
  const command = async (file: string, ...parameters: string[]) => {
    const path = join(import.meta.dirname, '../../src/cli', file)
    const { exited, output } = run([path, ...parameters], asOwner, 'SIGKILL')
    expect((await exited).code, output()).toBe(0)
  }
  await command('migrate.ts', 'upgrade')
  await command('seed.ts', '5')
  expect((await api.get('/products?count=exact', headers)).body.total).toBe(5)

  const { code, output } = await runService({
    ...settings,
    POSTGRES_PASSWORD_FILE: join(folder, 's3cr3t'),
  })
  expect(code).toBe(1)
  expect(output).toBe(
    'the settings are not complete:\n  POSTGRES_PASSWORD_FILE names a file that cannot be read (ENOENT)\n',
  )
})

test("libpq's variables are no settings of the service", async () => {
  const database = await createDatabase()
  const service = await startService({
    DATABASE_URL: database.url,
    PGTARGETSESSIONATTRS: 'any',
    PGHOST: 'elsewhere.invalid',
    PGPASSWORD: 'another',
  })
  expect((await createApi(service.url).get('/products')).status).toBe(200)
})

test('a file .env fills in what the environment leaves out', async () => {
  const database = await createDatabase()
  const folder = await mkdtemp(join(tmpdir(), 'larder-env-'))
  atTheEnd(() => rm(folder, { recursive: true }))
  await writeFile(join(folder, '.env'), `DATABASE_URL="${database.url}"\nPORT=1\nHOST=127.0.0.1\n`)
  const child = spawn(process.execPath, [join(import.meta.dirname, '../../src/node.ts')], {
    cwd: folder,
    env: { ...bare, PORT: '0' },
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  atTheEnd(async () => child.kill('SIGKILL'))
  let output = ''
  child.stdout.on('data', (data: Buffer) => (output += data.toString()))
  await expect.poll(() => output, { timeout: 10_000 }).toContain('"listening"')
  expect(output).not.toContain('"port":1,')
})
