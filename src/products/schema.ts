// What a product is: the rules of its fields, and which field each constraint of the table speaks of.
import * as z from 'zod'
import { defineList } from '../http/list.ts'
import { parameter, textUpTo, time, wholeNumber } from '../http/parameters.ts'
import type { ConstraintFaults } from '../http/problem.ts'
import { atMost, hasAtMost, isStorable, rule, storable } from '../http/validation.ts'

const MOST_ATTRIBUTES_BYTES = 16_384
const DEEPEST_ATTRIBUTES = 100
/** Faults inside attributes can be many, and their paths long: an answer must not grow far beyond its request. */
const MOST_TOLD_CHARACTERS = 10_000
export const LARGEST_STOCK = 2_147_483_647

type Json = string | number | boolean | null | Json[] | { [name: string]: Json }
type JsonObject = { [name: string]: Json }

const tooLarge = rule('too_big', 'is too large a number')
const tooDeep = rule('too_deep', `must nest at most ${DEEPEST_ATTRIBUTES} levels`)

// JSON Schema does not see into a `refine`: what it may know stands once more in `meta`, and a test
// holds the two against each other.
const text = z.string('must be a string').refine(isStorable, storable)
const sku = text
  .refine((value) => value !== '', rule('too_small', 'must have at least 1 character'))
  .refine(hasAtMost(64), atMost(64))
  .meta({ minLength: 1, maxLength: 64, examples: ['BUT-77'] })
const name = text
  .trim()
  .refine((value) => value !== '', rule('too_small', 'must have at least 1 character'))
  .refine(hasAtMost(200), atMost(200))
  .meta({ pattern: '\\S', maxLength: 200, examples: ['Butter dish'] })
const description = text
  .refine(hasAtMost(5000), atMost(5000))
  .meta({ maxLength: 5000, examples: ['White, with a lid.'] })
const currency = z
  .string('must be a string')
  .regex(/^[A-Z]{3}$/, 'must be three capital letters, such as USD')
  .meta({ examples: ['USD'] })
const stock = z
  .number('must be a whole number')
  .refine(Number.isInteger, rule('invalid_type', 'must be a whole number'))
  .min(0, 'must be at least 0')
  .max(LARGEST_STOCK, `must be at most ${LARGEST_STOCK}`)
  .meta({ override: { type: 'integer' }, examples: [12] })

const PRICE_FORMS = [
  z.number().meta({ minimum: 0, maximum: 9_999_999_999.99 }),
  z.string().meta({ pattern: '^(0|[1-9]\\d{0,9})(\\.\\d{1,2})?$' }),
] as const

/** A number or a decimal string comes in; decimal text goes to PostgreSQL, so nothing is rounded. */
const price = z
  .union(PRICE_FORMS, rule('invalid_type', 'must be a number or a decimal string'))
  .transform((value, context) => {
    const decimal = String(value)
    const fault = (code: string, message: string) => {
      context.addIssue({ code: 'custom', message, params: { code } })
      return z.NEVER
    }
    // A number that JavaScript writes with an exponent is far too large, or has too many decimals.
    if (typeof value === 'string' && !/^-?(0|[1-9]\d*)(\.\d+)?$/.test(decimal)) {
      return fault('invalid_format', 'must be a decimal number such as 12.50')
    }
    if (Number(value) < 0 || decimal.startsWith('-')) {
      return fault('too_small', 'must be at least 0')
    }
    if (Number(value) > 9_999_999_999.99) return fault('too_big', 'must be at most 9999999999.99')
    if (!/^\d+(\.\d{1,2})?$/.test(decimal)) {
      return fault('too_precise', 'must have at most two decimals')
    }
    return decimal
  })
  .meta({ description: 'At most two decimals, as a number or a decimal string.', examples: [24.5] })

const freeJson = {
  override: { type: 'object' as const, additionalProperties: true },
  description: `Free JSON, up to ${MOST_ATTRIBUTES_BYTES / 1024} KiB and ${DEEPEST_ATTRIBUTES} levels.`,
  examples: [{ colour: 'white' }],
}
const json = z
  .custom<JsonObject>(isObject, rule('invalid_type', 'must be an object'))
  .superRefine((value, context) => {
    let room = MOST_TOLD_CHARACTERS
    findFaults(value, [], (path, { error, params }) => {
      // What is nested without end is looked at no further, not even for its size.
      const isLast = params.code === tooDeep.params.code
      context.addIssue({ code: 'custom', path, message: error, params, continue: !isLast })
      room -= path.join().length + error.length
      return !isLast && room > 0
    })
  })
  .meta(freeJson)
const tooManyBytes = rule(
  'too_big',
  `must be at most ${MOST_ATTRIBUTES_BYTES} bytes of compact JSON, numbers written out`,
)
const attributes = json
  .refine((value) => storedBytes(value) <= MOST_ATTRIBUTES_BYTES, tooManyBytes)
  .meta(freeJson)
/** What it leaves of nothing is the least that it leaves, and a megabyte to merge took PostgreSQL up to 7 s. */
const attributesPatch = json
  .refine((value) => leastBytes(value) <= MOST_ATTRIBUTES_BYTES, tooManyBytes)
  .meta(freeJson)

/** The server's own fields: taken, so that what was read can be sent back, and not looked at. */
const ignored = z.unknown().optional().meta({ description: 'Ignored.', readOnly: true })
const serverFields = { id: ignored, version: ignored, created_at: ignored, updated_at: ignored }

/** A whole product, for POST and PUT: what is left out gets its default. */
export const NewProduct = z
  .strictObject({
    ...serverFields,
    sku: sku.nullable().default(null),
    name,
    description: description.nullable().default(null),
    price,
    currency: currency.default('USD'),
    stock: stock.default(0),
    attributes: attributes.default({}),
  })
  .transform(withoutServerFields)
  .meta({ id: 'NewProduct', description: 'A product to be. What is left out gets its default.' })
export type NewProduct = z.infer<typeof NewProduct>

export const MOST_PRODUCTS = 1000
const listOf = <Item extends z.ZodType>(item: Item) =>
  z
    .array(item, 'must be a list of products')
    .max(MOST_PRODUCTS, `must have at most ${MOST_PRODUCTS} products`)
    .min(1, 'must have at least 1 product')
    .superRefine(tellSkusThatComeTwice, { when: () => true })

/** For `POST /products/bulk`. */
export const NewProducts = listOf(NewProduct)
/** The rules of the list alone, for what it needs to know of each product. */
export const ProductRows = {
  list: listOf(z.unknown()),
  outline(row: unknown) {
    const sku = (row as { sku?: unknown } | null)?.sku
    return { sku: typeof sku === 'string' ? sku : undefined }
  },
}

export const BulkQuery = z.strictObject({
  on_conflict: z
    .literal('sku', 'must be sku')
    .optional()
    .meta({ description: 'A product whose sku is known is replaced, as by PUT.' }),
})

const PATCH_MEANING =
  'A merge patch (RFC 7396): what it names is changed, null takes a field back to its default.'

/** A merge patch (RFC 7396). Its `attributes` are merged by PostgreSQL, which then checks their size. */
export const ProductPatch = z
  .strictObject({
    ...serverFields,
    sku: sku.nullable().optional(),
    name: name.optional(),
    description: description.nullable().optional(),
    price: price.optional(),
    currency: currency.nullable().optional(),
    stock: stock.nullable().optional(),
    attributes: attributesPatch.nullable().optional(),
  })
  .transform(withoutServerFields)
  .meta({ id: 'ProductPatch', description: PATCH_MEANING })
export type ProductPatch = z.infer<typeof ProductPatch>

/** For `POST /products/{id}/stock`. */
export const StockChange = z
  .strictObject({
    delta: z
      .number('must be a whole number')
      .refine(Number.isInteger, rule('invalid_type', 'must be a whole number'))
      .min(-LARGEST_STOCK, `must be at least -${LARGEST_STOCK}`)
      .max(LARGEST_STOCK, `must be at most ${LARGEST_STOCK}`)
      .meta({
        description: 'What is added, or with a minus taken.',
        override: { type: 'integer' },
        examples: [-3],
      }),
  })
  .meta({ id: 'StockChange' })

export const ProductPath = z.object({
  id: z
    .string()
    .regex(/^[1-9]\d*$/, 'must be a positive integer')
    // An integer beyond what an id can be is the id of no product, as 0 is.
    .transform((id) => (Number(id) <= Number.MAX_SAFE_INTEGER ? Number(id) : 0))
    .meta({
      description: 'The id of the product.',
      examples: [7],
      override: shownAsInteger({ minimum: 1 }),
    }),
})

/** What `GET /products` takes, and the part of it that selects. */
export const productList = defineList({
  resource: 'products',
  filters: {
    id: wholeNumber(1, Number.MAX_SAFE_INTEGER),
    name: textUpTo(200),
    sku: textUpTo(64),
    price: parameter.pipe(price as z.ZodType<string, string>),
    stock: wholeNumber(0, LARGEST_STOCK),
    created_at: time,
    updated_at: time,
    currency: parameter.pipe(currency),
  },
  sorts: ['id', 'name', 'sku', 'price', 'stock', 'created_at', 'updated_at'],
  nullable: ['sku'],
  fields: [
    'id',
    'sku',
    'name',
    'description',
    'price',
    'currency',
    'stock',
    'attributes',
    'version',
    'created_at',
    'updated_at',
  ],
  searched: 'name, sku and description',
})
export type ProductSelection = z.infer<typeof productList.selection>
export type ProductQuery = z.infer<typeof productList.page>

const storedId = z.int().positive().max(Number.MAX_SAFE_INTEGER)
const storedTime = z
  .string()
  .meta({ format: 'date-time', pattern: 'Z$', examples: ['2026-11-22T16:16:42.257135Z'] })

/** A product as it is answered: every field, always. The database writes it; tests hold it to this. */
export const Product = z
  .strictObject({
    id: storedId.meta({ examples: [121] }),
    sku: sku.nullable(),
    name,
    description: description.nullable(),
    price: z
      .number()
      .min(0)
      .max(9_999_999_999.99)
      .meta({ examples: [24.5] }),
    currency,
    stock,
    attributes: json,
    version: storedId.meta({ description: 'Grows by one with each change.', examples: [1] }),
    created_at: storedTime,
    updated_at: storedTime,
  })
  .meta({ id: 'Product' })
export type Product = z.infer<typeof Product>

/** A page as it is answered. */
export const ProductPage = z
  .strictObject({
    items: z.array(
      Product.partial().meta({ description: 'Every field, or those that `fields` asks for.' }),
    ),
    next_cursor: z.string().nullable().meta({ description: 'Null on the last page.' }),
    prev_cursor: z.string().nullable().meta({ description: 'Null on the first page.' }),
    total: z.int().min(0).optional().meta({ description: 'How many there are on all pages.' }),
    total_is: z.enum(['exact', 'estimated']).optional(),
  })
  .meta({ id: 'ProductPage' })
export type ProductPage = z.infer<typeof ProductPage>

/** What a bulk has done, as it is answered. */
export const BulkResult = z
  .strictObject({
    inserted: z.int().min(0),
    updated: z.int().min(0),
    items: z.array(Product).meta({ description: 'In the order sent.' }),
  })
  .meta({ id: 'BulkResult' })
export type BulkResult = z.infer<typeof BulkResult>

/** What an import has done, as it is answered. */
export const ImportResult = BulkResult.pick({ inserted: true, updated: true }).meta({
  id: 'ImportResult',
})
export type ImportResult = z.infer<typeof ImportResult>

/** One change of a product, as it is answered. */
export const ProductChange = z
  .strictObject({
    op: z.enum(['insert', 'update', 'delete']),
    id: storedId.meta({ examples: [121] }),
    version: storedId,
    at: storedTime.meta({ description: 'When it was made; it may be committed later.' }),
    product: Product.nullable().meta({ description: 'As it was then. Null when it was deleted.' }),
  })
  .meta({ id: 'ProductChange' })

/** A part of the change feed, as it is answered. */
export const ProductChanges = z
  .strictObject({
    items: z.array(ProductChange).meta({ description: 'The oldest first.' }),
    next_cursor: z
      .string()
      .meta({ description: 'For `after`. Always there, so that it can be polled.' }),
  })
  .meta({ id: 'ProductChanges' })
export type ProductChanges = z.infer<typeof ProductChanges>

/** A test holds this against the table: no constraint is without a field. */
export const productConstraints: ConstraintFaults = {
  products_pkey: { field: 'id', code: 'taken', detail: 'is taken by another product' },
  products_sku_key: { field: 'sku', code: 'taken', detail: 'is taken by another product' },
  products_id_range: { field: 'id', code: 'too_big', detail: 'must be at most 9007199254740991' },
  products_sku_length: {
    field: 'sku',
    code: 'invalid_length',
    detail: 'must have 1 to 64 characters',
  },
  products_name_length: {
    field: 'name',
    code: 'invalid_length',
    detail: 'must have 1 to 200 characters',
  },
  products_name_trimmed: {
    field: 'name',
    code: 'invalid_format',
    detail: 'must have no white space at its ends',
  },
  products_description_length: {
    field: 'description',
    code: 'too_big',
    detail: 'must have at most 5000 characters',
  },
  products_price_range: {
    field: 'price',
    code: 'out_of_range',
    detail: 'must be from 0 to 9999999999.99',
  },
  products_currency_format: {
    field: 'currency',
    code: 'invalid_format',
    detail: 'must be three capital letters, such as USD',
  },
  products_stock_range: { field: 'stock', code: 'too_small', detail: 'must be at least 0' },
  products_attributes_object: {
    field: 'attributes',
    code: 'invalid_type',
    detail: 'must be an object',
  },
  products_attributes_size: {
    field: 'attributes',
    code: 'too_big',
    detail: `must be at most ${MOST_ATTRIBUTES_BYTES} bytes of compact JSON, numbers written out`,
  },
  products_version_range: {
    field: 'version',
    code: 'out_of_range',
    detail: 'must be from 1 to 9007199254740991',
  },
  products_created_at_range: {
    field: 'created_at',
    code: 'out_of_range',
    detail: 'must be in the years 1 to 9999',
  },
  products_updated_at_range: {
    field: 'updated_at',
    code: 'out_of_range',
    detail: 'must be in the years 1 to 9999',
  },
}

/** Digits that arrive as text are a number to whoever reads the document. */
function shownAsInteger(rules: { minimum: number; maximum?: number; default?: number }) {
  return ({ jsonSchema }: { jsonSchema: { pattern?: string } }) => {
    delete jsonSchema.pattern
    Object.assign(jsonSchema, { type: 'integer', ...rules })
  }
}

function withoutServerFields<T extends Partial<Record<keyof typeof serverFields, unknown>>>(
  input: T,
) {
  const { id: _, version: __, created_at: ___, updated_at: ____, ...fields } = input
  return fields
}

/** Other rows may have faults of their own, so nothing is certain of a row but what is looked at. */
function tellSkusThatComeTwice(rows: unknown, context: z.RefinementCtx) {
  const known = new Set<unknown>()
  for (const [row, product] of Array.isArray(rows) ? rows.entries() : []) {
    const sku = (product as Partial<NewProduct> | null | undefined)?.sku
    if (typeof sku === 'string' && known.has(sku)) {
      const params = { code: 'duplicate' }
      const message = 'is the sku of an earlier product, too'
      context.addIssue({ code: 'custom', path: [row, 'sku'], message, params })
    }
    known.add(sku)
  }
}

function isObject(value: unknown): boolean {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** The size as the table counts it: compact, in UTF-8, and numbers without exponents. */
function storedBytes(value: Json): number {
  const text = JSON.stringify(value)
  const bytes = utf8Length(text)
  return /\de[+-]/.test(text) ? bytes + digitsOfExponents(value) : bytes
}

const utf8Length = (text: string) => new TextEncoder().encode(text).length

/** How many characters PostgreSQL adds when it writes the numbers out: 1e+30 gets 31 digits. */
function digitsOfExponents(value: Json): number {
  if (typeof value === 'number') {
    const [, sign, decimals, exponent] = /^(-?)\d\.?(\d*)e(.+)$/.exec(String(value)) ?? []
    if (exponent === undefined) return 0
    const power = Number(exponent)
    const written = power > 0 ? power + 1 : '0.'.length + decimals!.length - power
    return sign!.length + written - String(value).length
  }
  if (typeof value !== 'object' || value === null) return 0
  let digits = 0
  for (const member of Object.values(value)) digits += digitsOfExponents(member)
  return digits
}

/** The size of what a merge patch makes of nothing; looked for until it is too large. */
function leastBytes(patch: JsonObject): number {
  let bytes = '{}'.length
  for (const name of Object.keys(patch)) {
    const value = patch[name]!
    if (value === null) continue
    if (bytes > '{}'.length) bytes += ','.length
    bytes += utf8Length(JSON.stringify(name)) + ':'.length
    bytes += isObject(value) ? leastBytes(value as JsonObject) : storedBytes(value)
    if (bytes > MOST_ATTRIBUTES_BYTES) break
  }
  return bytes
}

type Rule = ReturnType<typeof rule>
type Path = (string | number)[]

/**
 * Tells what PostgreSQL could not hold as it was sent: strings, names, numbers, depth. One path for
 * the whole walk, copied when there is something to tell: a megabyte takes 15 ms, a path each 500.
 * @returns false when `tell` has heard enough
 */
function findFaults(value: Json, path: Path, tell: (path: Path, rule: Rule) => boolean): boolean {
  if (typeof value === 'string') return isStorable(value) || tell([...path], storable)
  if (typeof value === 'number') return Number.isFinite(value) || tell([...path], tooLarge)
  if (typeof value !== 'object' || value === null) return true
  if (path.length >= DEEPEST_ATTRIBUTES) return tell([], tooDeep)
  if (Array.isArray(value)) {
    for (let index = 0; index < value.length; index++) {
      path.push(index)
      if (!findFaults(value[index]!, path, tell)) return false
      path.pop()
    }
    return true
  }
  for (const key of Object.keys(value)) {
    // A name that cannot be told: it is the object that has it.
    if (!isStorable(key) && !tell([...path], storable)) return false
    path.push(key)
    if (!findFaults(value[key]!, path, tell)) return false
    path.pop()
  }
  return true
}
