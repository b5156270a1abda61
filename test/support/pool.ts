// A pool as the Node door makes it, with limits that a test can reach.
import type { DatabaseAddress } from '../../src/database/connection.ts'
import { createPool, type Pool, type PoolOptions } from '../../src/database/pool.ts'
import { atTheEnd } from './clean-up.ts'

/** Two connections are kept and one more is opened, if the test says nothing else. */
export function openPool(address: DatabaseAddress, options: Partial<PoolOptions> = {}): Pool {
  const pool = createPool({
    address,
    size: 2,
    maxOverflow: 1,
    timeoutMs: 2000,
    queue: 1000,
    recycleMs: 3_600_000,
    prePing: true,
    connectTimeoutMs: 2000,
    queryTimeoutMs: 3000,
    gather: undefined,
    begin: 'begin',
    endSockets: true,
    ...options,
  })
  atTheEnd(() => pool.close(0))
  return pool
}
