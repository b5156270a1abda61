// What browsers are told of every answer: which web pages may read it, and that it is data and no page.
import type { MiddlewareHandler } from 'hono'
import { cors } from 'hono/cors'

/** Origins such as `https://shop.example.com`, or `*` for all of them. */
export type CorsOrigins = '*' | string[]

/**
 * An answer that is opened as a page loads nothing, runs nothing and stands in no frame, and no page
 * elsewhere can embed it.
 *
 * No Strict-Transport-Security: it speaks for a whole host, of which only who ends TLS before this
 * service can answer, and browsers ignore it over HTTP.
 */
export const securityHeaders = {
  'content-security-policy': "default-src 'none'; frame-ancestors 'none'",
  'cross-origin-resource-policy': 'same-origin',
  'referrer-policy': 'no-referrer',
  'x-content-type-options': 'nosniff',
}

/** Lets pages of these origins read the answers. OPTIONS ends here: a preflight never has a key. */
export function crossOrigin(origins: CorsOrigins): MiddlewareHandler {
  const handle = cors({
    origin: origins,
    allowMethods: ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE'],
    allowHeaders: [
      'Authorization',
      'Content-Type',
      'If-Match',
      'If-None-Match',
      'Idempotency-Key',
      'X-Request-Id',
    ],
    exposeHeaders: [
      'ETag',
      'Idempotency-Replayed',
      'Link',
      'Location',
      'RateLimit',
      'RateLimit-Policy',
      'Retry-After',
      'WWW-Authenticate',
      'X-Request-Id',
    ],
    maxAge: 3600,
  })
  return async function crossOrigin(c, next) {
    if (c.req.method === 'OPTIONS') return handle(c, next)
    await next()
    // On an answer that is there: headers set before it would have Hono build it once more.
    await handle(c, () => Promise.resolve())
  }
}
