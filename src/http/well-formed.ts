// Refuses an address that Hono would pass on as it stands, or without a part of it.
import { Problem } from './problem.ts'
import type { Step } from './steps.ts'

const NAMELESS = /^[^?]*\?(?:=|.*&=)/

export const wellFormedUrl: Step = (c) => {
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
}
