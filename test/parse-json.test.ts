// Holds that JSON is read as it should be, with any keys and escapes, and that what is none is refused.
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { parseJson } from '../src/http/parse-json.ts'

type Value = number | string | Value[] | { members: [key: string, value: Value][] }

/** Characters that a reader may take for something else. */
const key = fc
  .array(fc.constantFrom('a', '\\', 'n', 'u', '0', '1', '\n', '"', '\0', 'é', '\ud800', '/', ':'), {
    maxLength: 5,
  })
  .map((characters) => characters.join(''))
const { value } = fc.letrec<{ value: Value }>((tie) => ({
  value: fc.oneof(
    { depthSize: 'small' },
    fc.integer(),
    fc.constantFrom('a\\":"b', '\n" :', '\\'),
    fc.array(tie('value'), { maxLength: 3 }),
    fc.record({
      members: fc.array(fc.tuple(fc.oneof(key, fc.constant('__proto__')), tie('value')), {
        maxLength: 4,
      }),
    }),
  ),
}))

/** Each second character of a key, and each that needs it, as an escape. */
function written(key: string): string {
  const characters = Array.from(key, (character, index) => {
    const isFree = !JSON.stringify(character).includes('\\')
    if (isFree && index % 2 === key.length % 2) return character
    return `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`
  })
  return `"${characters.join('')}"`
}

const isList = (value: Value): value is Value[] => Array.isArray(value)

function toJson(value: Value): string {
  if (isList(value)) return `[${value.map(toJson).join()}]`
  if (typeof value !== 'object') return JSON.stringify(value)
  return `{${value.members.map(([key, of]) => `${written(key)} :${toJson(of)}`).join()}}`
}

function toValue(value: Value): unknown {
  if (isList(value)) return value.map(toValue)
  if (typeof value !== 'object') return value
  return Object.fromEntries(value.members.map(([key, of]) => [key, toValue(of)]))
}

test('keys are read as they are written, whichever came before', () => {
  fc.assert(
    fc.property(value, (value) => {
      const json = JSON.stringify(toValue(value))
      expect(JSON.stringify(parseJson(toJson(value)))).toBe(json)
    }),
    { numRuns: 2000 },
  )
})

test.each([
  String.raw`{"a\x":1}`,
  String.raw`{"a\n`,
  String.raw`{"a\n"`,
  String.raw`{"\u12":1}`,
  String.raw`{"\n" 1}`,
  String.raw`["\n":1]`,
  String.raw`"\n":1`,
  String.raw`{"a\\":}`,
  '{"\\n\n":1}',
  '\\',
])('%j is no JSON', (text) => {
  expect(() => parseJson(text)).toThrow(SyntaxError)
})

test('objects may be as deep as a body is long', () => {
  const depth = 100_000
  let value = parseJson(`${'{"\\n":'.repeat(depth)}1${'}'.repeat(depth)}`)
  for (let n = 0; n < depth; n++) value = (value as Record<string, unknown>)['\n']
  expect(value).toBe(1)
})
