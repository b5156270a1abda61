// Holds that a write happens in the version that its client has seen, or not at all, and that a read of what is known is short.
import { beforeAll, describe, expect, test } from 'vitest'
import { type Api, expectProblem, product } from '../support/api.ts'
import type { TestDatabase } from '../support/database.ts'
import { startTarget } from '../support/target.ts'

let api: Api
let database: TestDatabase

beforeAll(async () => {
  ;({ api, database } = await startTarget())
})

/** A product in version 3. */
async function inVersion3() {
  const { body } = await api.post('/products', product())
  for (const stock of [1, 2]) await api.patch(`/products/${body.id}`, { stock })
  return `/products/${body.id}`
}

const missing = '/products/999999'

/** Everything that writes to a product, and what it gives when it is let. */
const writes = [
  ['PUT', '', { name: 'Put', price: 1 }, 200],
  ['PATCH', '', { name: 'Patched' }, 200],
  ['PATCH', '', {}, 200],
  ['DELETE', '', undefined, 204],
  ['POST', '/stock', { delta: 5 }, 200],
] as const

describe.each(writes)('%s %s', (method, suffix, body, status) => {
  const send = (path: string, headers: Record<string, string>) =>
    api.request(method, path + suffix, { body, headers })

  test.concurrent.each([
    ['If-Match', '"3"'],
    ['If-Match', '"1", "2" ,"3"'],
    ['If-Match', ',, "3",'],
    ['If-Match', '"a,b", "3"'],
    ['If-Match', '*'],
    ['If-Match', ' * '],
    ['If-None-Match', '"2"'],
    ['If-None-Match', '"2", W/"1", "none-of-ours"'],
    ['If-None-Match', '"03"'],
  ])('goes on with %s: %s', async (name, value) => {
    expect((await send(await inVersion3(), { [name]: value })).status).toBe(status)
  })

  test.concurrent.each([
    ['If-Match', '"2"'],
    ['If-Match', '"1", "2"'],
    ['If-Match', 'W/"3"'],
    ['If-Match', '"03"'],
    ['If-Match', '""'],
    ['If-Match', '"99999999999999999999"'],
    ['If-Match', '"9999999999999999"'],
    ['If-None-Match', '*'],
    ['If-None-Match', '"3"'],
    ['If-None-Match', 'W/"3"'],
    ['If-None-Match', '"1", W/"3"'],
  ])('is 412 with %s: %s, and nothing is changed', async (name, value) => {
    const path = await inVersion3()
    const before = await api.get(path)
    expectProblem(await send(path, { [name]: value }), 412, 'precondition_failed')
    expect((await api.get(path)).text).toBe(before.text)
  })

  test.concurrent('takes both headers: each has to hold', async () => {
    const path = await inVersion3()
    const match = { 'If-Match': '"3"' }
    expectProblem(
      await send(path, { ...match, 'If-None-Match': '"3"' }),
      412,
      'precondition_failed',
    )
    expect((await send(path, { ...match, 'If-None-Match': '"2"' })).status).toBe(status)
  })

  test.concurrent.each([
    ['If-Match', '"3"'],
    ['If-Match', '*'],
    ['If-None-Match', '*'],
    ['If-None-Match', '"3"'],
  ])('is 404 for a product that does not exist, with %s: %s', async (name, value) => {
    expectProblem(await send(missing, { [name]: value }), 404, 'not_found')
  })

  // Not the empty one: workerd's server drops a header without a value.
  test.concurrent.each([
    '3',
    '"3',
    '"3""4"',
    '"3" "4"',
    'w/"3"',
    "'3'",
    '*, "3"',
    '"3", *',
    ',',
    `${'"3",'.repeat(100)}x`,
  ])('is 422 when the header is no list of tags: %s', async (value) => {
    const path = await inVersion3()
    for (const header of ['if-match', 'if-none-match']) {
      const problem = expectProblem(await send(path, { [header]: value }), 422, 'validation')
      expect(problem.errors).toEqual([
        { header, code: 'invalid_format', detail: expect.stringContaining('entity tags') },
      ])
    }
  })
})

describe('a read', () => {
  test('of a known version is 304, with the tag and without a body', async () => {
    const path = await inVersion3()
    for (const known of ['"3"', 'W/"3"', '"1", "3"', '*']) {
      for (const method of ['GET', 'HEAD']) {
        const answer = await api.request(method, path, { headers: { 'If-None-Match': known } })
        expect(answer, known).toMatchObject({ status: 304, text: '', headers: { etag: '"3"' } })
        expect(answer.headers).not.toHaveProperty('content-type')
      }
    }
  })

  test('of another version is whole', async () => {
    const path = await inVersion3()
    for (const known of ['"2"', 'W/"4"', '"none"']) {
      const answer = await api.get(path, { 'If-None-Match': known })
      expect(answer).toMatchObject({ status: 200, body: { version: 3 }, headers: { etag: '"3"' } })
    }
  })

  test('with If-Match is 412 when the version is another', async () => {
    const path = await inVersion3()
    expect((await api.get(path, { 'If-Match': '"3"' })).status).toBe(200)
    expectProblem(await api.get(path, { 'If-Match': '"2"' }), 412, 'precondition_failed')
    expect((await api.head(path, { 'If-Match': '"2"' })).status).toBe(412)
  })

  test('of what does not exist is 404', async () => {
    expectProblem(await api.get(missing, { 'If-None-Match': '*' }), 404, 'not_found')
    expectProblem(await api.get(missing, { 'If-Match': '"1"' }), 404, 'not_found')
  })
})

test('a version of two digits is known by both', async () => {
  const path = await inVersion3()
  for (let stock = 3; stock <= 11; stock++) await api.patch(path, { stock })
  expect((await api.get(path, { 'If-Match': '"12"' })).body.version).toBe(12)
  expectProblem(await api.get(path, { 'If-Match': '"1", "2"' }), 412, 'precondition_failed')
  expect((await api.get(path, { 'If-None-Match': '"12"' })).status).toBe(304)
})

test('of 50 writers in one version one gets 200 and 49 get 412', async () => {
  for (const [method, change] of [
    ['PUT', (n: number) => ({ name: `Writer ${n}`, price: n })],
    ['PATCH', (n: number) => ({ name: `Writer ${n}` })],
  ] as const) {
    const path = await inVersion3()
    const headers = { 'If-Match': '"3"' }
    const answers = await Promise.all(
      Array.from({ length: 50 }, (_, n) => api.request(method, path, { body: change(n), headers })),
    )
    const count = (status: number) => answers.filter((answer) => answer.status === status).length
    expect([count(200), count(412)]).toEqual([1, 49])
    const winner = answers.findIndex((answer) => answer.status === 200)
    const { body } = await api.get(path)
    expect(body).toMatchObject({ version: 4, name: `Writer ${winner}` })
  }
})

test('a writer that waited for another sees the version that the other left', async () => {
  const path = await inVersion3()
  const id = Number(path.split('/')[2])
  const answers = await database.sql.begin(async (sql) => {
    await sql`update products set name = 'Changed in SQL' where id = ${id}`
    const pending = Promise.all([
      api.patch(path, { name: 'Mine' }, { 'If-Match': '"3"' }),
      api.post(`${path}/stock`, { delta: 1 }, { 'If-Match': '"3"' }),
      api.delete(path, { 'If-Match': '"3"' }),
    ])
    await new Promise((resolve) => setTimeout(resolve, 300))
    return { pending }
  })
  for (const answer of await answers.pending) {
    expectProblem(answer, 412, 'precondition_failed')
  }
  expect((await api.get(path)).body).toMatchObject({ version: 4, name: 'Changed in SQL' })
})
