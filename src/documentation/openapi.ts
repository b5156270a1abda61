// How the OpenAPI document describes itself and its page.
import * as z from 'zod'
import type { ZodOpenApiPathsObject } from 'zod-openapi'
import { counted, answer, open, problems } from '../http/openapi.ts'
import { PartPath } from './schema.ts'

const tags = ['documentation']
const security = open

const Document = z.looseObject({ openapi: z.literal('3.1.1'), paths: z.looseObject({}) })
const etag = z.string().meta({ description: 'Of the bytes.', examples: ['"0f3a"'] })
const unchanged = answer('`If-None-Match` names what it is.', undefined, { ETag: etag })
const file = (description: string, ...types: string[]) =>
  answer(
    description,
    Object.fromEntries(types.map((type) => [type, { schema: { type: 'string' } }])),
    { ETag: etag },
  )

export const documentationPaths: ZodOpenApiPathsObject = {
  '/openapi.json': {
    get: {
      operationId: 'getDocument',
      tags,
      security,
      summary: 'This document',
      responses: {
        200: answer('OpenAPI 3.1.', { 'application/json': { schema: Document } }, { ETag: etag }),
        304: unchanged,
        ...problems(...counted),
      },
    },
  },
  '/docs': {
    get: {
      operationId: 'getPage',
      tags,
      security,
      summary: 'A page to read and try the API',
      responses: { 200: file('The page.', 'text/html'), 304: unchanged, ...problems(...counted) },
    },
  },
  '/docs/{part}': {
    get: {
      operationId: 'getPagePart',
      tags,
      security,
      summary: 'A part of that page',
      requestParams: { path: PartPath },
      responses: {
        200: file('The part.', 'text/css', 'text/javascript'),
        304: unchanged,
        ...problems(...counted, 'not_found'),
      },
    },
  },
}
