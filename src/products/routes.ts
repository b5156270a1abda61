// The products as a REST resource: path, check, statement, answer.
import { type Context, Hono } from 'hono'
import { readJson } from '../http/body.ts'
import type { Environment } from '../http/environment.ts'
import { decodeCursor, encodeCursor, pageLinks } from '../http/page.ts'
import { Problem, renderProblems } from '../http/problem.ts'
import { valid, withoutQuery } from '../http/validation.ts'
import * as repository from './repository.ts'
import {
  ListKey,
  NewProduct,
  productConstraints,
  ProductPatch,
  ProductPath,
  ProductQuery,
} from './schema.ts'
import { transfer } from './transfer.ts'

/** What a cursor of the list belongs to. */
const LIST = 'products -id'

export const products = new Hono<Environment>()
  .onError(renderProblems(productConstraints))

  .get('/', valid('query', ProductQuery), async (c) => {
    const { limit, cursor } = c.req.valid('query')
    const from = cursor === undefined ? undefined : decodeCursor(cursor, LIST, ListKey)
    const back = from?.direction === 'prev'
    const [id = 0] = from?.key ?? []
    const place = { below: from && !back ? id : undefined, above: back ? id : undefined }
    const rows = await c.var.database.read((sql) => repository.list(sql, { limit, ...place }))
    const more = rows.length > limit
    const items = back ? rows.slice(-limit) : rows.slice(0, limit)
    // A page whose rows were deleted still leads back, to the row that its cursor was made from.
    const oldest = items.at(-1)?.id ?? id + 1
    const newest = items[0]?.id ?? id - 1
    const next = back || more
    const prev = back ? more : from !== undefined
    const cursors = {
      next: next ? encodeCursor({ direction: 'next', key: [oldest] }, LIST) : null,
      prev: prev ? encodeCursor({ direction: 'prev', key: [newest] }, LIST) : null,
    }
    const json =
      `{"items":[${items.map((product) => product.json).join(',')}],` +
      `"next_cursor":${JSON.stringify(cursors.next)},"prev_cursor":${JSON.stringify(cursors.prev)}}`
    return c.body(json, 200, {
      'content-type': 'application/json',
      ...pageLinks(c.req.url, cursors),
    })
  })

  .post('/', withoutQuery, readJson('application/json'), valid('json', NewProduct), async (c) => {
    const product = await c.var.database.write((sql) => repository.create(sql, c.req.valid('json')))
    c.header('location', `/products/${product.id}`)
    return answer(c, product, 201)
  })

  .route('/', transfer)

  .get('/:id', valid('param', ProductPath), withoutQuery, async (c) => {
    const { id } = c.req.valid('param')
    return answer(c, await c.var.database.read((sql) => repository.find(sql, id)))
  })

  .put(
    '/:id',
    valid('param', ProductPath),
    withoutQuery,
    readJson('application/json'),
    valid('json', NewProduct),
    async (c) => {
      const { id } = c.req.valid('param')
      const product = c.req.valid('json')
      return answer(c, await c.var.database.write((sql) => repository.replace(sql, id, product)))
    },
  )

  .patch(
    '/:id',
    valid('param', ProductPath),
    withoutQuery,
    readJson('application/merge-patch+json', 'application/json'),
    valid('json', ProductPatch),
    async (c) => {
      const { id } = c.req.valid('param')
      const patch = c.req.valid('json')
      return answer(c, await c.var.database.write((sql) => repository.change(sql, id, patch)))
    },
  )

  .delete('/:id', valid('param', ProductPath), withoutQuery, async (c) => {
    const { id } = c.req.valid('param')
    const removed = await c.var.database.write((sql) => repository.remove(sql, id))
    if (!removed) throw notFound()
    return c.body(null, 204)
  })

function answer(
  c: Context,
  product: repository.StoredProduct | undefined,
  status: 200 | 201 = 200,
) {
  if (!product) throw notFound()
  return c.body(product.json, status, {
    'content-type': 'application/json',
    etag: `"${product.version}"`,
  })
}

function notFound() {
  return new Problem('not_found', 'There is no product with this id.')
}
