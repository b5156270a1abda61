// Clears away the idempotency keys whose time is over.
import type { Database } from '../database/pool.ts'
import { removeExpired } from './repository.ts'

/** Each batch is a transaction of its own: whoever wants one of its keys waits for that long, a moment. */
const BATCH = 100

/**
 * Removes every key past its 24 hours. Safe to run at any time, and in several processes at once.
 * @returns how many were removed
 */
export async function purgeIdempotencyKeys(database: Database): Promise<number> {
  let total = 0
  for (;;) {
    const removed = await database.write((sql) => removeExpired(sql, BATCH))
    total += removed
    if (removed < BATCH) return total
  }
}
