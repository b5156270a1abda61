// The products as a REST resource: path, check, statement, answer.
import { type Context, Hono } from 'hono'
import { readJson } from '../http/body.ts'
import type { Environment } from '../http/environment.ts'
import { pageResponse } from '../http/page.ts'
import { Problem, renderProblems } from '../http/problem.ts'
import { valid, withoutQuery } from '../http/validation.ts'
import * as repository from './repository.ts'
import { NewProduct, productConstraints, productList, ProductPatch, ProductPath } from './schema.ts'
import { transfer } from './transfer.ts'

export const products = new Hono<Environment>()
  .onError(renderProblems(productConstraints))

  .get('/', valid('query', productList.page), async (c) => {
    const request = c.req.valid('query')
    const { limit, count } = request
    const place = productList.place(request)
    const page = await c.var.database.read((sql) => repository.list(sql, request, place))
    return pageResponse(c, { ...page, count, limit, place, binding: productList.binding(request) })
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
