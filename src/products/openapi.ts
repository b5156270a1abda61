// How the OpenAPI document describes the products: beside each route, the schemas that it checks with.
import * as z from 'zod'
import type { ZodOpenApiPathsObject } from 'zod-openapi'
import {
  answer,
  etagHeader,
  linkHeader,
  optionalKey,
  problems,
  withDatabase,
} from '../http/openapi.ts'
import { Preconditions } from '../http/preconditions.ts'
import { ChangesQuery } from './changes.ts'
import {
  BulkQuery,
  BulkResult,
  ImportResult,
  NewProduct,
  NewProducts,
  Product,
  ProductChanges,
  productList,
  ProductPage,
  ProductPatch,
  ProductPath,
  StockChange,
} from './schema.ts'

const tags = ['products']
const security = optionalKey

/** What every route here may answer: each checks its query, if only for being empty. */
const reading = [...withDatabase, 'validation'] as const
const writing = [
  ...reading,
  'too_large',
  'unsupported_media_type',
  'request_timeout',
  'conflict',
] as const

/** Lines, which JSON Schema cannot tell of. */
const stream = z.string()

const accept = z.object({
  Accept: z
    .enum(['application/x-ndjson', 'text/csv'])
    .optional()
    .meta({ description: 'The form of the export.' }),
})

/** Of every POST. */
const idempotency = z.object({
  'Idempotency-Key': z
    .string()
    .regex(/^[!-~]{1,255}$/)
    .optional()
    .meta({
      description: 'Makes it safe to send twice: the same request gets the first answer again.',
      examples: ['7d1f0c9a'],
    }),
})
const replayed = {
  'Idempotency-Replayed': z
    .literal('true')
    .optional()
    .meta({ description: 'There when this answer was given before.' }),
}

const location = z.string().meta({ description: 'Where it is.', examples: ['/products/121'] })

const product = {
  sku: 'BUT-77',
  name: 'Butter dish',
  description: null,
  price: 24.5,
  currency: 'USD',
  stock: 0,
  attributes: { colour: 'white' },
}
const stored = {
  id: 121,
  ...product,
  version: 1,
  created_at: '2026-11-22T16:16:42.257135Z',
  updated_at: '2026-11-22T16:16:42.257135Z',
}
const cursor = 'ZnE4cWRmWzEsIm5leHQiLDEyMV0'

const oneProduct = (description: string, example: object = stored, headers = {}) =>
  answer(
    description,
    { 'application/json': { schema: Product, example } },
    { ETag: etagHeader, ...headers },
  )
const patch = { schema: ProductPatch, example: { stock: 12, attributes: { lid: true } } }

export const productsPaths: ZodOpenApiPathsObject = {
  '/products': {
    get: {
      operationId: 'listProducts',
      tags,
      security,
      summary: 'A page of products',
      description:
        'The newest first, when no other sort is asked for. Nothing is skipped or repeated while others write.',
      requestParams: { query: productList.page },
      responses: {
        200: answer(
          'The page.',
          {
            'application/json': {
              schema: ProductPage,
              example: { items: [stored], next_cursor: cursor, prev_cursor: null },
            },
          },
          { Link: linkHeader },
        ),
        ...problems(...reading),
      },
    },
    post: {
      operationId: 'createProduct',
      tags,
      security,
      summary: 'Make a product',
      requestParams: { header: idempotency },
      requestBody: {
        required: true,
        content: { 'application/json': { schema: NewProduct, example: product } },
      },
      responses: {
        201: oneProduct('The product.', stored, { Location: location, ...replayed }),
        ...problems(...writing),
      },
    },
  },
  '/products/bulk': {
    post: {
      operationId: 'createProducts',
      tags,
      security,
      summary: 'Make up to a thousand products',
      description:
        'All or none of them; each fault points at its row. With `on_conflict=sku` a product whose sku is known is replaced.',
      requestParams: { query: BulkQuery, header: idempotency },
      requestBody: {
        required: true,
        content: { 'application/json': { schema: NewProducts, example: [product] } },
      },
      responses: {
        200: answer(
          'What was done.',
          {
            'application/json': {
              schema: BulkResult,
              example: { inserted: 1, updated: 0, items: [stored] },
            },
          },
          replayed,
        ),
        ...problems(...writing),
      },
    },
  },
  '/products/import': {
    post: {
      operationId: 'importProducts',
      tags,
      security,
      summary: 'Make any number of products',
      description:
        'All or none of them, one a line. The first 100 bad lines are named by their numbers; a line has at most 1 MiB. ' +
        'A CSV begins with the names of its fields; an empty field is left out, `""` is an empty text, `attributes` is JSON.',
      requestParams: { query: BulkQuery, header: idempotency },
      requestBody: {
        required: true,
        content: {
          'application/x-ndjson': { schema: stream, example: `${JSON.stringify(product)}\n` },
          'text/csv': { schema: stream, example: 'sku,name,price\n"BUT-77","Butter dish",24.50\n' },
        },
      },
      responses: {
        200: answer(
          'What was done.',
          {
            'application/json': { schema: ImportResult, example: { inserted: 1, updated: 0 } },
          },
          replayed,
        ),
        ...problems(...writing),
      },
    },
  },
  '/products/export': {
    get: {
      operationId: 'exportProducts',
      tags,
      security,
      summary: 'Every product that is selected',
      description:
        'One a line, by id, as of one moment. An import takes it back. A transfer that breaks off is not complete.',
      requestParams: { query: productList.selection, header: accept },
      responses: {
        200: answer(
          'The products.',
          {
            'application/x-ndjson': { schema: stream, example: `${JSON.stringify(stored)}\n` },
            'text/csv': { schema: stream },
          },
          {
            'Content-Disposition': z
              .string()
              .meta({ examples: ['attachment; filename="products.csv"'] }),
          },
        ),
        ...problems(...reading, 'not_acceptable'),
      },
    },
  },
  '/products/changes': {
    get: {
      operationId: 'listChanges',
      tags,
      security,
      summary: 'What changed',
      description:
        'Every committed change exactly once, and those of a product in order, for a client that goes on from `next_cursor`. ' +
        'An answer has fewer than `limit` also when more would make it large; there is nothing more yet when it is empty.',
      requestParams: { query: ChangesQuery },
      responses: {
        200: answer('The changes.', {
          'application/json': {
            schema: ProductChanges,
            example: {
              items: [
                { op: 'insert', id: 121, version: 1, at: stored.created_at, product: stored },
                { op: 'delete', id: 121, version: 2, at: stored.created_at, product: null },
              ],
              next_cursor: cursor,
            },
          },
        }),
        ...problems(...reading, 'gone'),
      },
    },
  },
  '/products/{id}': {
    get: {
      operationId: 'getProduct',
      tags,
      security,
      summary: 'Read a product',
      requestParams: { path: ProductPath, header: Preconditions },
      responses: {
        200: oneProduct('The product.'),
        304: answer('The client has this version.', undefined, { ETag: etagHeader }),
        ...problems(...reading, 'not_found', 'precondition_failed'),
      },
    },
    put: {
      operationId: 'replaceProduct',
      tags,
      security,
      summary: 'Replace a product whole',
      description: 'What is left out goes back to its default.',
      requestParams: { path: ProductPath, header: Preconditions },
      requestBody: {
        required: true,
        content: { 'application/json': { schema: NewProduct, example: product } },
      },
      responses: {
        200: oneProduct('The product as it is now.'),
        ...problems(...writing, 'not_found', 'precondition_failed'),
      },
    },
    patch: {
      operationId: 'changeProduct',
      tags,
      security,
      summary: 'Change what is named',
      description: 'A change of nothing leaves the version alone.',
      requestParams: { path: ProductPath, header: Preconditions },
      requestBody: {
        required: true,
        content: { 'application/merge-patch+json': patch, 'application/json': patch },
      },
      responses: {
        200: oneProduct('The product as it is now.'),
        ...problems(...writing, 'not_found', 'precondition_failed'),
      },
    },
    delete: {
      operationId: 'deleteProduct',
      tags,
      security,
      summary: 'Remove a product',
      requestParams: { path: ProductPath, header: Preconditions },
      responses: {
        204: answer('It is gone.', undefined),
        ...problems(...reading, 'not_found', 'conflict', 'precondition_failed'),
      },
    },
  },
  '/products/{id}/stock': {
    post: {
      operationId: 'adjustStock',
      tags,
      security,
      summary: 'Add to the stock, or take from it',
      description: 'Atomic, whoever else does so; the stock never falls below 0.',
      requestParams: { path: ProductPath, header: Preconditions.extend(idempotency.shape) },
      requestBody: {
        required: true,
        content: { 'application/json': { schema: StockChange, example: { delta: -3 } } },
      },
      responses: {
        200: oneProduct('The product as it is now.', stored, replayed),
        ...problems(...writing, 'insufficient_stock', 'not_found', 'precondition_failed'),
      },
    },
  },
}
