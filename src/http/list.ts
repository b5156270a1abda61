// The query of a list: filters, search, sort and page, from a table of a resource's fields.
import * as z from 'zod'
import type { Comparison, Filter } from '../database/filters.ts'
import type { Place, SortTerm } from '../database/keyset.ts'
import { decodeCursor } from './page.ts'
import { parameter, textUpTo, wholeNumber } from './parameters.ts'
import { rule } from './validation.ts'

const MOST_SORTS = 3
const MOST_VALUES = 100
const LONGEST_SEARCH = 200

/** Which of a resource's rows are asked for. */
export interface Selection<Field extends string> {
  /** In the order of the table, so that the same filters make the same statement. */
  filters: Filter<Field>[]
  q: string | undefined
}

const comparisons: Record<Comparison, string> = {
  eq: 'equal to',
  ne: 'other than',
  gt: 'greater than',
  gte: 'at least',
  lt: 'less than',
  lte: 'at most',
}

const comparisonNames = Object.keys(comparisons) as Comparison[]

type Value = z.ZodType<string, string>
type FilterShape<Field extends string> = {
  [Name in Field | `${Field}[${Comparison}]`]: z.ZodOptional<Value>
} & { [Name in `${Field}[in]`]: z.ZodOptional<z.ZodType<string[], string | string[]>> } & {
  [Name in `${Field}[is]`]: z.ZodOptional<z.ZodEnum<{ null: 'null'; not_null: 'not_null' }>>
}

interface Table<Field extends string, Sorted extends string, Shown extends string> {
  /** What the cursors belong to. */
  resource: string
  /** What each field is compared with: a schema from text to text that PostgreSQL takes. */
  filters: Record<Field, Value>
  /** What rows can be sorted by; the unique `id` is among it. */
  sorts: readonly Sorted[]
  /** What may be null. */
  nullable: readonly string[]
  /** What a row has to show, in the order of its JSON. */
  fields: readonly Shown[]
  /** Where `q` looks, in words. */
  searched: string
}

/**
 * - `selection`: the schema of a query that has filters and `q` alone
 * - `page`: the schema of a query that has all of a page
 * - `place`: where the page that is asked for begins
 * - `binding`: what its cursors belong to
 */
export function defineList<Field extends string, Sorted extends Field, Shown extends string>(
  table: Table<Field, Sorted, Shown>,
) {
  const names = Object.keys(table.filters) as Field[]
  const shape = Object.assign({}, ...names.map((name) => filterShape(name, table.filters[name])))
  const selecting = {
    ...(shape as FilterShape<Field>),
    q: textUpTo(LONGEST_SEARCH)
      .optional()
      .meta({
        description: `Words to be found in ${table.searched}: all of them, each from the start of a word on.`,
      }),
  }

  /** Each parameter that filters, in the order of the table. */
  const parameters = names.flatMap((field) => [
    { parameter: field as string, field, operator: 'eq' as const },
    ...([...comparisonNames, 'in', 'is'] as const).map((operator) => ({
      parameter: `${field}[${operator}]`,
      field,
      operator,
    })),
  ])

  function toSelection(query: Record<string, unknown>): Selection<Field> {
    const filters: Filter<Field>[] = []
    for (const { parameter, field, operator } of parameters) {
      const given = query[parameter]
      if (given === undefined) continue
      if (operator === 'in') filters.push({ field, operator, values: given as string[] })
      else filters.push({ field, operator, value: given as string } as Filter<Field>)
    }
    return { filters, q: query['q'] as string | undefined }
  }

  const paging = {
    limit: wholeNumber(1, 100)
      .transform(Number)
      .prefault('20')
      .meta({ description: 'The most items of a page: 1 to 100.' }),
    sort: sortParameter(table.sorts),
    cursor: parameter.optional().meta({
      description:
        'The `next_cursor` or `prev_cursor` of another page, with the same sort, filters and `q`.',
    }),
    fields: fieldsParameter(table.fields),
    count: z.enum(['exact', 'estimated'], 'must be exact or estimated').optional().meta({
      description:
        'Adds `total` and `total_is`. An exact count reads all that match, an estimate comes from the planner.',
    }),
  }
  const page = z.strictObject({ ...paging, ...selecting }).transform((query) => {
    const { limit, sort, cursor, fields, count } = query as z.output<z.ZodObject<typeof paging>>
    return { limit, sort, cursor, fields, count, ...toSelection(query) }
  })
  type PageRequest = z.output<typeof page>

  function binding({ sort, filters, q }: PageRequest): string {
    return JSON.stringify([table.resource, sort, filters, q])
  }

  return {
    selection: z.strictObject(selecting).transform(toSelection),
    page,
    binding,
    /** @throws {Problem} `malformed`, when the cursor is not one of this query */
    place(request: PageRequest): Place | undefined {
      const { cursor, sort } = request
      if (cursor === undefined) return undefined
      return decodeCursor(cursor, binding(request), (values) => {
        if (values.length !== sort.length) throw new Error('a key of another sort')
        return sort.map(({ field }, index) =>
          values[index] === null && table.nullable.includes(field)
            ? null
            : table.filters[field].parse(values[index]),
        )
      })
    },
  }
}

function filterShape(name: string, value: Value) {
  const shape: Record<string, z.ZodType> = {
    [name]: value.optional().meta({ description: `\`${name}\` is equal to this.` }),
  }
  for (const operator of comparisonNames) {
    const description = `\`${name}\` is ${comparisons[operator]} this.`
    shape[`${name}[${operator}]`] = value.optional().meta({ description })
  }
  shape[`${name}[in]`] = listOf(value)
    .optional()
    .meta({ description: `\`${name}\` is one of these; the parameter is repeated for each.` })
  shape[`${name}[is]`] = z
    .enum(['null', 'not_null'], 'must be null or not_null')
    .optional()
    .meta({ description: `Whether \`${name}\` is null.` })
  return shape
}

/** One value, or a list of them where the parameter is repeated; sorted, and each once. */
function listOf(value: Value) {
  return z.union([z.string(), z.array(z.string())]).transform((given, context) => {
    const texts = [given].flat()
    if (texts.length > MOST_VALUES) {
      const { error, params } = rule('too_many', `must have at most ${MOST_VALUES} values`)
      context.addIssue({ code: 'custom', message: error, params })
      return z.NEVER
    }
    const list = new Set<string>()
    for (const text of texts) {
      const { data, error } = value.safeParse(text)
      if (data !== undefined) list.add(data)
      // The fault is the parameter's, for its values have no names of their own.
      for (const issue of error?.issues ?? []) {
        context.issues.push({ ...issue, path: [], input: given } as z.core.$ZodRawIssue)
      }
    }
    return [...list].toSorted()
  })
}

function sortParameter<Sorted extends string>(sorts: readonly Sorted[]) {
  const rules = [
    rule('too_many', `must have at most ${MOST_SORTS} fields`),
    rule('unknown', `must be of ${sorts.join(', ')}, each with or without a - before it`),
    rule('repeated', 'must name each field once'),
  ]
  return parameter
    .transform((text, context) => {
      const terms = text.split(',').map((name) => ({
        field: name.replace(/^-/, '') as Sorted,
        descending: name.startsWith('-'),
      }))
      const broken = [
        terms.length > MOST_SORTS,
        !terms.every(({ field }) => sorts.includes(field)),
        new Set(terms.map(({ field }) => field)).size < terms.length,
      ]
      for (const { error, params } of rules.filter((_, index) => broken[index])) {
        context.addIssue({ code: 'custom', message: error, params })
      }
      return untilUnique(terms)
    })
    .prefault('-id')
    .meta({
      description:
        `Up to ${MOST_SORTS} of ${sorts.join(', ')}, separated by commas, - for descending. ` +
        'Ties are broken by `id`, in the direction of the last field. ' +
        'Nulls stand last, and first when descending. Text is sorted by code point.',
    })
}

/** What comes after `id` decides nothing; where it is missing, it breaks the ties. */
function untilUnique<Sorted extends string>(terms: SortTerm<Sorted>[]): SortTerm<Sorted>[] {
  const unique = terms.findIndex(({ field }) => field === 'id')
  if (unique >= 0) return terms.slice(0, unique + 1)
  return [...terms, { field: 'id' as Sorted, descending: terms.at(-1)!.descending }]
}

function fieldsParameter<Shown extends string>(fields: readonly Shown[]) {
  return parameter
    .transform((text, context) => {
      const named = text.split(',') as Shown[]
      const broken = !named.every((name) => fields.includes(name))
        ? rule('unknown', `must be of ${fields.join(', ')}`)
        : new Set(named).size < named.length
          ? rule('repeated', 'must name each field once')
          : undefined
      if (broken) {
        context.addIssue({ code: 'custom', message: broken.error, params: broken.params })
      }
      return fields.filter((field) => named.includes(field))
    })
    .optional()
    .meta({ description: `Those of ${fields.join(', ')} that are sent, separated by commas.` })
}
