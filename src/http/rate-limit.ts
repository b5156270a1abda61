// How often a client may ask: counts each request, and answers 429 to what is more than its quota.
import type { MiddlewareHandler } from 'hono'
import { networkOf } from './address.ts'
import type { Environment } from './environment.ts'
import { Problem } from './problem.ts'

/** So many requests of each client in so many seconds. */
export interface Quota {
  requests: number
  seconds: number
}

/** What a door lends: it counts by whatever its platform has. */
export interface RateLimiter {
  /** Undefined where the platform does not tell. */
  quota: Quota | undefined
  take(client: string): Promise<Taken>
}

/** What is left after a request has been counted. */
export interface Taken {
  allowed: boolean
  /** Requests; undefined where the platform does not tell. */
  remaining: number | undefined
  /** Seconds until there is more, at least 1. */
  reset: number
}

/** Who asks these decides by the answer whether the service lives. */
const unlimited = /^\/(health|ready)$/

/**
 * Counts a request for the key that it has, or else for the network that it comes from. The headers are
 * those of draft-ietf-httpapi-ratelimit-headers-10.
 */
export const rateLimit: MiddlewareHandler<Environment> = async function rateLimit(c, next) {
  const { limiter } = c.env
  if (!limiter || unlimited.test(c.req.path)) return next()
  const caller = c.get('caller')
  const client = caller === '' ? `address ${networkOf(c.env.address)}` : `key ${caller}`
  const taken = await limiter.take(client)
  const headers = describe(limiter.quota, taken)
  if (!taken.allowed) throw tooMany(limiter.quota, taken, headers)
  await next()
  for (const [name, value] of headers) c.res.headers.set(name, value)
}

function describe(quota: Quota | undefined, { remaining, reset }: Taken): [string, string][] {
  if (!quota || remaining === undefined) return []
  return [
    ['ratelimit-policy', `"default";q=${quota.requests};w=${quota.seconds}`],
    ['ratelimit', `"default";r=${remaining};t=${reset}`],
  ]
}

function tooMany(quota: Quota | undefined, { reset }: Taken, headers: [string, string][]): Problem {
  const allowed = quota ? ` ${quota.requests} in ${quota.seconds} s are allowed.` : ''
  return new Problem('rate_limited', `There were too many requests.${allowed} Wait ${reset} s.`, {
    headers: { ...Object.fromEntries(headers), 'retry-after': String(reset) },
  })
}
