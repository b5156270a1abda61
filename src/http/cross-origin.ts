// Which web pages of other origins may read the answers.
import type { MiddlewareHandler } from 'hono'
import { cors } from 'hono/cors'
import { answer } from './answer.ts'
import type { Environment } from './environment.ts'

/** Origins such as `https://shop.example.com`, or `*` for all of them. */
export type CorsOrigins = '*' | string[]

/** Lets pages of these origins read the answers. OPTIONS ends here: a preflight never has a key. */
export function crossOrigin(origins: CorsOrigins): MiddlewareHandler<Environment> {
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
    if (c.req.method === 'OPTIONS') {
      const allowed = (await handle(c, next)) as Response
      return answer(c, null, 204, Object.fromEntries(allowed.headers))
    }
    await next()
    // On an answer that is there: headers set before it would have Hono build it once more.
    await handle(c, () => Promise.resolve())
    return undefined
  }
}
