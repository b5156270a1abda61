// Reads that share a trip: those of one kind that come at the same moment go out as one statement.
import type { Sql } from './connection.ts'

/** What several ask together: `asked` has the question of each, in the order in which they came. */
export type SharedWork<Question, Answer> = (sql: Sql, asked: Question[]) => Promise<Answer>

/** Runs a statement that only reads, unless nobody waits for it any more. */
type Read = <Answer>(
  work: (sql: Sql) => Promise<Answer>,
  departure: () => AbortSignal,
) => Promise<Answer>

/** Who comes when so many have gathered waits for the next statement. */
const MOST_TOGETHER = 200

/** Those who wait for a statement that has not been sent. */
interface Gathering {
  join(question: unknown, departure: (() => AbortSignal) | undefined): Promise<unknown>
}

/**
 * Returns a function that asks together with all others who ask the same kind of thing before it is
 * sent: `kind` says which, and the work of the first is done for all. It takes so long to gather as
 * `gather` says, and as a connection is not free: the more is asked for, the more goes out at once.
 *
 * Nobody joins a statement that has been sent, so each sees what was acknowledged before it came.
 * When it fails, it fails for all who joined. One of them who leaves changes nothing for the others;
 * when all have left, it is cancelled.
 */
export function shareReads(read: Read, gather: () => Promise<unknown>) {
  const open = new Map<string, Gathering>()

  function start<Question, Answer>(kind: string, work: SharedWork<Question, Answer>): Gathering {
    const asked: Question[] = []
    const departures: (() => AbortSignal)[] = []
    let present = 0
    let allLeft: AbortController | undefined

    const close = () => {
      if (open.get(kind) === gathering) open.delete(kind)
    }
    const leave = () => {
      present--
      if (present > 0) return
      close()
      allLeft!.abort()
    }
    const watch = (departure: () => AbortSignal) => {
      const signal = departure()
      if (signal.aborted) leave()
      else signal.addEventListener('abort', leave, { once: true })
    }
    /** Asked for by whom the statement waits on, if it takes a while: then all are watched. */
    const whenAllLeave = () => {
      allLeft = new AbortController()
      for (const departure of departures) watch(departure)
      return allLeft.signal
    }
    const send = (sql: Sql) => {
      close()
      return work(sql, asked)
    }
    const answer = gather()
      .then(() => read(send, whenAllLeave))
      .finally(close)

    const gathering: Gathering = {
      join(question, departure) {
        asked.push(question as Question)
        if (asked.length === MOST_TOGETHER) close()
        present++
        // Without a way to know, it is there to the end.
        if (departure && allLeft) watch(departure)
        else if (departure) departures.push(departure)
        return answer
      },
    }
    open.set(kind, gathering)
    return gathering
  }

  return function ask<Question, Answer>(
    kind: string,
    question: Question,
    work: SharedWork<Question, Answer>,
    departure?: () => AbortSignal,
  ): Promise<Answer> {
    const gathering = open.get(kind) ?? start(kind, work)
    return gathering.join(question, departure) as Promise<Answer>
  }
}
