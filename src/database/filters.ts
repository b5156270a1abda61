// Filters: what a list is narrowed down to, as conditions that an index on the column can serve.
import type { Fragment, Sql } from './connection.ts'

export type Comparison = 'eq' | 'ne' | 'gt' | 'gte' | 'lt' | 'lte'

/** The values are text that the column's type takes. */
export type Filter<Field extends string> =
  | { field: Field; operator: Comparison; value: string }
  | { field: Field; operator: 'in'; values: string[] }
  | { field: Field; operator: 'is'; value: 'null' | 'not_null' }

/** A column that may be filtered and sorted by; a resource has a table of them, and no others are used. */
export interface Column {
  column: Fragment
  type: Fragment
  /** Whether it holds nulls; its sorts need an index on `((column is null), coalesce(column, ''), id)`. */
  nullable?: boolean
  /** How its values are written into a cursor, where a cast to text would depend on the session. */
  text?: Fragment
}

export type Columns<Field extends string> = Record<Field, (sql: Sql) => Column>

/**
 * The condition that all filters hold, `true` when there are none. Filters that come in the same order
 * make the same statement, whatever their values, and however many of them `in` has.
 */
export function matching<Field extends string>(
  sql: Sql,
  columns: Columns<Field>,
  filters: Filter<Field>[],
): Fragment {
  let condition = sql`true`
  for (const filter of filters) {
    condition = sql`${condition} and ${holds(sql, columns[filter.field](sql), filter)}`
  }
  return condition
}

function holds(sql: Sql, { column, type }: Column, filter: Filter<string>): Fragment {
  switch (filter.operator) {
    case 'eq':
      return sql`${column} = ${filter.value}::${type}`
    case 'ne':
      // As `<>` says, but in a way that an index can serve.
      return sql`(${column} < ${filter.value}::${type} or ${column} > ${filter.value}::${type})`
    case 'gt':
      return sql`${column} > ${filter.value}::${type}`
    case 'gte':
      return sql`${column} >= ${filter.value}::${type}`
    case 'lt':
      return sql`${column} < ${filter.value}::${type}`
    case 'lte':
      return sql`${column} <= ${filter.value}::${type}`
    case 'in':
      return sql`${column} = any(${arrayLiteral(filter.values)}::${type}[])`
    case 'is':
      return filter.value === 'null' ? sql`${column} is null` : sql`${column} is not null`
  }
}

/** PostgreSQL's own notation of an array; the driver writes none without asking for types first. */
export function arrayLiteral(values: (string | null)[]): string {
  const quoted = (value: string) => `"${value.replaceAll(/["\\]/g, '\\$&')}"`
  return `{${values.map((value) => (value === null ? 'null' : quoted(value))).join(',')}}`
}
