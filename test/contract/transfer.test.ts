// Holds that any number of products goes in and comes out whole, or not at all, however bad the input.
import { once } from 'node:events'
import { connect } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { expectProblem, product, type Api, type Response } from '../support/api.ts'
import { backends, connect as connectTo, killBackends } from '../support/database.ts'
import type { TestDatabase } from '../support/database.ts'
import { startTarget, type Target } from '../support/target.ts'

const MIB = 1024 * 1024
const NDJSON = { 'content-type': 'application/x-ndjson' }
const CSV = { 'content-type': 'text/csv' }

let target: Target
let api: Api
let database: TestDatabase
let url: string

beforeAll(async () => {
  target = await startTarget()
  ;({ api, database, url } = target)
})

beforeEach(async () => {
  await database.sql`truncate products`
})

const importNdjson = (body: unknown, query = '') =>
  api.request('POST', `/products/import${query}`, { body, headers: NDJSON })
const importCsv = (body: unknown, query = '') =>
  api.request('POST', `/products/import${query}`, { body, headers: CSV })
const exported = (accept?: string) => api.get('/products/export', accept ? { accept } : {})

const ndjson = (rows: unknown[]) => rows.map((row) => `${JSON.stringify(row)}\n`).join('')

async function count(): Promise<number> {
  const [row] = await database.sql<{ count: number }[]>`select count(*)::int from products`
  return row!.count
}

/** All that a client may set, in the order in which it came in. */
async function rows() {
  return database.sql`
    select sku, name, description, price::text, currency, stock, attributes from products order by id`
}

/** How many statements or transactions of the service are open. */
async function active(): Promise<number> {
  const [row] = await database.sql<{ count: number }[]>`
    select count(*)::int from pg_stat_activity
    where datname = ${database.address.database} and application_name = 'larder' and state <> 'idle'`
  return row!.count
}

const faults = (answer: Response, status = 422, code = 'validation') =>
  expectProblem(answer, status, code).errors.map(
    ({ line, pointer, code }: { line: number; pointer?: string; code: string }) =>
      [line, pointer, code].filter((part) => part !== undefined).join(' '),
  )

async function expectNothing() {
  expect(await count()).toBe(0)
  await expect.poll(active).toBe(0)
}

async function* pieces(bytes: Buffer, length: number) {
  for (let at = 0; at < bytes.length; at += length) yield bytes.subarray(at, at + length)
}

const hard = [
  { sku: 'A,1', name: 'Comma, "quotes" and\na line', description: '', price: 0 },
  { sku: 'B\r\n2', name: '😀 é 漢字', description: 'a\r\nb\rc\n', price: 9999999999.99, stock: 5 },
  { name: 'Null', price: '12.50', currency: 'EUR', attributes: { 'a"b': [1e30, null, 'c,"d"\n'] } },
  { sku: ' ', name: "'; drop table products; --", description: '\\N', price: 1e-2 },
]

describe('an import', () => {
  test('writes every row, with the defaults of what is left out', async () => {
    const answer = await importNdjson(ndjson(hard))
    expect(answer.status, answer.text).toBe(200)
    expect(answer.headers['content-type']).toBe('application/json')
    expect(answer.body).toEqual({ inserted: 4, updated: 0 })
    expect(await rows()).toEqual(
      hard.map((row) => ({
        sku: null,
        description: null,
        currency: 'USD',
        stock: 0,
        attributes: {},
        ...row,
        price: Number(row.price).toFixed(2),
      })),
    )
  })

  test('takes CSV: columns in any order, an empty field left out, "" a string, attributes JSON', async () => {
    const csv =
      '\ufeffprice,name,stock,sku,description,attributes\r\n' +
      '1.50,Plain,,,"",\r\n' +
      '\r\n' +
      '"2","Two\nlines, and ""quotes""",7,X-1,,"{""a"": [1, ""b""]}"\r\n' +
      '3,No end,0,,text,{}'
    expect((await importCsv(csv)).body).toEqual({ inserted: 3, updated: 0 })
    const common = { currency: 'USD', sku: null, description: null, attributes: {}, stock: 0 }
    expect(await rows()).toEqual([
      { ...common, name: 'Plain', price: '1.50', description: '' },
      {
        ...common,
        name: 'Two\nlines, and "quotes"',
        price: '2.00',
        sku: 'X-1',
        stock: 7,
        attributes: { a: [1, 'b'] },
      },
      { ...common, name: 'No end', price: '3.00', description: 'text' },
    ])
  })

  test('of nothing is an import of no rows', async () => {
    for (const body of ['', '\n', '\r\n \n\t\n', '\ufeff']) {
      expect((await importNdjson(body)).body).toEqual({ inserted: 0, updated: 0 })
    }
    for (const body of ['', '\n', 'name,price', 'name,price\n\n']) {
      expect((await importCsv(body)).body).toEqual({ inserted: 0, updated: 0 })
    }
    expect((await api.request('POST', '/products/import', { headers: NDJSON })).status).toBe(200)
  })

  test('takes what was read: the fields of the server are ignored', async () => {
    const { body } = await api.post('/products', product({ sku: 'READ' }))
    await database.sql`truncate products`
    const changed = { ...body, id: 900_000, version: 'x', created_at: null }
    expect((await importNdjson(ndjson([changed]))).body).toEqual({ inserted: 1, updated: 0 })
    const { items } = (await api.get('/products')).body
    expect(items[0]).toMatchObject({ sku: 'READ', version: 1, id: expect.any(Number) })
    expect(items[0].id).not.toBe(900_000)
  })

  test('is the same however its bytes arrive', async () => {
    const bytes = Buffer.from(ndjson(hard))
    for (const length of [1, 2, 3, 7]) {
      await database.sql`truncate products`
      expect((await importNdjson(pieces(bytes, length))).body).toEqual({ inserted: 4, updated: 0 })
      expect(await rows()).toMatchObject([{ sku: 'A,1' }, { name: '😀 é 漢字' }, {}, {}])
    }
    const csv = Buffer.from('sku,name,price\r\n"é\r\n""x""",😀,1\r\n,"漢,字",2')
    for (const length of [1, 2, 3, 7]) {
      await database.sql`truncate products`
      expect((await importCsv(pieces(csv, length))).body).toEqual({ inserted: 2, updated: 0 })
      expect(await rows()).toMatchObject([{ sku: 'é\r\n"x"', name: '😀' }, { name: '漢,字' }])
    }
  })

  test('replaces, as PUT does, the products whose sku is known when it is told to', async () => {
    const before = ['KEPT', 'SAME', 'GONE'].map((sku) =>
      product({ sku, description: 'old', stock: 3, attributes: { old: true } }),
    )
    await importNdjson(ndjson(before))
    const { items } = (await api.get('/products')).body
    const answer = await importNdjson(
      ndjson([{ sku: 'GONE', name: 'New', price: 2 }, product(), before[1]]),
      '?on_conflict=sku',
    )
    expect(answer.body).toEqual({ inserted: 1, updated: 2 })
    const [, gone, same, kept] = (await api.get('/products')).body.items
    expect(kept).toEqual(items[2])
    expect(same).toEqual(items[1]) // nothing changed, so the version neither
    expect(gone).toEqual({
      ...items[0],
      ...{ name: 'New', price: 2, description: null, stock: 0, attributes: {}, version: 2 },
      updated_at: expect.any(String),
    })
  })

  test('counts what another wrote meanwhile as updated', async () => {
    const sql = connectTo(database.address)
    await sql`begin`
    await sql`insert into products (sku, name, price) values ('RACE', 'Theirs', 1)`
    const importing = importNdjson(
      ndjson([{ sku: 'RACE', name: 'Ours', price: 2 }]),
      '?on_conflict=sku',
    )
    const refused = importNdjson(ndjson([product(), { sku: 'RACE', name: 'Ours', price: 2 }]))
    await expect.poll(active).toBe(2)
    await sleep(100)
    await sql`commit`
    await sql.end()
    expect((await importing).body).toEqual({ inserted: 0, updated: 1 })
    expect(faults(await refused, 409, 'conflict')).toEqual(['2 #/sku taken'])
    expect(await rows()).toMatchObject([{ sku: 'RACE', name: 'Ours' }])
  })

  test('is refused for a taken sku, at each line that has one', async () => {
    await importNdjson(ndjson([product({ sku: 'T-1' }), product({ sku: 'T-2' })]))
    const body = ndjson([product({ sku: 'T-2' }), product(), product({ sku: 'T-1' })])
    const problem = expectProblem(await importNdjson(body), 409, 'conflict')
    const taken = { pointer: '#/sku', code: 'taken', detail: 'is taken by another product' }
    expect(problem.errors).toEqual([
      { line: 1, ...taken },
      { line: 3, ...taken },
    ])
    expect(await count()).toBe(2)
  })

  test.each(['', '?on_conflict=sku'])(
    'is refused for the same sku twice, at the later line: %s',
    async (query) => {
      await api.post('/products', product({ sku: 'S-KNOWN' }))
      const many = Array.from({ length: 2500 }, (_, n) => product({ sku: `S-${n}` }))
      many[5]!.sku = 'S-3' // in one batch
      many[2100]!.sku = 'S-1050' // in another
      many[2200]!.sku = 'S-1'
      many[2201]!.sku = 'S-1'
      if (query) {
        many[10]!.sku = 'S-KNOWN'
        many[2300]!.sku = 'S-KNOWN'
      }
      const expected = ['6', '2101', '2201', '2202', ...(query ? ['2301'] : [])]
      expect(faults(await importNdjson(ndjson(many), query))).toEqual(
        expected.map((line) => `${line} #/sku duplicate`),
      )
      expect(await count()).toBe(1)
    },
  )

  test('tells every fault of every line, and of a hundred the first', async () => {
    const lines = Array.from({ length: 5000 }, (_, n) => JSON.stringify(product({ sku: `F-${n}` })))
    lines[0] = '{"name":"","price":-1,"colour":1}'
    lines[1] = ''
    lines[2] = '{"name":"X"'
    lines[3] = '[]'
    lines[4] = 'null'
    lines[2000] = '{"name":"X","price":1,"attributes":{"a":[1e400]}}'
    lines[4500] = '{"price":1}'
    lines[4999] = JSON.stringify(product({ sku: 'F-17' }))
    expect(faults(await importNdjson(lines.join('\n')))).toEqual([
      ...['1 #/name too_small', '1 #/price too_small', '1 #/colour unknown'],
      ...['3 malformed', '4 # invalid_type', '5 # invalid_type'],
      ...['2001 #/attributes/a/0 too_big', '4501 #/name required', '5000 #/sku duplicate'],
    ])
    await expectNothing()

    await api.post('/products', product({ sku: 'F-10' }))
    const many = lines.map((line, n) => (n > 20 && n % 2 ? '{"price":1}' : line))
    const told = faults(await importNdjson(many.join('\n')))
    expect(told).toHaveLength(100)
    expect(told.slice(6, 9)).toEqual(['11 #/sku taken', '22 #/name required', '24 #/name required'])
    expect(told.at(-1)).toBe(`${22 + 2 * 92} #/name required`)
  })
})
