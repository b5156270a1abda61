// The bound on what clients make a process hold: bodies that have come, and answers that are not taken.
import type { MiddlewareHandler } from 'hono'
import type { Environment } from './environment.ts'
import { Problem } from './problem.ts'

export interface Memory {
  /** Whether so many bytes more may be held. */
  hasRoomFor(bytes: number): boolean
  /** Counts bytes that are held; negative ones are held no more. */
  hold(bytes: number): void
}

/** `others` says how many bytes are held besides those that are counted here. */
export function createMemory(mostBytes: number, others: () => number): Memory {
  let held = 0
  return {
    hasRoomFor: (bytes) => held + others() + bytes <= mostBytes,
    hold: (bytes) => void (held += bytes),
  }
}

/** For what has a bound already, as a Worker has by its platform. */
export const boundless: Memory = { hasRoomFor: () => true, hold: () => {} }

/** Nothing more is begun while there is no room, for nobody knows how large an answer will be. */
export const whenThereIsRoom: MiddlewareHandler<Environment> = async function whenThereIsRoom(
  c,
  next,
) {
  if (!c.env.memory.hasRoomFor(0)) throw noRoom()
  await next()
}

export function noRoom() {
  return new Problem('unavailable', 'Too much is under way. Nothing was changed. Try again.')
}
