// What cannot be provoked from outside: faults of our own code under the app, and what the adapter refuses.
import { Hono } from 'hono'
import { HTTPException } from 'hono/http-exception'
import { beforeAll, expect, test } from 'vitest'
import { createApp } from '../src/app.ts'
import type { Place } from '../src/database/keyset.ts'
import { answer } from '../src/http/answer.ts'
import type { Environment } from '../src/http/environment.ts'
import { boundless } from '../src/http/memory.ts'
import { encodeCursor } from '../src/http/page.ts'
import { productList } from '../src/products/schema.ts'
import { type Api, createApi, expectProblem, raw } from './support/api.ts'
import { createDatabase, type TestDatabase } from './support/database.ts'
import { openPool } from './support/pool.ts'
import { startService } from './support/service.ts'

let url: string
let api: Api
let database: TestDatabase

beforeAll(async () => {
  database = await createDatabase()
  ;({ url } = await startService({ DATABASE_URL: database.url }))
  api = createApi(url)
})

/** The app on a database that throws this, and what it writes into its log. */
async function answerTo(thrown: unknown) {
  const written: { level: string; message: string; fields: object }[] = []
  const write = (level: string) => (fields: object, message: string) =>
    void written.push({ level, message, fields })
  const log = {
    debug: write('debug'),
    info: write('info'),
    warn: write('warn'),
    error: write('error'),
    fatal: write('fatal'),
  }
  const pool = openPool((await createDatabase()).address)
  const fail = () => Promise.reject(thrown as Error)
  const database = {
    ...pool,
    forBorrower: () => ({
      read: fail,
      readTogether: fail,
      writeTogether: fail,
      write: fail,
      session: fail,
      transfer: fail,
    }),
  }
  const answer = await createApp({ access: undefined, corsOrigins: undefined }).fetch(
    new Request('http://larder/products'),
    {
      database,
      log,
      notReady: undefined,
      readFile: fail,
      metrics: undefined,
      limiter: undefined,
      memory: boundless,
      address: '',
    },
  )
  return { status: answer.status, body: await answer.json(), written }
}

test.for([
  ['an Error', new Error('secret cause'), 500, 'internal'],
  ['what is no Error', 'secret cause', 500, 'internal'],
  ['nothing', undefined, 500, 'internal'],
  ['an HTTPException with a problem of ours', new HTTPException(413), 413, 'too_large'],
  ['an HTTPException without one', new HTTPException(418), 500, 'internal'],
] as const)('%s becomes a problem, logged once', async ([, thrown, status, code]) => {
  const { written, ...answer } = await answerTo(thrown)
  expect(answer).toMatchObject({ status, body: { status, code } })
  expect(JSON.stringify(answer)).not.toContain('secret')
  expect(written.map(({ level, message }) => [level, message])).toEqual([
    ...(status === 500 ? [['error', 'request failed']] : []),
    ['info', 'request'],
  ])
})

test('a cursor with a right checksum and a wrong content is refused', async () => {
  const { body } = await api.post('/products', { name: 'First', price: 1 })
  const binding = productList.binding(productList.page.parse({}))
  const answerTo = (way: unknown, key: unknown) =>
    api.get(`/products?cursor=${encodeCursor({ way, key } as Place, binding)}`)
  expect((await answerTo('from', [String(body.id)])).body.items).toEqual([body])
  const wrongKeys = [[], ['abc'], ['1.5'], ['-5'], ['0'], [''], ['1', '2'], [String(2 ** 53)]]
  for (const key of [...wrongKeys, [1], [null], [{}], [['1']], [true]]) {
    expectProblem(await answerTo('after', key), 400, 'malformed')
  }
  for (const way of ['next', '', null, 1, {}, '__proto__']) {
    expectProblem(await answerTo(way, ['1']), 400, 'malformed')
  }
})

test('a route may have a policy of its own, the other headers stay', async () => {
  const app = new Hono<Environment>().get('/', (c) =>
    answer(c, '<!doctype html>', 200, { 'content-security-policy': "default-src 'self'" }),
  )
  const { headers } = await app.fetch(new Request('http://larder/'))
  expect(headers.get('content-security-policy')).toBe("default-src 'self'")
  expect(headers.get('x-content-type-options')).toBe('nosniff')
})

test('no answer names the software that it comes from', async () => {
  for (const path of ['/health', '/products', '/nowhere', '/docs', '/openapi.json', '/%']) {
    const { headers } = await api.get(path)
    for (const name of ['server', 'x-powered-by', 'via', 'x-runtime']) {
      expect(headers, path).not.toHaveProperty(name)
    }
    expect(JSON.stringify(headers), path).not.toMatch(/node|hono|postgres/i)
  }
  // Of the database what the document promises, and not the system it runs on.
  expect((await api.get('/db-test')).body.version).toMatch(/^PostgreSQL [\d.]+\w*$/)
})

test('an HTTP/1.0 probe without a Host header is answered', async () => {
  const { text } = await raw(url, 'GET /health HTTP/1.0\r\n\r\n')
  expect(text).toMatch(/^HTTP\/1.1 200 /)
})

test('an expectation that is not known is ignored', async () => {
  const { text } = await raw(
    url,
    'GET /health HTTP/1.1\r\nHost: larder\r\nExpect: banana\r\nConnection: close\r\n\r\n',
  )
  expect(text).toMatch(/^HTTP\/1.1 200 /)
})

test('a Host header that is none is a problem document', async () => {
  const { text } = await raw(url, 'GET /health HTTP/1.1\r\nHost: a b\r\nConnection: close\r\n\r\n')
  expect(text).toMatch(/^HTTP\/1.1 400 /)
  expect(text).toContain('application/problem+json')
  expect(text).toContain('"code":"malformed"')
  expect(text).toMatch(/^x-content-type-options: nosniff\r$/im)
  const [, header] = /^x-request-id: (\S+)\r$/im.exec(text)!
  expect(text).toContain(`"request_id":"${header}"`)
})

test('a megabyte of attributes does not hold the others up', async () => {
  const values = JSON.stringify(Array.from({ length: 500_000 }, () => 0))
  const body = `{"name":"large","price":1,"attributes":{"a":${values}}}`
  const headers = { 'content-type': 'application/json' }
  const start = performance.now()
  expectProblem(await api.request('POST', '/products', { body, headers }), 422, 'validation')
  expect(performance.now() - start).toBeLessThan(400)
})

test('/ready is 503 when the table of the migrations cannot be read', async () => {
  await database.sql`alter table pgmigrations rename to elsewhere`
  await database.sql`create table pgmigrations (something integer)`
  const problem = expectProblem(await api.get('/ready'), 503, 'unavailable')
  expect(problem.detail).toContain('migrations')
  await database.sql`drop table pgmigrations`
  await database.sql`alter table elsewhere rename to pgmigrations`
  expect((await api.get('/ready')).status).toBe(200)
})
