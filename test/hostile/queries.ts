// Queries of lists, near the rules on both sides; and what the README says of each of their parameters.
import fc from 'fast-check'
import { among, anyText } from './inputs.ts'

export type Parameter = [name: string, value: string]

const MOST_SORTS = 3
const MOST_VALUES = 100
const sorts = ['id', 'name', 'sku', 'price', 'stock', 'created_at', 'updated_at']
const shown = [...sorts, 'description', 'currency', 'attributes', 'version']
const comparisons = ['eq', 'ne', 'gt', 'gte', 'lt', 'lte', 'in', 'is']

const isWhole = (text: string, least: bigint, most: bigint) =>
  /^(0|[1-9]\d*)$/.test(text) && BigInt(text) >= least && BigInt(text) <= most
const isText = (most: number) => (text: string) =>
  text !== '' && Array.from(text).length <= most && !/\0|\p{Surrogate}/u.test(text)

/** RFC 3339 with any offset, in the years 1 to 9999 of UTC. */
function isTime(text: string): boolean {
  const form = /^(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(\.\d+)?(Z|[+-]\d\d:\d\d)$/i.exec(text)
  if (!form) return false
  const [year, month, day, hour, minute, second] = form.slice(1, 7).map(Number) as [
    number,
    number,
    number,
    number,
    number,
    number,
  ]
  const [, sign, hours, minutes] = /([+-])(\d\d):(\d\d)$/.exec(form[8]!) ?? [0, '+', '0', '0']
  if (hour > 23 || minute > 59 || second > 60 || Number(hours) > 23 || Number(minutes) > 59) {
    return false
  }
  const leaps = year % 4 === 0 && (year % 100 !== 0 || year % 400 === 0)
  const days = [31, leaps ? 29 : 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
  if (month < 1 || month > 12 || day < 1 || day > days[month - 1]!) return false
  const utc = new Date(0)
  utc.setUTCFullYear(year, month - 1, day)
  const offset = (Number(hours) * 60 + Number(minutes)) * (sign === '-' ? 1 : -1)
  utc.setUTCHours(hour, minute + offset, second)
  return utc.getUTCFullYear() >= 1 && utc.getUTCFullYear() <= 9999
}

const fits: Record<string, (text: string) => boolean> = {
  id: (text) => isWhole(text, 1n, 9_007_199_254_740_991n),
  name: isText(200),
  sku: isText(64),
  price: (text) => /^(0|[1-9]\d*)(\.\d\d?)?$/.test(text) && Number(text) <= 9_999_999_999.99,
  stock: (text) => isWhole(text, 0n, 2_147_483_647n),
  created_at: isTime,
  updated_at: isTime,
  currency: (text) => /^[A-Z]{3}$/.test(text),
}
export const filtered = Object.keys(fits)

const isList = (names: string[], text: string) => {
  const named = text.split(',')
  return named.every((name) => names.includes(name)) && new Set(named).size === named.length
}

const others: Record<string, (text: string) => boolean> = {
  limit: (text) => isWhole(text, 1n, 100n),
  sort: (text) =>
    text.split(',').length <= MOST_SORTS && isList(sorts, text.replaceAll(/(^|,)-/g, '$1')),
  fields: (text) => isList(shown, text),
  count: (text) => ['exact', 'estimated'].includes(text),
  q: isText(200),
}

/** The names of the parameters that are refused; none when the query is one of a list. */
export function refused(parameters: Parameter[]): Set<string> {
  const given = Map.groupBy(parameters, ([name]) => name)
  const bad = [...given].filter(([name, values]) => {
    const texts = values.map(([, value]) => value)
    const [, field = '', operator = 'eq'] = /^(\w+)(?:\[(\w+)\])?$/.exec(name) ?? []
    const fit = Object.hasOwn(fits, field) && comparisons.includes(operator) && fits[field]
    if (fit && name.endsWith('[in]')) return !(texts.length <= MOST_VALUES && texts.every(fit))
    if (texts.length > 1) return true
    if (fit) return !(operator === 'is' ? /^(not_)?null$/.test(texts[0]!) : fit(texts[0]!))
    return !(Object.hasOwn(others, name) && others[name]!(texts[0]!))
  })
  return new Set(bad.map(([name]) => name))
}

const whole = fc.oneof(fc.nat({ max: 200 }), fc.nat()).map(String)
const times = fc
  .tuple(
    fc.date({ min: new Date('0001-01-01Z'), max: new Date('9999-12-31Z'), noInvalidDate: true }),
    fc.constantFrom('Z', 'z', '+00:00', '-12:30', '+23:59', '+24:00'),
  )
  .map(([date, offset]) => date.toISOString().replace('Z', offset))

const values: Record<string, fc.Arbitrary<string>> = {
  id: whole,
  stock: whole,
  name: fc.constantFrom('Mug', 'mug', 'é', 'e\u0301', 'Blue mug', '%', '😀', 'Zebra'),
  sku: fc.constantFrom('A-1', 'a-1', 'A,1', '"', '\\', '{}', 'NULL', ' '),
  price: fc.tuple(fc.nat({ max: 30 }), fc.nat({ max: 99 })).map(([a, b]) => `${a}.${b}`),
  currency: fc.constantFrom('USD', 'EUR', 'CHF', 'AAA'),
  created_at: times,
  updated_at: times,
  limit: fc.integer({ min: 0, max: 101 }).map(String),
  sort: fc
    .uniqueArray(fc.constantFrom(...sorts), { minLength: 1, maxLength: 4 })
    .chain((names) => fc.tuple(...names.map((name) => fc.constantFrom(name, `-${name}`))))
    .map((terms) => terms.join()),
  fields: fc.shuffledSubarray(shown, { minLength: 1 }).map((names) => names.join()),
  count: fc.constantFrom('exact', 'estimated'),
  q: fc.oneof(
    fc.constantFrom(
      'mug',
      'MUG bl',
      'é',
      "'",
      'a:*b',
      '!mug',
      'mug | bowl',
      '\\',
      '%',
      '😀',
      '& &',
    ),
    fc.string({ unit: 'grapheme', minLength: 1, maxLength: 30 }),
  ),
}

/** The value of a filter's field, most of them fit. */
export const valueOf = (field: string) =>
  fc.oneof({ weight: 12, arbitrary: values[field]! }, { weight: 1, arbitrary: anyText })

const parameter: fc.Arbitrary<Parameter> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc
      .tuple(fc.constantFrom(...filtered), fc.constantFrom('', ...comparisons.slice(0, -1)))
      .chain(([field, operator]) =>
        fc.tuple(fc.constant(operator ? `${field}[${operator}]` : field), valueOf(field)),
      ),
  },
  {
    weight: 5,
    arbitrary: fc
      .constantFrom(...Object.keys(others))
      .chain((name) => fc.tuple(fc.constant(name), valueOf(name))),
  },
  {
    weight: 1,
    arbitrary: fc.tuple(
      fc.constantFrom(...filtered.map((field) => `${field}[is]`)),
      fc.constantFrom('null', 'not_null', 'NULL'),
    ),
  },
)
const strange: fc.Arbitrary<Parameter> = fc.tuple(
  fc.oneof(
    anyText,
    among(
      ['id[]', 'id[eq][eq]', 'id[like]', 'id[', '[eq]', 'ID', 'Limit', '__proto__[eq]', 'offset'],
      ['constructor[in]', 'price[in][0]', 'description', 'attributes', 'version', 'after'],
    ),
  ),
  anyText,
)

/** The parameters of a list; hardly two of one name, for which there is `in`. */
export const query: fc.Arbitrary<Parameter[]> = fc
  .tuple(
    fc.uniqueArray(parameter, { maxLength: 5, selector: ([name]) => name }),
    fc.array(fc.tuple(fc.constantFrom('id[in]', 'sku[in]', 'name[in]'), anyText), { maxLength: 2 }),
    fc.array(fc.oneof(parameter, strange), { maxLength: 1 }),
    fc.nat({ max: 9 }),
  )
  .map(([some, list, more, chance]) => [
    ...some,
    ...(chance === 1 ? list : []),
    ...(chance === 2 ? more : []),
  ])
  // What has no UTF-8 cannot be in an address at all.
  .map((parameters) =>
    parameters.map(([name, value]): Parameter => [name.toWellFormed(), value.toWellFormed()]),
  )

/** As an address has it; `way` chooses among the forms that mean the same. */
export function toQuery(parameters: Parameter[], way = 0): string {
  const encode = (text: string) => {
    const strict = encodeURIComponent(text)
    if (way === 1)
      return strict.replaceAll('%20', '+').replaceAll(/%5B|%5D|%2C|%3A/g, decodeURIComponent)
    if (way === 2) return strict.replaceAll(/%../g, (code) => code.toLowerCase())
    return strict
  }
  return parameters.map(([name, value]) => `${encode(name)}=${encode(value)}`).join('&')
}
