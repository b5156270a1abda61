// Statements that share a trip: what several ask at the same moment goes out as one.
import type { Sql } from './connection.ts'
import { clientGone, DatabaseError } from './errors.ts'

/** Gets the questions of all who ask together, and returns their answers in the same order. */
export type SharedWork<Question, Answer> = (sql: Sql, asked: Question[]) => Promise<Answer[]>

/** Runs one statement, unless nobody waits for it any more. */
type Run = <Answer>(
  work: (sql: Sql) => Promise<Answer>,
  departure: () => AbortSignal,
) => Promise<Answer>

/** Of what is small. Who comes when so many have gathered waits for the next statement. */
const MOST_TOGETHER = 200
/** The next statement of a kind does not wait longer for the one before: it may be lost, or wait for a lock. */
const LONG_MS = 20

interface Asker {
  question: unknown
  departure: (() => AbortSignal) | undefined
  resolve: (answer: unknown) => void
  reject: (error: unknown) => void
}

/**
 * Returns a function that asks together with all others who ask the same kind of thing before it is
 * sent: `kind` says which, and the work of one is done for all. They gather for as long as `gather`
 * says, as the statement before theirs takes, and as no connection is free: the more is asked for, the
 * more goes out at once.
 *
 * One statement of a kind at a time made the groups half as large again as sending each as soon as a
 * connection was free, or twice as large. Of 64 clients, with 200,000 products, the service and PostgreSQL
 * took 0.59 of the CPU for a GET by id, 0.74 for a page at a random cursor, 0.49 for a POST and 0.57 for a
 * PATCH; the 99th percentile was lower for each. With two at a time GETs took 1.06 to 1.10 of what they
 * take with one, POST 1.29, PATCH 1.19.
 *
 * Nobody joins a statement that has been sent, so each sees what was acknowledged before it came.
 * Who leaves before that is left out; when all have left, the statement is cancelled. One that fails
 * by what a single one of them asked is undone, and asked again for each alone.
 */
export function shareStatements(run: Run, gather: () => Promise<unknown>) {
  const open = new Map<string, (asker: Asker) => void>()
  const turns = takeTurns()

  function start(kind: string, work: SharedWork<unknown, unknown>, most: number) {
    const present = new Set<Asker>()
    let asked: Asker[] | undefined
    let allLeft: AbortController | undefined

    const join = (asker: Asker) => {
      present.add(asker)
      if (present.size === most) close()
      if (allLeft) watch(asker)
    }
    const close = () => {
      if (open.get(kind) === join) open.delete(kind)
    }
    const watch = (asker: Asker) => {
      const leave = () => {
        present.delete(asker)
        if (!asked) asker.reject(clientGone())
        if (present.size > 0) return
        close()
        allLeft!.abort()
      }
      const signal = asker.departure?.() // without one it stays
      if (signal?.aborted) leave()
      else signal?.addEventListener('abort', leave, { once: true })
    }
    /** The pool asks for it when the statement has to wait, or takes a while. */
    const departure = () => {
      if (!allLeft) {
        allLeft = new AbortController()
        for (const asker of present) watch(asker)
      }
      return allLeft.signal
    }
    const send = (sql: Sql) => {
      close()
      asked ??= [...present]
      return work(
        sql,
        asked.map(({ question }) => question),
      )
    }
    gather()
      .then(() => turns.take(kind))
      .then((end) => run(send, departure).finally(end))
      .then((answers) => {
        for (const [place, { resolve }] of asked!.entries()) resolve(answers[place])
      })
      .catch((error: unknown) => {
        close()
        const alone = asked && asked.length > 1 && isOfOne(error)
        for (const asker of asked ?? present) {
          if (alone) asker.resolve(askAlone(asker, work))
          else asker.reject(error)
        }
      })
    open.set(kind, join)
    return join
  }

  async function askAlone({ question, departure }: Asker, work: SharedWork<unknown, unknown>) {
    const [answer] = await run((sql) => work(sql, [question]), departure ?? stays)
    return answer
  }

  return function ask<Question, Answer>(
    kind: string,
    question: Question,
    work: SharedWork<Question, Answer>,
    departure?: () => AbortSignal,
    most = MOST_TOGETHER,
  ): Promise<Answer> {
    return new Promise<Answer>((resolve, reject) => {
      const join = open.get(kind) ?? start(kind, work as SharedWork<unknown, unknown>, most)
      join({ question, departure, resolve: resolve as Asker['resolve'], reject })
    })
  }
}

/** Turns of each kind, one after the other in order of arrival. */
function takeTurns() {
  /** Who waits for the one whose turn it is. */
  const kinds = new Map<string, (() => void)[]>()

  /** Resolves when it is its turn, with what ends it; a turn that takes long ends by itself. */
  async function take(kind: string): Promise<() => void> {
    const waiting = kinds.get(kind)
    if (waiting) await new Promise<void>((resolve) => waiting.push(resolve))
    else kinds.set(kind, [])
    const end = () => {
      if (!timer) return
      clearTimeout(timer)
      timer = undefined
      const next = kinds.get(kind)!.shift()
      if (next) next()
      else kinds.delete(kind)
    }
    let timer: ReturnType<typeof setTimeout> | undefined = setTimeout(end, LONG_MS)
    return end
  }

  return { take }
}

const stays = () => new AbortController().signal

/** Whether it may be the fault of one question, and certainly left nothing behind of any. */
function isOfOne(error: unknown): boolean {
  if (!(error instanceof DatabaseError) || error.lost) return false
  return (
    ['conflict', 'invalid', 'aborted'].includes(error.kind) || error.code === LOCK_NOT_AVAILABLE
  )
}

const LOCK_NOT_AVAILABLE = '55P03'
