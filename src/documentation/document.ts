// Makes the OpenAPI document of what the resources say of themselves; `npm run openapi` keeps it in page/openapi.json.
import { createDocument, type ZodOpenApiObject } from 'zod-openapi'
import { requestIdParameter } from '../http/openapi.ts'
import { operationsPaths } from '../operations/openapi.ts'
import { productsPaths } from '../products/openapi.ts'
import { documentationPaths } from './openapi.ts'

const description = `Products over PostgreSQL.

Bodies are JSON in snake_case, times RFC 3339 in UTC. Every failure is a problem document (RFC 9457)
with a \`code\`, and every answer has an \`X-Request-Id\`. HEAD works wherever GET does. What is not
described here is not taken: another field or parameter is a 422, another method a 405.`

const paths = { ...productsPaths, ...operationsPaths, ...documentationPaths }

export function createOpenApiDocument() {
  const document: ZodOpenApiObject = {
    openapi: '3.1.1',
    info: {
      title: 'Larder',
      version: '1',
      description,
      license: { name: 'MIT', identifier: 'MIT' },
    },
    servers: [{ url: '/' }],
    tags: [
      { name: 'products', description: 'What is in the larder.' },
      { name: 'operations', description: 'Whether it works.' },
      { name: 'documentation', description: 'This document, and a page to read and try it.' },
    ],
    paths: Object.fromEntries(
      Object.entries(paths).map(([path, item]) => [
        path,
        { ...item, parameters: [requestIdParameter] },
      ]),
    ),
    components: {
      securitySchemes: {
        key: {
          type: 'http',
          scheme: 'bearer',
          description: 'An API key. Needed only where the service has keys.',
        },
      },
    },
  }
  // A `custom` of zod says nothing of its form; its `meta` does, or a test finds it empty.
  return createDocument(document, { allowEmptySchema: { custom: true } })
}

/** The document as it is kept: a change of the contract shows in review, line by line. */
export const writeOpenApiDocument = (): string =>
  `${JSON.stringify(createOpenApiDocument(), null, 2)}\n`
