// Holds what a client relies on when it creates, reads, changes and removes one product.
import { beforeAll, describe, expect, test } from 'vitest'
import { expectProblem, product, type Api, type Response } from '../support/api.ts'
import type { TestDatabase } from '../support/database.ts'
import { startTarget } from '../support/target.ts'

const NO_SUCH_ID = 9_007_199_254_740_991
const MERGE_PATCH = { 'content-type': 'application/merge-patch+json' }

let api: Api
let database: TestDatabase

beforeAll(async () => {
  ;({ api, database } = await startTarget())
})

interface Product {
  id: number
  version: number
  [field: string]: unknown
}

/** Creates a product that is known to be fine, and returns it as it was answered. */
async function created(overrides: Record<string, unknown> = {}): Promise<Product> {
  const answer = await api.post('/products', product(overrides))
  expect(answer.status, answer.text).toBe(201)
  return answer.body
}

function expectProduct(answer: Response, status: number, fields: Record<string, unknown>) {
  expect(answer.status, answer.text).toBe(status)
  expect(answer.headers['content-type']).toBe('application/json')
  expect(answer.headers['etag']).toBe(`"${answer.body.version}"`)
  expect(answer.body).toEqual(fields)
}

/** The row as PostgreSQL shows it, times in UTC with all their digits. */
async function row(id: number) {
  const [found] = await database.sql<Record<string, string>[]>`
    select sku, name, price::text, version::text,
           to_char(created_at at time zone 'utc', 'YYYY-MM-DD HH24:MI:SS.US') as created_at,
           to_char(updated_at at time zone 'utc', 'YYYY-MM-DD HH24:MI:SS.US') as updated_at
    from products where id = ${id}`
  return found
}

/** A time of the API in the format of {@link row}. */
const asInRow = (time: unknown) => String(time).replace('T', ' ').replace('Z', '')

async function countRows() {
  const [found] = await database.sql<{ count: number }[]>`
    select count(*)::int as count from products`
  return found!.count
}

const whole = {
  name: 'Blue mug',
  description: 'Holds 0.3 l.\nDishwasher-safe. 😀',
  price: 12.5,
  currency: 'EUR',
  stock: 7,
  attributes: { colour: 'blue', sizes: [1, 2.5, null, true], nested: { 'a/b~c': '"\\' } },
}

describe('POST /products', () => {
  test('creates the product that was sent', async () => {
    const answer = await api.post('/products', { ...whole, sku: 'WHOLE-1' })
    const { id, created_at } = answer.body
    expectProduct(answer, 201, {
      ...whole,
      sku: 'WHOLE-1',
      id: expect.any(Number),
      version: 1,
      created_at: expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$/),
      updated_at: created_at,
    })
    expect(answer.headers['location']).toBe(`/products/${id}`)
    expect(answer.headers['etag']).toBe('"1"')
    expect(Math.abs(Date.parse(created_at) - Date.now())).toBeLessThan(60_000)
  })

  test('needs a name and a price; the rest has defaults', async () => {
    const answer = await api.post('/products', { name: 'Bare', price: 0 })
    expectProduct(answer, 201, {
      id: expect.any(Number),
      sku: null,
      name: 'Bare',
      description: null,
      price: 0,
      currency: 'USD',
      stock: 0,
      attributes: {},
      version: 1,
      created_at: expect.any(String),
      updated_at: expect.any(String),
    })
  })

  test('is answered with what a GET at its Location returns', async () => {
    const answer = await api.post('/products', product(whole))
    const read = await api.get(answer.headers['location']!)
    expectProduct(read, 200, answer.body)
    expect(read.text).toBe(answer.text)
  })

  test('takes white space from the ends of the name', async () => {
    const { body } = await api.post('/products', product({ name: ' \t\u3000Blue  mug\ufeff\n' }))
    expect(body.name).toBe('Blue  mug')
  })

  test.each([
    ['application/json; charset=utf-8'],
    ['application/json;charset="UTF-8"'],
    ['Application/JSON'],
    ['application/json ; charset=utf-8'],
  ])('takes a body of type %s', async (type) => {
    const answer = await api.post('/products', product({ name: 'Typed' }), { 'content-type': type })
    expect(answer.status, answer.text).toBe(201)
    expect(answer.body.name).toBe('Typed')
  })

  test('takes null for what may be null, and any number of products without a sku', async () => {
    for (let n = 0; n < 2; n++) {
      const { body } = await api.post('/products', product({ sku: null, description: null }))
      expect(body).toMatchObject({ sku: null, description: null })
    }
  })

  test('tells one sku from another by its exact characters', async () => {
    for (const sku of ['Same', 'same', ' same', 'same ', 'sa\u0308me', 'säme']) {
      expect((await created({ sku }))['sku']).toBe(sku)
    }
  })

  test('does not look at the fields that are the server’s', async () => {
    const { body } = await api.post('/products', {
      ...product(),
      id: 123_456,
      version: 'x',
      created_at: null,
      updated_at: [{}],
    })
    expect(body).toMatchObject({ version: 1, created_at: expect.stringMatching(/^20/) })
    expect(body.id).not.toBe(123_456)
  })

  test('keeps what looks like JavaScript, SQL or markup as it is', async () => {
    const odd = [
      `'; drop table products; --`,
      '${name} $1 %s \\ \\u0000 {{x}}',
      '<script>alert(1)</script>',
      '\u0001\u007f\u2028\ufffd\u{10ffff}',
      'null',
    ]
    for (const text of odd) {
      const attributes = JSON.parse(JSON.stringify({ [text]: text, a: [text] }))
      const sent = product({ name: text, description: text, attributes })
      const { id } = (await api.post('/products', sent)).body
      expect((await api.get(`/products/${id}`)).body).toMatchObject(sent)
    }
  })

  test('keeps members of attributes whatever their names', async () => {
    const attributes = '{"__proto__":{"a":1},"constructor":{"prototype":null},"":"","toString":[]}'
    const sent = `{"name":"Proto","price":1,"attributes":${attributes}}`
    const { body } = await api.post('/products', sent, { 'content-type': 'application/json' })
    // toEqual would not see an own member of the name __proto__.
    const entries = (value: object) => new Map(Object.entries(value))
    expect(entries(body.attributes)).toEqual(entries(JSON.parse(attributes)))
  })
})

describe('price', () => {
  test.concurrent.each([
    [0, '0.00'],
    [0.01, '0.01'],
    [0.1, '0.10'],
    [1.1, '1.10'],
    [12.5, '12.50'],
    [19.99, '19.99'],
    [4.35, '4.35'],
    [1e2, '100.00'],
    [9_999_999_999.99, '9999999999.99'],
    [9_999_999_999.98, '9999999999.98'],
    ['0', '0.00'],
    ['0.0', '0.00'],
    ['0.01', '0.01'],
    ['12.50', '12.50'],
    ['12.5', '12.50'],
    ['9999999999.99', '9999999999.99'],
  ])('%j is stored exactly and given back as a number', async (price, stored) => {
    const { id } = await created()
    const answers = [
      await api.post('/products', product({ price })),
      await api.put(`/products/${id}`, product({ price })),
      await api.patch(`/products/${id}`, { price }),
      await api.get(`/products/${id}`),
    ]
    for (const answer of answers) {
      expect(answer.body.price, answer.text).toBe(Number(price))
      expect((await row(answer.body.id))!['price']).toBe(stored)
    }
  })
})

describe('GET /products/{id}', () => {
  test.each([
    ['2024-02-29 12:34:56.123456+02', '2024-02-29T10:34:56.123456Z'],
    ['2024-01-01 00:00:00.0001+00', '2024-01-01T00:00:00.000100Z'],
    ['1999-12-31 23:59:59.999999-14', '2000-01-01T13:59:59.999999Z'],
    ['0001-01-01 00:00:00+00', '0001-01-01T00:00:00.000000Z'],
    ['9999-12-31 23:59:59.999999+00', '9999-12-31T23:59:59.999999Z'],
  ])('shows %s in UTC with its microseconds', async (stored, shown) => {
    const [inserted] = await database.sql<{ id: string }[]>`
      insert into products (name, price, created_at, updated_at)
      values ('Timed', 1, ${stored}::text::timestamptz, ${stored}::text::timestamptz)
      returning id::text`
    const { body } = await api.get(`/products/${inserted!.id}`)
    expect(body).toMatchObject({ created_at: shown, updated_at: shown })
  })

  test('shows the times that the table has, after a change too', async () => {
    const { id } = await created()
    for (let n = 0; n < 3; n++) {
      const { body } = await api.patch(`/products/${id}`, { stock: n + 1 })
      expect(await row(id)).toMatchObject({
        created_at: asInRow(body.created_at),
        updated_at: asInRow(body.updated_at),
        version: String(n + 2),
      })
    }
  })

  test('shows what was written in SQL', async () => {
    const { id } = await created()
    await database.sql`update products set name = 'By hand' where id = ${id}`
    expectProduct(
      await api.get(`/products/${id}`),
      200,
      expect.objectContaining({ name: 'By hand', version: 2 }),
    )
  })

  test('takes an id that is percent-encoded', async () => {
    const { id } = await created()
    const encoded = String(id).replaceAll(/\d/g, '%3$&')
    expect((await api.get(`/products/${encoded}`)).body.id).toBe(id)
  })

  test('HEAD answers the same without a body', async () => {
    const { id } = await created()
    for (const path of [`/products/${id}`, '/products', `/products/${NO_SUCH_ID}`]) {
      const [head, get] = [await api.head(path), await api.get(path)]
      expect(head.text).toBe('')
      expect(head.status).toBe(get.status)
      for (const name of ['etag', 'content-type', 'link']) {
        expect(head.headers[name], `${name} of ${path}`).toBe(get.headers[name])
      }
    }
  })
})

describe('PUT /products/{id}', () => {
  test('replaces the product whole', async () => {
    const before = await created({ ...whole, sku: 'PUT-1' })
    const answer = await api.put(`/products/${before.id}`, { name: 'New', price: 1 })
    expectProduct(answer, 200, {
      ...before,
      sku: null,
      name: 'New',
      description: null,
      price: 1,
      currency: 'USD',
      stock: 0,
      attributes: {},
      version: 2,
      updated_at: expect.any(String),
    })
    expect(answer.body.updated_at > (before['updated_at'] as string)).toBe(true)
    expectProduct(await api.get(`/products/${before.id}`), 200, answer.body)
  })

  test('takes what was read, changed or not', async () => {
    const before = await created({ ...whole, sku: 'PUT-2' })
    const path = `/products/${before.id}`
    expectProduct(await api.put(path, before), 200, before)
    const changed = await api.put(path, { ...before, name: 'Changed' })
    expect(changed.body).toMatchObject({
      name: 'Changed',
      version: 2,
      attributes: whole.attributes,
    })
    // A second writer that sends an older version's fields is no matter of this request.
    expect((await api.put(path, before)).body).toMatchObject({ name: whole.name, version: 3 })
  })

  test('does not create a product', async () => {
    const rows = await countRows()
    expectProblem(await api.put(`/products/${NO_SUCH_ID}`, product()), 404, 'not_found')
    expect(await countRows()).toBe(rows)
  })

  test('keeps its own sku', async () => {
    const before = await created({ sku: 'PUT-3' })
    const answer = await api.put(`/products/${before.id}`, { ...before, stock: 1 })
    expect(answer.body).toMatchObject({ sku: 'PUT-3', stock: 1, version: 2 })
  })
})

describe('PATCH /products/{id}', () => {
  test.concurrent.each([
    ['sku', 'PATCHED'],
    ['sku', null],
    ['name', 'Green mug'],
    ['description', 'New'],
    ['description', ''],
    ['description', null],
    ['price', 99.99],
    ['currency', 'CHF'],
    ['stock', 2_147_483_647],
    ['stock', 0],
    ['attributes', { other: 1 }],
  ])('changes %s to %j and nothing else', async (field, value) => {
    const before = await created({ ...whole, attributes: {} })
    const answer = await api.patch(`/products/${before.id}`, { [field]: value })
    const expected = { ...before, [field]: value, version: 2, updated_at: expect.any(String) }
    expectProduct(answer, 200, expected)
    expect(answer.body.updated_at > (before['updated_at'] as string)).toBe(true)
    expectProduct(await api.get(`/products/${before.id}`), 200, answer.body)
  })

  test.concurrent.each([
    ['sku', null],
    ['description', null],
    ['currency', 'USD'],
    ['stock', 0],
    ['attributes', {}],
  ])('null takes %s back to its default', async (field, value) => {
    const before = await created(whole)
    const { body } = await api.patch(`/products/${before.id}`, { [field]: null })
    expect(body).toEqual({ ...before, [field]: value, version: 2, updated_at: expect.any(String) })
  })

  test.concurrent.each(['name', 'price'])('null is no value for %s', async (field) => {
    const before = await created(whole)
    const answer = await api.patch(`/products/${before.id}`, { [field]: null, stock: 1 })
    const { errors } = expectProblem(answer, 422, 'validation')
    expect(errors).toEqual([expect.objectContaining({ pointer: `#/${field}` })])
    expect((await api.get(`/products/${before.id}`)).body).toEqual(before)
  })

  test('takes both media types', async () => {
    const { id } = await created()
    const answers = [
      await api.patch(`/products/${id}`, '{"stock":1}', MERGE_PATCH),
      await api.patch(`/products/${id}`, '{"stock":2}', { 'content-type': 'application/json' }),
      await api.patch(`/products/${id}`, '{"stock":3}', {
        'content-type': 'Application/Merge-Patch+JSON; charset=UTF-8',
      }),
    ]
    expect(answers.map(({ body }) => body.stock)).toEqual([1, 2, 3])
  })

  const large = { text: 'abc '.repeat(3000), list: Array.from({ length: 500 }, (_, n) => n) }

  test.concurrent.each<[string, Record<string, unknown>]>([
    ['an empty patch', {}],
    ['the same sku', { sku: 'EQUAL' }],
    ['the same name', { name: '  Blue mug ' }],
    ['the same description', { description: whole.description }],
    ['the same price', { price: 12.5 }],
    ['the same price as a string', { price: '12.50' }],
    ['the same currency', { currency: 'EUR' }],
    ['the same stock', { stock: 7 }],
    ['no attributes', { attributes: {} }],
    ['the same attributes', { attributes: whole.attributes }],
    ['one of the attributes', { attributes: { nested: { 'a/b~c': '"\\' } } }],
    ['large attributes that are the same', { attributes: large }],
    ['attributes taken away that are not there', { attributes: { nothing: null, nested: {} } }],
    ['only fields of the server', { id: 5, version: 9, created_at: 'x', updated_at: null }],
    ['all of it', whole],
  ])('%s changes nothing, the version neither', async (_, patch) => {
    const sku = patch['sku'] ?? null
    const attributes = { ...whole.attributes, ...large }
    const before = await created({ ...whole, sku, attributes })
    const path = `/products/${before.id}`
    for (const headers of [MERGE_PATCH, { 'content-type': 'application/json' }]) {
      expectProduct(await api.patch(path, JSON.stringify(patch), headers), 200, before)
    }
    expectProduct(await api.get(path), 200, before)
  })

  // RFC 7396, appendix A, and what it says of deeper members.
  test.concurrent.each([
    ['{"a":"b"}', '{"a":"c"}', '{"a":"c"}'],
    ['{"a":"b"}', '{"b":"c"}', '{"a":"b","b":"c"}'],
    ['{"a":"b"}', '{"a":null}', '{}'],
    ['{"a":"b","b":"c"}', '{"a":null}', '{"b":"c"}'],
    ['{"a":["b"]}', '{"a":"c"}', '{"a":"c"}'],
    ['{"a":"c"}', '{"a":["b"]}', '{"a":["b"]}'],
    ['{"a":{"b":"c"}}', '{"a":{"b":"d","c":null}}', '{"a":{"b":"d"}}'],
    ['{"a":[{"b":"c"}]}', '{"a":[1]}', '{"a":[1]}'],
    ['{"v":["a","b"]}', '{"v":["c","d"]}', '{"v":["c","d"]}'],
    ['{"v":{"a":"b"}}', '{"v":["c"]}', '{"v":["c"]}'],
    ['{"v":{"a":"foo"}}', '{"v":null}', '{}'],
    ['{"v":{"a":"foo"}}', '{"v":"bar"}', '{"v":"bar"}'],
    ['{"e":null}', '{"a":1}', '{"e":null,"a":1}'],
    ['{"v":[1,2]}', '{"v":{"a":"b","c":null}}', '{"v":{"a":"b"}}'],
    ['{}', '{"a":{"bb":{"ccc":null}}}', '{"a":{"bb":{}}}'],
    ['{"v":1}', '{"v":{"a":{"b":null,"c":0}}}', '{"v":{"a":{"c":0}}}'],
    ['{"v":{}}', '{"v":[null,{"a":null}]}', '{"v":[null,{"a":null}]}'],
    ['{"v":null}', '{"v":{"a":null}}', '{"v":{}}'],
    [
      '{"a":{"b":{"c":{"d":1,"e":2}}}}',
      '{"a":{"b":{"c":{"d":null}}}}',
      '{"a":{"b":{"c":{"e":2}}}}',
    ],
    ['{"n":1,"t":true}', '{"n":0,"t":false}', '{"n":0,"t":false}'],
    ['{"":1}', '{"":null," ":2}', '{" ":2}'],
  ])('attributes %s merged with %s become %s', async (target, patch, result) => {
    const { id } = await created({ attributes: JSON.parse(target) })
    const answer = await api.patch(`/products/${id}`, `{"attributes":${patch}}`, MERGE_PATCH)
    expectProduct(answer, 200, expect.objectContaining({ attributes: JSON.parse(result) }))
    expect((await api.get(`/products/${id}`)).text).toBe(answer.text)
  })

  test('is for a product that exists', async () => {
    for (const patch of [{}, { stock: 1 }]) {
      expectProblem(await api.patch(`/products/${NO_SUCH_ID}`, patch), 404, 'not_found')
    }
  })
})

describe('versions', () => {
  test('grow by one with each change, and updated_at with them', async () => {
    const { id, created_at } = await created()
    const answers = [
      await api.get(`/products/${id}`),
      await api.patch(`/products/${id}`, { stock: 1 }),
      await api.put(`/products/${id}`, product()),
      await api.patch(`/products/${id}`, { attributes: { a: 1 } }),
      await api.patch(`/products/${id}`, { attributes: { a: null } }),
    ]
    expect(answers.map(({ headers }) => headers['etag'])).toEqual([
      '"1"',
      '"2"',
      '"3"',
      '"4"',
      '"5"',
    ])
    const times: string[] = answers.map(({ body }) => body.updated_at)
    expect(times).toEqual([...new Set(times)].toSorted())
    expect(new Set(answers.map(({ body }) => body.created_at))).toEqual(new Set([created_at]))
  })

  test('are lost by none of many writers at once', async () => {
    const { id } = await created({ stock: 0 })
    const answers = await Promise.all(
      Array.from({ length: 20 }, (_, n) => api.patch(`/products/${id}`, { stock: n + 1 })),
    )
    expect(answers.map(({ status }) => status)).toEqual(Array(20).fill(200))
    const versions = answers.map(({ body }) => body.version).toSorted((a, b) => a - b)
    expect(versions).toEqual(Array.from({ length: 20 }, (_, n) => n + 2))
    const last = answers.find(({ body }) => body.version === 21)!
    expect((await api.get(`/products/${id}`)).text).toBe(last.text)
  })

  test('keep the changes that many writers make to different attributes', async () => {
    const { id } = await created()
    await Promise.all(
      Array.from({ length: 20 }, (_, n) =>
        api.patch(`/products/${id}`, { attributes: { [`key_${n}`]: n } }),
      ),
    )
    const { body } = await api.get(`/products/${id}`)
    expect(Object.keys(body.attributes)).toHaveLength(20)
    expect(body.version).toBe(21)
  })
})

describe('a sku that is taken', () => {
  const taken = (answer: Response) => {
    const { errors } = expectProblem(answer, 409, 'conflict')
    expect(errors).toEqual([expect.objectContaining({ pointer: '#/sku' })])
  }

  test('is refused on POST, PUT and PATCH, and nothing is changed', async () => {
    const { sku } = await created()
    const other = await created()
    const rows = await countRows()
    taken(await api.post('/products', product({ sku })))
    taken(await api.put(`/products/${other.id}`, product({ sku })))
    taken(await api.patch(`/products/${other.id}`, { sku, stock: 99 }))
    expect((await api.get(`/products/${other.id}`)).body).toEqual(other)
    expect(await countRows()).toBe(rows)
  })

  test('is had by one of many that ask for it at once', async () => {
    const rows = await countRows()
    const answers = await Promise.all(
      Array.from({ length: 20 }, () => api.post('/products', product({ sku: 'RACE' }))),
    )
    const [winners, losers] = [201, 409].map((code) => answers.filter((a) => a.status === code))
    expect([winners!.length, losers!.length]).toEqual([1, 19])
    losers!.forEach(taken)
    expect(await countRows()).toBe(rows + 1)
  })

  test('is free again when its product is removed or gets another', async () => {
    const { id } = await created({ sku: 'FREED' })
    await api.patch(`/products/${id}`, { sku: 'OTHER' })
    const next = await created({ sku: 'FREED' })
    await api.delete(`/products/${next.id}`)
    await created({ sku: 'FREED' })
  })
})

describe('DELETE /products/{id}', () => {
  test('removes the product, once', async () => {
    const { id } = await created()
    const path = `/products/${id}`
    const answer = await api.delete(path)
    expect(answer.status).toBe(204)
    expect(answer.text).toBe('')
    expect(answer.headers).not.toHaveProperty('content-type')
    expect(answer.headers['x-request-id']).toMatch(/./)
    expect(await row(id)).toBeUndefined()
    const late = [
      await api.delete(path),
      await api.get(path),
      await api.put(path, product()),
      await api.patch(path, { stock: 1 }),
    ]
    for (const gone of late) expectProblem(gone, 404, 'not_found')
    expect(await row(id)).toBeUndefined()
  })

  test('does not give its id to another', async () => {
    const { id } = await created()
    await api.delete(`/products/${id}`)
    expect((await created()).id).toBeGreaterThan(id)
  })

  test('succeeds for one of many at once', async () => {
    const { id } = await created()
    const answers = await Promise.all(
      Array.from({ length: 20 }, () => api.delete(`/products/${id}`)),
    )
    expect(answers.filter(({ status }) => status === 204)).toHaveLength(1)
    expect(answers.filter(({ status }) => status === 404)).toHaveLength(19)
  })
})

test.each(['GET', 'PUT', 'PATCH', 'DELETE'])('%s of an unknown id is a 404', async (method) => {
  const body = method === 'PUT' ? product() : method === 'PATCH' ? { stock: 1 } : undefined
  for (const id of [NO_SUCH_ID, '9007199254740992', '9223372036854775808', `1${'0'.repeat(30)}`]) {
    const answer = await api.request(method, `/products/${id}`, { body })
    expect(expectProblem(answer, 404, 'not_found')).not.toHaveProperty('errors')
  }
})
