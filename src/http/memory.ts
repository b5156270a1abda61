// The bound on what clients make a process hold: bodies that have come, and answers that are not taken.
import type { MiddlewareHandler } from 'hono'
import type { Environment } from './environment.ts'
import { Problem } from './problem.ts'

export interface Memory {
  /** Takes so many bytes, if there is room for them. */
  take: (bytes: number) => boolean
  give: (bytes: number) => void
  /** Whether somebody was refused a moment ago: then clients that are slow have less time. */
  isShort: () => boolean
}

/** A client has so long to send a body or take an answer, and as much more as that takes at the least pace. */
export const PACE = { firstMs: 10_000, leastBytesPerMs: 16 }
/** Where memory is short, it has less: an answer is taken by whoever reads at all. */
export const SENDING_IN_NEED = { firstMs: 2000, leastBytesPerMs: 256 }
export const TAKING_IN_NEED = { firstMs: 1000, leastBytesPerMs: 1024 }

/** For how long it is short after a refusal. */
const SHORT_MS = 2000

/** `others` says how many bytes are held besides those that are taken here. */
export function createMemory(mostBytes: number, others: () => number): Memory {
  let taken = 0
  let refusedAt = -Infinity
  return {
    take(bytes) {
      if (taken + others() + bytes > mostBytes) {
        refusedAt = performance.now()
        return false
      }
      taken += bytes
      return true
    },
    give: (bytes) => void (taken -= bytes),
    isShort: () => performance.now() - refusedAt < SHORT_MS,
  }
}

/** For what has a bound already, as a Worker has by its platform. */
export const boundless: Memory = { take: () => true, give: () => {}, isShort: () => false }

/**
 * Nothing more is begun while there is no room. What was read is dropped where there is none by now:
 * hundreds may have begun before the first of them had an answer. What was written has to be answered.
 */
export const whenThereIsRoom: MiddlewareHandler<Environment> = async function whenThereIsRoom(
  c,
  next,
) {
  const { memory } = c.env
  if (!memory.take(0)) throw noRoom()
  await next()
  if (c.req.method === 'GET' && !memory.take(0)) {
    await c.res.body?.cancel() // or an export would keep its transaction, and wait for a reader
    throw noRoom()
  }
}

export function noRoom() {
  return new Problem('unavailable', 'Too much is under way. Nothing was changed. Try again.')
}
