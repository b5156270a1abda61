// Keyset pages: the order of a list, and the rows beyond places in it, for any sort and both ways.
import type { Fragment, Sql } from './connection.ts'
import { arrayLiteral, type Columns } from './filters.ts'

/** One field of a sort. The last one of a sort is unique, so that every row has a place of its own. */
export interface SortTerm<Field extends string> {
  field: Field
  descending: boolean
}

/**
 * A place in a list, and what is read from there: what comes `after` it or `before` it, or as much
 * with the row that stands there, if there still is one (`from`, `to`).
 */
export interface Place {
  way: 'after' | 'before' | 'from' | 'to'
  /** The values of the row's sort fields, as text or null. */
  key: (string | null)[]
}

export const isBackwards = (place: Pick<Place, 'way'> | undefined) =>
  place?.way === 'before' || place?.way === 'to'

/** A sort has so many terms at most. */
const placeKeys = [
  (sql: Sql) => sql`key_1`,
  (sql: Sql) => sql`key_2`,
  (sql: Sql) => sql`key_3`,
  (sql: Sql) => sql`key_4`,
]

/**
 * For `from`: the table `place`, with the keys of places and their numbers from 1 on; when there are
 * none, the one place before all. Of a single one PostgreSQL knows the values when it plans.
 */
export function placesOf<Field extends string>(
  sql: Sql,
  columns: Columns<Field>,
  sort: SortTerm<Field>[],
  places: Pick<Place, 'key'>[],
): Fragment {
  const [one, ...others] = places
  if (!one) return sql`(select 1 as number) as place`
  const terms = sort.map(({ field }, index) => ({
    name: placeKeys[index]!(sql),
    type: columns[field](sql).type,
    given: one.key[index]!,
    all: arrayLiteral(places.map(({ key }) => key[index]!)),
  }))
  if (others.length === 0) {
    const values = terms.map(({ name, type, given }) => sql`${given}::${type} as ${name}`)
    return sql`(select 1 as number, ${commaList(sql, values)}) as place`
  }
  const arrays = commaList(
    sql,
    terms.map(({ type, all }) => sql`${all}::${type}[]`),
  )
  const names = commaList(
    sql,
    terms.map(({ name }) => name),
  )
  return sql`unnest(${arrays}) with ordinality as place (${names}, number)`
}

/** An expression that rows are ordered by, and its value at a place. It is never null. */
interface SortKey {
  expression: Fragment
  value: Fragment
  descending: boolean
}

/**
 * - `beyond`: the condition of the rows on that side of the `place` of {@link placesOf}, or `true`
 * - `order`: for `order by`, away from the place: backwards, it is the opposite of the sort
 * - `key`: the row's own key, as the text of a JSON array
 *
 * Nulls stand last, and first when descending, which is PostgreSQL's own order.
 */
export function keyset<Field extends string>(
  sql: Sql,
  columns: Columns<Field>,
  sort: SortTerm<Field>[],
  place: Pick<Place, 'way'> | undefined,
): { beyond: Fragment; order: Fragment; key: Fragment } {
  const backwards = isBackwards(place)
  const inclusive = place?.way === 'from' || place?.way === 'to'
  const texts: Fragment[] = []
  const keys: SortKey[] = []
  sort.forEach((term, index) => {
    const { column, nullable, text } = columns[term.field](sql)
    const descending = term.descending !== backwards
    const given = placeKeys[index]!(sql)
    texts.push(text ?? sql`${column}::text`)
    if (nullable) {
      // A comparison of rows cannot pass over a null, so where it stands is a key of its own.
      keys.push(
        { expression: sql`(${column} is null)`, value: sql`(${given} is null)`, descending },
        {
          expression: sql`coalesce(${column}, '')`,
          value: sql`coalesce(${given}, '')`,
          descending,
        },
      )
    } else {
      keys.push({ expression: column, value: given, descending })
    }
  })
  const order = keys.map(({ expression, descending }) =>
    descending ? sql`${expression} desc` : expression,
  )
  return {
    beyond: place ? isBeyond(sql, keys, inclusive) : sql`true`,
    order: commaList(sql, order),
    key: sql`json_build_array(${commaList(sql, texts)})::text`,
  }
}

/**
 * Keys that go the same way are compared as one row, which an index on them serves. What goes another
 * way decides within their ties; the first comparison, which holds either way, is the index's.
 */
function isBeyond(sql: Sql, keys: SortKey[], inclusive: boolean): Fragment {
  const { descending } = keys[0]!
  const turn = keys.findIndex((key) => key.descending !== descending)
  const together = turn < 0 ? keys : keys.slice(0, turn)
  const row = sql`(${commaList(
    sql,
    together.map(({ expression }) => expression),
  )})`
  const values = sql`(${commaList(
    sql,
    together.map(({ value }) => value),
  )})`
  const atLeast = descending ? sql`${row} <= ${values}` : sql`${row} >= ${values}`
  const more = descending ? sql`${row} < ${values}` : sql`${row} > ${values}`
  if (turn < 0) return inclusive ? atLeast : more
  return sql`${atLeast} and (${more} or ${isBeyond(sql, keys.slice(turn), inclusive)})`
}

/** Of at least one. */
export function commaList(sql: Sql, fragments: Fragment[]): Fragment {
  return fragments.reduce((list, fragment) => sql`${list}, ${fragment}`)
}
