// Clients that send or read a byte a second, or stop: they are cut off in time, and nobody else notices.
import { connect, type Socket } from 'node:net'
import { expect, test } from 'vitest'
import { createApi, expectProblem } from '../support/api.ts'
import { atTheEnd } from '../support/clean-up.ts'
import { blocked, createDatabase, createServer, lockTable } from '../support/database.ts'
import { startService } from '../support/service.ts'

/** A connection of its own, all that came over it, and when it was closed. */
function open(url: string) {
  const start = performance.now()
  const socket = connect(Number(new URL(url).port), '127.0.0.1')
  atTheEnd(async () => socket.destroy())
  const seen = { text: '', closedAfterMs: undefined as number | undefined }
  socket
    .on('data', (data) => (seen.text += data.toString('latin1')))
    .on('error', () => {})
    .on('close', () => (seen.closedAfterMs = performance.now() - start))
  return { socket, seen }
}

/** Writes a byte a second for as long as anybody listens. */
function trickle(socket: Socket, byte: string) {
  const timer = setInterval(() => socket.write(byte), 1000)
  socket.on('close', () => clearInterval(timer))
}

const head = (path: string, more: string) =>
  `POST ${path} HTTP/1.1\r\nHost: larder\r\nContent-Type: application/json\r\n${more}\r\n\r\n`

test('what comes too slowly is answered with 408 or cut off, and others are served meanwhile', async () => {
  const database = await createDatabase()
  const service = await startService({ DATABASE_URL: database.url })
  const api = createApi(service.url)

  const bodies = [
    ['a body a byte a second', '/products', 'Content-Length: 1000', '{', true],
    ['a body that stops', '/products', 'Content-Length: 1000', '{"name":', false],
    ['a large body a byte a second', '/products/bulk', 'Content-Length: 1000000', '[', true],
    ['chunks a byte a second', '/products', 'Transfer-Encoding: chunked', '1\r\n{\r\n', true],
    ['chunks that stop', '/products/bulk', 'Transfer-Encoding: chunked', '1\r\n[\r\n', false],
  ] as const
  const slow = bodies.map(([name, path, header, bytes, goesOn]) => {
    const { socket, seen } = open(service.url)
    socket.write(head(path, header) + bytes)
    if (goesOn) trickle(socket, header.startsWith('T') ? '1\r\n \r\n' : ' ')
    return { name, seen }
  })
  const headers = open(service.url)
  headers.socket.write('GET /health HTTP/1.1\r\nHost: larder\r\nX-Slow: ')
  trickle(headers.socket, 'x')
  const silent = open(service.url)

  const others = setInterval(() => void api.get('/health'), 500)
  const closed = () => [...slow, headers, silent].every(({ seen }) => seen.closedAfterMs)
  await expect.poll(closed, { timeout: 30_000 }).toBe(true)
  clearInterval(others)
  for (const { name, seen } of slow) {
    expect(seen.text, name).toMatch(/^HTTP\/1\.1 408 .*"code":"request_timeout"/s)
    expect(seen.text, name).toMatch(/connection: close/i)
    expect(seen.closedAfterMs, name).toBeGreaterThan(9500)
    expect(seen.closedAfterMs, name).toBeLessThan(15_000)
  }
  expect(headers.seen.text).toMatch(/^HTTP\/1\.1 408 /)
  expect(headers.seen.closedAfterMs).toBeLessThan(15_000)
  expect(silent.seen.closedAfterMs).toBeLessThan(15_000)
  expect((await api.post('/products', { name: 'Quick', price: 1 })).status).toBe(201)
  expect(service.log.filter(({ level }) => level === 'error')).toEqual([])
})

test('a body at 16 KiB a second is taken, though it takes longer than others have', async () => {
  const database = await createDatabase()
  const service = await startService({ DATABASE_URL: database.url })
  const text = JSON.stringify([{ name: 'Slow', price: 1 }]).padEnd(360 * 1024)
  async function* slowly() {
    for (let at = 0; at < text.length; at += 24 * 1024) {
      yield text.slice(at, at + 24 * 1024)
      await new Promise((resolve) => setTimeout(resolve, 1000))
    }
  }
  const answer = await createApi(service.url).request('POST', '/products/bulk', {
    headers: { 'content-type': 'application/json' },
    body: slowly(),
  })
  expect(answer.status).toBe(200)
})

/** Takes nothing of what comes. */
function openDeaf(url: string, requests: string) {
  const reader = open(url)
  reader.socket.pause()
  reader.socket.write(requests)
  return reader
}

const get = (path: string) => `GET ${path} HTTP/1.1\r\nHost: larder\r\n\r\n`

test('clients that take no answers are cut off when memory is short, and then there is room', async () => {
  const database = await createDatabase()
  await database.sql`
    insert into products (name, price, description, attributes)
    select 'large', 1, repeat(chr(1), 5000), jsonb_build_object('text', repeat('x', 16000))
    from generate_series(1, 100)`
  const service = await startService({ DATABASE_URL: database.url, HTTP_MEMORY: '16' })
  const api = createApi(service.url)
  // Each page is some 4.6 MB, and the buffers of the system hold the first of each.
  const deaf = Array.from({ length: 8 }, () =>
    openDeaf(service.url, get('/products?limit=100').repeat(4)),
  )
  const status = async () => (await api.get('/products/1')).status
  await expect.poll(status).toBe(503)
  expect((await api.get('/health')).status).toBe(200)
  await expect.poll(status, { timeout: 30_000 }).toBe(200)
  expect((await api.get('/products?limit=100')).body.items).toHaveLength(100)
  for (const { socket } of deaf) socket.resume() // a socket tells of its end when it is read to it
  const isCut = ({ seen }: (typeof deaf)[0]) => seen.closedAfterMs !== undefined
  await expect.poll(() => deaf.filter(isCut).length).toBeGreaterThan(0)
})

test('an answer that waits behind a slow one is not taken for one that nobody takes', async () => {
  const database = await createDatabase()
  const service = await startService({ DATABASE_URL: database.url })
  const lock = await lockTable(database)
  const { socket, seen } = open(service.url)
  socket.write(get('/products') + get('/health'))
  await expect.poll(() => blocked(database)).toBe(1)
  // Longer than an answer as small may lie there.
  await new Promise((resolve) => setTimeout(resolve, 12_000))
  await lock.release()
  await expect.poll(() => seen.text).toMatch(/"items":\[\].*"status":"ok"/s)
})

test('an export for which there is no room any more gives its connection back', async () => {
  const database = await createDatabase()
  await database.sql`insert into products (name, price) values ('One', 1)`
  const service = await startService({ DATABASE_URL: database.url, HTTP_MEMORY: '16' })
  const api = createApi(service.url)
  const lock = await lockTable(database)
  const exporting = api.get('/products/export')
  await expect.poll(() => blocked(database)).toBe(1)
  open(service.url).socket.write(head('/products/bulk', `Content-Length: ${15 * 1024 * 1024}`))
  openDeaf(service.url, get('/docs/swagger-ui-bundle.js').repeat(10))
  // Whatever reads products waits for the lock; this is 422 without any, while there is room.
  await expect.poll(async () => (await api.get('/products/0')).status).toBe(503)
  await lock.release()
  expectProblem(await exporting, 503, 'unavailable')
  const inTransaction = () => database.sql`
    select pid from pg_stat_activity
    where datname = current_database() and application_name = 'larder' and state <> 'idle'`
  await expect.poll(inTransaction).toEqual([])
})

test('an answer of changes is bounded, and the cursor goes on behind it', async () => {
  const database = await createServer()
  await database.sql`
    insert into products (name, price, description, attributes)
    select 'large', 1, repeat(chr(1), 5000), jsonb_build_object('text', repeat('x', 16000))
    from generate_series(1, 300)`
  const service = await startService({ DATABASE_URL: database.url })
  const api = createApi(service.url)
  const ids: number[] = []
  for (let after = ''; ;) {
    const { text, body } = await api.get(`/products/changes?limit=1000${after}`)
    if (body.items.length === 0) break
    expect(text.length).toBeLessThan(5_000_000)
    ids.push(...body.items.map((item: { id: number }) => item.id))
    after = `&after=${body.next_cursor}`
  }
  expect(ids).toEqual(Array.from({ length: 300 }, (_, index) => index + 1))
})

test('when there is no room for a body, it is refused before it is read', async () => {
  const database = await createDatabase()
  const service = await startService({ DATABASE_URL: database.url, HTTP_MEMORY: '16' })
  const api = createApi(service.url)
  // Half sent: what has come of it is held.
  const { socket } = open(service.url)
  socket.write(head('/products/bulk', `Content-Length: ${15 * 1024 * 1024}`))
  socket.write(' '.repeat(14 * 1024 * 1024))
  await new Promise((resolve) => setTimeout(resolve, 1500))
  const large = ' '.repeat(3 * 1024 * 1024)
  const json = { 'content-type': 'application/json' }
  expectProblem(await api.post('/products/bulk', large, json), 503, 'unavailable')
  async function* chunks() {
    for (let i = 0; i < 48; i++) yield large.slice(0, 65536)
  }
  const chunked = { body: chunks(), headers: json }
  expectProblem(await api.request('POST', '/products/bulk', chunked), 503, 'unavailable')
  // What is small still has room.
  expect((await api.post('/products', { name: 'Small', price: 1 })).status).toBe(201)
  socket.destroy()
  await expect
    .poll(async () => (await api.post('/products/bulk', large, json)).status)
    .not.toBe(503)
})
