// A stop answers what was taken, leaves no connection behind, and can be forced.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { connect } from 'node:net'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { freePort } from '../../src/cli/embedded-postgres.ts'
import { databaseUrl } from '../../src/config.ts'
import { createApi, product } from '../support/api.ts'
import { atTheEnd } from '../support/clean-up.ts'
import { backends, blocked, createDatabase, lockTable } from '../support/database.ts'
import { bare, environment } from '../support/environment.ts'
import type { LogLine } from '../support/process.ts'
import { startProxy } from '../support/proxy.ts'
import { spawnService, startService } from '../support/service.ts'

test('SIGTERM under fifty clients: every request taken is answered whole, exit code 0', async () => {
  const database = await createDatabase()
  const service = await startService({ DATABASE_URL: database.url })
  let stopping = false
  let created = 0
  const unexpected: unknown[] = []
  const clients = Array.from({ length: 50 }, async () => {
    const api = createApi(service.url)
    for (;;) {
      try {
        const answer = await api.post('/products', product())
        if (answer.status !== 201 || answer.body === undefined) unexpected.push(answer)
        created++
        if (answer.headers['connection'] === 'close') return
      } catch (error) {
        // A new connection is refused, a kept one that was idle is closed: neither request was taken.
        const { code } = error as NodeJS.ErrnoException
        if (!stopping || (code !== 'ECONNREFUSED' && code !== 'ECONNRESET')) unexpected.push(error)
        return
      }
    }
  })
  await expect.poll(() => created).toBeGreaterThan(200)
  stopping = true
  expect(await service.stop('SIGTERM')).toBe(0)
  await Promise.all(clients)
  expect(unexpected).toEqual([])
  expect(await backends(database)).toBe(0)
  const [row] = await database.sql`select count(*)::int as n from products`
  expect(row!['n']).toBe(created)
})

test('a request that waits for its answer gets it, a new connection is refused', async () => {
  const database = await createDatabase()
  const service = await startService({ DATABASE_URL: database.url })
  const api = createApi(service.url)
  const lock = await lockTable(database)
  const write = api.post('/products', product())
  await expect.poll(() => blocked(database)).toBe(1)
  service.process.kill('SIGTERM')
  await service.logged('draining')
  await expect(createApi(service.url).get('/health')).rejects.toThrow('ECONNREFUSED')
  await lock.release()
  const answer = await write
  expect(answer.status).toBe(201)
  expect(answer.headers['connection']).toBe('close')
  expect(await service.exited).toEqual({ code: 0, signal: null })
  expect(await backends(database)).toBe(0)
})

test('a client that leaves while the service drains was not cut off by it: exit code 0', async () => {
  const database = await createDatabase()
  const service = await startService({ DATABASE_URL: database.url })
  const lock = await lockTable(database)
  const socket = connect(Number(new URL(service.url).port), '127.0.0.1')
  socket.on('error', () => {}).write('DELETE /products/1 HTTP/1.1\r\nHost: larder\r\n\r\n')
  await expect.poll(() => blocked(database)).toBe(1)
  service.process.kill('SIGTERM')
  await service.logged('draining')
  socket.destroy()
  expect(await service.exited).toEqual({ code: 0, signal: null })
  await lock.release()
})

test('while it drains, /ready says so on a connection that is still there', async () => {
  const database = await createDatabase()
  const service = await startService({ DATABASE_URL: database.url })
  const api = createApi(service.url)
  const lock = await lockTable(database)
  const write = api.post('/products', product())
  await expect.poll(() => blocked(database)).toBe(1)

  const socket = connect(Number(new URL(service.url).port), '127.0.0.1')
  let received = ''
  socket.on('data', (data) => (received += data.toString()))
  // A request that is still on its way when the signal comes keeps its connection.
  socket.write('GET /ready HTTP/1.1\r\nHost: larder\r\n')
  await new Promise((resolve) => setTimeout(resolve, 200))
  service.process.kill('SIGTERM')
  await service.logged('draining')
  socket.write('\r\n')
  await expect.poll(() => received).toContain('draining')
  expect(received).toMatch(/^HTTP\/1.1 503 /)
  expect(received).toMatch(/connection: close/i)

  await lock.release()
  expect((await write).status).toBe(201)
  expect((await service.exited).code).toBe(0)
})

test('a client that reads slowly gets its answer whole, and then does not hold the stop up', async () => {
  const database = await createDatabase()
  // Some 4.6 MB, more than the buffers of the system hold: what the service has not sent, it must keep.
  await database.sql`
    insert into products (name, price, description, attributes)
    select 'large', 1, repeat(chr(1), 5000), jsonb_build_object('text', repeat('x', 16000))
    from generate_series(1, 100)`
  const service = await startService({ DATABASE_URL: database.url })
  const socket = connect(Number(new URL(service.url).port), '127.0.0.1')
  socket.write('GET /products?limit=100 HTTP/1.1\r\nHost: larder\r\n\r\n')
  await once(socket, 'readable') // the answer has begun, and nobody reads on
  await new Promise((resolve) => setTimeout(resolve, 300))
  service.process.kill('SIGTERM')
  await service.logged('draining')
  // Longer than the drain gives those who are owed nothing.
  await new Promise((resolve) => setTimeout(resolve, 1300))
  expect(service.process.exitCode).toBe(null)
  let received = 0
  let head = ''
  socket.on('data', (data) => {
    if (received === 0) head = data.toString('latin1').split('\r\n\r\n')[0]!
    received += data.length
  })
  const start = performance.now()
  expect(await service.exited).toEqual({ code: 0, signal: null })
  expect(performance.now() - start).toBeLessThan(5000)
  const length = Number(/content-length: (\d+)/i.exec(head)![1])
  expect(length).toBeGreaterThan(4_500_000)
  expect(received).toBe(head.length + 4 + length)
})

test.for([
  ['has sent nothing', '', 500],
  ['is kept alive', 'GET /health HTTP/1.1\r\nHost: larder\r\n\r\n', 500],
  ['has sent half a header', 'GET /health HTTP/1.1\r\nHost: lar', 2000],
  [
    'has sent half a body',
    'POST /products HTTP/1.1\r\nHost: larder\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{',
    undefined,
  ],
] as const)('a connection that %s does not hold the stop up', async ([, bytes, limitMs]) => {
  const database = await createDatabase()
  const service = await startService({ DATABASE_URL: database.url, SHUTDOWN_TIMEOUT: '3' })
  const socket = connect(Number(new URL(service.url).port), '127.0.0.1')
  await once(socket, 'connect')
  socket.on('error', () => {}).resume()
  if (bytes) socket.write(bytes)
  await new Promise((resolve) => setTimeout(resolve, 300))
  const start = performance.now()
  const code = await service.stop('SIGTERM')
  // A request that has begun is one that was taken: it is waited for, then cut off.
  expect(code).toBe(limitMs === undefined ? 1 : 0)
  expect(performance.now() - start).toBeLessThan(limitMs ?? 4500)
})

/** The service with its standard output in a pipe that is read when the test wants it. */
async function startUnread() {
  const database = await createDatabase()
  const port = await freePort()
  const door = join(import.meta.dirname, '../../src/node.ts')
  const child = spawn(process.execPath, [door], {
    ...environment({ DATABASE_URL: database.url, HOST: '127.0.0.1', PORT: String(port) }),
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const exited = once(child, 'close')
  atTheEnd(async () => child.kill('SIGKILL'))
  const api = createApi(`http://127.0.0.1:${port}`)
  const status = () =>
    api.get('/health').then(
      (answer) => answer.status,
      () => 0,
    )
  await expect.poll(status).toBe(200)
  // Some 400 kB of log, more than a pipe holds.
  for (let i = 0; i < 25; i++) {
    await Promise.all(Array.from({ length: 100 }, () => api.get('/products/0')))
  }
  return { child, exited }
}

test('a log that nobody reads holds up neither the stop nor a second signal', async () => {
  const first = await startUnread()
  first.child.kill('SIGTERM')
  expect(await once(first.child, 'exit')).toEqual([0, null])

  const second = await startUnread()
  second.child.kill('SIGTERM')
  second.child.kill('SIGTERM')
  expect(await once(second.child, 'exit')).toEqual([0, null])
})

test('all that was logged before a stop is written, when it is read late, too', async () => {
  const { child, exited } = await startUnread()
  child.kill('SIGTERM')
  await new Promise((resolve) => setTimeout(resolve, 200))
  let output = ''
  child.stdout.on('data', (data: Buffer) => (output += data.toString()))
  expect(await exited).toEqual([0, null])
  const lines = output
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as LogLine)
  expect(lines.filter((line) => line['path'] === '/products/0')).toHaveLength(2500)
  expect(lines.slice(-2).map((line) => line['msg'])).toEqual(['draining', 'stopped'])
})

test('requests that take longer than SHUTDOWN_TIMEOUT are cut off, exit code 1', async () => {
  const database = await createDatabase()
  const service = await startService({ DATABASE_URL: database.url, SHUTDOWN_TIMEOUT: '0.5' })
  await lockTable(database)
  const write = createApi(service.url).post('/products', product())
  write.catch(() => {})
  await expect.poll(() => blocked(database)).toBe(1)
  const start = performance.now()
  expect(await service.stop('SIGTERM')).toBe(1)
  expect(performance.now() - start).toBeGreaterThan(450)
  expect(performance.now() - start).toBeLessThan(2500)
  await expect(write).rejects.toThrow()
})

test('a second signal ends it at once; one press that arrives twice is one', async () => {
  const database = await createDatabase()
  const service = await startService({ DATABASE_URL: database.url })
  await lockTable(database)
  const write = createApi(service.url).post('/products', product())
  write.catch(() => {})
  await expect.poll(() => blocked(database)).toBe(1)
  service.process.kill('SIGINT')
  service.process.kill('SIGINT')
  await service.logged('draining')
  await new Promise((resolve) => setTimeout(resolve, 1100))
  expect(service.process.exitCode).toBe(null)
  const start = performance.now()
  expect(await service.stop('SIGINT')).toBe(1)
  expect(performance.now() - start).toBeLessThan(500)
})

test('a fault that nothing handled is logged, the requests in flight are answered, exit code 1', async () => {
  const database = await createDatabase()
  const fault = 'process.on("SIGUSR2", () => { throw new Error("out of the blue") })'
  const service = await startService({
    DATABASE_URL: database.url,
    NODE_OPTIONS: `${bare['NODE_OPTIONS'] ?? ''} --import data:text/javascript,${encodeURIComponent(fault)}`,
  })
  const lock = await lockTable(database)
  const write = createApi(service.url).post('/products', product())
  await expect.poll(() => blocked(database)).toBe(1)
  service.process.kill('SIGUSR2')
  expect(await service.logged('a fault that nothing handled: stopping')).toMatchObject({
    level: 'fatal',
    error: { message: 'out of the blue' },
  })
  await lock.release()
  expect((await write).status).toBe(201)
  expect(await service.exited).toEqual({ code: 1, signal: null })
  expect(await backends(database)).toBe(0)
})

test('a signal during a start that still waits for its database ends it', async () => {
  const service = spawnService({ DATABASE_URL: 'postgres://u:p@127.0.0.1:1/d' })
  await service.logged('the database does not answer yet')
  const start = performance.now()
  expect(await service.stop('SIGTERM')).toBe(0)
  expect(performance.now() - start).toBeLessThan(1500)
})

test.for([
  ['says nothing', false],
  ['answers after the signal', true],
])('a signal while an attempt waits for a server that %s ends it', async ([, answers]) => {
  const database = await createDatabase()
  const proxy = await startProxy(database.address)
  proxy.silence()
  // The last attempt: its failure would end the start.
  const settings = { DATABASE_URL: databaseUrl(proxy.address), CONNECT_MAX_RETRIES: '1' }
  const service = spawnService(settings)
  await expect.poll(() => proxy.open()).toBe(1)
  const start = performance.now()
  service.process.kill('SIGTERM')
  if (answers) await proxy.pass()
  expect(await service.exited).toEqual({ code: 0, signal: null })
  expect(performance.now() - start).toBeLessThan(1500)
  expect(service.output()).not.toContain('cannot start')
})

test('npm start passes the signal on and waits for the drain', async () => {
  const database = await createDatabase()
  const npm = spawn('npm', ['start'], {
    cwd: join(import.meta.dirname, '../..'),
    env: { ...process.env, DATABASE_URL: database.url, HOST: '127.0.0.1', PORT: '0' },
    stdio: ['ignore', 'pipe', 'inherit'],
    detached: true,
  })
  atTheEnd(async () => {
    if (npm.exitCode === null) process.kill(-npm.pid!, 'SIGKILL')
  })
  let output = ''
  npm.stdout.on('data', (data: Buffer) => (output += data.toString()))
  const exited = once(npm, 'close')
  await expect.poll(() => output).toContain('"listening"')
  npm.kill('SIGTERM')
  await exited
  expect(output).toContain('"stopped"')
  expect(await backends(database)).toBe(0)
})
