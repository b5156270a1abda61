// How the OpenAPI document describes the products: beside each route, the schemas that it checks with.
import { z } from 'zod'
import type { ZodOpenApiPathsObject } from 'zod-openapi'
import {
  answer,
  etagHeader,
  linkHeader,
  optionalKey,
  problems,
  withDatabase,
} from '../http/openapi.ts'
import {
  NewProduct,
  Product,
  ProductPage,
  ProductPatch,
  ProductPath,
  ProductQuery,
} from './schema.ts'

const tags = ['products']
const security = optionalKey

/** What every route here may answer: each checks its query, if only for being empty. */
const reading = [...withDatabase, 'validation'] as const
const writing = [...reading, 'too_large', 'unsupported_media_type', 'conflict'] as const

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
      description: 'Newest first. Nothing is skipped or repeated while others write.',
      requestParams: { query: ProductQuery },
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
      requestBody: {
        required: true,
        content: { 'application/json': { schema: NewProduct, example: product } },
      },
      responses: {
        201: oneProduct('The product.', stored, { Location: location }),
        ...problems(...writing),
      },
    },
  },
  '/products/{id}': {
    get: {
      operationId: 'getProduct',
      tags,
      security,
      summary: 'Read a product',
      requestParams: { path: ProductPath },
      responses: { 200: oneProduct('The product.'), ...problems(...reading, 'not_found') },
    },
    put: {
      operationId: 'replaceProduct',
      tags,
      security,
      summary: 'Replace a product whole',
      description: 'What is left out goes back to its default.',
      requestParams: { path: ProductPath },
      requestBody: {
        required: true,
        content: { 'application/json': { schema: NewProduct, example: product } },
      },
      responses: {
        200: oneProduct('The product as it is now.'),
        ...problems(...writing, 'not_found'),
      },
    },
    patch: {
      operationId: 'changeProduct',
      tags,
      security,
      summary: 'Change what is named',
      description: 'A change of nothing leaves the version alone.',
      requestParams: { path: ProductPath },
      requestBody: {
        required: true,
        content: { 'application/merge-patch+json': patch, 'application/json': patch },
      },
      responses: {
        200: oneProduct('The product as it is now.'),
        ...problems(...writing, 'not_found'),
      },
    },
    delete: {
      operationId: 'deleteProduct',
      tags,
      security,
      summary: 'Remove a product',
      requestParams: { path: ProductPath },
      responses: {
        204: answer('It is gone.', undefined),
        ...problems(...reading, 'not_found', 'conflict'),
      },
    },
  },
}
