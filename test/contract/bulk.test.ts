// Holds what a client relies on when it sends many products at once: order, all or nothing, faults by row.
import { beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { expectProblem, product, type Api, type Response } from '../support/api.ts'
import { connect, type TestDatabase } from '../support/database.ts'
import { startTarget } from '../support/target.ts'

const MIB = 1024 * 1024
const JSON_TYPE = { 'content-type': 'application/json' }
const BULK = '/products/bulk'
const REPLACING = '/products/bulk?on_conflict=sku'

let api: Api
let database: TestDatabase

beforeAll(async () => {
  ;({ api, database } = await startTarget())
})

beforeEach(async () => {
  await database.sql`delete from products`
})

interface Row {
  id: number
  sku: string | null
  name: string
  price: string
  version: string
}

const rows = () =>
  database.sql<Row[]>`
    select id::int, sku, name, price::text, version::text from products order by id`

function expectBulk(answer: Response, inserted: number, updated: number) {
  expect(answer.status, answer.text.slice(0, 500)).toBe(200)
  expect(answer.headers['content-type']).toBe('application/json')
  expect(answer.body).toMatchObject({ inserted, updated })
  expect(Object.keys(answer.body)).toEqual(['inserted', 'updated', 'items'])
  expect(answer.body.items).toHaveLength(inserted + updated)
  return answer.body.items
}

const faults = (answer: Response, status = 422, code = 'validation'): [string, string][] =>
  expectProblem(answer, status, code).errors.map((fault: { pointer: string; code: string }) => [
    fault.pointer,
    fault.code,
  ])

const many = (count: number, overrides: () => Record<string, unknown> = () => ({})) =>
  Array.from({ length: count }, () => product(overrides()))

/** As its client would read it: the item is what a GET of it answers, byte for byte. */
async function expectItemsAsRead(answer: Response) {
  for (const item of answer.body.items) {
    const { text } = await api.get(`/products/${item.id}`)
    expect(answer.text).toContain(text)
  }
}

describe('what is sent', () => {
  test('is created, and answered in its order; ids rise in that order', async () => {
    const skus = ['Z', 'a', 'M', null, 'é', 'B', null, '0', '😀', 'b']
    const answer = await api.post(
      BULK,
      skus.map((sku, n) => ({ sku, name: `Number ${n}`, price: n + 0.5, stock: n })),
    )
    const items = expectBulk(answer, skus.length, 0)
    expect(items.map((item: Row) => item.sku)).toEqual(skus)
    expect(items.map((item: Row) => item.name)).toEqual(skus.map((_, n) => `Number ${n}`))
    const ids = items.map((item: Row) => item.id)
    expect(ids).toEqual(ids.toSorted((a: number, b: number) => a - b))
    expect((await rows()).map(({ id }) => id)).toEqual(ids)
    await expectItemsAsRead(answer)
  })

  test('gets the defaults, and is trimmed, as in a POST of one', async () => {
    const whole = {
      sku: 'WHOLE',
      name: '  Blue mug ',
      description: 'A "mug",\nblue. 😀',
      price: '9999999999.99',
      currency: 'EUR',
      stock: 2_147_483_647,
      attributes: { a: [1, 2.5, null, { 'b/~': '\\' }], colour: 'blue' },
    }
    const answer = await api.post(BULK, [{ name: 'Bare', price: 0, id: 7, version: 'x' }, whole])
    const [bare, second] = expectBulk(answer, 2, 0)
    expect(bare).toEqual({
      id: expect.any(Number),
      sku: null,
      name: 'Bare',
      description: null,
      price: 0,
      currency: 'USD',
      stock: 0,
      attributes: {},
      version: 1,
      created_at: expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$/),
      updated_at: bare.created_at,
    })
    expect(second).toMatchObject({ ...whole, name: 'Blue mug', price: 9_999_999_999.99 })
    await expectItemsAsRead(answer)
    const single = await api.post('/products', product())
    expect(single.body.id).toBeGreaterThan(second.id)
  })

  test('may be 1,000 products', async () => {
    const answer = await api.post(BULK, many(1000))
    expectBulk(answer, 1000, 0)
    expect(await rows()).toHaveLength(1000)
  })
})

describe('faults', () => {
  test('point at their rows, all at once', async () => {
    const answer = await api.post(BULK, [
      product(),
      { name: '', price: -1, colour: 'blue' },
      product({ attributes: { deep: ['\0'] } }),
      { sku: 'NO-NAME' },
      'a mug',
      null,
    ])
    expect(faults(answer)).toEqual([
      ['#/1/name', 'too_small'],
      ['#/1/price', 'too_small'],
      ['#/1/colour', 'unknown'],
      ['#/2/attributes/deep/0', 'invalid_characters'],
      ['#/3/name', 'required'],
      ['#/3/price', 'required'],
      ['#/4', 'invalid_type'],
      ['#/5', 'invalid_type'],
    ])
    expect(await rows()).toHaveLength(0)
  })

  test('are told up to a hundred of them', async () => {
    const answer = await api.post(
      BULK,
      many(1000, () => ({ price: -1 })),
    )
    expect(faults(answer)).toHaveLength(100)
    expect(faults(answer).at(-1)).toEqual(['#/99/price', 'too_small'])
  })

  test.each([
    ['no product', [], 'too_small'],
    ['1,001 products', many(1001), 'too_big'],
    ['1,001 things', Array(1001).fill(0), 'too_big'],
    ['a million things', Array(1_000_000).fill(0), 'too_big'],
    ['an object', product(), 'invalid_type'],
    ['a text', '"[]"', 'invalid_type'],
    ['null', 'null', 'invalid_type'],
  ])('%s', async (_, body, code) => {
    expect(faults(await api.post(BULK, body, JSON_TYPE))).toEqual([['#', code]])
    expect(await rows()).toHaveLength(0)
  })

  test.each([BULK, REPLACING])('the same sku twice: at each later row, %s', async (path) => {
    const answer = await api.post(path, [
      product({ sku: 'A' }),
      product({ sku: 'a' }),
      product({ sku: 'B' }),
      product({ sku: null }),
      product({ sku: null }),
      product({ sku: 'A' }),
      product({ sku: 'A' }),
      product({ sku: 'B' }),
    ])
    expect(faults(answer)).toEqual([
      ['#/5/sku', 'duplicate'],
      ['#/6/sku', 'duplicate'],
      ['#/7/sku', 'duplicate'],
    ])
    expect(await rows()).toHaveLength(0)
  })

  test('the same sku twice is told together with other faults', async () => {
    const answer = await api.post(BULK, [
      product({ sku: 'A' }),
      product({ sku: 'B', price: -1 }),
      product({ sku: 'A' }),
      { sku: 'B', price: 1 },
    ])
    expect(Object.fromEntries(faults(answer))).toEqual({
      '#/1/price': 'too_small',
      '#/2/sku': 'duplicate',
      '#/3/name': 'required',
      '#/3/sku': 'duplicate',
    })
  })

  test.each(['?on_conflict=id', '?on_conflict=', '?on_conflict=sku&on_conflict=sku', '?upsert=1'])(
    'the query %s',
    async (query) => {
      const problem = expectProblem(await api.post(BULK + query, many(1)), 422, 'validation')
      expect(problem.errors[0].parameter).toBe(query.slice(1).split('=')[0])
      expect(await rows()).toHaveLength(0)
    },
  )

  test('broken JSON, and another media type', async () => {
    const whole = '{"name":"x","price":1}'
    for (const broken of [
      '[{"name":',
      `[${whole}] x`,
      `[${whole}}`,
      `[${whole}]]`,
      `[${whole},]`,
    ]) {
      expectProblem(await api.post(BULK, broken, JSON_TYPE), 400, 'malformed')
    }
    const csv = await api.post(BULK, 'name,price', { 'content-type': 'text/csv' })
    expectProblem(csv, 415, 'unsupported_media_type')
  })

  test('a body of 16 MiB is taken, and one byte more is not', async () => {
    const description = '😀'.repeat(4000)
    const body = Buffer.alloc(16 * MIB + 1, ' ')
    body.write(JSON.stringify(many(1000, () => ({ description }))), 1)
    expectProblem(await api.post(BULK, body, JSON_TYPE), 413, 'too_large')
    async function* chunks() {
      for (let at = 0; at < body.length; at += 100_000) yield body.subarray(at, at + 100_000)
    }
    const options = { body: chunks(), headers: JSON_TYPE }
    expectProblem(await api.request('POST', BULK, options), 413, 'too_large')
    expect(await rows()).toHaveLength(0)
    expectBulk(await api.post(BULK, body.subarray(1), JSON_TYPE), 1000, 0)
  })
})

describe('a sku that is taken', () => {
  test('refuses the whole, and each such row is named', async () => {
    await api.post(BULK, [product({ sku: 'T1' }), product({ sku: 'T2' })])
    const before = await rows()
    const answer = await api.post(BULK, [
      product(),
      product({ sku: 'T2' }),
      product(),
      product({ sku: 'T1' }),
    ])
    expect(faults(answer, 409, 'conflict')).toEqual([
      ['#/1/sku', 'taken'],
      ['#/3/sku', 'taken'],
    ])
    expect(await rows()).toEqual(before)
  })

  test('is replaced with on_conflict=sku, as by PUT', async () => {
    const old = await api.post('/products', {
      ...product({ sku: 'R1', description: 'old', stock: 9, attributes: { old: true } }),
    })
    const same = await api.post('/products', product({ sku: 'R2', name: 'Same' }))
    const answer = await api.post(REPLACING, [
      product({ sku: 'R0' }),
      { sku: 'R2', name: 'Same', price: 12.5 },
      { sku: 'R1', name: 'New', price: 3 },
      { name: 'No sku', price: 1 },
    ])
    const [, unchanged, replaced] = expectBulk(answer, 2, 2)
    expect(unchanged).toEqual(same.body)
    expect(replaced).toEqual({
      ...old.body,
      name: 'New',
      description: null,
      price: 3,
      stock: 0,
      attributes: {},
      version: 2,
      updated_at: expect.any(String),
    })
    expect(Date.parse(replaced.updated_at)).toBeGreaterThan(Date.parse(old.body.updated_at))
    expect(answer.body.items.map((item: Row) => item.sku)).toEqual(['R0', 'R2', 'R1', null])
    await expectItemsAsRead(answer)
    expect(await rows()).toHaveLength(4)
  })

  test('by a transaction that is still open: waits for its end', async () => {
    const other = connect(database.owner)
    try {
      await other`begin`
      await other`insert into products (sku, name, price) values ('OPEN', 'Other', 1)`
      const refused = api.post(BULK, [product(), product({ sku: 'OPEN' })])
      const replaced = api.post(REPLACING, [product({ sku: 'OPEN', name: 'Mine' })])
      await new Promise((resolve) => setTimeout(resolve, 300))
      await other`commit`
      expect(faults(await refused, 409, 'conflict')).toEqual([['#/1/sku', 'taken']])
      const [item] = expectBulk(await replaced, 0, 1)
      expect(item).toMatchObject({ name: 'Mine', version: 2 })
    } finally {
      await other.end()
    }
  })
})

const shuffled = <T>(list: T[]) =>
  list
    .map((value) => [Math.random(), value] as const)
    .toSorted(([a], [b]) => a - b)
    .map(([, value]) => value)

test('20 at once with on_conflict on the same skus, each in an order of its own', async () => {
  const skus = Array.from({ length: 200 }, (_, n) => `S${n}`)
  const writers = Array.from({ length: 20 }, (_, n) => n)
  const answers = await Promise.all(
    writers.map((writer) =>
      api.post(
        REPLACING,
        shuffled(skus).map((sku) => ({ sku, name: `By ${writer}`, price: writer })),
      ),
    ),
  )
  expect(answers.map(({ status }) => status)).toEqual(writers.map(() => 200))
  const inserted = answers.reduce((sum, { body }) => sum + body.inserted, 0)
  const updated = answers.reduce((sum, { body }) => sum + body.updated, 0)
  expect({ inserted, updated }).toEqual({ inserted: 200, updated: 19 * 200 })
  const found = await rows()
  expect(new Set(found.map(({ sku }) => sku))).toEqual(new Set(skus))
  expect(found).toHaveLength(200)
  // Each was changed 19 times, and the last writer's change is whole.
  expect(new Set(found.map(({ version }) => version))).toEqual(new Set(['20']))
  expect(new Set(found.map(({ name }) => name)).size).toBe(1)
  expect(new Set(found.map(({ price }) => price)).size).toBe(1)
})

test('20 at once without on_conflict on overlapping skus: each whole or not at all', async () => {
  const answers = await Promise.all(
    Array.from({ length: 20 }, (_, writer) =>
      api.post(
        BULK,
        shuffled(
          Array.from({ length: 50 }, (_, n) => ({
            sku: `O${writer + n}`,
            name: `By ${writer}`,
            price: 1,
          })),
        ),
      ),
    ),
  )
  const found = await rows()
  let kept = 0
  for (const [writer, answer] of answers.entries()) {
    const own = found.filter(({ name }) => name === `By ${writer}`).length
    expect(own).toBe(answer.status === 200 ? 50 : 0)
    if (answer.status === 200) kept++
    else expectProblem(answer, 409, 'conflict')
  }
  expect(kept).toBe(1)
})

test.each(['GET', 'HEAD', 'PUT', 'PATCH', 'DELETE'])('%s of it is not taken', async (method) => {
  const answer = await api.request(method, BULK)
  if (method === 'HEAD') expect(answer.status).toBe(405)
  else expectProblem(answer, 405, 'method_not_allowed')
  expect(answer.headers['allow']).toBe('POST')
  expectProblem(await api.get('/products/abc'), 422, 'validation')
})
