// The pool: lends a connection to one borrower at a time, within limits, and throws away what failed.
import { type Connection, type ConnectionOptions, openConnection, type Sql } from './connection.ts'
import { DatabaseError } from './errors.ts'

export interface PoolOptions extends ConnectionOptions {
  /** So many connections are kept when nobody needs them. */
  size: number
  /** So many more are opened under load, and closed when the load is over. */
  maxOverflow: number
  /** How long a borrower waits for a connection. */
  timeoutMs: number
  /** An older connection is replaced before it is lent again. */
  recycleMs: number
  /** Whether a connection that has been idle for a moment is tested before it is lent. */
  prePing: boolean
  /** What opens a transaction; where session parameters are not to be had, it sets them, too. */
  begin: string
}

/** What a request sees of the pool. Every method lends one connection for the time of `work`. */
export interface Database {
  /** One statement that only reads. It is its own transaction; tried again when its connection is lost. */
  read<T>(work: (sql: Sql) => Promise<T>): Promise<T>
  /** One statement that writes. It is its own transaction, so it needs no `begin` and `commit`. */
  write<T>(work: (sql: Sql) => Promise<T>): Promise<T>
  /**
   * Several statements in one transaction: committed when `work` returns, rolled back when it
   * throws. `work` runs a second time when PostgreSQL aborts the first for the sake of another.
   */
  session<T>(work: (sql: Sql) => Promise<T>): Promise<T>
  /**
   * A session for as long as a stream takes. `work` runs once, for what it reads is gone then. When
   * `signal` aborts, the connection is given up, and the statement under way with it.
   */
  transfer<T>(work: (sql: Sql) => Promise<T>, signal: AbortSignal): Promise<T>
}

export interface PoolStats {
  limit: number
  idle: number
  lent: number
  /** Those of `lent` that have not had an answer from the server yet. */
  opening: number
  waiting: number
  /** Borrowers that left because none came free in time, since the start. */
  timeouts: number
}

export interface Pool extends Database {
  /** The pool as one borrower sees it; its `signal` is asked for when it has to wait. */
  forBorrower(signal: () => AbortSignal): Database
  stats(): PoolStats
  /** Refuses new borrowers, lets the present ones finish within `graceMs`, and closes everything. */
  close(graceMs: number): Promise<void>
}

/** A connection that answered a moment ago is trusted; one unused for longer is tested. */
const TRUSTED_MS = 1000
/**
 * How long a connection beyond the pool's size is kept unused. Closed as it came back, GETs by id at
 * 8, 12 and 16 clients ran at 0.36, 0.24 and 0.34 times the pace, for most of them opened one.
 */
const LINGER_MS = 200
/** A test without an answer for so long has failed. */
const PING_TIMEOUT_MS = 5000

export function createPool(options: PoolOptions): Pool {
  const { size, maxOverflow, timeoutMs, recycleMs, prePing, begin } = options
  const limit = size + maxOverflow
  const idle: Connection[] = [] // the one used last is lent first, so that a quiet pool ages out
  const lent = new Set<Connection>()
  const waiting = new Set<() => void>() // in order of arrival
  const leaving = new Set<Promise<void>>()
  let permits = limit
  let timeouts = 0
  let suspectedAt = -Infinity
  let shrinking: ReturnType<typeof setTimeout> | undefined
  let closing = false
  let whenNoneIsLent = () => {}

  /** First come, first served. Whoever holds a permit takes an idle connection or opens one. */
  function takePermit(signal?: () => AbortSignal): Promise<void> {
    if (closing) throw unavailable('the pool is closing', 'POOL_CLOSED')
    if (permits > 0) {
      permits--
      return Promise.resolve()
    }
    const departure = signal?.()
    if (departure?.aborted) throw clientGone()
    return new Promise((resolve, reject) => {
      const leave = (error: unknown) => {
        granted()
        reject(error)
      }
      const onTimeout = () => {
        timeouts++
        const { lent, opening } = stats()
        const detail = `${lent} of ${limit} connections lent, ${opening} of them opening`
        leave(
          unavailable(`no free connection within ${timeoutMs / 1000} s: ${detail}`, 'POOL_TIMEOUT'),
        )
      }
      const onDeparture = () => leave(clientGone())
      const timer = setTimeout(onTimeout, timeoutMs)
      const granted = () => {
        clearTimeout(timer)
        departure?.removeEventListener('abort', onDeparture)
        waiting.delete(grant)
      }
      const grant = () => {
        granted()
        if (closing) reject(unavailable('the pool is closing', 'POOL_CLOSED'))
        else resolve()
      }
      departure?.addEventListener('abort', onDeparture)
      waiting.add(grant)
    })
  }

  function givePermit() {
    const [next] = waiting
    if (next) next()
    else permits++
  }

  /**
   * Takes an idle connection that passes `prove`, or opens one. The first that fails takes the
   * other idle ones with it: what broke it, a restart or a failover, has most likely broken them.
   */
  async function borrow(
    prove: (connection: Connection, fresh: boolean) => Promise<unknown> | undefined,
    signal?: () => AbortSignal,
  ): Promise<Connection> {
    await takePermit(signal)
    for (let kept = idle.pop(); kept; kept = idle.pop()) {
      if (kept.dead) continue
      lent.add(kept)
      try {
        if (kept.ageMs > recycleMs) {
          await kept.close()
        } else {
          await prove(kept, false)
          return kept
        }
      } catch {
        kept.discard()
        for (const other of idle.splice(0)) other.discard()
      }
      lent.delete(kept)
    }
    const opened = openConnection(options)
    lent.add(opened)
    try {
      await prove(opened, true)
      return opened
    } catch (error) {
      opened.discard()
      giveBack(opened)
      throw error
    }
  }

  function giveBack(connection: Connection) {
    lent.delete(connection)
    if (connection.busy) connection.discard()
    if (connection.dead) suspectedAt = performance.now()
    else if (closing || connection.worn) retire(connection)
    else idle.push(connection)
    if (idle.length > size) shrinkLater()
    givePermit()
    if (lent.size === 0) whenNoneIsLent()
  }

  /** Closes what the load has left behind: the connections unused for longest are first in line. */
  function shrinkLater() {
    shrinking ??= setTimeout(() => {
      shrinking = undefined
      const before = performance.now() - LINGER_MS
      while (idle.length > size && idle[0]!.usedAt <= before) retire(idle.shift()!)
      if (idle.length > size) shrinkLater()
    }, LINGER_MS)
  }

  function retire(connection: Connection) {
    const goodbye = connection.close().finally(() => leaving.delete(goodbye))
    leaving.add(goodbye)
  }

  /** For single statements: a test where there is doubt, and nothing where there is none. */
  function ping(connection: Connection, fresh: boolean): Promise<unknown> | undefined {
    if (fresh) return undefined
    const { usedAt } = connection
    const doubt =
      connection.soiled ||
      usedAt < suspectedAt ||
      (prePing && performance.now() - usedAt > TRUSTED_MS)
    return doubt ? withinPingTimeout(connection, 'select 1') : undefined
  }

  /** For transactions: `begin` is the test. */
  function start(connection: Connection, fresh: boolean): Promise<unknown> {
    return fresh ? connection.run(begin) : withinPingTimeout(connection, begin)
  }

  async function statement<T>(
    work: (sql: Sql) => Promise<T>,
    signal?: () => AbortSignal,
  ): Promise<T> {
    const connection = await borrow(ping, signal)
    const loan = connection.lend()
    try {
      return await work(loan.sql)
    } finally {
      loan.end()
      giveBack(connection)
    }
  }

  async function transaction<T>(
    work: (sql: Sql) => Promise<T>,
    signal?: () => AbortSignal,
    abort?: AbortSignal,
  ): Promise<T> {
    const connection = await borrow(start, signal)
    const loan = connection.lend()
    abort?.addEventListener('abort', connection.discard)
    try {
      if (abort?.aborted) throw clientGone()
      const result = await work(loan.sql)
      loan.end()
      if ((await connection.run('commit')) !== 'COMMIT') {
        throw new DatabaseError('internal', 'rolled back: a statement of the session had failed')
      }
      return result
    } catch (error) {
      loan.end()
      if (!connection.dead) await connection.run('rollback').catch(connection.discard)
      throw error
    } finally {
      abort?.removeEventListener('abort', connection.discard)
      giveBack(connection)
    }
  }

  /** Once more, when the first try certainly left nothing behind and left time for another. */
  async function twice<T>(attempt: () => Promise<T>, alsoWhenLost: boolean): Promise<T> {
    const start = performance.now()
    try {
      return await attempt()
    } catch (error) {
      const harmless =
        error instanceof DatabaseError &&
        (error.kind === 'aborted' || (error.lost && alsoWhenLost && !closing))
      if (!harmless || performance.now() - start > options.queryTimeoutMs / 2) throw error
      // The other one of a deadlock needs a moment to get its lock, or the two meet again.
      if (error.kind === 'aborted') await pause(10 + 40 * Math.random())
      return attempt()
    }
  }

  function forBorrower(signal?: () => AbortSignal): Database {
    return {
      read: (work) => twice(() => statement(work, signal), true),
      write: (work) => twice(() => statement(work, signal), false),
      session: (work) => twice(() => transaction(work, signal), false),
      transfer: (work, abort) => transaction(work, () => abort, abort),
    }
  }

  function stats(): PoolStats {
    let opening = 0
    for (const connection of lent) if (!connection.established) opening++
    const alive = idle.filter((connection) => !connection.dead).length
    return { limit, idle: alive, lent: lent.size, opening, waiting: waiting.size, timeouts }
  }

  async function close(graceMs: number): Promise<void> {
    closing = true
    clearTimeout(shrinking)
    for (const grant of waiting) grant()
    for (const connection of idle.splice(0)) retire(connection)
    let timer: ReturnType<typeof setTimeout> | undefined
    if (lent.size > 0) {
      await new Promise<void>((resolve) => {
        whenNoneIsLent = resolve
        timer = setTimeout(resolve, graceMs)
      })
    }
    clearTimeout(timer)
    for (const connection of lent) connection.discard()
    await Promise.all(leaving)
  }

  return { ...forBorrower(), forBorrower, stats, close }
}

async function withinPingTimeout(connection: Connection, statement: string): Promise<void> {
  const timer = setTimeout(connection.discard, PING_TIMEOUT_MS)
  try {
    await connection.run(statement)
  } finally {
    clearTimeout(timer)
  }
}

const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms))

function clientGone() {
  return unavailable('the client went away', 'CLIENT_GONE')
}

function unavailable(message: string, code: string) {
  return new DatabaseError('unavailable', message, { code })
}
