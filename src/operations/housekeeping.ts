// Tidies up what grows by itself, now and then, for as long as there is something to remove.
import type { Database } from '../database/pool.ts'
import type { Log } from '../http/environment.ts'

/** Removes a batch of what is past its time, in short transactions; says how much, 0 when done. */
export type Chore = (database: Database) => Promise<number>

/**
 * Does every chore to its end, one after the other. One that fails is logged, and left until the
 * next time; it neither stops the others nor the service. `signal` ends it between two batches.
 * @returns whether all of them came to their end
 */
export async function keepHouse(
  database: Database,
  log: Log,
  chores: Record<string, Chore>,
  signal?: AbortSignal,
): Promise<boolean> {
  let done = true
  for (const [chore, removeBatch] of Object.entries(chores)) {
    let removed = 0
    try {
      for (let count; count !== 0 && !signal?.aborted; removed += count) {
        count = await removeBatch(database)
      }
      if (removed > 0) log.debug({ chore, removed }, 'housekeeping')
    } catch (error) {
      done = false
      if (!signal?.aborted) log.warn({ chore, removed, error }, 'housekeeping failed')
    }
  }
  return done && !signal?.aborted
}
