// Refuses an address that Hono would pass on as it stands, or without a part of it.
import type { MiddlewareHandler } from 'hono'
import { Problem } from './problem.ts'

const NAMELESS = /^[^?]*\?(?:=|.*&=)/

export const wellFormedUrl: MiddlewareHandler = async function wellFormedUrl(c, next) {
  if (c.req.url.includes('%')) {
    try {
      decodeURIComponent(c.req.url)
    } catch {
      throw new Problem('malformed', 'The address is not valid percent-encoded UTF-8.')
    }
  }
  if (NAMELESS.test(c.req.url)) {
    throw new Problem('malformed', 'The address has a parameter without a name.')
  }
  await next()
}
