// The change feed: every committed change of a product once, oldest first, for clients that poll it.
import { Hono } from 'hono'
import * as z from 'zod'
import type { Database } from '../database/pool.ts'
import type { Environment } from '../http/environment.ts'
import { answerJson } from '../http/answer.ts'
import { decodeCursor, encodeCursor } from '../http/page.ts'
import { parameter, wholeNumber } from '../http/parameters.ts'
import { Problem } from '../http/problem.ts'
import { valid } from '../http/validation.ts'
import * as repository from './repository.ts'
import type { ProductChanges } from './schema.ts'

/** What a cursor of the feed belongs to. */
const CHANGES = 'products changes'

export const ChangesQuery = z.strictObject({
  after: parameter.optional().meta({
    description:
      'The `next_cursor` of an answer before; `now` skips what there is; without it they begin with the oldest that is kept.',
  }),
  limit: wholeNumber(1, 1000)
    .transform(Number)
    .prefault('100')
    .meta({ description: 'The most changes of an answer: 1 to 1,000. Large ones are fewer.' }),
})

/** An xid8 of PostgreSQL has no sign, so nineteen digits fit; of a bigint not all of them do. */
const xid = z.string().regex(/^\d{1,19}$/)
const bigint = xid.refine((text) => BigInt.asIntN(64, BigInt(text)) === BigInt(text))
/** What a cursor of the feed holds: a position in parts. */
const ChangesKey = z.tuple([z.uuid(), xid, bigint])

export const changes = new Hono<Environment>().get(
  '/changes',
  valid('query', ChangesQuery),
  async (c) => {
    const { after, limit } = c.req.valid('query')
    const place = after === undefined || after === 'now' ? after : decodePosition(after)
    const rows = await c.get('database').read((sql) => repository.changes(sql, place, limit))
    if (!rows) {
      throw new Problem(
        'gone',
        'The changes after this cursor are not kept any more. Start over from an export.',
      )
    }
    const items = rows.flatMap(({ json }) => json ?? [])
    const { era, xid, seq } = rows.at(-1)!
    const next = encodeCursor({ way: 'after', key: [era, xid, seq] }, CHANGES)
    const json = `{"items":[${items.join(',')}],"next_cursor":${JSON.stringify(next)}}`
    return answerJson<ProductChanges>(c, json)
  },
)

/**
 * Removes changes that are older than `retentionMs`; those that a dump brought from another server,
 * whose positions mean nothing here, with all the others.
 * @returns how many it removed, 0 when none is left to remove
 */
export async function tidyChanges(database: Database, retentionMs: number): Promise<number> {
  if (await database.read(repository.hasForeignChanges)) {
    await database.session(repository.removeForeignChanges)
  }
  return database.write((sql) => repository.purgeChanges(sql, retentionMs))
}

function decodePosition(after: string): repository.Position {
  const { key } = decodeCursor(after, CHANGES, (values) => ChangesKey.parse(values))
  const [era, xid, seq] = key as z.infer<typeof ChangesKey>
  return { era, xid, seq }
}
