// Holds what a list selects, in which order, and what it says of bad questions; against JavaScript's own answer.
import { beforeAll, describe, expect, test } from 'vitest'
import { expectProblem, type Api, type Response } from '../support/api.ts'
import type { TestDatabase } from '../support/database.ts'
import { startTarget } from '../support/target.ts'

const COUNT = 2000

type Field = 'id' | 'name' | 'sku' | 'price' | 'stock' | 'created_at' | 'updated_at' | 'currency'
type Product = Record<Field, string | number | null> & { description: string | null }

const SORTS = ['id', 'name', 'sku', 'price', 'stock', 'created_at', 'updated_at'] as const
const FIELDS: Field[] = [...SORTS, 'currency']

let api: Api
let database: TestDatabase
/** All products, by id. */
let stored: Product[]

beforeAll(async () => {
  ;({ api, database } = await startTarget())
  // Ties in every field but `id` and `sku`, nulls in `sku`, and text that many a collation has in
  // another order: capitals, accents, marks, what lies beyond U+FFFF.
  await database.sql`
    insert into products (name, sku, price, stock, currency, created_at, updated_at, description)
    select
      (array['apple', 'Apple', 'äpple', 'Zebra', 'zebra', 'a-b', 'a b', 'ab', '10', '9', '😀 mug', '￼ jar'])[1 + n * 7 % 12]
        || case when n % 5 = 0 then '' else ' ' || n % 3 end,
      case when n % 3 = 0 then null
           else (array['a', 'B', 'b-', '_', 'É', '😀', 'ﬀ'])[1 + n % 7] || '-' || n end,
      (n * 37 % 40) * 0.25,
      n * 11 % 25,
      (array['USD', 'EUR', 'CHF'])[1 + n % 3],
      timestamptz '2026-01-01T00:00:00Z' + n % 50 * interval '1.000001 s',
      timestamptz '2026-01-01T00:00:00Z' - n * 13 % 60 * interval '1 day',
      case when n % 4 = 0 then null else 'Number ' || n end
    from generate_series(1, ${COUNT}::int) as n`
  stored = await readStored()
})

async function readStored(): Promise<Product[]> {
  const rows = await database.sql<{ product: Product }[]>`
    select json_build_object('id', id, 'name', name, 'sku', sku, 'price', price, 'stock', stock,
      'currency', currency, 'description', description,
      'created_at', to_char(created_at at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
      'updated_at', to_char(updated_at at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')) as product
    from products order by id`
  return rows.map(({ product }) => product)
}

type Value = string | number | null

/** By code point, which `<` of JavaScript is not: it compares the halves of surrogate pairs. */
function compareText(a: string, b: string): number {
  const [left, right] = [Array.from(a), Array.from(b)]
  for (let n = 0; n < Math.min(left.length, right.length); n++) {
    const difference = left[n]!.codePointAt(0)! - right[n]!.codePointAt(0)!
    if (difference !== 0) return difference
  }
  return left.length - right.length
}

/** Nulls last. */
function compare(a: Value, b: Value): number {
  if (a === null || b === null) return Number(a === null) - Number(b === null)
  return typeof a === 'number' ? a - Number(b) : compareText(a, String(b))
}

function inOrder(products: Product[], sort: string): Product[] {
  const terms = sort.split(',')
  const last = terms.at(-1)!
  const all = [...terms, last.startsWith('-') ? '-id' : 'id']
  return products.toSorted((a, b) => {
    for (const term of all) {
      const field = term.replace('-', '') as Field
      const difference = compare(a[field], b[field])
      if (difference !== 0) return term.startsWith('-') ? -difference : difference
    }
    return 0
  })
}

const idsOf = (page: Response): number[] => page.body.items.map(({ id }: { id: number }) => id)
const ids = (products: Product[]) => products.map(({ id }) => id as number)

/** Parameters as a client writes them; what is undefined is left out, lists are repeated. */
function queryOf(parameters: Record<string, string | string[] | undefined>): string {
  const query = new URLSearchParams()
  for (const [name, value] of Object.entries(parameters)) {
    for (const one of [value ?? []].flat()) query.append(name, one)
  }
  return query.toString()
}

async function fetchList(parameters: Parameters<typeof queryOf>[0]): Promise<Response> {
  const page = await api.get(`/products?${queryOf(parameters)}`)
  expect(page.status, page.text).toBe(200)
  return page
}

async function* walk(
  parameters: Parameters<typeof queryOf>[0],
  way: 'next' | 'prev',
  cursor?: string,
) {
  let at: string | null | undefined = cursor
  for (let pages = 0; at !== null && pages < COUNT; pages++) {
    const page = await fetchList({ ...parameters, cursor: at })
    yield page
    at = page.body[`${way}_cursor`]
  }
}

/** From the first page to the last, and from there to the first again. */
async function thereAndBack(parameters: Parameters<typeof queryOf>[0]) {
  const there: Response[] = []
  for await (const page of walk(parameters, 'next')) there.push(page)
  const last = there.at(-1)!
  const back = [last]
  if (last.body.prev_cursor !== null) {
    for await (const page of walk(parameters, 'prev', last.body.prev_cursor)) back.unshift(page)
  }
  return { there: there.flatMap(idsOf), back: back.flatMap(idsOf) }
}

/** What selects the matching products, without paging. */
async function select(parameters: Parameters<typeof queryOf>[0]): Promise<number[]> {
  const met: number[] = []
  for await (const page of walk({ ...parameters, limit: '100' }, 'next')) met.push(...idsOf(page))
  return met
}

describe('a walk there and back meets each product once, in order', () => {
  const single = SORTS.flatMap((field) => [field, `-${field}`])
  const several = [
    'name,price',
    '-price,name',
    'price,-name',
    'sku,-price',
    '-sku,price',
    'stock,sku',
    'stock,-sku',
    '-stock,-sku',
    'created_at,-updated_at',
    '-updated_at,created_at',
    'stock,-id',
    'name,-price,stock',
    '-name,price,-stock',
    'price,stock,name',
    '-price,-stock,-created_at',
    'stock,-sku,name',
    '-stock,sku,-price',
    'created_at,name,-updated_at',
    '-updated_at,-stock,sku',
  ]

  test.concurrent.each([...single, ...several])('sort=%s', async (sort) => {
    const expected = ids(inOrder(stored, sort))
    const { there, back } = await thereAndBack({ sort, limit: '100' })
    expect(there).toEqual(expected)
    expect(back).toEqual(expected)
  })

  test.concurrent.each(['sku', '-sku', '-price,name', 'stock,-sku,price'])(
    'in small pages: sort=%s',
    async (sort) => {
      const filter = { 'id[lte]': '150' }
      const chosen = stored.filter(({ id }) => Number(id) <= 150)
      for (const limit of ['1', '7']) {
        const { there, back } = await thereAndBack({ ...filter, sort, limit })
        expect(there).toEqual(ids(inOrder(chosen, sort)))
        expect(back).toEqual(there)
      }
    },
  )

  test('-id is the sort when nothing else is said, and nothing counts after id', async () => {
    const first = await fetchList({})
    for (const sort of ['-id', '-id,name', '-id,name,-price']) {
      const page = await fetchList({ sort })
      expect(page.body).toEqual(first.body)
      expect(idsOf(await fetchList({ cursor: page.body.next_cursor }))).toEqual(
        ids(stored).toReversed().slice(20, 40),
      )
    }
  })

  test('with filters and a search, too', async () => {
    const parameters = { 'price[gte]': '2', currency: 'EUR', q: 'number', sort: '-stock,name' }
    const chosen = stored.filter(
      ({ price, currency, description }) =>
        Number(price) >= 2 && currency === 'EUR' && description !== null,
    )
    expect(chosen.length).toBeGreaterThan(100)
    const expected = ids(inOrder(chosen, parameters.sort))
    expect(await thereAndBack({ ...parameters, limit: '30' })).toEqual({
      there: expected,
      back: expected,
    })
  })
})

describe('a filter selects what it says', () => {
  /** A value that some have, one between two of them, and the ends. */
  const samples: Record<Field, string[]> = {
    id: ['1000', '1', '2000', '9007199254740991'],
    name: ['apple 1', 'Zebra', '😀 mug', 'a', "'; drop table products; --", '\\"{,}%_'],
    sku: ['a-7', 'B-1', '😀', '{a,b}', '"', '\\', 'NULL', 'É'],
    price: ['2.5', '2.50', '0', '2.6', '9999999999.99', '9'],
    stock: ['10', '0', '24', '2147483647'],
    created_at: [
      '2026-01-01T00:00:10.00001Z',
      '2026-01-01T00:00:10.5Z',
      '2025-12-31T14:00:10.000010-10:00',
      '0001-01-01T00:00:00Z',
      '9999-12-31T23:59:59.999999999Z',
    ],
    updated_at: ['2025-12-10T00:00:00Z', '2025-12-10T23:59:00+23:59', '2025-12-10t00:00:00z'],
    currency: ['EUR', 'DKK', 'USD'],
  }

  /** As a time in UTC with microseconds, by JavaScript's own reckoning. */
  function utc(text: string): string {
    const [, fraction = ''] = /\.(\d+)/.exec(text) ?? []
    const whole = new Date(text.replace(/\.\d+/, '')).toISOString().slice(0, 19)
    return `${whole}.${fraction.slice(0, 6).padEnd(6, '0')}Z`
  }
  const toValue = (field: Field, text: string): Value =>
    field.endsWith('_at')
      ? utc(text)
      : ['id', 'price', 'stock'].includes(field)
        ? Number(text)
        : text

  const holds: Record<string, (difference: number) => boolean> = {
    eq: (difference) => difference === 0,
    ne: (difference) => difference !== 0,
    gt: (difference) => difference > 0,
    gte: (difference) => difference >= 0,
    lt: (difference) => difference < 0,
    lte: (difference) => difference <= 0,
  }

  test.concurrent.each(FIELDS)('%s, compared', async (field) => {
    for (const text of samples[field]) {
      const value = toValue(field, text)
      for (const [operator, isHeld] of Object.entries(holds)) {
        const chosen = stored.filter(
          (product) => product[field] !== null && isHeld(compare(product[field], value)),
        )
        const parameter = `${field}[${operator}]`
        const page = await fetchList({ [parameter]: text, limit: '100', count: 'exact' })
        expect(idsOf(page), `${parameter}=${text}`).toEqual(ids(chosen).toReversed().slice(0, 100))
        expect(page.body.total).toBe(chosen.length)
      }
      const plain = await fetchList({ [field]: text, limit: '100' })
      expect(idsOf(plain)).toEqual(idsOf(await fetchList({ [`${field}[eq]`]: text, limit: '100' })))
    }
  })

  test.concurrent.each(FIELDS)('%s, in a list', async (field) => {
    const lists = [samples[field], samples[field].slice(0, 1), samples[field].slice(-1)]
    for (const list of lists) {
      const values = list.map((text) => toValue(field, text))
      const chosen = stored.filter((product) => values.includes(product[field]))
      expect(await select({ [`${field}[in]`]: list })).toEqual(ids(chosen).toReversed())
    }
  })

  test('a list has as many as 100 values, and a comma is part of one', async () => {
    const list = Array.from({ length: 100 }, (_, n) => String(n * 3 + 1))
    expect(await select({ 'id[in]': list })).toEqual(list.map(Number).toReversed())
    await database.sql`insert into products (name, price) values ('one,two', 1)`
    expect(await select({ 'name[in]': 'one,two' })).toEqual([COUNT + 1])
    expect(await select({ 'name[in]': ['one', 'two'] })).toEqual([])
    await database.sql`delete from products where id = ${COUNT + 1}`
  })

  test.concurrent.each(FIELDS)('%s, null or not', async (field) => {
    for (const [value, wanted] of [
      ['null', true],
      ['not_null', false],
    ] as const) {
      const chosen = stored.filter((product) => (product[field] === null) === wanted)
      const page = await fetchList({ [`${field}[is]`]: value, count: 'exact' })
      expect(page.body.total).toBe(chosen.length)
      expect(idsOf(page)).toEqual(ids(chosen).toReversed().slice(0, 20))
    }
  })

  test('all of them hold', async () => {
    const chosen = stored.filter(
      ({ price, stock, sku }) =>
        Number(price) > 1 && Number(price) <= 7.5 && Number(stock) !== 3 && sku !== null,
    )
    const found = await select({
      'price[gt]': '1',
      'price[lte]': '7.5',
      'stock[ne]': '3',
      'sku[is]': 'not_null',
    })
    expect(found).toEqual(ids(chosen).toReversed())
    expect(await select({ stock: '3', 'stock[eq]': '4' })).toEqual([])
    expect(await select({ stock: '3', 'stock[eq]': '3' })).toEqual(await select({ stock: '3' }))
  })

  test('a leap second is the first of the next minute', async () => {
    const leap = await select({ 'updated_at[lt]': '2025-12-09T23:59:60Z' })
    expect(leap).toEqual(await select({ 'updated_at[lt]': '2025-12-10T00:00:00Z' }))
  })
})

describe('a search', () => {
  const named: Record<string, number> = {}

  beforeAll(async () => {
    const texts: [string, string | null, string | null][] = [
      ['Blue mug', 'MUG-ENA-1', 'Steel under enamel'],
      ['Blue bowl', 'BWL-9/7', "Fits the cook's hand, 100%"],
      ['Mugwort tea', null, 'blue_box a.b@example.com'],
      ['Ziegelroter Krug', 'ÄRMEL', 'Größe: mittel'],
    ]
    for (const [name, sku, description] of texts) {
      const { body } = await api.post('/products', { name, sku, description, price: 1 })
      named[name] = body.id
    }
  })

  const found = async (q: string) => {
    const { body } = await fetchList({ q, sort: 'id' })
    return body.items.map(({ name }: { name: string }) => name)
  }

  test.each([
    ['blue', ['Blue mug', 'Blue bowl', 'Mugwort tea']],
    ['BLUE MUG', ['Blue mug', 'Mugwort tea']],
    ['mug blue', ['Blue mug', 'Mugwort tea']],
    ['mugw', ['Mugwort tea']],
    ['lue', []],
    ['blue fork', []],
    ['enam steel', ['Blue mug']],
    ['MUG-ENA-1', ['Blue mug']],
    ['mug-ena', ['Blue mug']],
    ['ena', ['Blue mug']],
    ['BWL-9/7', ['Blue bowl']],
    ['bwl 7', ['Blue bowl']],
    ["cook's", ['Blue bowl']],
    ['hand, 100%', ['Blue bowl']],
    ['box', ['Mugwort tea']],
    ['a.b@example.com', ['Mugwort tea']],
    ['example', ['Mugwort tea']],
    ['krug mittel', ['Ziegelroter Krug']],
  ])('finds all of its words, each from the start of one on: %s', async (q, names) => {
    expect(await found(q)).toEqual(names)
  })

  test.each([
    '😀',
    '😀😀 mug',
    "'",
    '"',
    "''",
    "' or 1=1 --",
    '\\',
    '\\\\',
    "\\'",
    '%',
    '_',
    '&',
    '|',
    '!',
    '!mug',
    'mug & !blue',
    'mug | ',
    '(mug',
    'mug)',
    'mug:*',
    ':*',
    'mug <-> blue',
    '<2>',
    '*',
    'mug:A',
    '-',
    '--',
    ' ',
    '\t\n',
    '\u00a0',
    '\u200b',
    '\ufeff',
    '\u0001',
    '{}',
    '$1',
    '${q}',
    'a'.repeat(200),
    '😀'.repeat(200),
    'é'.repeat(200),
    'a '.repeat(100),
    '1.5e10 -7 0x10 2026-01-01 http://a.b/c?d=e&f a@b.c <b>mug</b> &amp;',
  ])('survives %j', async (q) => {
    for (const sort of ['-id', 'name']) {
      const { body } = await fetchList({ q, sort, limit: '5', count: 'exact' })
      expect(body.total).toBeGreaterThanOrEqual(body.items.length)
    }
  })

  test('of symbols finds nothing', async () => {
    for (const q of ['+', '%', '\\', '&&', '---', "'", '"', ' ', '( ) ! | : *']) {
      const { body } = await fetchList({ q, count: 'exact' })
      expect(body).toMatchObject({ items: [], total: 0 })
    }
  })

  test('is walked like any list', async () => {
    const chosen = (await readStored()).filter(({ name }) => /(^|\P{L})mug/iu.test(String(name)))
    const { there, back } = await thereAndBack({ q: 'mug', sort: '-name', limit: '100' })
    expect(there).toEqual(ids(inOrder(chosen, '-name')))
    expect(back).toEqual(there)
  })
})

describe('a count', () => {
  test('is made when it is asked for', async () => {
    expect(Object.keys((await fetchList({})).body)).toEqual(['items', 'next_cursor', 'prev_cursor'])
    const { body } = await fetchList({ count: 'exact', limit: '1', stock: '3' })
    expect(Object.keys(body)).toEqual(['items', 'next_cursor', 'prev_cursor', 'total', 'total_is'])
    const total = stored.filter(({ stock }) => stock === 3).length
    expect(body).toMatchObject({ total, total_is: 'exact' })
  })

  test('is of all pages, on each of them, an empty one too', async () => {
    const total = stored.filter(({ stock }) => stock === 3).length
    const parameters = { stock: '3', sort: 'id', count: 'exact', limit: '30' }
    for await (const { body } of walk(parameters, 'next')) expect(body.total).toBe(total)
    expect((await fetchList({ ...parameters, currency: 'DKK' })).body.total).toBe(0)

    const made = { name: 'Passing', price: 1, stock: 3, currency: 'ZZZ' }
    const { body: one } = await api.post('/products', made)
    const { body: two } = await api.post('/products', made)
    const passing = { currency: 'ZZZ', sort: 'id', count: 'exact', limit: '1' }
    const { body: page } = await fetchList(passing)
    expect(page.total).toBe(2)
    await api.delete(`/products/${two.id}`)
    const { body: beyond } = await fetchList({ ...passing, cursor: page.next_cursor })
    expect(beyond).toMatchObject({ items: [], total: 1, total_is: 'exact' })
    await api.delete(`/products/${one.id}`)
  })

  test('may be an estimate', async () => {
    await database.sql`analyze products`
    const total = (await readStored()).length
    const { body } = await fetchList({ count: 'estimated' })
    expect(body).toMatchObject({ total: expect.any(Number), total_is: 'estimated' })
    expect(Math.abs(body.total - total)).toBeLessThan(total / 10)
    const { body: dear } = await fetchList({ count: 'estimated', 'price[gt]': '5' })
    const dearTotal = stored.filter(({ price }) => Number(price) > 5).length
    expect(Math.abs(dear.total - dearTotal)).toBeLessThan(dearTotal / 3)
    expect(dear.total).toBeLessThan(body.total)
    expect((await fetchList({ count: 'estimated', q: '+' })).body.total).toBeLessThanOrEqual(1)
  })
})

describe('fields', () => {
  test('are sent alone, in the order of the resource', async () => {
    const { body: whole } = await fetchList({ limit: '1' })
    const all = Object.keys(whole.items[0])
    for (const fields of [['id', 'name', 'price'], ['created_at'], ['updated_at', 'id'], all]) {
      const { body } = await fetchList({ limit: '1', fields: fields.join(',') })
      const names = all.filter((name) => fields.includes(name))
      expect(Object.keys(body.items[0])).toEqual(names)
      for (const name of names) expect(body.items[0][name]).toEqual(whole.items[0][name])
    }
  })

  test('have no part in the order, nor in where its cursors lead', async () => {
    const parameters = { sort: '-price,sku', limit: '50' }
    const expected = ids(inOrder(await readStored(), parameters.sort))
    const { body: first } = await fetchList({ ...parameters, fields: 'name' })
    expect(first.items[0]).toEqual({ name: expect.any(String) })
    const second = await fetchList({ ...parameters, cursor: first.next_cursor, limit: '20' })
    expect(idsOf(second)).toEqual(expected.slice(50, 70))
  })
})

test('links keep every parameter', async () => {
  const parameters = {
    limit: '10',
    sort: '-price,name',
    'price[gte]': '0.25',
    'currency[in]': ['USD', 'EUR'],
    'created_at[lt]': '2026-02-01T00:00:00+01:00',
    q: 'number',
    count: 'exact',
    fields: 'id,name',
  }
  const first = await fetchList(parameters)
  const second = await fetchList({ ...parameters, cursor: first.body.next_cursor })
  const links = [...(second.headers['link'] ?? '').matchAll(/<([^>]+)>; rel="(next|prev)"/g)]
  expect(links.map(([, , way]) => way)).toEqual(['next', 'prev'])
  for (const [, link, way] of links) {
    const query = new URLSearchParams(link!.split('?')[1])
    const cursor = second.body[`${way}_cursor`]
    expect(query.toString()).toBe(queryOf({ ...parameters, cursor }))
  }
  expect((await api.get(links[1]![1]!)).body.items).toEqual(first.body.items)
})

test('links that no client would take are left to the body', async () => {
  const values = Array.from({ length: 100 }, (_, n) => `${'x'.repeat(100)}${n}`)
  const { headers, body } = await fetchList({
    'name[in]': [...values, 'ab 1'].slice(1),
    limit: '1',
  })
  expect(body.next_cursor).toEqual(expect.any(String))
  expect(headers).not.toHaveProperty('link')
})

describe('a bad question', () => {
  const faults = (answer: Response): string[] =>
    expectProblem(answer, 422, 'validation').errors.map(
      (fault: { parameter: string; code: string }) => `${fault.parameter} ${fault.code}`,
    )
  /** For the titles of tests. */
  const short = (text: string) =>
    text.length > 60 ? `${text.slice(0, 40)}… (${text.length})` : text
  const ask = (query: string) => api.get(`/products?${query}`)

  test.concurrent.each(
    [
      ['sort=', ['sort unknown']],
      ['sort=colour', ['sort unknown']],
      ['sort=currency', ['sort unknown']],
      ['sort=description', ['sort unknown']],
      ['sort=+id', ['sort unknown']],
      ['sort=--id', ['sort unknown']],
      ['sort=-', ['sort unknown']],
      ['sort=ID', ['sort unknown']],
      ['sort=name,', ['sort unknown']],
      ['sort=name;drop', ['sort unknown']],
      ['sort=__proto__', ['sort unknown']],
      ['sort=toString', ['sort unknown']],
      ['sort=name,name', ['sort repeated']],
      ['sort=name,-name', ['sort repeated']],
      ['sort=id,name,id', ['sort repeated']],
      ['sort=id,name,sku,price', ['sort too_many']],
      ['sort=name&sort=id', ['sort invalid_type']],
      ['fields=', ['fields unknown']],
      ['fields=id,colour', ['fields unknown']],
      ['fields=id,,name', ['fields unknown']],
      ['fields=*', ['fields unknown']],
      ['fields=id,id', ['fields repeated']],
      ['fields=id&fields=name', ['fields invalid_type']],
      ['count=', ['count invalid_value']],
      ['count=true', ['count invalid_value']],
      ['count=exact&count=exact', ['count invalid_value']],
      ['q=', ['q too_small']],
      ['q=a&q=b', ['q invalid_type']],
      ['q=a%00b', ['q invalid_characters']],
      [`q=${'x'.repeat(201)}`, ['q too_big']],
      [`q=${encodeURIComponent('😀'.repeat(201))}`, ['q too_big']],
      [`q=${"'!():*;-~.@/?$,".repeat(700)}`, ['q too_big']],
      ['id=0', ['id too_small']],
      ['id=-1', ['id too_small']],
      ['id=9007199254740992', ['id too_big']],
      ['id=9007199254740993', ['id too_big']],
      [`id=${'9'.repeat(1000)}`, ['id too_big']],
      ['id=abc', ['id invalid_format']],
      ['id=1.0', ['id invalid_format']],
      ['id=1e3', ['id invalid_format']],
      ['id=01', ['id invalid_format']],
      ['id=', ['id invalid_format']],
      ['id=%EF%BC%91', ['id invalid_format']],
      ['id=1,2', ['id invalid_format']],
      ['id[gt]=1&id[gt]=2', ['id[gt] invalid_type']],
      ['stock[lt]=-1', ['stock[lt] too_small']],
      ['stock[lte]=2147483648', ['stock[lte] too_big']],
      ['price=-0.01', ['price too_small']],
      ['price[gte]=10000000000', ['price[gte] too_big']],
      ['price[gte]=0.001', ['price[gte] too_precise']],
      ['price[ne]=NaN', ['price[ne] invalid_format']],
      ['price[ne]=Infinity', ['price[ne] invalid_format']],
      ['price[eq]=1e2', ['price[eq] invalid_format']],
      ['price=1,50', ['price invalid_format']],
      ['currency=usd', ['currency invalid_format']],
      ['currency=USDX', ['currency invalid_format']],
      ['currency[lt]=U', ['currency[lt] invalid_format']],
      ['sku=', ['sku too_small']],
      [`sku=${'x'.repeat(65)}`, ['sku too_big']],
      ['sku=%00', ['sku invalid_characters']],
      [`name[gt]=${encodeURIComponent('😀'.repeat(201))}`, ['name[gt] too_big']],
      ['name[in]=', ['name[in] too_small']],
      ['name[in]=a&name[in]=', ['name[in] too_small']],
      ['id[in]=1&id[in]=x&id[in]=0', ['id[in] invalid_format', 'id[in] too_small']],
      [`id[in]=1${'&id[in]=1'.repeat(100)}`, ['id[in] too_many']],
      ['sku[is]=', ['sku[is] invalid_value']],
      ['sku[is]=NULL', ['sku[is] invalid_value']],
      ['sku[is]=null&sku[is]=null', ['sku[is] invalid_value']],
      ['created_at=2026-01-01', ['created_at invalid_format']],
      ['created_at=2026-01-01T00:00:00', ['created_at invalid_format']],
      ['created_at=2026-01-01T00:00Z', ['created_at invalid_format']],
      ['created_at=2026-01-01T00:00:00+01:00', ['created_at invalid_format']],
      ['created_at=2026-02-29T00:00:00Z', ['created_at invalid_format']],
      ['created_at=2026-04-31T00:00:00Z', ['created_at invalid_format']],
      ['created_at=2026-13-01T00:00:00Z', ['created_at invalid_format']],
      ['created_at=2026-01-01T24:00:00Z', ['created_at invalid_format']],
      ['created_at=2026-01-01T00:60:00Z', ['created_at invalid_format']],
      ['created_at=2026-01-01T00:00:61Z', ['created_at invalid_format']],
      ['created_at=2026-01-01T00:00:00.Z', ['created_at invalid_format']],
      ['created_at=2026-01-01T00:00:00%2B24:00', ['created_at invalid_format']],
      ['created_at=2026-01-01T00:00:00%2B0100', ['created_at invalid_format']],
      ['created_at=infinity', ['created_at invalid_format']],
      ['created_at=now', ['created_at invalid_format']],
      ['created_at[gt]=0000-01-01T00:00:00Z', ['created_at[gt] out_of_range']],
      ['created_at[gt]=0001-01-01T00:00:00%2B00:01', ['created_at[gt] out_of_range']],
      ['created_at[lt]=9999-12-31T23:59:59-00:01', ['created_at[lt] out_of_range']],
      ['price[like]=1', ['price[like] unknown']],
      ['price[]=1', ['price[] unknown']],
      ['price[EQ]=1', ['price[EQ] unknown']],
      ['price[gte=1', ['price[gte unknown']],
      ['price%5Bgte%5D%20=1', ['price[gte]  unknown']],
      ['description=x', ['description unknown']],
      ['version[gt]=1', ['version[gt] unknown']],
      ['attributes=1', ['attributes unknown']],
    ].map(([query, expected]) => [short(query as string), query as string, expected] as const),
  )('%s', async (_, query, expected) => {
    expect(faults(await ask(query))).toEqual(expected)
  })

  test('is told whole, and never what was asked', async () => {
    const answer = await ask('sort=x&price[gt]=-1&q=&colour=1&id[in]=0&limit=0&count=many')
    expect(faults(answer).toSorted()).toEqual([
      'colour unknown',
      'count invalid_value',
      'id[in] too_small',
      'limit too_small',
      'price[gt] too_small',
      'q too_small',
      'sort unknown',
    ])
    const many = await ask(Array.from({ length: 99 }, () => 'id[in]=x').join('&'))
    expect(faults(many)).toHaveLength(99)
  })

  test('a cursor belongs to its sort, filters and search', async () => {
    const base = { sort: 'price', 'stock[gt]': '3', q: 'number', limit: '5' }
    const { body } = await fetchList(base)
    const cursor: string = body.next_cursor
    const same = { ...base, cursor, limit: '7', fields: 'id', count: 'exact' }
    expect((await fetchList(same)).body.items).toHaveLength(7)
    const others: Record<string, string | undefined>[] = [
      { sort: '-price' },
      { sort: 'price,name' },
      { sort: 'stock' },
      { sort: undefined },
      { 'stock[gt]': '4' },
      { 'stock[gt]': undefined },
      { 'stock[gt]': undefined, 'stock[gte]': '3' },
      { 'stock[lt]': '9' },
      { q: 'numbe' },
      { q: undefined },
      { 'currency[in]': 'EUR' },
    ]
    for (const other of others) {
      const answer = await ask(queryOf({ ...base, ...other, cursor }))
      expectProblem(answer, 400, 'malformed')
    }
  })

  test('a cursor holds for the same question asked in other words', async () => {
    const list = { 'sku[in]': ['a-7', 'B-1', 'B-1', 'b-‑'], sort: 'id', limit: '1' }
    const { body: first } = await fetchList(list)
    const again = { limit: '1', sort: 'id,price', 'sku[in]': ['b-‑', 'B-1', 'a-7'] }
    expect((await fetchList({ ...again, cursor: first.next_cursor })).body.items).toHaveLength(1)
  })

  test('a cursor that has changed in any character is refused, whatever it holds', async () => {
    const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_'
    for (const sort of ['-sku,name,-price', 'created_at,stock']) {
      const { body } = await fetchList({ sort, limit: '1' })
      const cursor: string = body.next_cursor
      const changed = Array.from(cursor).map((char, at) => {
        const other = alphabet[(alphabet.indexOf(char) + 1 + at) % 64]
        return cursor.slice(0, at) + (other === char ? '~' : other) + cursor.slice(at + 1)
      })
      const answers = await Promise.all(changed.map((text) => ask(queryOf({ sort, cursor: text }))))
      for (const answer of answers) expectProblem(answer, 400, 'malformed')
    }
  })
})

describe('a walk while others write', () => {
  test.each(['-price,name', 'sku', '-sku,stock', 'updated_at,-stock', '-name'])(
    'meets once, in order, what was there all along: sort=%s',
    async (sort) => {
      const before = await readStored()
      let over = false
      async function write(start: number) {
        for (let n = start; !over; n += 2) {
          await database.sql`
            insert into products (name, price, stock, sku, updated_at)
            values (${n % 2 ? 'aa' : 'Zz'}, ${(n % 40) * 0.25}, ${n % 25}, ${n % 3 ? null : `new-${sort}-${n}`},
                    timestamptz '2026-01-01Z' - ${n % 60} * interval '1 day')`
          if (n % 3 === 0) {
            await database.sql`delete from products where id = (select max(id) from products)`
          }
          // Of those that were there all along, ids that end in 7 go and do not come back.
          await database.sql`
            delete from products
            where id = (select id from products where id % 10 = 7 and id <= ${COUNT} order by random() limit 1)`
        }
      }
      const writers = Promise.all([write(0), write(1)])
      const walked = await thereAndBack({ sort, limit: '50', 'id[lte]': String(COUNT) })
      over = true
      await writers
      const steady = ids(inOrder(before, sort)).filter((id) => id <= COUNT && id % 10 !== 7)
      expect(steady.length).toBeGreaterThan(1000)
      for (const met of [walked.there, walked.back]) {
        expect(met.filter((id) => id % 10 !== 7)).toEqual(steady)
        expect(new Set(met).size).toBe(met.length)
      }
    },
  )

  test('an empty page leads back, the row at its border included', async () => {
    const at = { currency: 'QQQ', price: 3 }
    for (const [name, sku] of [
      ['c', null],
      ['b', 'q-2'],
      ['a', null],
      ['b', 'q-1'],
    ]) {
      await api.post('/products', { ...at, name, sku })
    }
    const sort = '-price,sku,-name'
    const list = { sort, currency: 'QQQ', limit: '2' }
    const { body: first } = await fetchList(list)
    const { body: second } = await fetchList({ ...list, cursor: first.next_cursor })
    const border: number[] = second.items.map(({ id }: { id: number }) => id)
    expect(border).toHaveLength(2)
    for (const { id } of first.items) await api.delete(`/products/${id}`)

    const before = await fetchList({ ...list, cursor: second.prev_cursor })
    expect(before.body).toMatchObject({ items: [], prev_cursor: null })
    const next = await fetchList({ ...list, cursor: before.body.next_cursor })
    expect(idsOf(next)).toEqual(border)
    // And on from there, over an empty page, there and back again.
    await api.delete(`/products/${border[0]}`)
    const gone = await fetchList({ ...list, cursor: second.prev_cursor })
    const rest = await fetchList({ ...list, cursor: gone.body.next_cursor })
    expect(idsOf(rest)).toEqual([border[1]])
    await api.delete(`/products/${border[1]}`)
    const none = await fetchList({ ...list, cursor: gone.body.next_cursor })
    expect(none.body).toMatchObject({ items: [], next_cursor: null })
    expect(none.body.prev_cursor).toEqual(expect.any(String))
    expect(idsOf(await fetchList({ ...list, cursor: none.body.prev_cursor }))).toEqual([])
  })
})
