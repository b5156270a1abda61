// Makes a POST safe to send twice: with an Idempotency-Key its work is done once, and its answer kept.
import type { Context, TypedResponse } from 'hono'
import type { ContentfulStatusCode } from 'hono/utils/http-status'
import type { Sql } from '../database/connection.ts'
import { DatabaseError } from '../database/errors.ts'
import { answer } from '../http/answer.ts'
import { requestIdOf } from '../http/request-id.ts'
import type { Environment } from '../http/environment.ts'
import { fingerprintOf } from '../http/fingerprint.ts'
import { type ConstraintFaults, Problem, problemDocument, toProblem } from '../http/problem.ts'
import {
  type Answer,
  claim,
  keep,
  type KeptAnswer,
  type Key,
  type KeyedRequest,
} from './repository.ts'

/** A way to run statements within one transaction: `session` or `transfer`, in a lane of the pool. */
export type Run = <T>(work: (sql: Sql) => Promise<T>) => Promise<T>

export const HEADER = 'Idempotency-Key'
/** The failures that the database has decided, so that they are answers like others. */
const decided = new Set(['not_found', 'conflict', 'insufficient_stock', 'precondition_failed'])

/**
 * For a resource: `constraints` are those of its tables.
 *
 * The function it returns answers a request by its `work`, which gets a connection and returns the
 * answer, or throws. It runs in a transaction, by `run`; or by `write`, when it is one statement, which
 * without a key needs none. With a key, the work, the key and the answer
 * are committed together, so the answer is kept if and only if the work was done; a failure that the
 * database has decided is kept, too, with the work rolled back. A request that comes again gets the
 * kept answer.
 *
 * `atOnce` does the work and keeps the answer in one statement, where it can: where nothing speaks
 * against it. Otherwise it returns undefined, or fails, and has done nothing.
 *
 * `fingerprint` is for a body that is a stream. It is asked for when the work is done, now or long
 * ago, so it first reads what is left of the body.
 * @throws {Problem} `validation`, when the key is none or belongs to another request; `conflict`,
 * when a twin is still running after some seconds; whatever else `work` throws
 */
export function answeringOnce(constraints: ConstraintFaults) {
  return async function answerOnce<Body, Status extends ContentfulStatusCode = 200>(
    c: Context<Environment>,
    run: 'write' | Run,
    work: (sql: Sql) => Promise<Answer>,
    { atOnce, fingerprint }: Options = {},
  ): Promise<Response & TypedResponse<Body, Status, 'json'>> {
    const database = c.get('database')
    const key = readKey(c)
    const early = key && !fingerprint ? await fingerprintOf(c) : undefined
    if (atOnce && (!key || early)) {
      const keyed = key && early ? { ...key, fingerprint: early } : undefined
      const given = await atOnce(keyed).catch(orElse(keyed))
      if (given) return respond(c, given)
    }
    if (!key) {
      return respond(c, await (typeof run === 'function' ? run(work) : database[run](work)))
    }

    const seen = async () => early ?? (await fingerprint!())
    const transaction = async (sql: Sql) => {
      // One trip. The savepoint is where a failure goes back to, and the key is held all the while.
      // It fails after a claim that failed, and may be heard of first.
      const [claimed, saved] = await Promise.allSettled([claim(sql, key), sql`savepoint work`])
      if (claimed.status === 'rejected') return stillRunning(claimed.reason)
      if (saved.status === 'rejected') throw saved.reason
      const kept = claimed.value
      if (kept) return { kept }
      const given = await work(sql).catch(async (error: Error) => {
        const problem = toProblem(error, constraints)
        if (!isDecided(problem)) throw error
        await sql`rollback to savepoint work`
        return problemDocument(problem, requestIdOf(c))
      })
      await keep(sql, key, await seen(), given)
      return { given }
    }
    const { kept, given } = await (typeof run === 'function'
      ? run<Outcome>(transaction)
      : database.session<Outcome>(transaction))
    if (given) return respond(c, given)
    if (kept.fingerprint !== (await seen())) throw anotherRequest()
    return respond(c, kept, { 'idempotency-replayed': 'true' })
  }
}

interface Options {
  atOnce?: (keyed: KeyedRequest | undefined) => Promise<Answer | undefined>
  fingerprint?: () => Promise<string>
}

/** What failed and left nothing behind is tried again with the key in hand, which knows what to do. */
const orElse = (keyed: KeyedRequest | undefined) => (error: unknown) => {
  const nothingDone = error instanceof DatabaseError && !error.lost && error.kind !== 'unavailable'
  if (keyed && nothingDone) return undefined
  throw error
}

type Outcome = { kept: KeptAnswer; given?: never } | { kept?: never; given: Answer }

function respond<T>(
  c: Context<Environment>,
  { status, headers, body }: Answer,
  more: Record<string, string> = {},
): Response & T {
  const response: Response = answer(c, body, status as ContentfulStatusCode, {
    ...headers,
    ...more,
  })
  return response as Response & T
}

function readKey(c: Context<Environment>): Key | undefined {
  const key = c.req.header(HEADER)
  if (key === undefined) return undefined
  if (/^[!-~]{1,255}$/.test(key)) return { caller: c.get('caller'), key }
  throw invalidHeader('invalid_format', 'must be 1 to 255 visible ASCII characters')
}

function isDecided({ code, cause }: Problem): boolean {
  return decided.has(code) || (cause instanceof DatabaseError && cause.kind === 'invalid')
}

/** The claim itself takes no time, so what ran out is the time to wait for a twin. */
function stillRunning(error: unknown): never {
  if (!(error instanceof DatabaseError) || error.kind !== 'timeout' || error.lost) throw error
  throw new Problem('conflict', 'A request with this Idempotency-Key is still running.', {
    headers: { 'retry-after': '5' },
    cause: error,
  })
}

function anotherRequest() {
  return invalidHeader('reused', 'belongs to another request')
}

function invalidHeader(code: string, detail: string) {
  return new Problem('validation', `${HEADER} ${detail}.`, {
    faults: [{ header: HEADER, code, detail }],
  })
}
