// What every operation of the OpenAPI document says alike: problems, headers, keys.
//
// Nothing that answers a request imports this: the document is made by `npm run openapi` and kept.
import * as z from 'zod'
import type { ZodOpenApiResponseObject, ZodOpenApiResponsesObject } from 'zod-openapi'
import { catalogue, type Fault, type ProblemCode, type ProblemDocument } from './problem.ts'

const place = z.string().optional()

const FaultSchema: z.ZodType<Fault> = z
  .strictObject({
    pointer: place.meta({ description: 'A JSON Pointer into the body.', examples: ['#/price'] }),
    parameter: place.meta({ description: 'A parameter of the query or the path.' }),
    header: place.meta({ description: 'A header of the request.' }),
    line: z.int().positive().optional().meta({ description: 'A line of an import, from 1.' }),
    code: z.string().meta({ examples: ['too_small'] }),
    detail: z.string().meta({ examples: ['must be at least 0'] }),
  })
  .meta({
    id: 'Fault',
    description: 'One fault of the input, and where it is.',
  }) as z.ZodType<Fault>

export const ProblemSchema = z
  .strictObject({
    type: z.string().meta({ format: 'uri-reference', examples: ['/problems/validation'] }),
    title: z.string(),
    status: z.int().min(400).max(599),
    detail: z.string(),
    code: z.enum(Object.keys(catalogue) as ProblemCode[]),
    request_id: z.string().meta({ description: 'The same as in X-Request-Id, and in the log.' }),
    errors: z.array(FaultSchema).min(1).max(100).optional(),
  })
  .meta({ id: 'Problem', description: 'A problem document (RFC 9457).' })

const REQUEST_ID = '^[A-Za-z0-9._-]{1,128}$'

/** A parameter of every operation. */
export const requestIdParameter = z
  .string()
  .optional()
  .meta({
    description: 'Comes back when it is fit; otherwise the answer has an id of its own.',
    examples: ['checkout-7'],
    param: { in: 'header', name: 'X-Request-Id', id: 'RequestId' },
  })

export const requestIdHeader = z
  .string()
  .regex(new RegExp(REQUEST_ID))
  .meta({
    description: "The request's id: its own when it was fit, otherwise a new one.",
    examples: ['2fd683c6-55ce-4ba3-8ac6-7f7860d85e39'],
    header: { id: 'X-Request-Id' },
  })

export const etagHeader = z
  .string()
  .regex(/^"\d+"$/)
  .meta({
    description: 'The version of the product, for `If-Match` and `If-None-Match`.',
    examples: ['"3"'],
    header: { id: 'ETag' },
  })

export const linkHeader = z
  .string()
  .optional()
  .meta({
    description: 'The pages beside this one (RFC 8288), where there are any.',
    examples: ['</products?limit=20&cursor=ZnE4cWRm>; rel="next"'],
    header: { id: 'Link' },
  })

const retryAfterHeader = z
  .string()
  .regex(/^\d+$/)
  .meta({ description: 'Seconds.', examples: ['1'], header: { id: 'Retry-After' } })

/** On what is counted, where the service limits its clients and can tell what is left. */
const rateLimitHeaders = {
  RateLimit: z
    .string()
    .regex(/^"default";r=\d+;t=\d+$/)
    .optional()
    .meta({
      description: 'Where there is a limit: requests that remain, seconds until there are more.',
      examples: ['"default";r=50;t=30'],
      header: { id: 'RateLimit' },
    }),
  'RateLimit-Policy': z
    .string()
    .regex(/^"default";q=\d+;w=\d+$/)
    .optional()
    .meta({
      description: 'Where there is a limit: so many requests in so many seconds.',
      examples: ['"default";q=100;w=60'],
      header: { id: 'RateLimit-Policy' },
    }),
}

const authenticateHeader = z
  .string()
  .meta({ examples: ['Bearer realm="larder"'], header: { id: 'WWW-Authenticate' } })

/** Headers that a problem of this code always has, besides the request's id. */
const headersOf: Partial<Record<ProblemCode, z.ZodRawShape>> = {
  unauthorized: { 'WWW-Authenticate': authenticateHeader },
  rate_limited: { 'Retry-After': retryAfterHeader },
  unavailable: { 'Retry-After': retryAfterHeader },
}

const meanings: Record<ProblemCode, string> = {
  malformed: 'The request cannot be parsed: broken JSON, bad UTF-8, a cursor of another query.',
  unauthorized: 'The service asks for a key, and the request has none that it knows.',
  forbidden: 'The key is known, but its scope is below what this asks for.',
  not_found: 'There is nothing at this address.',
  method_not_allowed: 'The resource does not take this method; `Allow` names those it takes.',
  not_acceptable: 'There is no form that `Accept` would take.',
  request_timeout:
    'The body came more slowly than 16 KiB a second, the first ten seconds aside; of an import, than 800 kB in 50 seconds.',
  conflict: 'The request conflicts with what is stored; `errors` points at the field.',
  insufficient_stock: 'The stock would fall below zero.',
  gone: 'The cursor is older than the changes that are kept.',
  precondition_failed: '`If-Match` names another version, or `If-None-Match` the one there is.',
  too_large: 'The body is larger than the operation takes.',
  unsupported_media_type: 'The operation does not take a body of this type.',
  validation: 'The request can be parsed and is not valid; `errors` lists every fault at once.',
  rate_limited: 'The client has used up its quota; `Retry-After` says when there is more.',
  internal: 'A fault of the service, logged under the request id.',
  unavailable: 'The database, or a connection to it, is not to be had at the moment.',
  timeout: 'The database took too long.',
}

const faults: Partial<Record<ProblemCode, Fault>> = {
  validation: { pointer: '#/price', code: 'too_small', detail: 'must be at least 0' },
  conflict: { pointer: '#/sku', code: 'taken', detail: 'is taken by another product' },
}

/** An answer that is no problem. `content` is by media type; headers are those besides X-Request-Id. */
export function answer(
  description: string,
  content: ZodOpenApiResponseObject['content'],
  headers: z.ZodRawShape = {},
): ZodOpenApiResponseObject {
  return {
    description,
    headers: z.object({ 'X-Request-Id': requestIdHeader, ...rateLimitHeaders, ...headers }),
    ...(content ? { content } : {}),
  }
}

/** The answers for these problems, by status; codes that share a status share an answer. */
export function problems(...codes: ProblemCode[]): ZodOpenApiResponsesObject {
  const byStatus = Map.groupBy(new Set(codes), (code) => catalogue[code][0])
  return Object.fromEntries([...byStatus].map(([status, codes]) => [status, problem(codes)]))
}

function problem(codes: ProblemCode[]): ZodOpenApiResponseObject {
  const id = codes.join('_or_')
  known[id] ??= {
    id,
    ...answer(
      codes.map((code) => meanings[code]).join(' Or: '),
      {
        'application/problem+json': {
          schema: ProblemSchema,
          examples: Object.fromEntries(codes.map((code) => [code, { value: example(code) }])),
        },
      },
      Object.assign({}, ...codes.map((code) => (codes.length === 1 ? headersOf[code] : {}))),
    ),
  }
  return known[id]
}

/** One object each: an answer with an id is registered once. */
const known: Record<string, ZodOpenApiResponseObject> = {}

function example(code: ProblemCode): ProblemDocument {
  const [status, title] = catalogue[code]
  const fault = faults[code]
  return {
    type: `/problems/${code}`,
    title,
    status,
    detail: meanings[code],
    code,
    request_id: '2fd683c6-55ce-4ba3-8ac6-7f7860d85e39',
    ...(fault ? { errors: [fault] } : {}),
  }
}

/** Any request may meet these, whatever it asks for. */
export const always = ['malformed', 'internal'] as const
/** Any but a probe, where there is a limit. */
export const counted = [...always, 'rate_limited'] as const
/** What asks for the database may meet these, too, and is behind a key where the service has keys. */
export const withDatabase = [
  ...counted,
  'unauthorized',
  'forbidden',
  'unavailable',
  'timeout',
] as const

/** A key is needed where the service has keys. */
export const optionalKey = [{}, { key: [] }]
/** Always open, even where the service has keys. */
export const open: [] = []
