// Answers with JSON that PostgreSQL has written, and tells the typed client what it holds.
import type { Context, TypedResponse } from 'hono'
import type { ContentfulStatusCode } from 'hono/utils/http-status'

/** `Body` is what a client reads out of `text`; nothing here looks at it. */
export function sendJson<Body, Status extends ContentfulStatusCode = 200>(
  c: Context,
  text: string,
  status: Status,
  headers: Record<string, string> = {},
): Response & TypedResponse<Body, Status, 'json'> {
  const answer: Response = c.body(text, status, { 'content-type': 'application/json', ...headers })
  return answer as Response & TypedResponse<Body, Status, 'json'>
}
