// How the OpenAPI document describes the operator's routes.
import * as z from 'zod'
import type { ZodOpenApiPathsObject } from 'zod-openapi'
import {
  always,
  answer,
  counted,
  open,
  optionalKey,
  problems,
  withDatabase,
} from '../http/openapi.ts'

const json = (schema: z.ZodType) => ({ 'application/json': { schema } })

const Health = z.strictObject({ status: z.literal('ok') })
const Ready = z.strictObject({ status: z.literal('ready') })
const DatabaseTest = z.strictObject({
  status: z.literal('ok'),
  version: z.string().meta({ examples: ['PostgreSQL 16.14'] }),
  latency_ms: z
    .number()
    .min(0)
    .meta({ examples: [0.8] }),
})

export const operationsPaths: ZodOpenApiPathsObject = {
  '/health': {
    get: {
      operationId: 'getHealth',
      tags: ['operations'],
      summary: 'Does the process answer?',
      description: 'Never touches the database.',
      security: open,
      responses: { 200: answer('It does.', json(Health)), ...problems(...always) },
    },
  },
  '/ready': {
    get: {
      operationId: 'getReadiness',
      tags: ['operations'],
      summary: 'Should traffic come here?',
      description: 'A 503 says what keeps it away.',
      security: open,
      responses: { 200: answer('It should.', json(Ready)), ...problems(...always, 'unavailable') },
    },
  },
  '/db-test': {
    get: {
      operationId: 'testDatabase',
      tags: ['operations'],
      summary: 'Does the database answer, and how fast?',
      security: optionalKey,
      responses: {
        200: answer('Its version and how long it took.', json(DatabaseTest)),
        ...problems(...withDatabase),
      },
    },
  },
  '/metrics': {
    get: {
      operationId: 'getMetrics',
      tags: ['operations'],
      summary: 'How it has been so far, for Prometheus',
      description: 'Of one process. There are none on Cloudflare Workers.',
      security: optionalKey,
      responses: {
        200: answer("Prometheus' text format.", { 'text/plain': { schema: { type: 'string' } } }),
        ...problems(...counted, 'unauthorized', 'forbidden', 'not_found'),
      },
    },
  },
}
