// What hostile requests are made of: texts, JSON, products and queries, near the rules on both sides.
import fc from 'fast-check'

/** Texts that some program somewhere has stumbled over. */
const infamous = [
  ['', ' ', '\t', '\0', 'a\0b', '\n', '\r\nX-Injected: 1', '\u007f', '\u0080', '\u00ad'],
  ['\ud800', '\udfff', 'a\ude00\ud83d', '😀', '👩‍👩‍👧‍👦', '\ufeff', '\ufffe', '\uffff', '\u{10ffff}'],
  ['é', 'e\u0301', '\u202eltr', 'ﷺ', 'ß', 'İ', 'ı', 'ſ', '\u2028', '\u00a0', '\u3000', '\u200b'],
  ["'", '"', '\\', '`', '%', '%00', '%zz', '&', '=', ';', ',', '--', '/*', "' or 1=1 --", '$1'],
  ['{}', '[]', '{', '[', '*', ':*', '!', '|', '(', '<->', '\\x', '<script>', '${1}', '{{1}}'],
  ['__proto__', 'constructor', 'prototype', 'toString', 'hasOwnProperty', 'length', '0'],
  ['null', 'true', 'NaN', 'Infinity', 'undefined', 'now', 'exact', '-id', 'id,name', '٣', '１'],
  ['0', '-0', '-1', '1', '01', '+1', '1.0', '1e1', '0x10', '1_000', '1e400', '2147483648'],
  ['9007199254740993', '9223372036854775808', '-9223372036854775809', '9999999999.99'],
  ['0.1', '0.001', '1.', '.5', '2026-01-31T09:30:00Z', '2026-02-30T00:00:00Z', '0000-01-01'],
  ['2026-01-31T09:30:00.5+01:00', '9999-12-31T23:59:60Z', '0001-01-01T00:00:00+14:00'],
  ['a'.repeat(64), 'a'.repeat(65), 'é'.repeat(200), '😀'.repeat(201), 'x'.repeat(5001)],
].flat()

/** One of these, which stand in groups for the eye alone. */
export const among = <T>(...groups: T[][]) => fc.constantFrom(...groups.flat())

const halves = fc.integer({ min: 0, max: 0xffff }).map((unit) => String.fromCharCode(unit))

/** Any text at all, lone surrogates and U+0000 among it. */
export const anyText: fc.Arbitrary<string> = fc.oneof(
  { weight: 4, arbitrary: fc.constantFrom(...infamous) },
  { weight: 3, arbitrary: fc.string({ unit: 'binary', maxLength: 20 }) },
  { weight: 2, arbitrary: fc.string({ unit: 'grapheme', maxLength: 20 }) },
  { weight: 1, arbitrary: fc.string({ unit: halves, maxLength: 8 }) },
)

/** As JSON: here and there a character is written as an escape, as it may be. */
const quoted = (texts: fc.Arbitrary<string>) =>
  fc.tuple(texts, fc.nat({ max: 7 })).map(([text, step]) => {
    const json = JSON.stringify(text)
    if (step !== 1) return json
    const escape = (char: string) => `\\u${char.charCodeAt(0).toString(16).padStart(4, '0')}`
    return json.replaceAll(/\\u.{4}|\\.|./gs, (part) =>
      part.length > 1 || part === '"' ? part : escape(part),
    )
  })

const digits = (most: number) =>
  fc.string({ unit: fc.nat({ max: 9 }).map(String), minLength: 1, maxLength: most })

/** A number as JSON may write it, also where no double can hold it. */
const numeral: fc.Arbitrary<string> = fc.oneof(
  among(
    ['0', '-0', '0.0', '-1', '1', '1.0', '1e0', '1E+2', '-1e-7', '1e400', '-1e400', '1e-400'],
    ['0.30000000000000004', '12.5', '12.345', '9999999999.99', '9999999999.994', '1e10', '5e-324'],
    ['2147483647', '2147483648', '-2147483648', '9007199254740993', '9223372036854775808', '1e308'],
    ['1.7976931348623159e308', '0.1e1', '1234567890123456789012345678901234567890'],
  ),
  fc.integer().map(String),
  fc.double({ noNaN: true, noDefaultInfinity: true }).map((value) => JSON.stringify(value)),
  fc.tuple(fc.nat(), fc.nat({ max: 99 })).map(([whole, cents]) => `${whole}.${cents}`),
  digits(40).map((text) => text.replace(/^0+(?=\d)/, '')),
)

const scalar = fc.oneof(
  { weight: 3, arbitrary: quoted(anyText) },
  { weight: 3, arbitrary: numeral },
  { weight: 1, arbitrary: fc.constantFrom('null', 'true', 'false') },
)

type Member = [name: string, value: string]
const toObject = (members: Member[]) =>
  `{${members.map(([name, value]) => `${name}:${value}`).join()}}`

const deep = fc
  .tuple(fc.constantFrom(50, 98, 99, 100, 101, 500, 3000), fc.constantFrom('[', '{"a":'))
  .map(([levels, open]) => `${open.repeat(levels)}1${(open === '[' ? ']' : '}').repeat(levels)}`)

/** Any JSON as text: members that come twice, and numbers and depths that no program would write. */
export const anyJson: fc.Arbitrary<string> = fc.letrec<{ json: string }>((tie) => ({
  json: fc.oneof(
    { maxDepth: 4, depthSize: 'small' },
    { weight: 4, arbitrary: scalar },
    {
      weight: 2,
      arbitrary: fc.array(tie('json'), { maxLength: 5 }).map((list) => `[${list.join()}]`),
    },
    {
      weight: 2,
      arbitrary: fc.array(fc.tuple(quoted(anyText), tie('json')), { maxLength: 5 }).map(toObject),
    },
    { weight: 1, arbitrary: deep },
  ),
})).json

const freeObject = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.array(fc.tuple(quoted(anyText), anyJson), { maxLength: 6 }).map(toObject),
  },
  { weight: 1, arbitrary: deep.map((json) => `{"deep":${json}}`) },
  {
    weight: 1,
    arbitrary: fc
      .tuple(
        fc.constantFrom('x', 'é', '"', '\\', '\u0001', ': ,', '1e300'),
        fc.integer({ min: -9, max: 9 }),
      )
      .map(([unit, more]) => {
        const bytes = JSON.stringify(unit).length - 2
        return `{"a":${JSON.stringify(unit.repeat((16_376 + more) / bytes))}}`
      }),
  },
  {
    weight: 1,
    arbitrary: fc.nat({ max: 400 }).map((more) => `{"a":[${'1,'.repeat(8000 + more)}1]}`),
  },
)

/** Text that is fit, or near it: up to a length, and just beyond. */
const textNear = (most: number) =>
  fc.oneof(
    { weight: 3, arbitrary: fc.string({ unit: 'grapheme', minLength: 1, maxLength: 12 }) },
    { weight: 2, arbitrary: anyText },
    {
      weight: 1,
      arbitrary: fc
        .tuple(fc.constantFrom('x', 'é', '😀', ' '), fc.integer({ min: -1, max: 1 }))
        .map(([unit, more]) => unit.repeat(most + more)),
    },
  )

const amount = fc
  .tuple(fc.nat({ max: 99_999 }), fc.nat({ max: 99 }))
  .map(([whole, cents]) => `${whole}.${String(cents).padStart(2, '0')}`)

/** Of each field values as JSON, most of them fit. */
export const fields: Record<string, fc.Arbitrary<string>> = {
  sku: fc.oneof(
    { weight: 6, arbitrary: quoted(textNear(64)) },
    { weight: 2, arbitrary: fc.constant('null') },
    { weight: 1, arbitrary: anyJson },
  ),
  name: fc.oneof(
    { weight: 8, arbitrary: quoted(textNear(200)) },
    { weight: 1, arbitrary: anyJson },
  ),
  description: fc.oneof(
    { weight: 5, arbitrary: quoted(textNear(5000)) },
    { weight: 2, arbitrary: fc.constant('null') },
    { weight: 1, arbitrary: anyJson },
  ),
  price: fc.oneof(
    { weight: 5, arbitrary: amount.map((text) => String(Number(text))) },
    { weight: 3, arbitrary: amount.map((text) => JSON.stringify(text)) },
    { weight: 2, arbitrary: numeral },
    { weight: 1, arbitrary: numeral.map((text) => JSON.stringify(text)) },
    { weight: 1, arbitrary: anyJson },
  ),
  currency: fc.oneof(
    { weight: 6, arbitrary: fc.stringMatching(/^[A-Z]{3}$/).map((text) => JSON.stringify(text)) },
    {
      weight: 1,
      arbitrary: fc.stringMatching(/^[A-Za-z]{2,4}$/).map((text) => JSON.stringify(text)),
    },
    { weight: 1, arbitrary: anyJson },
  ),
  stock: fc.oneof(
    { weight: 5, arbitrary: fc.nat().map(String) },
    { weight: 2, arbitrary: numeral },
    { weight: 1, arbitrary: anyJson },
  ),
  attributes: fc.oneof({ weight: 6, arbitrary: freeObject }, { weight: 1, arbitrary: anyJson }),
}

/** Fields with a text of their own for each place where requests run side by side, so that none takes a sku of another. */
const ownSku = (mark: string) =>
  fields['sku']!.map((json) => {
    const value: unknown = JSON.parse(json)
    if (typeof value !== 'string' || value === '') return json
    return JSON.stringify(Array.from(value).with(-1, mark).join(''))
  })

const extra: fc.Arbitrary<Member> = fc.oneof(
  fc.tuple(fc.constantFrom('"id"', '"version"', '"created_at"', '"updated_at"'), anyJson),
  fc.tuple(quoted(anyText), anyJson),
)

/**
 * An object with fields of a product, as JSON: in any order, now and then one twice, one that is
 * unknown, one that is not fit. `mark` ends each sku.
 */
export function productJson(mark: string, isPatch = false): fc.Arbitrary<string> {
  const own = { ...fields, sku: ownSku(mark) }
  const one = (name: string) =>
    fc.tuple(fc.constant(JSON.stringify(name)), own[name as keyof typeof own]!)
  const required = isPatch ? [] : ['name', 'price']
  const optional = Object.keys(own).filter((name) => !required.includes(name))
  const members = fc
    .tuple(
      fc.tuple(...required.map(one)),
      fc.shuffledSubarray(optional).chain((names) => fc.tuple(...names.map(one))),
      fc.array(fc.oneof({ weight: 3, arbitrary: extra }, { weight: 1, arbitrary: one('price') }), {
        maxLength: 1,
      }),
      fc.nat({ max: 3 }),
    )
    // Most have nothing more: otherwise hardly any would be fit.
    .map(([some, others, more, chance]) => [...some, ...others, ...(chance === 0 ? more : [])])
  return fc.oneof(
    { weight: 20, arbitrary: members.map(toObject) },
    { weight: 1, arbitrary: anyJson },
  )
}

/** The text with something wrong in it: cut, doubled, changed, or with something put in. */
export const spoilt = (texts: fc.Arbitrary<string>): fc.Arbitrary<string> =>
  fc
    .tuple(texts, fc.nat(), fc.nat({ max: 4 }), fc.nat({ max: 3 }), fc.constantFrom(...spoilers))
    .map(([text, place, length, way, spoiler]) => {
      const at = place % (text.length + 1)
      if (way === 0) return text.slice(0, at)
      if (way === 1) return text.slice(0, at) + text.slice(at + length)
      if (way === 2) return text.slice(0, at) + spoiler + text.slice(at)
      return text.slice(0, at) + spoiler + text.slice(at + length)
    })

const spoilers = [
  ['{', '}', '[', ']', ',', ':', '"', '\\', '\\u', '\\ud800', "'", '0', '-', '.', 'e', '+', 'NaN'],
  ['\0', '\n', '\r', '\t', '\u00a0', '\ufeff', '//', '/**/', 'null', 'é', '😀', '\u2028', '\u001f'],
].flat()
