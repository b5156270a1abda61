// Holds that a key is kept as it was sent, whatever keys others have sent: V8 alone takes some for those.
import { beforeAll, beforeEach, expect, test } from 'vitest'
import type { Api, Response } from '../support/api.ts'
import type { TestDatabase } from '../support/database.ts'
import { startTarget } from '../support/target.ts'

const JSON_TYPE = { 'content-type': 'application/json' }

let api: Api
let database: TestDatabase

beforeAll(async () => {
  ;({ api, database } = await startTarget())
})

beforeEach(async () => {
  await database.sql`truncate products`
})

/** A product, as JSON. The key stands as it is between its quotes; what is before it is the same for all. */
const withKey = (key: string) => `{"name":"x","price":1,"attributes":{"size":1,"${key}":2}}`

/** Each as JSON: what one client sends, what another does, and the key that is then to be kept. */
const keys: [poison: string, key: string, kept: string][] = [
  [String.raw`\\`, String.raw`\n`, '\n'],
  [String.raw`\\`, String.raw`\"`, '"'],
  [String.raw`\\u0`, String.raw`\u00e9t\u00e9`, 'été'],
  [String.raw`a\\n`, String.raw`a\nb`, 'a\nb'],
]

const ways: [title: string, send: (json: string) => Promise<Response>][] = [
  ['a product', (json) => api.post('/products', json, JSON_TYPE)],
  ['a bulk', (json) => api.post('/products/bulk', `[${json}]`, JSON_TYPE)],
  [
    'an import',
    (json) => api.post('/products/import', json, { 'content-type': 'application/x-ndjson' }),
  ],
  [
    'an import of CSV',
    (json) => {
      const attributes = /\{"size".*?\}/.exec(json)![0].replaceAll('"', '""')
      const csv = `name,price,attributes\nx,1,"${attributes}"\n`
      return api.post('/products/import', csv, { 'content-type': 'text/csv' })
    },
  ],
]

test.each(ways)('%s keeps its keys', async (_, send) => {
  for (const [poison, key, kept] of keys) {
    for (let n = 0; n < 3; n++) expect((await send(withKey(poison))).status).toBeLessThan(300)
    expect((await send(withKey(key))).status).toBeLessThan(300)
    const [row] = await database.sql<{ has: boolean }[]>`
      select attributes ? ${kept} as has from products order by id desc limit 1`
    expect(row, key).toEqual({ has: true })
  }
})

test('a merge patch keeps its keys, and a key that is no field is named', async () => {
  const { id } = (await api.post('/products', '{"name":"x","price":1}', JSON_TYPE)).body
  for (const [poison, key, kept] of keys) {
    for (const one of [poison, key]) {
      const patch = `{"name":"x","attributes":{"size":1,"${one}":2}}`
      expect(
        (await api.request('PATCH', `/products/${id}`, { body: patch, headers: JSON_TYPE })).status,
      ).toBe(200)
    }
    const [row] = await database.sql<{ has: boolean }[]>`
      select attributes ? ${kept} as has from products`
    expect(row, key).toEqual({ has: true })
  }
  const unknown = (key: string) => `{"name":"x","price":1,"${key}":2}`
  await api.post('/products', unknown(String.raw`\\`), JSON_TYPE)
  const { body } = await api.post('/products', unknown(String.raw`\n`), JSON_TYPE)
  expect(body.errors).toMatchObject([{ pointer: '#/%0A', code: 'unknown' }])
})
