// What the clients of the bench ask for: each scenario, and the requests that one client sends in it.
import type { Request } from 'autocannon'
import { encodeCursor } from '../../src/http/page.ts'
import { productList } from '../../src/products/schema.ts'

/** What a load has to know. */
export interface World {
  /** No other load has this number: skus and keys are made of it. */
  number: number
  /** There are so many products, with ids from 1 on. */
  products: number
  /** Larder makes a secret of its cursors; those of the others are ids. */
  hasOpaqueCursors: boolean
  /** Products that nobody else changes, as many for each client. */
  own: OwnProduct[]
}

export interface OwnProduct {
  id: number
  version: number
}

const firstPage = () => always('/products?limit=20')

/** Each round does what is of one group in one go, so that what is compared was measured side by side. */
export const scenarios = [
  scenario('get', 'GET by random id', 'by id', 64, [200], getById),
  scenario('hot', 'GET one hot id', 'by id', 64, [200], () => always('/products/7')),
  scenario('health', 'GET /health', 'by id', 64, [200], () => always('/health')),
  scenario('first-page', 'first page of 20', 'pages', 64, [200], firstPage),
  scenario('page-of-100', 'first page of 100', 'pages', 64, [200], () =>
    always('/products?limit=100'),
  ),
  scenario('cursors', 'page of 20 at random cursors', 'pages', 64, [200], pageAnywhere),
  // Of the words of made-up products, one in ten thousand has the first, and every other the second.
  scenario('search-rare', 'search, a rare word', 'searches', 64, [200], () =>
    always('/products?q=heirloom'),
  ),
  scenario('search-common', 'search, a common word', 'searches', 64, [200], () =>
    always('/products?q=handmade'),
  ),
  scenario('get-16', 'GET by random id', 'few readers', 16, [200], getById),
  scenario('first-page-16', 'first page of 20', 'few readers', 16, [200], firstPage),
  scenario('get-256', 'GET by random id', 'many readers', 256, [200], getById),
  scenario('first-page-256', 'first page of 20', 'many readers', 256, [200], firstPage),
  scenario('post', 'POST', 'writes', 64, [201], post),
  scenario('post-once', 'POST with Idempotency-Key', 'writes', 64, [201], postOnce),
  scenario('patch', 'PATCH with If-Match', 'writes', 64, [200], patch),
  scenario('mix', '90 % GET by id, 5 % PATCH, 5 % POST', 'writes', 64, [200, 201], mix),
  scenario('post-16', 'POST', 'few writers', 16, [201], post),
  scenario('post-256', 'POST', 'many writers', 256, [201], post),
] as const

export type Scenario = (typeof scenarios)[number]
export type ScenarioName = Scenario['name']

function scenario<Name extends string>(
  name: Name,
  title: string,
  group: string,
  clients: number,
  statuses: number[],
  /** Of the client with this number, over and over. */
  requests: (client: number, world: World) => Request[],
) {
  return { name, title, group, clients, statuses, requests }
}

/** So many reads of a client are made before the load; then it begins with the first again. */
const READS = 320

function always(path: string): Request[] {
  return [{ path }]
}

function getById(_: number, { products }: World): Request[] {
  return Array.from({ length: READS }, () => ({
    path: `/products/${randomId(products)}`,
  }))
}

export const binding = productList.binding(productList.page.parse({ limit: '20' }))

function pageAnywhere(_: number, { products, hasOpaqueCursors }: World): Request[] {
  return Array.from({ length: READS }, () => {
    const id = String(randomId(products))
    const cursor = hasOpaqueCursors ? encodeCursor({ way: 'after', key: [id] }, binding) : id
    return { path: `/products?limit=20&cursor=${cursor}` }
  })
}

export const randomId = (products: number) => 1 + Math.floor(Math.random() * products)

const JSON_TYPE = { 'content-type': 'application/json' }

const product = {
  name: 'Enamel mug, forest green, 0.5 l',
  description:
    'Steel under two coats of enamel. For the desk, the campfire and everything between.',
  price: 12.5,
  currency: 'EUR',
  stock: 40,
  attributes: { colour: 'forest green', material: 'enamel', weight_g: 350 },
}

/** Of all loads: nothing is sent twice. */
let sent = 0

/** Each has a sku of its own. */
export const newProduct = (load: number) => ({ sku: `MUG-${load}-${++sent}`, ...product })

function post(_: number, { number }: World): Request[] {
  return [
    {
      method: 'POST',
      path: '/products',
      setupRequest: (request) => ({
        ...request,
        headers: JSON_TYPE,
        body: JSON.stringify(newProduct(number)),
      }),
    },
  ]
}

function postOnce(_: number, { number }: World): Request[] {
  return [
    {
      method: 'POST',
      path: '/products',
      setupRequest(request) {
        const body = newProduct(number)
        const headers = { ...JSON_TYPE, 'idempotency-key': body.sku }
        return { ...request, headers, body: JSON.stringify(body) }
      },
    },
  ]
}

/** The client alone changes its products, so it knows which version each change leaves. */
function patch(client: number, { own }: World): Request[] {
  const mine = own.filter((_, n) => n % 64 === client)
  let turn = 0
  return [
    {
      method: 'PATCH',
      setupRequest(request) {
        const next = mine[turn++ % mine.length]!
        return {
          ...request,
          path: `/products/${next.id}`,
          headers: { ...JSON_TYPE, 'if-match': `"${next.version++}"` },
          // Never what was there before: that would be no change, and the version would stay.
          body: JSON.stringify({ stock: ++sent, price: 10 + (sent % 100) / 100 }),
        }
      },
    },
  ]
}

/** Each client begins at another place, or all would write at once. */
function mix(client: number, world: World): Request[] {
  const reads = getById(client, world)
  const writes = [...patch(client, world), ...post(client, world)]
  const requests = reads.map((read, n) => (n % 10 === 9 ? writes[(n / 10) & 1]! : read))
  const start = client % 20
  return [...requests.slice(start), ...requests.slice(0, start)]
}
