// How often a client may ask: counts each request, and answers 429 to what is more than its quota.
import { networkOf } from './address.ts'
import type { Context } from 'hono'
import type { Environment } from './environment.ts'
import { Problem } from './problem.ts'
import type { Step } from './steps.ts'

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
export const rateLimit: Step = (c) => {
  const { limiter } = c.env
  return limiter && !unlimited.test(c.req.path) ? count(c, limiter) : undefined
}

async function count(c: Context<Environment>, limiter: RateLimiter): Promise<void> {
  const caller = c.get('caller')
  const client = caller === '' ? `address ${networkOf(c.env.address)}` : `key ${caller}`
  const taken = await limiter.take(client)
  c.set('rateLimit', describe(limiter.quota, taken))
  if (!taken.allowed) throw tooMany(limiter.quota, taken)
}

function describe(quota: Quota | undefined, { remaining, reset }: Taken) {
  if (!quota || remaining === undefined) return undefined
  return {
    'ratelimit-policy': `"default";q=${quota.requests};w=${quota.seconds}`,
    ratelimit: `"default";r=${remaining};t=${reset}`,
  }
}

function tooMany(quota: Quota | undefined, { reset }: Taken): Problem {
  const allowed = quota ? ` ${quota.requests} in ${quota.seconds} s are allowed.` : ''
  return new Problem('rate_limited', `There were too many requests.${allowed} Wait ${reset} s.`, {
    headers: { 'retry-after': String(reset) },
  })
}
