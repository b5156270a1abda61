// Serves the OpenAPI document, and a page to read and try it, from the files that the door lends.
import { type Context, Hono } from 'hono'
import { answer } from '../http/answer.ts'
import type { Environment } from '../http/environment.ts'
import { Problem } from '../http/problem.ts'
import { valid } from '../http/validation.ts'
import { PartPath, parts } from './schema.ts'

/** The page asks nothing of another host, and runs nothing that is not a file of its own. */
const POLICY = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "img-src 'self' data:",
  "connect-src 'self'",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
].join('; ')

export const documentation = new Hono<Environment>()

  .get('/openapi.json', (c) => sendFile(c, 'openapi.json', 'application/json'))

  .get('/docs', (c) =>
    sendFile(c, 'index.html', 'text/html; charset=utf-8', { 'content-security-policy': POLICY }),
  )

  .get('/docs/:part', valid('param', PartPath), (c) => {
    const { part } = c.req.valid('param')
    const type = Object.hasOwn(parts, part) ? parts[part] : undefined
    if (!type) throw new Problem('not_found', 'The page has no such part.')
    return sendFile(c, part, type)
  })

async function sendFile(
  c: Context<Environment>,
  name: string,
  type: string,
  more: Record<string, string> = {},
): Promise<Response> {
  const { body, etag } = await c.env.readFile(name)
  // Kept by the browser and asked for each time: a 304 costs little, and no old page meets a new document.
  const headers = { etag, 'cache-control': 'no-cache', ...more }
  const known = (c.req.header('if-none-match') ?? '').split(',').map((tag) => tag.trim())
  if (known.some((tag) => tag === '*' || tag.replace('W/', '') === etag.replace('W/', ''))) {
    return answer(c, null, 304, headers)
  }
  return answer(c, body, 200, { 'content-type': type, ...headers })
}
