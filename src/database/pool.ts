// The pool: lends a connection to one borrower at a time, within limits, and throws away what failed.
import { type Connection, type ConnectionOptions, openConnection, type Sql } from './connection.ts'
import { clientGone, DatabaseError } from './errors.ts'
import { type SharedWork, shareStatements } from './sharing.ts'

export interface PoolOptions extends ConnectionOptions {
  /** So many connections are kept when nobody needs them. */
  size: number
  /** So many more are opened under load, and closed when the load is over. */
  maxOverflow: number
  /** How long a borrower waits for a connection. */
  timeoutMs: number
  /** So many borrowers may wait at once; the next is refused. */
  queue: number
  /** An older connection is replaced before it is lent again. */
  recycleMs: number
  /** Whether a connection that has been idle for a moment is tested before it is lent. */
  prePing: boolean
  /**
   * How long those who may share a statement gather for it, besides the time that the one before theirs
   * takes or in which no connection is free. Undefined where every request has a pool of its own, with
   * nobody to share anything with.
   */
  gather: (() => Promise<unknown>) | undefined
  /** What opens a transaction; where session parameters are not to be had, it sets them, too. */
  begin: string
}

/** Every method lends one connection for the time of `work`. */
export interface Database {
  /** One statement that only reads. It is its own transaction; tried again when its connection is lost. */
  read<T>(work: (sql: Sql) => Promise<T>): Promise<T>
  /**
   * As `read`, but all who ask the same `kind` of thing before it is sent share one statement: the
   * `work` of one of them, for up to `most`. Each sees what was written before it asked.
   */
  readTogether<Question, Answer>(
    kind: string,
    question: Question,
    work: SharedWork<Question, Answer>,
    most?: number,
  ): Promise<Answer>
  /** One statement that writes. It is its own transaction, so it needs no `begin` and `commit`. */
  write<T>(work: (sql: Sql) => Promise<T>): Promise<T>
  /** As `write`, and shared as by `readTogether`: all of it is done or nothing. */
  writeTogether<Question, Answer>(
    kind: string,
    question: Question,
    work: SharedWork<Question, Answer>,
  ): Promise<Answer>
  /**
   * Several statements in one transaction: committed when `work` returns, rolled back when it
   * throws. `work` runs a second time when PostgreSQL aborts the first for the sake of another.
   */
  session<T>(work: (sql: Sql) => Promise<T>): Promise<T>
  /**
   * A session for as long as a stream takes. `work` runs once, for what it reads is gone then. It is
   * given up when `signal` aborts.
   */
  transfer<T>(work: (sql: Sql) => Promise<T>, signal: AbortSignal): Promise<T>
}

/** What a request sees of the pool: a lane for what is done in a moment, and one for what may take long. */
export interface Lanes extends Database {
  /**
   * The same connections, but never more than two thirds of them, nor of the queue: however much of
   * this is asked for, the rest is there for quick work.
   *
   * A getter in an object literal would be a new hidden class for each request, which V8 keeps, with
   * all of the request, until its next long collection: it was 30 % of the CPU of a GET /health.
   */
  heavy(): Database
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
  /** Borrowers that were refused because the queue was full, since the start. */
  refusals: number
}

export interface Pool extends Lanes {
  /**
   * The pool as one borrower sees it. When its `signal` aborts, it leaves the queue, or its statement
   * is cancelled. The signal is asked for when the borrower has to wait, or has had its connection for
   * a while: one that is quick does not pay for it.
   */
  forBorrower(signal: () => AbortSignal): Lanes
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
/** A borrower that has had its connection for so long is asked whether it is still there. */
const UNWATCHED_MS = 100

/** One of the two ways to a connection. */
interface Lane {
  /** So many may be lent, and so many borrowers may wait. */
  limit: number
  queue: number
  lent: number
  /** In order of arrival. */
  waiting: Set<Waiter>
  readTogether?: ReturnType<typeof shareStatements>
  writeTogether?: ReturnType<typeof shareStatements>
}

interface Waiter {
  /** Grows from one to the next, over both lanes. */
  number: number
  grant: () => void
}

/** A loan of which nobody has asked yet whether its borrower is still there. */
interface Unwatched {
  since: number
  watch: () => void
}

export function createPool(options: PoolOptions): Pool {
  const { size, maxOverflow, timeoutMs, queue, recycleMs, prePing, gather, begin } = options
  const limit = size + maxOverflow
  const idle: Connection[] = [] // the one used last is lent first, so that a quiet pool ages out
  const lent = new Set<Connection>()
  const quick = openLane(limit, queue)
  const heavy = openLane(twoThirds(limit), Math.min(queue, twoThirds(queue)))
  const unwatched = new Set<Unwatched>() // in order of their loans
  const leaving = new Set<Promise<void>>()
  if (gather) {
    for (const lane of [quick, heavy]) {
      lane.readTogether = shareStatements((work, gone) => inLane(lane, gone).read(work), gather)
      lane.writeTogether = shareStatements((work, gone) => inLane(lane, gone).write(work), gather)
    }
  }
  let arrivals = 0
  let timeouts = 0
  let refusals = 0
  let suspectedAt = -Infinity
  let shrinking: ReturnType<typeof setTimeout> | undefined
  let sweeping: ReturnType<typeof setTimeout> | undefined
  let closing = false
  let whenNoneIsLent = () => {}

  const waiting = () => quick.waiting.size + heavy.waiting.size
  const isOpen = (lane: Lane) => quick.lent + heavy.lent < limit && lane.lent < lane.limit

  /** First come, first served. Whoever holds a permit takes an idle connection or opens one. */
  function takePermit(lane: Lane, signal?: () => AbortSignal): Promise<void> {
    if (closing) throw unavailable('the pool is closing', 'POOL_CLOSED')
    if (isOpen(lane)) {
      lane.lent++
      return Promise.resolve()
    }
    if (waiting() >= queue || lane.waiting.size >= lane.queue) {
      refusals++
      throw unavailable(`${waiting()} wait for a connection already`, 'POOL_QUEUE')
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
        lane.waiting.delete(waiter)
      }
      const grant = () => {
        granted()
        if (closing) return reject(unavailable('the pool is closing', 'POOL_CLOSED'))
        lane.lent++
        resolve()
      }
      const waiter = { number: arrivals++, grant }
      departure?.addEventListener('abort', onDeparture)
      lane.waiting.add(waiter)
    })
  }

  /** To the one who came first, of those whose lane is open. */
  function givePermit(lane: Lane) {
    lane.lent--
    if (waiting() === 0) return
    let next: Waiter | undefined
    for (const { waiting } of [quick, heavy].filter(isOpen)) {
      const [first] = waiting
      if (first && !(next && next.number < first.number)) next = first
    }
    next?.grant()
  }

  /**
   * Takes an idle connection that passes `prove`, or opens one. The first that fails takes the
   * other idle ones with it: what broke it, a restart or a failover, has most likely broken them.
   */
  async function borrow(
    prove: (connection: Connection, fresh: boolean) => Promise<unknown> | undefined,
    lane: Lane,
    signal?: () => AbortSignal,
  ): Promise<Connection> {
    await takePermit(lane, signal)
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
      giveBack(opened, lane)
      throw error
    }
  }

  function giveBack(connection: Connection, lane: Lane) {
    lent.delete(connection)
    if (connection.busy) connection.discard()
    if (connection.dead) suspectedAt = performance.now()
    else if (closing || connection.worn) retire(connection)
    else idle.push(connection)
    if (idle.length > size) shrinkLater()
    givePermit(lane)
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

  /**
   * The tag for a borrower. When it leaves, it can send no more, and what it has running is cancelled.
   * The permit stays taken until that has ended: clients that ask and leave without pause never have
   * more statements running than the pool has connections.
   */
  function lend(connection: Connection, signal?: () => AbortSignal) {
    const { sql, end } = connection.lend()
    let departure: AbortSignal | undefined
    let cancelled: Promise<void> | undefined
    const leave = () => {
      end(clientGone)
      cancelled = connection.cancel()
    }
    const loan: Unwatched = {
      since: performance.now(),
      watch() {
        unwatched.delete(loan)
        departure = signal!()
        if (departure.aborted) leave()
        else departure.addEventListener('abort', leave)
      },
    }
    if (signal) {
      unwatched.add(loan)
      sweeping ??= setTimeout(sweep, UNWATCHED_MS)
    }
    return {
      sql,
      watch: loan.watch,
      /** When the borrower has left: a promise, kept when nothing of it runs any more. */
      end(): Promise<void> | undefined {
        unwatched.delete(loan)
        departure?.removeEventListener('abort', leave)
        end()
        return cancelled
      },
    }
  }

  function sweep() {
    const before = performance.now() - UNWATCHED_MS
    for (const loan of unwatched) {
      if (loan.since > before) break
      loan.watch()
    }
    sweeping = unwatched.size > 0 ? setTimeout(sweep, UNWATCHED_MS) : undefined
  }

  async function statement<T>(
    work: (sql: Sql) => Promise<T>,
    lane: Lane,
    signal?: () => AbortSignal,
  ): Promise<T> {
    const connection = await borrow(ping, lane, signal)
    const loan = lend(connection, signal)
    let cancelled: Promise<void> | undefined
    try {
      const result = await work(loan.sql)
      cancelled = loan.end()
      return result
    } catch (error) {
      cancelled = loan.end()
      throw cancelled ? clientGone() : error
    } finally {
      if (cancelled) {
        await cancelled
        if (!connection.dead) await proveUsable(connection)
      }
      giveBack(connection, lane)
    }
  }

  async function transaction<T>(
    work: (sql: Sql) => Promise<T>,
    lane: Lane,
    signal?: () => AbortSignal,
    isStream = false,
  ): Promise<T> {
    const connection = await borrow(start, lane, signal)
    const loan = lend(connection, signal)
    let cancelled: Promise<void> | undefined
    try {
      if (isStream) loan.watch()
      const result = await work(loan.sql)
      cancelled = loan.end()
      if (cancelled) throw clientGone()
      if ((await connection.run('commit')) !== 'COMMIT') {
        throw new DatabaseError('internal', 'rolled back: a statement of the session had failed')
      }
      return result
    } catch (error) {
      cancelled ??= loan.end()
      await cancelled
      if (!connection.dead) await connection.run('rollback').catch(connection.discard)
      throw cancelled ? clientGone() : error
    } finally {
      giveBack(connection, lane)
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

  function inLane(lane: Lane, signal?: () => AbortSignal): Lanes {
    const { readTogether, writeTogether } = lane
    const read: Database['read'] = (work) => twice(() => statement(work, lane, signal), true)
    const write: Database['write'] = (work) => twice(() => statement(work, lane, signal), false)
    return {
      read,
      write,
      readTogether: (kind, question, work, most) =>
        readTogether
          ? readTogether(kind, question, work, signal, most)
          : read(async (sql) => (await work(sql, [question]))[0]!),
      writeTogether: (kind, question, work) =>
        writeTogether
          ? writeTogether(kind, question, work, signal)
          : write(async (sql) => (await work(sql, [question]))[0]!),
      session: (work) => twice(() => transaction(work, lane, signal), false),
      transfer: (work, abort) => transaction(work, lane, () => abort, true),
      heavy: () => inLane(heavy, signal),
    }
  }

  const forBorrower = (signal?: () => AbortSignal) => inLane(quick, signal)

  function stats(): PoolStats {
    let opening = 0
    for (const connection of lent) if (!connection.established) opening++
    const alive = idle.filter((connection) => !connection.dead).length
    return {
      limit,
      idle: alive,
      lent: lent.size,
      opening,
      waiting: waiting(),
      timeouts,
      refusals,
    }
  }

  async function close(graceMs: number): Promise<void> {
    closing = true
    clearTimeout(shrinking)
    for (const { waiting } of [quick, heavy]) for (const waiter of waiting) waiter.grant()
    for (const connection of idle.splice(0)) retire(connection)
    let timer: ReturnType<typeof setTimeout> | undefined
    if (lent.size > 0) {
      await new Promise<void>((resolve) => {
        whenNoneIsLent = resolve
        timer = setTimeout(resolve, graceMs)
      })
    }
    clearTimeout(timer)
    clearTimeout(sweeping)
    for (const connection of lent) connection.discard()
    await Promise.all(leaving)
  }

  return { ...forBorrower(), forBorrower, stats, close }
}

function openLane(limit: number, queue: number): Lane {
  return { limit, queue, lent: 0, waiting: new Set() }
}

const twoThirds = (count: number) => Math.max(1, Math.floor((count * 2) / 3))

/** The statement that was cancelled on it is over: what follows has to go through. */
async function proveUsable(connection: Connection): Promise<void> {
  await withinPingTimeout(connection, 'select 1').catch(connection.discard)
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

function unavailable(message: string, code: string) {
  return new DatabaseError('unavailable', message, { code })
}
