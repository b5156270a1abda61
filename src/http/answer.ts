// Makes every answer, with the headers that all of them have.
import type { Context, TypedResponse } from 'hono'
import type { ContentfulStatusCode, StatusCode } from 'hono/utils/http-status'
import { securityHeaders } from './browsers.ts'
import type { Environment } from './environment.ts'

type Headers = Record<string, string>

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
  const common = { ...securityHeaders, 'x-request-id': c.get('requestId') }
  const response = new Response(body, { status, headers: Object.assign(common, headers) })
  return response as Response & TypedResponse<null, Status, 'body'>
}

/** Answers with JSON, such as PostgreSQL has written; `Body` is what a typed client reads out of it. */
export function answerJson<Body, Status extends ContentfulStatusCode = 200>(
  c: Context<Environment>,
  text: string,
  status: Status = 200 as Status,
  headers: Headers = {},
): Response & TypedResponse<Body, Status, 'json'> {
  const response: Response = answer(c, text, status, {
    'content-type': 'application/json',
    ...headers,
  })
  return response as Response & TypedResponse<Body, Status, 'json'>
}
