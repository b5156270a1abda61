// Holds that a POST with an Idempotency-Key is safe to send twice: one piece of work, one answer.
import { beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { expectProblem, product, type Api, type Headers, type Response } from '../support/api.ts'
import { atTheEnd } from '../support/clean-up.ts'
import {
  blocked,
  connect,
  killBackends,
  lockTable,
  type TestDatabase,
} from '../support/database.ts'
import { startTarget } from '../support/target.ts'

let api: Api
let database: TestDatabase

beforeAll(async () => {
  ;({ api, database } = await startTarget())
})

beforeEach(async () => {
  await database.sql`truncate products, idempotency_keys`
})

let keys = 0
const newKey = () => `key-${++keys}`

const post = (body: unknown, key: string, path = '/products', headers: Headers = {}) =>
  api.post(path, body, { 'content-type': 'application/json', 'idempotency-key': key, ...headers })

async function count(table: 'products' | 'idempotency_keys') {
  const [row] = await database.sql<{ count: number }[]>`
    select count(*)::int from ${database.sql(table)}`
  return row!.count
}

/** The answer without what belongs to the request and its connection. */
function kept({ status, text, headers }: Response) {
  const {
    'x-request-id': _,
    'idempotency-replayed': __,
    date: ___,
    connection: ____,
    'keep-alive': _____,
    ...rest
  } = headers
  return { status, text, headers: rest }
}

const isReplay = ({ headers }: Response) => headers['idempotency-replayed']

function expectReplay(answer: Response, first: Response) {
  expect(isReplay(answer)).toBe('true')
  expect(kept(answer)).toEqual(kept(first))
  expect(answer.headers['x-request-id']).not.toBe(first.headers['x-request-id'])
}

function expectFirst(answer: Response, status: number) {
  expect(answer.status, answer.text).toBe(status)
  expect(isReplay(answer)).toBe(undefined)
}

function expectKeyRefused(answer: Response, code: string) {
  const problem = expectProblem(answer, 422, 'validation')
  expect(problem.errors).toMatchObject([{ header: 'Idempotency-Key', code }])
}

describe('the same request again', () => {
  test('gets the first answer, byte for byte, and does nothing', async () => {
    const body = product({ description: 'Sent twice: "\\" 😀', price: '7.10' })
    const key = newKey()
    const first = await post(body, key)
    expectFirst(first, 201)
    for (let n = 0; n < 3; n++) {
      const again = await post(body, key, '/products', { 'x-request-id': `again-${n}` })
      expectReplay(again, first)
      expect(again.headers).toMatchObject({
        'x-request-id': `again-${n}`,
        'content-type': 'application/json',
        etag: '"1"',
        location: `/products/${first.body.id}`,
      })
    }
    expect(await count('products')).toBe(1)
    expect((await api.get(first.headers['location']!)).text).toBe(first.text)
  })

  test('gets the first answer also when the product has changed since, or is gone', async () => {
    const body = product()
    const key = newKey()
    const first = await post(body, key)
    const path = first.headers['location']!
    await api.patch(path, { stock: 5 })
    expectReplay(await post(body, key), first)
    await api.delete(path)
    expectReplay(await post(body, key), first)
    expect(await count('products')).toBe(0)
  })

  test('twenty times at once: one row, one answer', async () => {
    const body = product({ sku: null })
    const key = newKey()
    const answers = await Promise.all(Array.from({ length: 20 }, () => post(body, key)))
    const firsts = answers.filter((answer) => !isReplay(answer))
    expect(firsts).toHaveLength(1)
    expectFirst(firsts[0]!, 201)
    for (const answer of answers) expect(kept(answer)).toEqual(kept(firsts[0]!))
    expect(new Set(answers.map(({ headers }) => headers['x-request-id'])).size).toBe(20)
    expect(await count('products')).toBe(1)
    expect(await count('idempotency_keys')).toBe(1)
  })

  test('of a bulk, twenty times at once and once more', async () => {
    const body = Array.from({ length: 300 }, () => product({ sku: null }))
    const key = newKey()
    const send = () => post(body, key, '/products/bulk')
    const answers = await Promise.all(Array.from({ length: 20 }, send))
    const firsts = answers.filter((answer) => !isReplay(answer))
    expect(firsts).toHaveLength(1)
    expectFirst(firsts[0]!, 200)
    expect(firsts[0]!.body).toMatchObject({ inserted: 300, updated: 0 })
    for (const answer of answers) expect(kept(answer)).toEqual(kept(firsts[0]!))
    expectReplay(await send(), firsts[0]!)
    expect(await count('products')).toBe(300)
  })

  test('without a key is another request', async () => {
    const body = product({ sku: null })
    for (let n = 0; n < 2; n++) expectFirst(await api.post('/products', body), 201)
    expect(await count('products')).toBe(2)
    expect(await count('idempotency_keys')).toBe(0)
  })

  test('with another key is another request', async () => {
    const body = product({ sku: null })
    const [lower, upper] = [newKey(), newKey().toUpperCase()]
    for (const key of [lower, lower.toUpperCase(), upper]) expectFirst(await post(body, key), 201)
    expect(await count('products')).toBe(3)
  })
})

describe('another request under the same key is refused', () => {
  const body = JSON.stringify({ name: 'Blue mug', price: 12.5 })
  const list = `[${body}]`

  test.each<[string, body: string, path: string, headers?: Headers]>([
    ['another body', body.replace('mug', 'cup'), '/products'],
    ['a body that means the same', `${body} `, '/products'],
    ['another path', list, '/products/bulk'],
  ])('%s', async (_, otherBody, path) => {
    const key = newKey()
    const first = await post(body, key)
    expectFirst(first, 201)
    expectKeyRefused(await post(otherBody, key, path), 'reused')
    expectReplay(await post(body, key), first)
    expect(await count('products')).toBe(1)
  })

  test('another query', async () => {
    const key = newKey()
    expectFirst(await post(list, key, '/products/bulk'), 200)
    expectKeyRefused(await post(list, key, '/products/bulk?on_conflict=sku'), 'reused')
    expect(await count('products')).toBe(1)
  })

  test('the same media type in other words is the same', async () => {
    const key = newKey()
    const first = await post(body, key)
    const type = { 'content-type': 'Application/JSON; charset="utf-8"' }
    expectReplay(await post(body, key, '/products', type), first)
  })

  test('also at once: one is done', async () => {
    const key = newKey()
    const bodies = Array.from({ length: 10 }, (_, n) => ({ name: `Number ${n}`, price: 1 }))
    const answers = await Promise.all(bodies.map((body) => post(body, key)))
    expect(answers.filter(({ status }) => status === 201)).toHaveLength(1)
    for (const answer of answers) if (answer.status !== 201) expectKeyRefused(answer, 'reused')
    expect(await count('products')).toBe(1)
  })
})

describe('a key', () => {
  const visible = Array.from({ length: 94 }, (_, n) => String.fromCharCode(0x21 + n)).join('')

  test.each([
    ['of 1 character', 'k'],
    ['of every visible character', visible],
    ['of 255 characters', 'k'.repeat(255)],
  ])('%s is taken', async (_, key) => {
    const body = product()
    const first = await post(body, key)
    expectFirst(first, 201)
    expectReplay(await post(body, key), first)
  })

  test.each([
    ['of no character', ''],
    ['of 256 characters', 'k'.repeat(256)],
    ['with a space', 'a b'],
    ['with a tab', 'a\tb'],
    ['with a character beyond ASCII', 'clé'],
    ['with a control character of Latin-1', 'a\u0080b'],
  ])('%s is refused', async (_, key) => {
    expectKeyRefused(await post(product(), key), 'invalid_format')
    expect(await count('products')).toBe(0)
    expect(await count('idempotency_keys')).toBe(0)
  })

  test('on a GET means nothing', async () => {
    const key = { 'idempotency-key': newKey() }
    expect((await api.get('/products', key)).status).toBe(200)
    expect(await count('idempotency_keys')).toBe(0)
  })

  test('that is older than 24 hours is taken anew', async () => {
    const key = newKey()
    const first = await post(product(), key)
    await database.sql`
      update idempotency_keys set created_at = created_at - interval '23 hours 59 minutes'`
    expectKeyRefused(await post(product(), key), 'reused')
    await database.sql`update idempotency_keys set created_at = created_at - interval '1 minute'`
    const body = product()
    const answers = await Promise.all(Array.from({ length: 10 }, () => post(body, key)))
    const firsts = answers.filter((answer) => !isReplay(answer))
    expect(firsts).toHaveLength(1)
    expectFirst(firsts[0]!, 201)
    expect(firsts[0]!.body.id).not.toBe(first.body.id)
    for (const answer of answers) expect(kept(answer)).toEqual(kept(firsts[0]!))
    expect(await count('products')).toBe(2)
    expect(await count('idempotency_keys')).toBe(1)
  })
})

describe('a failure', () => {
  test('that the database decided is kept, also when it would succeed by now', async () => {
    const { headers } = await api.post('/products', product({ sku: 'TAKEN' }))
    const body = product({ sku: 'TAKEN' })
    const key = newKey()
    const first = await post(body, key)
    expectFirst(first, 409)
    expect(expectProblem(first, 409, 'conflict').errors[0].pointer).toBe('#/sku')
    await api.delete(headers['location']!)
    const again = await post(body, key)
    expectReplay(again, first)
    expect(again.body.request_id).toBe(first.headers['x-request-id'])
    expect(again.headers['content-type']).toBe('application/problem+json')
    expectFirst(await post(body, newKey()), 201)
  })

  test('is one for twenty at once', async () => {
    await api.post('/products', product({ sku: 'TAKEN' }))
    const body = product({ sku: 'TAKEN' })
    const key = newKey()
    const answers = await Promise.all(Array.from({ length: 20 }, () => post(body, key)))
    const firsts = answers.filter((answer) => !isReplay(answer))
    expect(firsts).toHaveLength(1)
    expectProblem(firsts[0]!, 409, 'conflict')
    for (const answer of answers) expect(kept(answer)).toEqual(kept(firsts[0]!))
  })

  test('of a bulk leaves nothing but its answer', async () => {
    await api.post('/products', product({ sku: 'TAKEN' }))
    const body = [product(), product({ sku: 'TAKEN' }), product()]
    const key = newKey()
    const first = await post(body, key, '/products/bulk')
    expect(expectProblem(first, 409, 'conflict').errors[0].pointer).toBe('#/1/sku')
    expectReplay(await post(body, key, '/products/bulk'), first)
    expect(await count('products')).toBe(1)
  })

  test.each([
    ['422', { name: '', price: 1 }, 'validation', '/products'],
    ['422 for a sku twice', [product({ sku: 'A' }), product({ sku: 'A' })], 'validation', '/bulk'],
    ['400', '{"name":', 'malformed', '/products'],
  ] as const)('that was found before the database is not kept: %s', async (_, body, code, path) => {
    const key = newKey()
    const target = path === '/bulk' ? '/products/bulk' : path
    const first = await post(body, key, target)
    expect(first.body.code).toBe(code)
    expect(await count('idempotency_keys')).toBe(0)
    expectFirst(await post(product(), key), 201)
  })

  test('of the database itself is not kept', async () => {
    const body = product()
    const key = newKey()
    const lock = await lockTable(database)
    const lost = post(body, key)
    await expect.poll(() => blocked(database)).toBe(1)
    await killBackends(database)
    const first = await lost
    expectProblem(first, 503, 'unavailable')
    await lock.release()
    const second = await post(body, key)
    expectFirst(second, 201)
    expectReplay(await post(body, key), second)
    expect(await count('products')).toBe(1)
  })
})

test('a twin waits for the first, up to a limit, and is then told when to come again', async () => {
  const body = product({ sku: 'WANTED' })
  const key = newKey()
  const other = connect(database.owner)
  atTheEnd(() => other.end({ timeout: 1 }))
  await other`begin`
  await other`insert into products (sku, name, price) values ('WANTED', 'of another', 1)`
  const first = post(body, key)
  await expect.poll(() => blocked(database)).toBe(1)
  const start = performance.now()
  const refused = await post(body, key)
  const waited = performance.now() - start
  expectProblem(refused, 409, 'conflict')
  expect(Number(refused.headers['retry-after'])).toBeGreaterThan(0)
  expect(waited).toBeGreaterThan(4900)
  expect(waited).toBeLessThan(15_000)

  const patient = post(body, key)
  await expect.poll(() => blocked(database)).toBe(2)
  await other`rollback`
  expectFirst(await first, 201)
  expectReplay(await patient, await first)
  expectReplay(await post(body, key), await first)
  expect(await count('products')).toBe(1)
})

/** A request that waits for a lock, and its twin, which waits for it. `holder` is the first one's backend. */
async function waitingTwins() {
  const body = product()
  const key = newKey()
  const lock = await lockTable(database)
  const first = post(body, key)
  await expect.poll(() => blocked(database)).toBe(1)
  const [holder] = await database.sql<{ pid: number }[]>`
    select pid from pg_stat_activity
    where datname = current_database() and application_name = 'larder' and wait_event_type = 'Lock'`
  const twin = post(body, key)
  await expect.poll(() => blocked(database)).toBe(2)
  return { first, twin, holder: holder!.pid, lock, again: () => post(body, key) }
}

test('a twin of a request that fails without an answer does the work itself', async () => {
  const { first, twin, holder, lock } = await waitingTwins()
  await database.sql`select pg_terminate_backend(${holder})`
  expectProblem(await first, 503, 'unavailable')
  await lock.release()
  expectFirst(await twin, 201)
  expect(await count('products')).toBe(1)
})

test('a twin whose connection is lost while it waits is told so, and that is no answer that is kept', async () => {
  const { first, twin, again, holder, lock } = await waitingTwins()
  await database.sql`
    select pg_terminate_backend(pid) from pg_stat_activity
    where datname = current_database() and application_name = 'larder'
      and wait_event_type = 'Lock' and pid <> ${holder}`
  expectProblem(await twin, 503, 'unavailable')
  await lock.release()
  expectFirst(await first, 201)
  expectReplay(await again(), await first)
  expect(await count('products')).toBe(1)
})

describe('a change of stock', () => {
  test('is made once, and its failure kept', async () => {
    const { body } = await api.post('/products', product({ stock: 5 }))
    const path = `/products/${body.id}/stock`
    const key = newKey()
    const first = await post({ delta: -3 }, key, path)
    expectFirst(first, 200)
    expectReplay(await post({ delta: -3 }, key, path), first)
    expectKeyRefused(await post({ delta: -2 }, key, path), 'reused')

    const refused = newKey()
    const tooMuch = await post({ delta: -3 }, refused, path)
    expectProblem(tooMuch, 409, 'insufficient_stock')
    await api.post(path, { delta: 10 })
    expectReplay(await post({ delta: -3 }, refused, path), tooMuch)
    expect((await api.get(`/products/${body.id}`)).body.stock).toBe(12)
  })

  test('is made once for twenty twins', async () => {
    const { body } = await api.post('/products', product({ stock: 50 }))
    const key = newKey()
    const answers = await Promise.all(
      Array.from({ length: 20 }, () => post({ delta: -1 }, key, `/products/${body.id}/stock`)),
    )
    expect(answers.filter((answer) => !isReplay(answer))).toHaveLength(1)
    expect(new Set(answers.map(({ text }) => text)).size).toBe(1)
    expect((await api.get(`/products/${body.id}`)).body.stock).toBe(49)
  })
})

describe('an import', () => {
  /** Longer than a block of the fingerprint and than a batch. */
  const rows = (count: number, skuOf = (n: number) => `I-${n}`) =>
    Array.from({ length: count }, (_, n) =>
      JSON.stringify(product({ sku: skuOf(n), description: 'x'.repeat(300) })),
    ).join('\n')
  const send = (body: string, key: string, query = '') => {
    const headers = { 'content-type': 'application/x-ndjson', 'idempotency-key': key }
    return api.request('POST', `/products/import${query}`, { body, headers })
  }

  test('is done once, whatever its length', async () => {
    const body = rows(2000)
    const key = newKey()
    const first = await send(body, key)
    expectFirst(first, 200)
    expect(first.body).toEqual({ inserted: 2000, updated: 0 })
    expectReplay(await send(body, key), first)
    // The last byte is part of it, and the query.
    expectKeyRefused(await send(`${body.slice(0, -1)} `, key), 'reused')
    expectKeyRefused(await send(`${body}\n`, key), 'reused')
    expectKeyRefused(await send(body, key, '?on_conflict=sku'), 'reused')
    expect(await count('products')).toBe(2000)
  })

  test('is done once for twins', async () => {
    const body = rows(300)
    const key = newKey()
    const answers = await Promise.all(Array.from({ length: 5 }, () => send(body, key)))
    expect(answers.filter((answer) => !isReplay(answer))).toHaveLength(1)
    expect(new Set(answers.map(({ text }) => text)).size).toBe(1)
    expect(await count('products')).toBe(300)
  })

  test('keeps that a sku was taken, also when it is free again', async () => {
    await api.post('/products', product({ sku: 'I-7' }))
    const body = rows(600)
    const key = newKey()
    const first = await send(body, key)
    expect(expectProblem(first, 409, 'conflict').errors).toMatchObject([
      { line: 8, pointer: '#/sku', code: 'taken' },
    ])
    expect(await count('products')).toBe(1)
    await database.sql`delete from products`
    expectReplay(await send(body, key), first)
    expect(await count('products')).toBe(0)
  })

  // The work stands behind a savepoint here, and still knows which rows are its own.
  test.each(['', '?on_conflict=sku'])('tells a sku of its own from another%s', async (query) => {
    const key = newKey()
    const twice = rows(700, (n) => (n === 650 ? 'I-3' : `I-${n}`))
    const answer = await send(twice, key, query)
    expect(expectProblem(answer, 422, 'validation').errors).toMatchObject([
      { line: 651, pointer: '#/sku', code: 'duplicate' },
    ])
    // A fault of the input is not kept: the key is free.
    expect(await count('idempotency_keys')).toBe(0)
    expectFirst(await send(rows(700), key, query), 200)
    expect(await count('products')).toBe(700)
  })
})
