// The rules of a product as the README tells them, written a second time: what the service says is held against it.

export type Json = string | number | boolean | null | Json[] | { [name: string]: Json }
type JsonObject = { [name: string]: Json }

/** What a client can say of a product. */
export interface Content {
  sku: string | null
  name: string
  description: string | null
  price: number
  currency: string
  stock: number
  attributes: JsonObject
}

/** The pointers of the faults, those inside attributes as `#/attributes`; a valid input has none. */
export interface Verdict {
  faults: Set<string>
  fields: Partial<Content>
}

const SERVER_FIELDS = ['id', 'version', 'created_at', 'updated_at']
const DEFAULTS = { sku: null, description: null, currency: 'USD', stock: 0, attributes: {} }
const LARGEST_STOCK = 2_147_483_647
const LARGEST_PRICE = 9_999_999_999.99

const codePoints = (text: string) => Array.from(text).length

/** Characters are Unicode code points; U+0000 and lone surrogates are refused everywhere. */
const isStorable = (text: string) => !/\0|\p{Surrogate}/u.test(text)

const isText = (value: unknown, least: number, most: number): value is string =>
  typeof value === 'string' &&
  isStorable(value) &&
  codePoints(value) >= least &&
  codePoints(value) <= most

function isPrice(value: unknown): boolean {
  if (typeof value === 'string') {
    return /^(0|[1-9]\d*)(\.\d\d?)?$/.test(value) && Number(value) <= LARGEST_PRICE
  }
  return (
    typeof value === 'number' &&
    value >= 0 &&
    value <= LARGEST_PRICE &&
    Number(value.toFixed(2)) === value
  )
}

export const isStock = (value: unknown) =>
  typeof value === 'number' && Number.isInteger(value) && value >= 0 && value <= LARGEST_STOCK

const isObject = (value: unknown): value is JsonObject =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

function isFree(value: Json, levels: number): boolean {
  if (typeof value === 'string') return isStorable(value)
  if (typeof value === 'number') return Number.isFinite(value)
  if (typeof value !== 'object' || value === null) return true
  if (levels === 0) return false
  if (Array.isArray(value)) return value.every((item) => isFree(item, levels - 1))
  return Object.keys(value).every((key) => isStorable(key) && isFree(value[key]!, levels - 1))
}

/** The bytes of the compact JSON, with the numbers written out. */
function sizeOf(value: Json): number {
  if (typeof value === 'number') return writtenOut(value).length
  if (typeof value !== 'object' || value === null) return Buffer.byteLength(JSON.stringify(value))
  const members = Array.isArray(value)
    ? value.map(sizeOf)
    : Object.keys(value).map((key) => sizeOf(key) + 1 + sizeOf(value[key]!))
  return members.reduce((sum, size) => sum + size, 2 + Math.max(0, members.length - 1))
}

function writtenOut(value: number): string {
  const [mantissa = '', exponent] = String(value).split('e')
  if (exponent === undefined) return mantissa
  const sign = mantissa.startsWith('-') ? '-' : ''
  const [whole = '', decimals = ''] = mantissa.replace('-', '').split('.')
  const power = Number(exponent)
  return power > 0
    ? sign + (whole + decimals).padEnd(power + 1, '0')
    : `${sign}0.${'0'.repeat(-power - 1)}${whole}${decimals}`
}

const fits = (attributes: JsonObject) => sizeOf(attributes) <= 16_384

/** What the rules say of a body for POST and PUT, or of a patch. */
export function judge(input: unknown, isPatch: boolean): Verdict {
  const faults = new Set<string>()
  const fields: Record<string, unknown> = isPatch ? {} : { ...DEFAULTS }
  if (!isObject(input)) return { faults: new Set(['#']), fields }
  const rules: Record<string, (value: Json) => boolean> = {
    sku: (value) => value === null || isText(value, 1, 64),
    name: (value) => typeof value === 'string' && isStorable(value) && isText(value.trim(), 1, 200),
    description: (value) => value === null || isText(value, 0, 5000),
    price: isPrice,
    currency: (value) =>
      (isPatch && value === null) || (typeof value === 'string' && /^[A-Z]{3}$/.test(value)),
    stock: (value) => (isPatch && value === null) || isStock(value),
    attributes: (value) =>
      (isPatch && value === null) ||
      (isObject(value) &&
        isFree(value, 100) &&
        // What a patch leaves of nothing is the least that it leaves.
        fits(isPatch ? (merge(null, value) as JsonObject) : value)),
  }
  for (const name of Object.keys(input)) {
    if (SERVER_FIELDS.includes(name)) continue
    const rule = Object.hasOwn(rules, name) ? rules[name] : undefined
    if (rule?.(input[name]!)) fields[name] = input[name]
    else faults.add(pointerTo(name))
  }
  if (!isPatch) {
    for (const name of ['name', 'price']) if (!Object.hasOwn(input, name)) faults.add(`#/${name}`)
  }
  if (typeof fields['name'] === 'string') fields['name'] = fields['name'].trim()
  if (fields['price'] !== undefined) fields['price'] = Number(fields['price'])
  return { faults, fields }
}

export function pointerTo(...names: string[]): string {
  const tokens = names.map((name) =>
    encodeURIComponent(name.toWellFormed().replaceAll('~', '~0').replaceAll('/', '~1')),
  )
  return ['#', ...tokens].join('/')
}

/** What becomes of a product by a valid patch; undefined when its attributes get too large. */
export function patched(product: Content, fields: Partial<Content>): Content | undefined {
  const { attributes, ...rest } = fields as Record<string, Json>
  const changed = { ...product } as Record<string, unknown>
  for (const [name, value] of Object.entries(rest)) {
    changed[name] = value === null ? DEFAULTS[name as keyof typeof DEFAULTS] : value
  }
  if (attributes !== undefined) {
    const merged = attributes === null ? {} : merge(product.attributes, attributes)
    if (!fits(merged as JsonObject)) return undefined
    changed['attributes'] = merged
  }
  return changed as unknown as Content
}

/** RFC 7396. */
function merge(target: Json, patch: Json): Json {
  if (!isObject(patch)) return patch
  const members = new Map(isObject(target) ? Object.entries(target) : [])
  for (const [name, value] of Object.entries(patch)) {
    if (value === null) members.delete(name)
    else members.set(name, merge(members.get(name) ?? null, value))
  }
  return Object.fromEntries(members)
}

/** The same text for the same JSON, in whatever order its members are. */
export function canonical(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(canonical).join()}]`
  if (!isObject(value)) return JSON.stringify(value)
  const members = Object.entries(value).map(
    ([name, member]) => `${JSON.stringify(name)}:${canonical(member)}`,
  )
  return `{${members.toSorted().join()}}`
}

/** What a client can say of a product, out of what the service says. */
export function contentOf(product: Record<string, unknown>): Content {
  const { sku, name, description, price, currency, stock, attributes } = product
  return { sku, name, description, price, currency, stock, attributes } as Content
}
