// Refuses an address that is not percent-encoded UTF-8, which Hono would pass on as it stands.
import type { MiddlewareHandler } from 'hono'
import { Problem } from './problem.ts'

export const wellFormedUrl: MiddlewareHandler = async function wellFormedUrl(c, next) {
  if (c.req.url.includes('%')) {
    try {
      decodeURIComponent(c.req.url)
    } catch {
      throw new Problem('malformed', 'The address is not valid percent-encoded UTF-8.')
    }
  }
  await next()
}
