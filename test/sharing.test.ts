// Requests that share a statement, over HTTP: each sees what was acknowledged before it, and has its own outcome.
import { beforeAll, expect, test } from 'vitest'
import { type Api, createApi, expectProblem, product } from './support/api.ts'
import { atTheEnd } from './support/clean-up.ts'
import { blocked, connect, createDatabase, type TestDatabase } from './support/database.ts'
import { startService } from './support/service.ts'

const READERS = 40
const WRITERS = 8
const PRODUCTS = 4
const SECONDS = 3

let database: TestDatabase
let api: Api

beforeAll(async () => {
  database = await createDatabase()
  api = createApi((await startService({ DATABASE_URL: database.url })).url)
})

const create = async (overrides: Record<string, unknown> = {}) =>
  (await api.post('/products', product(overrides))).body

/** A transaction of somebody else's, which has taken a sku and is not over. */
async function take(sku: string) {
  const other = connect(database.owner)
  atTheEnd(() => other.end({ timeout: 1 }))
  await other`begin`
  await other`insert into products (sku, name, price) values (${sku}, 'of another', 1)`
  return other
}

test('a read sees every write that was acknowledged before it was sent', async () => {
  const ids: number[] = []
  for (let n = 0; n < PRODUCTS; n++) ids.push((await create()).id)
  const [page] = [`/products?id[in]=${ids.join('&id[in]=')}&limit=100`]
  const acknowledged = new Map(ids.map((id) => [id, 1]))
  let over = false
  let reads = 0
  let writes = 0
  const pick = () => ids[Math.floor(Math.random() * ids.length)]!

  const writer = async () => {
    while (!over) {
      const id = pick()
      const { status, body } = await api.patch(`/products/${id}`, { stock: ++writes })
      expect(status).toBe(200)
      acknowledged.set(id, Math.max(acknowledged.get(id)!, body.version))
    }
  }
  const reader = async (number: number) => {
    while (!over) {
      const before = new Map(acknowledged)
      const id = pick()
      const found: { id: number; version: number }[] =
        number % 4 === 0
          ? (await api.get(page)).body.items
          : [(await api.get(`/products/${id}`)).body]
      expect(found).toHaveLength(number % 4 === 0 ? PRODUCTS : 1)
      for (const { id, version } of found) expect(version).toBeGreaterThanOrEqual(before.get(id)!)
      reads++
    }
  }
  const crowd = [
    ...Array.from({ length: WRITERS }, writer),
    ...Array.from({ length: READERS }, (_, number) => reader(number)),
  ]
  setTimeout(() => (over = true), SECONDS * 1000)
  await Promise.all(crowd)
  expect(reads).toBeGreaterThan(100)
  expect(writes).toBeGreaterThan(10)
  const versions = await database.sql`
    select sum(version - 1)::int as count from products where id = any(${`{${ids.join()}}`}::bigint[])`
  expect(versions).toEqual([{ count: writes }])
})

test('of creations at once, each has its own outcome', async () => {
  await create({ sku: 'TAKEN' })
  const bodies = [
    product({ sku: 'TAKEN' }),
    product({ sku: 'TWICE' }),
    product({ sku: 'TWICE' }),
    ...Array.from({ length: 20 }, () => product()),
    ...Array.from({ length: 5 }, () => product({ sku: null })),
  ]
  const answers = await Promise.all(bodies.map((body) => api.post('/products', body)))
  expectProblem(answers[0]!, 409, 'conflict')
  expect(answers[0]!.body.errors).toEqual([
    { pointer: '#/sku', code: 'taken', detail: 'is taken by another product' },
  ])
  expect(new Set([answers[1]!.status, answers[2]!.status])).toEqual(new Set([201, 409]))
  for (const [place, answer] of answers.entries()) {
    if (answer.status !== 201) continue
    expect(answer.body).toMatchObject({ ...bodies[place], version: 1 })
    expect(answer.headers['location']).toBe(`/products/${answer.body.id}`)
    expect((await api.get(`/products/${answer.body.id}`)).text).toBe(answer.text)
  }
  expect(answers.filter(({ status }) => status === 201)).toHaveLength(26)
})

test('a sku that somebody is taking holds up the one who wants it, and nobody else', async () => {
  const other = await take('WANTED')
  const start = performance.now()
  const waiting = api.post('/products', product({ sku: 'WANTED' }))
  const others = await Promise.all(
    Array.from({ length: 20 }, () => api.post('/products', product())),
  )
  expect(new Set(others.map(({ status }) => status))).toEqual(new Set([201]))
  expect(performance.now() - start).toBeLessThan(2000)
  await expect.poll(() => blocked(database)).toBe(1)
  await other`commit`
  expectProblem(await waiting, 409, 'conflict')
})

test('changes of one product at once are all done, one after the other', async () => {
  const { id } = await create()
  const answers = await Promise.all(
    Array.from({ length: 30 }, (_, n) =>
      api.patch(`/products/${id}`, { attributes: { [`n${n}`]: n } }),
    ),
  )
  expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([200]))
  const versions = answers.map(({ body }) => body.version).toSorted((a, b) => a - b)
  expect(versions).toEqual(Array.from({ length: 30 }, (_, n) => n + 2))
  expect(Object.keys((await api.get(`/products/${id}`)).body.attributes)).toHaveLength(30)
})

test('changes at once: each with its own precondition', async () => {
  const products = await Promise.all(Array.from({ length: 10 }, () => create()))
  const answers = await Promise.all(
    products.map(({ id }, n) =>
      api.patch(`/products/${id}`, { stock: n }, { 'if-match': n % 2 ? '"1"' : '"7"' }),
    ),
  )
  for (const [n, answer] of answers.entries()) {
    if (n % 2) expect(answer.body).toMatchObject({ stock: n, version: 2 })
    else expectProblem(answer, 412, 'precondition_failed')
  }
})

test('a product that somebody has locked holds up its own change, and no other', async () => {
  const [locked, ...free] = await Promise.all(Array.from({ length: 10 }, () => create()))
  const other = connect(database.owner)
  atTheEnd(() => other.end({ timeout: 1 }))
  await other`begin`
  await other`select from products where id = ${locked.id} for update`
  const start = performance.now()
  const waiting = api.patch(`/products/${locked.id}`, { stock: 1 })
  const others = await Promise.all(free.map(({ id }) => api.patch(`/products/${id}`, { stock: 1 })))
  expect(new Set(others.map(({ status }) => status))).toEqual(new Set([200]))
  expect(performance.now() - start).toBeLessThan(2000)
  await other`rollback`
  expect((await waiting).status).toBe(200)
})

test('crowds that change the same products in any order never stand still', async () => {
  const ids = (await Promise.all(Array.from({ length: 20 }, () => create()))).map(({ id }) => id)
  const start = performance.now()
  const rounds = Array.from({ length: 40 }, async () => {
    for (const id of ids.toSorted(() => Math.random() - 0.5)) {
      const { status } = await api.patch(`/products/${id}`, { attributes: { at: Math.random() } })
      expect(status).toBe(200)
    }
  })
  await Promise.all(rounds)
  expect(performance.now() - start).toBeLessThan(30_000)
  const [sum] = await database.sql`
    select sum(version - 1)::int as count from products where id = any(${`{${ids.join()}}`}::bigint[])`
  expect(sum).toEqual({ count: 800 })
})

test('pages at other places, asked for at once, are those that each gets alone', async () => {
  const skus = Array.from({ length: 90 }, (_, n) => `PAGE-${String(n).padStart(3, '0')}`)
  const rows = skus.map((sku, n) => product({ sku, price: n % 7, stock: n % 5 }))
  expect((await api.post('/products/bulk', rows)).status).toBe(200)
  for (const query of [
    'limit=4',
    'limit=4&sort=sku',
    'limit=7&sort=-price',
    'limit=3&sort=-stock&stock[gte]=1',
    'limit=5&sort=created_at&fields=id,created_at',
    'limit=60&count=estimated',
  ]) {
    const addresses = [`/products?${query}`]
    for (const address of addresses) {
      const { next_cursor, prev_cursor } = (await api.get(address)).body
      for (const cursor of [next_cursor, prev_cursor])
        if (cursor && addresses.length < 30 && !addresses.some((one) => one.endsWith(cursor)))
          addresses.push(`/products?${query}&cursor=${cursor}`)
    }
    expect(addresses.length).toBeGreaterThan(2)
    const alone = []
    for (const address of addresses) alone.push((await api.get(address)).text)
    const together = await Promise.all(addresses.map((address) => api.get(address)))
    expect(together.map(({ text }) => text)).toEqual(alone)
  }
})

test('of stocks that are changed at once, each has its own outcome', async () => {
  const products = await Promise.all(Array.from({ length: 12 }, (_, n) => create({ stock: n })))
  const answers = await Promise.all(
    products.map(({ id }, n) =>
      api.post(
        `/products/${id}/stock`,
        { delta: -6 },
        {
          ...(n % 2 ? { 'idempotency-key': `stock-${n}` } : {}),
          'if-match': n === 8 ? '"5"' : '*',
        },
      ),
    ),
  )
  for (const [n, answer] of answers.entries()) {
    if (n === 8) expectProblem(answer, 412, 'precondition_failed')
    else if (n < 6) expectProblem(answer, 409, 'insufficient_stock')
    else expect(answer.body).toMatchObject({ stock: n - 6, version: 2 })
  }
  for (const [n, { id }] of products.entries()) {
    if (n % 2 === 0) continue
    const headers = { 'idempotency-key': `stock-${n}`, 'if-match': '*' }
    const again = await api.post(`/products/${id}/stock`, { delta: -6 }, headers)
    expect(again.headers['idempotency-replayed']).toBe('true')
    expect(again.status).toBe(answers[n]!.status)
    if (n > 6) expect(again.text).toBe(answers[n]!.text)
    if (n > 6) expect(again.headers['etag']).toBe('"2"')
  }
})

test('a crowd that takes from one stock, half of it twice with a key, takes what there is', async () => {
  const { id } = await create({ stock: 30 })
  const takeOne = (headers = {}) => api.post(`/products/${id}/stock`, { delta: -1 }, headers)
  const keyed = Array.from({ length: 20 }, (_, n) => ({ 'idempotency-key': `crowd-${n}` }))
  const [plain] = await Promise.all([
    Promise.all(Array.from({ length: 20 }, () => takeOne())),
    Promise.all([...keyed, ...keyed].map((headers) => takeOne(headers))),
  ])
  const settled = await Promise.all(keyed.map((headers) => takeOne(headers)))
  for (const { headers } of settled) expect(headers['idempotency-replayed']).toBe('true')
  const outcomes = [...plain, ...settled]
  for (const { status, body } of outcomes)
    if (status !== 200) expect(body).toMatchObject({ status: 409, code: 'insufficient_stock' })
  const left = outcomes.filter(({ status }) => status === 200).map(({ body }) => body.stock)
  expect(left.toSorted((a, b) => a - b)).toEqual(Array.from({ length: 30 }, (_, n) => n))
  expect((await api.get(`/products/${id}`)).body).toMatchObject({ stock: 0, version: 31 })
})
