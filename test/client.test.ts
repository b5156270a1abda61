// The typed client on every route of a real service: what it sends and gets is what its types say.
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { beforeAll, describe, expect, expectTypeOf, test } from 'vitest'
import { type Client, createClient } from 'larder/client'
import type { ProblemDocument } from '../src/http/problem.ts'
import type { Product, ProductPage } from '../src/products/schema.ts'
import { createDatabase } from './support/database.ts'
import { startService } from './support/service.ts'

let client: Client
let url: string

beforeAll(async () => {
  const database = await createDatabase()
  ;({ url } = await startService({ DATABASE_URL: database.url }))
  client = createClient(url)
})

const id = (product: Product) => ({ id: String(product.id) })

/** The body of an answer that is fine; the types must agree that nothing else is left then. */
async function created(json = { name: 'Client mug', price: 4.5 }): Promise<Product> {
  const answer = await client.products.$post({ json })
  if (!answer.ok) throw new Error((await answer.json()).detail)
  expect(answer.status).toBe(201)
  return answer.json()
}

describe('products', () => {
  test('POST', async () => {
    const product = await created()
    expectTypeOf(product).toEqualTypeOf<Product>()
    expect(product).toMatchObject({ name: 'Client mug', price: 4.5, version: 1 })
  })

  test('GET, one of them', async () => {
    const product = await created()
    const answer = await client.products[':id'].$get({ param: id(product) })
    if (!answer.ok) throw new Error(`${answer.status}`)
    expectTypeOf(answer.status).toEqualTypeOf<200>()
    const read = await answer.json()
    expectTypeOf(read.price).toEqualTypeOf<number>()
    expectTypeOf(read.sku).toEqualTypeOf<string | null>()
    expect(read).toEqual(product)
  })

  test('GET, a page', async () => {
    await created()
    const answer = await client.products.$get({ query: { limit: '1' } })
    if (!answer.ok) throw new Error(`${answer.status}`)
    const page = await answer.json()
    expectTypeOf(page).toEqualTypeOf<ProductPage>()
    expect(page.items).toHaveLength(1)
    const { next_cursor: cursor } = page
    if (cursor === null) throw new Error('there is no next page')
    expect((await client.products.$get({ query: { limit: '1', cursor } })).status).toBe(200)
  })

  test('PUT', async () => {
    const param = id(await created())
    const json = { name: 'Replaced', price: '5.00', stock: 3, attributes: { a: [1, null] } }
    const answer = await client.products[':id'].$put({ param, json })
    if (!answer.ok) throw new Error(`${answer.status}`)
    expectTypeOf(await answer.json()).toEqualTypeOf<Product>()
  })

  test('PATCH', async () => {
    const param = id(await created())
    const answer = await client.products[':id'].$patch({ param, json: { stock: null, sku: null } })
    if (!answer.ok) throw new Error(`${answer.status}`)
    const product = await answer.json()
    expectTypeOf(product).toEqualTypeOf<Product>()
    expect(product.stock).toBe(0)
  })

  test('DELETE', async () => {
    const param = id(await created())
    const answer = await client.products[':id'].$delete({ param })
    expect(answer.status).toBe(204)
    const again = await client.products[':id'].$delete({ param })
    if (again.status !== 404) throw new Error(`${again.status}`)
    const problem = await again.json()
    expectTypeOf(problem).toEqualTypeOf<ProblemDocument>()
    expect(problem.code).toBe('not_found')
  })

  test('what is refused is a problem', async () => {
    const answer = await client.products.$post({ json: { name: '', price: -1 } })
    if (answer.ok) throw new Error('it was taken')
    const problem = await answer.json()
    expectTypeOf(problem).toEqualTypeOf<ProblemDocument>()
    expect(problem.errors?.map(({ pointer }) => pointer)).toEqual(['#/name', '#/price'])
  })
})

describe('operations', () => {
  test('/health, /ready and /db-test', async () => {
    const health = await client.health.$get()
    if (!health.ok) throw new Error(`${health.status}`)
    expectTypeOf(await health.json()).toEqualTypeOf<{ status: string }>()
    const ready = await client.ready.$get()
    if (!ready.ok) throw new Error(`${ready.status}`)
    expectTypeOf(await ready.json()).toEqualTypeOf<{ status: string }>()
    const tested = await client['db-test'].$get()
    if (!tested.ok) throw new Error(`${tested.status}`)
    const { latency_ms, version } = await tested.json()
    expectTypeOf(latency_ms).toEqualTypeOf<number>()
    expect(version).toMatch(/^PostgreSQL/)
  })

  test('/openapi.json and /docs', async () => {
    expect((await client['openapi.json'].$get()).status).toBe(200)
    expect((await client.docs.$get()).status).toBe(200)
    expect((await client.docs[':part'].$get({ param: { part: 'start.js' } })).status).toBe(200)
  })
})

test('the example of the README is this one', async () => {
  const { products } = createClient(url)
  const answer = await products.$post({ json: { name: 'Butter dish', price: 24.5 } })
  if (answer.ok) {
    const product = await answer.json() // every field, typed
    await products[':id'].$patch({ param: { id: String(product.id) }, json: { stock: 12 } })
  } else {
    const problem = await answer.json() // a problem document
    throw new Error(problem.detail)
  }

  const read = (path: string) => readFile(join(import.meta.dirname, path), 'utf8')
  const [, example] = /```ts\n(.*?)```/s.exec(await read('../README.md'))!
  const here = new Set((await read('client.test.ts')).split('\n').map((line) => line.trim()))
  const [, , ...lines] = example!.replace("'http://127.0.0.1:8000'", 'url').trim().split('\n')
  for (const line of lines) expect(here).toContain(line.trim())
  const page = await products.$get({ query: { limit: '1' } })
  if (!page.ok) throw new Error(`${page.status}`)
  expect((await page.json()).items[0]).toMatchObject({ name: 'Butter dish', stock: 12 })
})

test('its options are those of Hono’s client', async () => {
  const headers: (string | null)[] = []
  const watched = createClient(url, {
    headers: { 'x-request-id': 'from-the-client' },
    fetch: async (...request: Parameters<typeof fetch>) => {
      const answer = await fetch(...request)
      headers.push(answer.headers.get('x-request-id'))
      return answer
    },
  })
  await watched.health.$get()
  expect(headers).toEqual(['from-the-client'])
})

/** Never called: each line is an error that the types must find, or the check of types fails. */
export function mistakes() {
  const { products } = client
  return [
    // @ts-expect-error a price is missing
    products.$post({ json: { name: 'Mug' } }),
    // @ts-expect-error a price is no boolean
    products.$post({ json: { name: 'Mug', price: true } }),
    // @ts-expect-error a product has no colour
    products.$post({ json: { name: 'Mug', price: 1, colour: 'blue' } }),
    // @ts-expect-error a name may not be null
    products[':id'].$patch({ param: { id: '1' }, json: { name: null } }),
    // @ts-expect-error the id is missing
    products[':id'].$get(),
    // @ts-expect-error there is no such parameter
    products.$get({ query: { size: '1' } }),
    // @ts-expect-error the list cannot be deleted
    products.$delete,
    // @ts-expect-error there is no such resource
    client.categories,
  ]
}
