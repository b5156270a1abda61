// The products as a REST resource: path, check, statement, answer.
import { type Context, Hono } from 'hono'
import { answer, answerJson } from '../http/answer.ts'
import { isSmall, readJson, readJsonUpTo } from '../http/body.ts'
import type { Environment } from '../http/environment.ts'
import { renderPage } from '../http/page.ts'
import {
  type Condition,
  conditionOf,
  isNew,
  matches,
  preconditions,
} from '../http/preconditions.ts'
import { Problem, speaksOf } from '../http/problem.ts'
import { validRows } from '../http/rows.ts'
import { MOST_FAULTS, valid, withoutQuery } from '../http/validation.ts'
import { answeringOnce, type Run } from '../idempotency/once.ts'
import type { Answer, KeyedRequest } from '../idempotency/repository.ts'
import type { Sql } from '../database/connection.ts'
import type { Place } from '../database/keyset.ts'
import { changes } from './changes.ts'
import * as repository from './repository.ts'
import {
  BulkQuery,
  type BulkResult,
  LARGEST_STOCK,
  MOST_PRODUCTS,
  NewProduct,
  NewProducts,
  type Product,
  type ProductPage,
  productConstraints,
  productList,
  ProductPatch,
  ProductPath,
  type ProductQuery,
  ProductRows,
  StockChange,
} from './schema.ts'
import { transfer } from './transfer.ts'

const JSON_TYPE = { 'content-type': 'application/json' }
/**
 * So many products are read together, of some 50 kB each at most. With 200, the service and PostgreSQL
 * took a fifth more CPU for a page of 20; with 1,000 no less than with 400.
 */
const MOST_ROWS = 400
const MOST_BULK_BYTES = 16 * 1024 * 1024

const answerOnce = answeringOnce(productConstraints)

const resource = new Hono<Environment>()
resource.use(speaksOf(productConstraints)) // in the chain it would show in the client's types

export const products = resource

  .get('/', valid('query', productList.page), async (c) => {
    const request = c.req.valid('query')
    const place = productList.place(request)
    const asked = { url: c.req.url, place }
    const database = c.get('database')
    const read = readPages(request)
    const page = !repository.isQuick(request)
      ? await database.heavy().readTogether(asked.url, asked, read)
      : !place
        ? await database.readTogether(asked.url, asked, read)
        : await database.readTogether(kindOf(request, place), asked, read, pagesTogether(request))
    return answerJson<ProductPage>(c, page.json, 200, page.headers)
  })

  .post('/', withoutQuery, readJson('application/json'), valid('json', NewProduct), (c) => {
    const product = c.req.valid('json')
    const created = (stored: repository.StoredProduct): Answer => {
      const headers = { ...JSON_TYPE, etag: etag(stored), location: `/products/${stored.id}` }
      return { status: 201, headers, body: stored.json }
    }
    const atOnce = async (keyed?: KeyedRequest) => {
      const asked = { product, ...keyed }
      const stored = await c.get('database').writeTogether('create', asked, repository.create)
      // With a key it may be the key that is taken, and the answer under it has to be found.
      if (!stored && !keyed) throw skuTaken()
      return stored && created(stored)
    }
    const work = async (sql: Sql) => {
      const [stored] = await repository.create(sql, [{ product }])
      if (!stored) throw skuTaken()
      return created(stored)
    }
    return answerOnce<Product, 201>(c, 'write', work, isSmall(c) ? { atOnce } : {})
  })

  .post(
    '/bulk',
    valid('query', BulkQuery),
    readJsonUpTo(MOST_BULK_BYTES, 'application/json'),
    validRows(NewProducts, { ...ProductRows, row: NewProduct, most: MOST_PRODUCTS }),
    (c) => {
      const products = c.req.valid('json')
      const replacing = c.req.valid('query').on_conflict === 'sku'
      const database = c.get('database').heavy()
      const run: Run = (work) => database.session(work)
      return answerOnce<BulkResult>(c, run, async (sql) => {
        const written = await repository.createMany(sql, products, replacing)
        const taken = written.flatMap(({ json }, row) => (json === null ? row : []))
        if (taken.length > 0) throw skusTaken(taken)
        const inserted = written.filter((product) => product.inserted).length
        const updated = written.length - inserted
        const items = written.map((product) => product.json).join(',')
        const body = `{"inserted":${inserted},"updated":${updated},"items":[${items}]}`
        return { status: 200, headers: JSON_TYPE, body }
      })
    },
  )

  .route('/', transfer)

  .route('/', changes)

  .get('/:id', valid('param', ProductPath), withoutQuery, preconditions, async (c) => {
    const { id } = c.req.valid('param')
    const condition = conditionOf(c.req.valid('header'))
    const product = await c.get('database').readTogether('product', id, repository.findAll)
    if (!product) throw notFound()
    if (!matches(condition, product.version)) throw changed()
    if (isNew(condition, product.version)) return answerProduct(c, product)
    return answer(c, null, 304, { etag: etag(product) })
  })

  .put(
    '/:id',
    valid('param', ProductPath),
    withoutQuery,
    preconditions,
    readJson('application/json'),
    valid('json', NewProduct),
    async (c) => {
      const { id } = c.req.valid('param')
      const product = c.req.valid('json')
      const condition = conditionOf(c.req.valid('header'))
      const written = await c
        .get('database')
        .write(
          async (sql) =>
            (await repository.replace(sql, id, product, condition)) ?? whyNot(sql, id, condition),
        )
      return answerProduct(c, written)
    },
  )

  .patch(
    '/:id',
    valid('param', ProductPath),
    withoutQuery,
    preconditions,
    readJson('application/merge-patch+json', 'application/json'),
    valid('json', ProductPatch),
    async (c) => {
      const { id } = c.req.valid('param')
      const patch = c.req.valid('json')
      const condition = conditionOf(c.req.valid('header'))
      const asked = { id, patch, condition }
      const database = c.get('database')
      const alone = async (sql: Sql) => {
        const [written] = await repository.change(sql, [asked])
        return written ?? whyNot(sql, id, condition)
      }
      const together =
        isSmall(c) && (await database.writeTogether('change', asked, repository.change))
      const written = together || (await database.write(alone))
      return answerProduct(c, written)
    },
  )

  .delete('/:id', valid('param', ProductPath), withoutQuery, preconditions, async (c) => {
    const { id } = c.req.valid('param')
    const condition = conditionOf(c.req.valid('header'))
    await c
      .get('database')
      .write(
        async (sql) => (await repository.remove(sql, id, condition)) ?? whyNot(sql, id, condition),
      )
    return answer(c, null, 204)
  })

  .post(
    '/:id/stock',
    valid('param', ProductPath),
    withoutQuery,
    preconditions,
    readJson('application/json'),
    valid('json', StockChange),
    (c) => {
      const { id } = c.req.valid('param')
      const { delta } = c.req.valid('json')
      const asked = { id, delta, condition: conditionOf(c.req.valid('header')) }
      const adjusted = (product: repository.StoredProduct): Answer => {
        const headers = { ...JSON_TYPE, etag: etag(product) }
        return { status: 200, headers, body: product.json }
      }
      const atOnce = async (keyed?: KeyedRequest) => {
        const adjustment = { ...asked, ...keyed }
        const product = await c
          .get('database')
          .writeTogether('stock', adjustment, repository.adjustStock)
        return product && adjusted(product)
      }
      const work = async (sql: Sql) => {
        const [product] = await repository.adjustStock(sql, [asked])
        return adjusted(product ?? (await whyNot(sql, id, asked.condition, outOfStock(delta))))
      }
      return answerOnce<Product>(c, 'write', work, isSmall(c) ? { atOnce } : {})
    },
  )

/** An address of a list, and the place in it that its cursor names. */
interface AskedPage {
  url: string
  place: Place | undefined
}

/** Reads the pages of a kind, those of equal addresses once. */
const readPages = (request: ProductQuery) => async (sql: Sql, asked: AskedPage[]) => {
  const { limit, count } = request
  const binding = productList.binding(request)
  const places = new Map(asked.map(({ url, place }) => [url, place]))
  const read = await repository.list(
    sql,
    request,
    [...places.values()].filter((place) => !!place),
  )
  const pages = new Map(
    [...places].map(([url, place], index) => [
      url,
      renderPage(url, { ...read[index]!, limit, count, place, binding }),
    ]),
  )
  return asked.map(({ url }) => pages.get(url)!)
}

/** Pages that differ in their places alone are read together. */
const kindOf = (request: ProductQuery, { way }: Place) =>
  JSON.stringify({ ...request, cursor: way })

/** Read together, pages are to have no more rows than products, which may be large. */
const pagesTogether = ({ limit }: ProductQuery) => Math.max(1, Math.floor(MOST_ROWS / limit))

/** Says why nothing was written. Asked afterwards, on the way of a failure only. */
async function whyNot(
  sql: Sql,
  id: number,
  condition: Condition,
  otherwise = changed(),
): Promise<never> {
  const product = await repository.find(sql, id)
  if (!product) throw notFound()
  const { version } = product
  throw matches(condition, version) && isNew(condition, version) ? otherwise : changed()
}

function answerProduct(c: Context<Environment>, product: repository.StoredProduct) {
  return answerJson<Product>(c, product.json, 200, { etag: etag(product) })
}

const etag = ({ version }: { version: number }) => `"${version}"`

function notFound() {
  return new Problem('not_found', 'There is no product with this id.')
}

function changed() {
  return new Problem('precondition_failed', 'The product is in another version than asked for.')
}

function outOfStock(delta: number) {
  if (delta < 0)
    return new Problem('insufficient_stock', 'There is less in stock than to be taken.')
  const detail = `would make the stock larger than ${LARGEST_STOCK}`
  return new Problem('conflict', `delta ${detail}.`, {
    faults: [{ pointer: '#/delta', code: 'too_big', detail }],
  })
}

function skuTaken() {
  const { field, code, detail } = productConstraints['products_sku_key']!
  return new Problem('conflict', `${field} ${detail}.`, {
    faults: [{ pointer: `#/${field}`, code, detail }],
  })
}

/** Of a bulk: `rows` are those that no product could be made of. */
function skusTaken(rows: number[]) {
  const { code, detail } = productConstraints['products_sku_key']!
  return new Problem('conflict', `sku ${detail}.`, {
    faults: rows.slice(0, MOST_FAULTS).map((row) => ({ pointer: `#/${row}/sku`, code, detail })),
  })
}
