// Who may do what, which web pages may read the answers, and that no key is to be seen anywhere.
import { beforeAll, describe, expect, test } from 'vitest'
import { createApp } from '../../src/app.ts'
import { expectProblem, product, raw, type Response } from '../support/api.ts'
import { makeKey } from '../support/keys.ts'
import { startTarget, type Target } from '../support/target.ts'

const reader = makeKey('reader', 'read')
const writer = makeKey('writer', 'write')
const admin = makeKey('admin', 'admin')
const stranger = makeKey('stranger', 'admin')
/** Known by a hash that differs from that of its key in one digit. */
const almost = [makeKey('almost-1', 'admin'), makeKey('almost-2', 'admin')]
const otherDigit = (digit: string) => (digit === '0' ? '1' : '0')
const API_KEYS = [
  almost[0]!.entry.replace(/.$/, otherDigit),
  almost[1]!.entry.replace(/.(?=.{63}$)/, otherDigit),
  ...[reader, writer, admin].map(({ entry }) => entry),
].join(',')

const SHOP = 'https://shop.example.com'
const ADMIN = 'http://localhost:3000'

const callers = {
  nobody: {},
  stranger: stranger.headers,
  reader: reader.headers,
  writer: writer.headers,
  admin: admin.headers,
}

const openPaths = ['/health', '/ready', '/openapi.json', '/docs', '/docs/start.js']

/** Each route there is, and requests that no route takes. */
const requests = [
  ...createApp({ access: undefined, corsOrigins: undefined }).routes.flatMap(({ method, path }) => {
    const address = path.replace('/:id', '/1').replace(/:\w+|\*/, 'start.js')
    if (method === 'ALL') return []
    return method === 'GET' ? [`GET ${address}`, `HEAD ${address}`] : [`${method} ${address}`]
  }),
  ...openPaths.map((path) => `GET ${path}`),
  ...['/metrics', '/nowhere', '/docs.html', '/healthy', '/'].map((path) => `GET ${path}`),
  ...['/metrics', '/nowhere'].map((path) => `HEAD ${path}`),
  'POST /nowhere',
  'DELETE /products',
  'POST /metrics',
  'PUT /db-test',
]

/** What the contract says: let through, or refused with this status. */
function promised(request: string, caller: keyof typeof callers, publicReads: boolean) {
  const [method, path] = request.split(' ') as [string, string]
  const isRead = ['GET', 'HEAD'].includes(method) || path === '/db-test'
  const scope = path === '/metrics' ? 'admin' : isRead ? 'read' : 'write'
  if (openPaths.includes(path) || (publicReads && scope === 'read')) return 'let through'
  if (caller === 'nobody' || caller === 'stranger') return 401
  const enough = {
    read: ['reader', 'writer', 'admin'],
    write: ['writer', 'admin'],
    admin: ['admin'],
  }
  return enough[scope].includes(caller) ? 'let through' : 403
}

const securityHeaders = {
  'content-security-policy': "default-src 'none'; frame-ancestors 'none'",
  'cross-origin-resource-policy': 'same-origin',
  'referrer-policy': 'no-referrer',
  'x-content-type-options': 'nosniff',
}

/** The names of the headers of CORS that an answer has. */
const corsHeaders = ({ headers }: Response) =>
  Object.keys(headers).filter((name) => name.startsWith('access-control-'))

let locked: Target
/** It also lets pages of two origins in. */
let publicReads: Target
let open: Target

beforeAll(async () => {
  const keys = { API_KEYS, LOG_LEVEL: 'trace' }
  locked = await startTarget(keys)
  publicReads = await startTarget({
    ...keys,
    PUBLIC_READS: 'true',
    CORS_ORIGINS: `${SHOP}, ${ADMIN}`,
  })
  open = await startTarget()
})

describe.each([false, true])('PUBLIC_READS=%s', (isPublic) => {
  test.each(Object.keys(callers) as (keyof typeof callers)[])(
    'each route lets through or refuses: %s',
    async (caller) => {
      const { api } = isPublic ? publicReads : locked
      const seen: Record<string, unknown> = {}
      for (const request of requests) {
        const [method, path] = request.split(' ') as [string, string]
        const answer = await api.request(method, path, { headers: callers[caller] })
        seen[request] = [401, 403].includes(answer.status) ? answer.status : 'let through'
        expect(answer.headers, request).toMatchObject({
          ...securityHeaders,
          // The page brings its own.
          'content-security-policy': expect.any(String),
        })
        expect(answer.status, request).not.toBe(500)
      }
      expect(seen).toEqual(
        Object.fromEntries(
          requests.map((request) => [request, promised(request, caller, isPublic)]),
        ),
      )
    },
  )
})

test('without a key the answer asks for one', async () => {
  for (const headers of [{}, { authorization: 'Basic dTpw' }, { authorization: '' }]) {
    const answer = await locked.api.get('/products', headers)
    expect(expectProblem(answer, 401, 'unauthorized').detail).toContain('Authorization: Bearer')
    expect(answer.headers['www-authenticate']).toBe('Bearer realm="larder"')
  }
})

test('a key that is not known is called so', async () => {
  const answer = await locked.api.get('/products', stranger.headers)
  expectProblem(answer, 401, 'unauthorized')
  expect(answer.headers['www-authenticate']).toBe('Bearer realm="larder", error="invalid_token"')
})

test('a key that is not enough is told what would be', async () => {
  const write = await locked.api.post('/products', product(), reader.headers)
  expect(expectProblem(write, 403, 'forbidden').detail).toContain('the scope write')
  expect(write.headers['www-authenticate']).toBe(
    'Bearer realm="larder", error="insufficient_scope", scope="write"',
  )
  const metrics = await publicReads.api.get('/metrics', writer.headers)
  expect(expectProblem(metrics, 403, 'forbidden').detail).toContain('the scope admin')
})

test('a path that is spelled in another way is no way round', async () => {
  for (const path of ['/%6detrics', '/metric%73', '/metrics?x=/health', '/metrics#/health']) {
    expectProblem(await publicReads.api.get(path), 401, 'unauthorized')
    expectProblem(await publicReads.api.get(path, writer.headers), 403, 'forbidden')
  }
  for (const path of ['/db%2dtest', '/db-test?x=/health', '/health/../db-test']) {
    expectProblem(await locked.api.get(path), 401, 'unauthorized')
  }
})

test('what is refused is not done', async () => {
  const { api, database } = locked
  await database.sql`insert into products (name, price) values ('Kept', 1)`
  const [{ id } = { id: 0 }] = await database.sql<{ id: number }[]>`select id::int from products`
  for (const headers of [{}, stranger.headers, reader.headers]) {
    await api.post('/products', product(), headers)
    await api.put(`/products/${id}`, product(), headers)
    await api.patch(`/products/${id}`, { name: 'Changed' }, headers)
    await api.delete(`/products/${id}`, headers)
  }
  expect(await database.sql`select name, version::int from products`).toEqual([
    { name: 'Kept', version: 1 },
  ])
})

test('a key works again and again, beside wrong ones', async () => {
  for (let i = 0; i < 5; i++) {
    const statuses = await Promise.all(
      [writer, stranger, writer, reader].map(({ headers }) =>
        locked.api.post('/products', product(), headers).then(({ status }) => status),
      ),
    )
    expect(statuses).toEqual([201, 401, 201, 403])
  }
})

test.each(['bearer', 'BEARER', 'bEaReR ', 'Bearer   '])('the scheme may be %s', async (scheme) => {
  const headers = { authorization: `${scheme} ${reader.key}` }
  expect((await locked.api.get('/products', headers)).status).toBe(200)
})

test.each([
  ['nothing but the scheme', 'Bearer'],
  ['the scheme and blanks', 'Bearer   '],
  ['the bare key', reader.key],
  ['another scheme', `Token ${reader.key}`],
  ['a scheme that begins like ours', `BearerX ${reader.key}`],
  ['no blank', `Bearer${reader.key}`],
  ['a tab', `Bearer\t${reader.key}`],
  ['two keys', `Bearer ${reader.key} ${writer.key}`],
  ['two forms', `Bearer ${stranger.key}, Bearer ${reader.key}`],
  ['quotes', `Bearer "${reader.key}"`],
  ['the hash', `Bearer ${reader.hash}`],
  ['the entry', `Bearer ${reader.entry}`],
  ['the name', 'Bearer reader'],
  ['Basic', `Basic ${Buffer.from(`reader:${reader.key}`).toString('base64')}`],
  ['a part of the key', `Bearer ${reader.key.slice(0, -1)}`],
  ['more than the key', `Bearer ${reader.key}A`],
  ['capitals', `Bearer ${reader.key.toUpperCase()}`],
  ['a name of JavaScript', 'Bearer __proto__'],
  ['12,000 characters', `Bearer ${'x'.repeat(12_000)}`],
  ['letters beyond ASCII', 'Bearer schlüssel'],
])('%s is no key', async (_, authorization) => {
  expectProblem(await locked.api.get('/products', { authorization }), 401, 'unauthorized')
})

test('bytes and repetitions are no key', async () => {
  const head = `GET /products HTTP/1.1\r\nHost: larder\r\nConnection: close\r\n`
  const good = `Authorization: Bearer ${reader.key}\r\n`
  for (const lines of [
    'Authorization: Bearer \xff\xfe\x80\r\n',
    `Authorization: Bearer ${Buffer.from('schlüssel 🔑').toString('latin1')}\r\n`,
    `Authorization: Bearer ${stranger.key}\r\n${good}`,
    `${good}Authorization: Bearer ${stranger.key}\r\n`,
    good + good,
  ]) {
    const { text } = await raw(locked.url, Buffer.from(`${head}${lines}\r\n`, 'latin1'))
    expect(text, lines).toMatch(/^HTTP\/1\.1 401 /)
  }
})

test('a hash that differs in one digit is that of another key', async () => {
  for (const { headers } of almost) {
    expectProblem(await locked.api.get('/products', headers), 401, 'unauthorized')
  }
})

test('a large body without a key is refused, and the connection is as good as before', async () => {
  const body = Buffer.alloc(9 * 1024 * 1024, 32)
  for (const headers of [{}, reader.headers]) {
    const options = { body, headers: { 'content-type': 'application/json', ...headers } }
    const answer = await locked.api.request('POST', '/products', options)
    expect(answer.status).toBe('authorization' in headers ? 403 : 401)
    expect((await locked.api.get('/products', reader.headers)).status).toBe(200)
  }
})

test('the log names the caller, and tells once that everybody may call', async () => {
  const warnings = ({ log }: Target) =>
    log.filter(({ msg }) => String(msg).includes('API_KEYS is not set'))
  const caller = async (target: Target, id: string, headers: Record<string, string>) => {
    await target.api.post('/products', product(), { 'x-request-id': id, ...headers })
    const find = () => target.log.find((line) => line['request_id'] === id && 'path' in line)
    await expect.poll(find).toBeDefined()
    return find()!['caller']
  }
  expect(await caller(locked, 'by-writer', writer.headers)).toBe('writer')
  expect(await caller(locked, 'by-reader', reader.headers)).toBe('reader')
  expect(await caller(locked, 'by-nobody', {})).toBeUndefined()
  expect(await caller(open, 'open', writer.headers)).toBeUndefined()
  const read = { 'x-request-id': 'public', ...reader.headers }
  await publicReads.api.get('/products', read)
  await expect
    .poll(() => publicReads.log.find((line) => line['request_id'] === 'public')?.['caller'])
    .toBe('reader')
  expect(warnings(open)).toEqual([expect.objectContaining({ level: 'warn' })])
  expect([...warnings(locked), ...warnings(publicReads)]).toEqual([])
})

describe('pages of other origins', () => {
  const preflight = {
    origin: SHOP,
    'access-control-request-method': 'PATCH',
    'access-control-request-headers': 'authorization,if-match',
  }
  let all: Target

  beforeAll(async () => {
    all = await startTarget({ CORS_ORIGINS: '*' })
  })

  /** One answer of each kind that a page can get, errors in the order of their statuses. */
  async function everyAnswer({ api, database }: Target, headers: Record<string, string>) {
    const json = { ...headers, 'content-type': 'application/json' }
    const post = (body: unknown) => api.request('POST', '/products', { body, headers: json })
    const kept = product()
    const created = await post(JSON.stringify(kept))
    const conflict = await post(JSON.stringify(kept))
    const path = created.headers['location']!
    const answers = [
      created,
      await api.get('/products', headers),
      await api.head(path, headers),
      await api.patch(path, { name: 'Other' }, headers),
      await api.delete(path, headers),
      await api.get('/health', headers),
      await post('{'),
      await api.get('/products/%', headers),
      await api.get('/nowhere', headers),
      await api.get(path, headers),
      await api.put('/health', undefined, headers),
      conflict,
      await post(JSON.stringify(' '.repeat(1024 * 1024))),
      await api.post('/products', 'name', { ...headers, 'content-type': 'text/plain' }),
      await post('{}'),
    ]
    await database.sql`alter table products rename to elsewhere`
    answers.push(await api.get('/products', headers))
    await database.sql`alter table elsewhere rename to products`
    expect(answers.map(({ status }) => status)).toEqual([
      201, 200, 200, 200, 204, 200, 400, 400, 404, 404, 405, 409, 413, 415, 422, 500,
    ])
    return answers
  }

  test('of the list may read every answer', async () => {
    for (const origin of [SHOP, ADMIN]) {
      const answers = [
        ...(await everyAnswer(publicReads, { ...admin.headers, origin })),
        await publicReads.api.post('/products', product(), { origin }),
        await publicReads.api.post('/products', product(), { ...reader.headers, origin }),
      ]
      expect(answers.slice(-2).map(({ status }) => status)).toEqual([401, 403])
      for (const { status, headers } of answers) {
        expect(headers, String(status)).toMatchObject({
          ...securityHeaders,
          'access-control-allow-origin': origin,
          vary: 'Origin',
        })
        const exposed = headers['access-control-expose-headers']!.split(',')
        expect(exposed.toSorted()).toEqual([
          'ETag',
          'Idempotency-Replayed',
          'Link',
          'Location',
          'RateLimit',
          'RateLimit-Policy',
          'Retry-After',
          'WWW-Authenticate',
          'X-Request-Id',
        ])
        expect(headers['access-control-allow-credentials']).toBeUndefined()
      }
    }
  })

  test('that are not on it may not, and a cache is told so', async () => {
    const strangers = ['https://shop.example.com.evil.example', 'https://evil.example', 'null']
    for (const origin of [...strangers, 'http://shop.example.com', SHOP.toUpperCase()]) {
      const { headers } = await publicReads.api.get('/health', { origin })
      expect(headers['access-control-allow-origin'], origin).toBeUndefined()
      expect(headers['vary']).toBe('Origin')
      const asked = await publicReads.api.request('OPTIONS', '/products', {
        headers: { ...preflight, origin },
      })
      expect(asked.headers['access-control-allow-origin'], origin).toBeUndefined()
    }
  })

  test('may read every answer when it says *', async () => {
    for (const { status, headers } of await everyAnswer(all, { origin: SHOP })) {
      expect(headers, String(status)).toMatchObject({ 'access-control-allow-origin': '*' })
      expect(headers).not.toHaveProperty('vary')
    }
  })

  test('ask first, without a key', async () => {
    for (const [target, origin] of [
      [publicReads, SHOP],
      [all, '*'],
    ] as const) {
      for (const path of ['/products', '/products/1', '/nowhere']) {
        const answer = await target.api.request('OPTIONS', path, { headers: preflight })
        expect(answer.status).toBe(204)
        expect(answer.text).toBe('')
        expect(answer.headers).toMatchObject({
          ...securityHeaders,
          'access-control-allow-origin': origin,
          'access-control-allow-methods': 'GET,HEAD,POST,PUT,PATCH,DELETE',
          'access-control-allow-headers':
            'Authorization,Content-Type,If-Match,If-None-Match,Idempotency-Key,X-Request-Id',
          'access-control-max-age': '3600',
          'x-request-id': expect.any(String),
        })
      }
    }
  })

  test('are told nothing without the setting', async () => {
    for (const answer of [
      ...(await everyAnswer(open, { origin: SHOP })),
      await locked.api.get('/products', { origin: SHOP }),
    ]) {
      expect(corsHeaders(answer), String(answer.status)).toEqual([])
      expect(answer.headers).toMatchObject(securityHeaders)
    }
    const asked = { headers: preflight }
    const answer = await open.api.request('OPTIONS', '/products', asked)
    expectProblem(answer, 405, 'method_not_allowed')
    expect(answer.headers['allow']).not.toContain('OPTIONS')
    expect(corsHeaders(answer)).toEqual([])
    const closed = await locked.api.request('OPTIONS', '/products', asked)
    expectProblem(closed, 401, 'unauthorized')
    expect(closed.headers).not.toHaveProperty('allow')
  })
})

test('no key and no hash is in what the service wrote', async () => {
  for (const target of [locked, publicReads]) {
    await target.api.get('/products', { 'x-request-id': 'the-last', ...stranger.headers })
    await expect.poll(() => target.output()).toContain('the-last')
    for (const { key, hash } of [reader, writer, admin, stranger]) {
      expect(target.output()).not.toContain(key)
      expect(target.output().toLowerCase()).not.toContain(hash)
    }
  }
})
