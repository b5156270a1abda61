// The limiter of one process, whose memory has a bound however many clients there are.
import { RateLimiterMemory } from 'rate-limiter-flexible'
import type { Quota, RateLimiter } from './rate-limit.ts'

/**
 * More clients than this in one window, and those whose time began first are forgotten and may begin
 * anew; somebody with so many addresses is not to be limited by address anyway. 31 MB of heap at
 * most: measured after 500,000 networks of IPv6.
 */
const MOST_CLIENTS = 50_000

export interface MemoryLimiter extends RateLimiter {
  /** How many it has seen, of the last MOST_CLIENTS. */
  clients: () => number
}

export function createMemoryLimiter(quota: Quota): MemoryLimiter {
  const { requests, seconds } = quota
  const limiter = new RateLimiterMemory({ points: requests, duration: seconds, keyPrefix: '' })
  const known = new Set<string>() // in the order in which their time began
  // Kept, because a new one would go past all that was deleted before the first.
  const oldest = known.values()

  function remember(client: string) {
    known.delete(client)
    known.add(client)
    if (known.size <= MOST_CLIENTS) return
    const forgotten = oldest.next().value!
    known.delete(forgotten)
    void limiter.delete(forgotten)
  }

  return {
    quota,
    clients: () => known.size,
    async take(client) {
      // As `consume`, which rejects with what is over the quota.
      const taken = await limiter.penalty(client)
      if (taken.isFirstInDuration) remember(client)
      return {
        allowed: taken.consumedPoints <= requests,
        remaining: taken.remainingPoints,
        reset: Math.ceil(taken.msBeforeNext / 1000),
      }
    },
  }
}
