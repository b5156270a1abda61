// Makes every answer, with the headers that all of them have.
import type { Context, TypedResponse } from 'hono'
import type { ContentfulStatusCode, StatusCode } from 'hono/utils/http-status'
import { requestIdOf } from './request-id.ts'
import type { Environment } from './environment.ts'

type Headers = Record<string, string>

/**
 * An answer that is opened as a page loads nothing, runs nothing and stands in no frame, and no page
 * elsewhere can embed it.
 *
 * No Strict-Transport-Security: it speaks for a whole host, of which only who ends TLS before this
 * service can answer, and browsers ignore it over HTTP.
 */
const securityHeaders = {
  'content-security-policy': "default-src 'none'; frame-ancestors 'none'",
  'cross-origin-resource-policy': 'same-origin',
  'referrer-policy': 'no-referrer',
  'x-content-type-options': 'nosniff',
}

/**
 * The headers of the route come last: where one of them is among those of all, it holds.
 *
 * As a plain object, which Node's adapter hands on as it is. With Hono's `c.body`, which makes a
 * `Headers` of them, and middlewares that add to that, they were a sixth of the CPU of a GET by id.
 */
export function answer<Status extends StatusCode = 200>(
  c: Context<Environment>,
  body: string | Uint8Array<ArrayBuffer> | ReadableStream | null,
  status: Status = 200 as Status,
  headers: Headers = {},
): Response & TypedResponse<null, Status, 'body'> {
  const common = { ...securityHeaders, 'x-request-id': requestIdOf(c), ...c.get('rateLimit') }
  const response = new Response(body, { status, headers: Object.assign(common, headers) })
  return response as Response & TypedResponse<null, Status, 'body'>
}

/** JSON as text, such as PostgreSQL has written, or that in UTF-8. */
type Json = string | Uint8Array<ArrayBuffer>

/** Answers with JSON; `Body` is what a typed client reads out of it. */
export function answerJson<Body, Status extends ContentfulStatusCode = 200>(
  c: Context<Environment>,
  json: Json,
  status: Status = 200 as Status,
  headers: Headers = {},
): Response & TypedResponse<Body, Status, 'json'> {
  const response: Response = answer(c, json, status, {
    'content-type': 'application/json',
    ...headers,
  })
  return response as Response & TypedResponse<Body, Status, 'json'>
}
