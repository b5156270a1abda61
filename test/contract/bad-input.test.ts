// Holds that no input, however bad, gets anything but the promised answer, and that nothing of it is kept.
import { gzipSync } from 'node:zlib'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { expectProblem, product, raw, type Api, type Response } from '../support/api.ts'
import type { TestDatabase } from '../support/database.ts'
import { startTarget, type Target } from '../support/target.ts'

const MIB = 1024 * 1024
const JSON_TYPE = { 'content-type': 'application/json' }

let api: Api
let url: string
let runtime: Target['runtime']
let database: TestDatabase
/** The product that bad requests aim at; its id is 1. */
const victim = '/products/1'
let untouched: string

beforeAll(async () => {
  ;({ api, url, runtime, database } = await startTarget())
  await api.post('/products', product({ attributes: { kept: 'x'.repeat(10_000) } }))
  for (let n = 0; n < 3; n++) await api.post('/products', product())
  untouched = await everything()
})

/** What the table holds, in one value. */
async function everything() {
  const [row] = await database.sql<{ rows: string }[]>`
    select string_agg(md5(product::text), ' ' order by id) as rows from products as product`
  return row!.rows
}

async function expectUntouched() {
  const before = untouched
  // A test that fails here is not to take the others with it.
  untouched = await everything()
  expect(untouched).toBe(before)
}

const quote = (text: unknown) => JSON.stringify(text)

/** The JSON of an object, written by hand for values that JSON.stringify does not write. */
function objectOf(members: Record<string, string>) {
  return `{${Object.entries(members)
    .map(([name, json]) => `${quote(name)}:${json}`)
    .join(',')}}`
}

type Writing = 'POST' | 'PUT' | 'PATCH'

/** Sends one field, as JSON, with all else that the method needs and that would change something. */
function send(method: Writing, members: Record<string, string>, path = victim) {
  const rest: Record<string, string> =
    method === 'PATCH' ? { stock: '99' } : { name: '"Changed"', price: '99' }
  const body = objectOf({ ...rest, ...members })
  return api.request(method, method === 'POST' ? '/products' : path, { body, headers: JSON_TYPE })
}

const pointers = (answer: Response): string[] =>
  expectProblem(answer, 422, 'validation').errors.map((fault: { pointer: string }) => fault.pointer)

const parameters = (answer: Response): string[] =>
  expectProblem(answer, 422, 'validation').errors.map(
    (fault: { parameter: string }) => fault.parameter,
  )

/** For the titles of tests. */
const short = (text: string) => (text.length > 40 ? `${text.slice(0, 20)}… (${text.length})` : text)
const titled = (texts: string[]) => texts.map((text): [string, string] => [short(text), text])

/** For tables of what has no space in it. */
const words = (text: string) => text.split(' ')

const emoji = (count: number) => '😀'.repeat(count)

/** An object whose compact JSON has so many bytes. */
function attributesOf(bytes: number, unit = 'x') {
  const unitBytes = Buffer.byteLength(quote(unit)) - 2
  const rest = bytes - Buffer.byteLength('{"":""}')
  const json = `{"${'k'.repeat(rest % unitBytes)}":${quote(unit.repeat(rest / unitBytes))}}`
  expect(Buffer.byteLength(json)).toBe(bytes)
  return json
}

/** Attributes of so many levels, themselves being the first. */
const nested = (levels: number) => `${'{"a":'.repeat(levels - 1)}{}${'}'.repeat(levels - 1)}`
const nestedLists = (levels: number) => `{"a":${'['.repeat(levels - 1)}${']'.repeat(levels - 1)}}`

describe('a field at its limits is taken and given back', () => {
  afterAll(async () => {
    untouched = await everything()
  })

  test.concurrent.each<[label: string, field: string, json: string, back?: unknown]>([
    ['sku of 1 character', 'sku', '"X"'],
    ['sku of 1 space', 'sku', '" "'],
    ['sku of 64 characters', 'sku', quote('x'.repeat(64))],
    ['sku of 64 emoji', 'sku', quote(emoji(64))],
    ['name of 1 character', 'name', '"X"'],
    ['name of 200 characters', 'name', quote('x'.repeat(200))],
    ['name of 200 emoji', 'name', quote(emoji(200))],
    ['name of 200 emoji between spaces', 'name', quote(` ${emoji(200)} \n`), emoji(200)],
    ['description that is empty', 'description', '""'],
    ['description of 5,000 characters', 'description', quote('x'.repeat(5000))],
    ['description of 5,000 emoji', 'description', quote(emoji(5000))],
    ['description with escapes', 'description', String.raw`"\u0001\ud83d\ude00\/\b\t"`],
    ['price 0', 'price', '0'],
    ['price with zeros after its decimals', 'price', '12.500000', 12.5],
    ['price with an exponent', 'price', '1.25e1', 12.5],
    ['the largest price', 'price', '9999999999.99'],
    ['the largest price as a string', 'price', '"9999999999.99"', 9_999_999_999.99],
    ['the first currency', 'currency', '"AAA"'],
    ['the last currency', 'currency', '"ZZZ"'],
    ['stock 0', 'stock', '0'],
    ['stock as a number with a fraction of 0', 'stock', '5.0'],
    ['the largest stock', 'stock', '2147483647'],
    ['attributes of 16,384 bytes', 'attributes', attributesOf(16_384)],
    ['attributes of 16,384 bytes in emoji', 'attributes', attributesOf(16_384, '😀')],
    ['attributes of 16,384 bytes in quotes', 'attributes', attributesOf(16_384, '"')],
    ['attributes of 16,384 bytes like JSON', 'attributes', attributesOf(16_384, '": ", \\ ')],
    [
      'attributes of 16,384 bytes in control characters',
      'attributes',
      attributesOf(16_384, '\u0001'),
    ],
    ['attributes of many members', 'attributes', quote({ a: Array(8000).fill(1) })],
    ['attributes of 100 levels', 'attributes', nested(100)],
    ['attributes of 100 levels of lists', 'attributes', nestedLists(100)],
    [
      'attributes with very large and small numbers',
      'attributes',
      '{"a":1e308,"b":[-1e308,5e-324]}',
    ],
    ['attributes with the largest safe integer', 'attributes', '{"a":9007199254740991}'],
    ['attributes with a surrogate pair', 'attributes', String.raw`{"\ud83d\ude00":"\ud83d\ude00"}`],
  ])('%s', async (_, field, json, back = JSON.parse(json)) => {
    const { headers } = await api.post('/products', { name: 'At the limit', price: 1 })
    const path = headers['location']!
    const answers = [await send('PATCH', { [field]: json }, path)]
    answers.push(await send('PUT', { [field]: json }, path))
    // A sku is taken but once.
    await api.delete(path)
    answers.push(await send('POST', { [field]: json }))
    expect(answers.map(({ status }) => status)).toEqual([200, 200, 201])
    for (const { body } of answers) expect(body[field]).toEqual(back)
  })
})

describe('a field beyond its rule is refused', () => {
  afterEach(expectUntouched)

  const unstorable = [
    String.raw`"\u0000"`,
    String.raw`"a\u0000b"`,
    String.raw`"\ud800"`,
    String.raw`"\udfff"`,
    String.raw`"a\ude00\ud83db"`,
    String.raw`"\ud83d\ud83d\ude00"`,
  ]
  const noStrings = words('5 true [] ["x"] {}')

  const refused: Record<string, string[]> = {
    sku: ['""', quote('x'.repeat(65)), quote(emoji(65)), ...noStrings, ...unstorable],
    name: [
      ...words('"" null'),
      ...noStrings,
      ...unstorable,
      '" "',
      quote('\t\n\u00a0\u3000\u2028\ufeff'),
      quote('x'.repeat(201)),
      quote(emoji(201)),
      quote(`  ${'x'.repeat(201)}  `),
    ],
    description: [
      ...noStrings,
      ...unstorable,
      quote('x'.repeat(5001)),
      quote(emoji(5001)),
      quote('x'.repeat(MIB - 200)),
    ],
    price: [
      ...words('-0.01 -1 10000000000 9999999999.995 9999999999.999 1e10 1e21 9007199254740993'),
      ...words('0.001 0.009 12.345 1e-3 1e-7 1e308 1e400 -1e400 null true [] [1] {}'),
      ...words('"-0.01" "-1" "10000000000" "10000000000.00" "9999999999.991" "0.001" "12.345"'),
      ...words('"12.500" "" "1\\n" "1,5" "1_000" ".5" "5." "+1" "1e2" "0x10" "NaN" "Infinity"'),
      ...words('"-Infinity" "١" "１" "12.50\\u0020EUR" "null" "1\\u0000" "\\ud800"'),
      '" "',
      '" 1"',
      '"1 "',
      '9'.repeat(400),
      quote('9'.repeat(10_000)),
      `0.${'0'.repeat(300)}1`,
      `"0.${'0'.repeat(400)}1"`,
    ],
    currency: [
      ...words('"" "US" "USDX" "usd" "Usd" "USD\\n" "US1" "ÜSD" "ＵＳＤ" "𝐔𝐒𝐃" "U\\u0000D"'),
      ...noStrings,
      ...unstorable,
      '" USD"',
      '"USD "',
      quote('USD'.repeat(10_000)),
    ],
    stock: [
      ...words('-1 2147483648 -2147483649 0.5 1.0000001 1e10 1e308 1e400 -1e400'),
      ...words('9007199254740993 18446744073709551616 "5" "" true [] [5] {}'),
    ],
    attributes: [
      ...words('[] "{}" 5 true [{}]'),
      attributesOf(16_385),
      attributesOf(16_385, '😀'),
      attributesOf(16_385, '"'),
      attributesOf(16_385, '": ", \\ '),
      quote({ a: Array(8191).fill(1) }),
      nested(101),
      nestedLists(101),
      nested(100_000),
      nestedLists(100_000),
      '{"a":1e400}',
      '{"a":[{"b":-1e400}]}',
      `{"a":${'9'.repeat(400)}}`,
      // Small as it was sent, not so written out, which is how PostgreSQL keeps it.
      `{"a":[${Array(60).fill('1e308').join(',')}]}`,
      ...unstorable.map((json) => `{"a":${json}}`),
      ...unstorable.map((json) => `{"a":[1,[${json}]]}`),
      ...unstorable.map((json) => `{${json}:1}`),
      ...unstorable.map((json) => `{"a":{"b":{${json}:{}}}}`),
    ],
  }

  const cases = Object.entries(refused).flatMap(([field, values]) =>
    values.map((json): [string, string, string] => [field, short(json), json]),
  )

  test.concurrent.each(cases)('%s: %s', async (field, _, json) => {
    for (const method of ['POST', 'PUT', 'PATCH'] as const) {
      const places = pointers(await send(method, { [field]: json }))
      if (field === 'attributes') {
        expect(places).toEqual([expect.stringMatching(/^#\/attributes(\/|$)/)])
      } else expect(places, method).toEqual([`#/${field}`])
    }
  })

  test.each(['currency', 'stock', 'attributes'])('%s: null, but in a patch', async (field) => {
    for (const method of ['POST', 'PUT'] as const) {
      expect(pointers(await send(method, { [field]: 'null' }))).toEqual([`#/${field}`])
    }
  })

  test('attributes that get too large by merging', async () => {
    const more = quote({ more: 'x'.repeat(10_000) })
    expect(pointers(await send('PATCH', { attributes: more }))).toEqual(['#/attributes'])
  })

  test('with the code and detail of the contract', async () => {
    const { errors } = expectProblem(await send('POST', { price: '-0.01' }), 422, 'validation')
    expect(errors).toEqual([
      { pointer: '#/price', code: 'too_small', detail: 'must be at least 0' },
    ])
  })

  test('at its exact place, also deep inside attributes', async () => {
    const attributes = String.raw`{"a/b":{"~ä":[0,{"":"\u0000"}]}}`
    for (const method of ['POST', 'PUT', 'PATCH'] as const) {
      expect(pointers(await send(method, { attributes }))).toEqual([
        '#/attributes/a~1b/~0%C3%A4/1/',
      ])
    }
  })

  test('together with every other fault', async () => {
    const faults = {
      sku: '""',
      name: '" "',
      description: '5',
      price: '-1',
      currency: '"usd"',
      stock: '1.5',
      attributes: String.raw`{"a":"\u0000","b":["\ud800",{"c":1e400}],"d":1}`,
      colour: '1',
      constructor: '1',
    }
    const places =
      'attributes/a attributes/b/0 attributes/b/1/c colour constructor currency description name ' +
      'price sku stock'
    const expected = words(places).map((place) => `#/${place}`)
    for (const method of ['POST', 'PUT', 'PATCH'] as const) {
      expect(pointers(await send(method, faults)).toSorted()).toEqual(expected)
    }
  })

  test('when it is required and left out', async () => {
    for (const [body, missing] of [
      ['{}', ['#/name', '#/price']],
      ['{"name":"X"}', ['#/price']],
      ['{"price":1,"stock":-1}', ['#/name', '#/stock']],
    ] as const) {
      for (const [method, path] of [
        ['POST', '/products'],
        ['PUT', victim],
      ] as const) {
        const answer = await api.request(method, path, { body, headers: JSON_TYPE })
        expect(pointers(answer).toSorted()).toEqual(missing)
      }
    }
  })
})

describe('an unknown field is refused', () => {
  afterEach(expectUntouched)

  test.each([
    ['"colour"', '#/colour'],
    ['"Name"', '#/Name'],
    ['"name "', '#/name%20'],
    ['"__proto__"', '#/__proto__'],
    ['"constructor"', '#/constructor'],
    ['"prototype"', '#/prototype'],
    ['"toString"', '#/toString'],
    ['"hasOwnProperty"', '#/hasOwnProperty'],
    ['""', '#/'],
    ['"0"', '#/0'],
    ['"a/b~c"', '#/a~1b~0c'],
    ['"ä%"', '#/%C3%A4%25'],
    ['"createdAt"', '#/createdAt'],
    [String.raw`"\u0000"`, '#/%00'],
    [String.raw`"\ud800"`, '#/%EF%BF%BD'],
  ])('%s', async (name, pointer) => {
    for (const value of ['null', '{"name":"Polluted","price":1}']) {
      for (const [method, path, rest] of [
        ['POST', '/products', '"name":"X","price":1'],
        ['PUT', victim, '"name":"X","price":1'],
        ['PATCH', victim, '"stock":99'],
      ] as const) {
        const body = `{${rest},${name}:${value}}`
        const answer = await api.request(method, path, { body, headers: JSON_TYPE })
        expect(pointers(answer), `${method} ${body}`).toEqual([pointer])
      }
    }
  })

  test('also when there are very many', async () => {
    const many = Object.fromEntries(Array.from({ length: 50_000 }, (_, n) => [`f${n}`, '1']))
    expect(pointers(await send('POST', many)).length).toBeGreaterThanOrEqual(100)
  })
})

describe('a body', () => {
  afterEach(expectUntouched)

  /** A body that goes to each route that takes one. */
  async function everywhere(
    body: string | Uint8Array,
    headers: Record<string, string> = JSON_TYPE,
  ) {
    return [
      await api.post('/products', body, headers),
      await api.put(victim, body, headers),
      await api.patch(victim, body, headers),
    ]
  }

  test.concurrent.each(
    titled([
      ...words('null [] [{}] [{"name":"X","price":1}] 1 0 -1 1e400 "x" "" "\\u0000" true false'),
      ' null ',
      `${'['.repeat(100_000)}${']'.repeat(100_000)}`,
    ]),
  )('%s is JSON but no object', async (_, body) => {
    for (const answer of await everywhere(body)) expect(pointers(answer)).toEqual(['#'])
  })

  test.concurrent.each(
    titled([
      ...words(
        '{ } [ [1,] {"name"} {"name":} {"name":"X","price":1 {"name":"X",} {"name":"X} {}{}',
      ),
      ...words(`{'name':'X'} {name:"X"} {"price":01} {"price":+1} {"price":.5} {"price":1.}`),
      ...words('{"price":0x10} {"price":NaN} {"price":Infinity} {"price":-} {"price":1e}'),
      ...words(
        '{"name":"a\nb"} {"name":"\u0000"} {"name":"\\x"} {"name":"\\u12"} {}\u0000 \u00a0{}',
      ),
      ...words('{}/**/ //\n{} undefined name=X&price=1 <a/> True'),
      '',
      ' ',
      '{} x',
      '{"name":"X" "price":1}',
      '['.repeat(100_000),
      '{"a":'.repeat(50_000),
    ]),
  )('%s is no JSON', async (_, body) => {
    for (const answer of await everywhere(body)) {
      expect(expectProblem(answer, 400, 'malformed')).not.toHaveProperty('errors')
    }
  })

  test.concurrent.each([
    ['a byte that UTF-8 does not have', [0xff]],
    ['a continuation without a start', [0x80]],
    ['a character that is cut off', [0xe2, 0x82]],
    ['U+0000 written in two bytes', [0xc0, 0x80]],
    ['a slash written in two bytes', [0xc0, 0xaf]],
    ['a surrogate', [0xed, 0xa0, 0x80]],
    ['a pair of surrogates', [0xed, 0xa0, 0xbd, 0xed, 0xb8, 0x80]],
    ['a code point beyond U+10FFFF', [0xf4, 0x90, 0x80, 0x80]],
    ['ISO 8859-1', [0xe4]],
  ])('with %s is not UTF-8', async (_, bytes) => {
    for (const [before, after] of [
      ['{"name":"X","price":1,"description":"a', 'z"}'],
      ['{"name":"X","price":1}', ''],
    ] as const) {
      const body = Buffer.concat([Buffer.from(before), Buffer.from(bytes), Buffer.from(after)])
      for (const answer of await everywhere(body)) expectProblem(answer, 400, 'malformed')
    }
  })

  test('in UTF-16 is not UTF-8', async () => {
    const body = Buffer.from('\ufeff{"name":"X","price":1}', 'utf16le')
    for (const answer of await everywhere(body)) expectProblem(answer, 400, 'malformed')
  })

  test('may begin with a byte order mark, as RFC 8259 allows', async () => {
    const posted = await api.post('/products', '\ufeff{"name":"BOM","price":1}', JSON_TYPE)
    expect(posted.status, posted.text).toBe(201)
    await api.delete(posted.headers['location']!)
    for (const answer of await everywhere('{"name":"X",\ufeff"price":1}')) {
      expectProblem(answer, 400, 'malformed')
    }
  })

  const valid = '{"name":"X","price":1}'

  test.concurrent.each([
    undefined,
    '',
    '*/*',
    'json',
    'text/plain',
    'text/json',
    'text/plain; application/json',
    'application/*',
    'application/jsonx',
    'application/json-patch+json',
    'application/problem+json',
    'application/xml',
    'application/x-www-form-urlencoded',
    'application/json, text/plain',
    'multipart/form-data; boundary=x',
    'application/json; charset=iso-8859-1',
    'application/json; charset=latin1',
    'application/json; charset="utf-16"',
    'application/json; charset=',
  ])('of type %s is refused', async (type) => {
    const headers: Record<string, string> = type === undefined ? {} : { 'content-type': type }
    for (const body of [valid, '{']) {
      for (const answer of await everywhere(body, headers)) {
        expectProblem(answer, 415, 'unsupported_media_type')
      }
    }
  })

  test('that is a merge patch is for PATCH', async () => {
    const type = { 'content-type': 'application/merge-patch+json' }
    for (const answer of [
      await api.post('/products', valid, type),
      await api.put(victim, valid, type),
    ]) {
      expectProblem(answer, 415, 'unsupported_media_type')
    }
  })

  test.each(['gzip', 'x-gzip', 'deflate', 'br', 'gzip, identity', 'nonsense'])(
    'with content encoding %s is refused',
    async (encoding) => {
      const headers = { ...JSON_TYPE, 'content-encoding': encoding }
      for (const body of [gzipSync(valid), valid]) {
        for (const answer of await everywhere(body, headers)) {
          expectProblem(answer, 415, 'unsupported_media_type')
        }
      }
    },
  )

  test('that is missing is refused', async () => {
    for (const [method, path] of [
      ['POST', '/products'],
      ['PUT', victim],
      ['PATCH', victim],
    ] as const) {
      expectProblem(await api.request(method, path), 415, 'unsupported_media_type')
      expectProblem(await api.request(method, path, { headers: JSON_TYPE }), 400, 'malformed')
    }
  })
})

describe('the size of a body', () => {
  afterEach(expectUntouched)

  /** A valid product in so many bytes, most of them white space. */
  const sized = (bytes: number) => Buffer.from('{"name":"Sized","price":1}'.padEnd(bytes))

  /** Sends it without saying how long it will be. */
  async function* inChunks(bytes: Buffer) {
    for (let at = 0; at < bytes.length; at += 65_536) yield bytes.subarray(at, at + 65_536)
  }

  const ways: [string, (bytes: Buffer) => unknown][] = [
    ['a length', (bytes) => bytes],
    ['chunks', inChunks],
  ]

  test.each(ways)('may be 1 MiB, sent with %s', async (_, encode) => {
    const posted = await api.post('/products', encode(sized(MIB)), JSON_TYPE)
    expect(posted.status, posted.text).toBe(201)
    const path = posted.headers['location']!
    const put = await api.put(path, encode(sized(MIB)), JSON_TYPE)
    const patched = await api.patch(path, encode(sized(MIB)), JSON_TYPE)
    expect([put.status, patched.status]).toEqual([200, 200])
    await api.delete(path)
  })

  test.each(ways)('may be no more, sent with %s', async (_, encode) => {
    for (const bytes of [MIB + 1, 2 * MIB, 9 * MIB]) {
      for (const [method, path] of [
        ['POST', '/products'],
        ['PUT', victim],
        ['PATCH', victim],
      ] as const) {
        const body = encode(sized(bytes))
        expectProblem(
          await api.request(method, path, { body, headers: JSON_TYPE }),
          413,
          'too_large',
        )
        // The connection is as good as before, or the server has ended it properly.
        expect((await api.get(victim)).status).toBe(200)
      }
    }
  })

  /** The start of a request with a body, to be sent as it is. */
  const head = (header: string) =>
    `POST /products HTTP/1.1\r\nHost: ${new URL(url).host}\r\n` +
    `Content-Type: application/json\r\n${header}\r\n\r\n`

  test('is judged before the rest of it comes', async () => {
    // Before workerd stands a gateway of wrangler's, which passes on no answer before that.
    const promised =
      runtime === 'node' ? /^HTTP\/1\.1 413 [^]*"code":"too_large"/ : /^($|HTTP\/1\.1 413 )/
    for (const length of [MIB + 1, 1e12, Number.MAX_SAFE_INTEGER]) {
      const request = `${head(`Content-Length: ${length}`)}{`
      const { text } = await raw(url, request, { timeoutMs: 300 })
      expect(text).toMatch(promised)
    }
  })

  test('may be less than was said: nothing of it counts', async () => {
    // The 500 is the same gateway's.
    const promised = runtime === 'node' ? /^($|HTTP\/1\.1 400 )/ : /^($|HTTP\/1\.1 [45]00 )/
    for (const request of [
      `${head('Content-Length: 100')}{"name":"Cut","price":1}`,
      `${head('Transfer-Encoding: chunked')}18\r\n{"name":"Cut","price":1}\r\n`,
      `${head('Transfer-Encoding: chunked')}zz\r\n{"name":"Cut","price":1}\r\n`,
    ]) {
      const { text } = await raw(url, request, { half: true, timeoutMs: 500 })
      expect(text).toMatch(promised)
    }
    expect((await api.get(victim)).status).toBe(200)
  })
})

describe('an id', () => {
  afterEach(expectUntouched)

  const requests = (id: string) =>
    (['GET', 'PUT', 'PATCH', 'DELETE'] as const).map((method) => {
      const body = { PUT: product(), PATCH: { stock: 99 }, GET: undefined, DELETE: undefined }[
        method
      ]
      return api.request(method, `/products/${id}`, { body })
    })

  test.concurrent.each(
    titled([
      ...words('0 -1 -0 00 01 007 +1 1.0 1.5 1e3 0x1 1_000 1,2 -9223372036854775808 abc null NaN'),
      ...words(`1;drop 1' 1&2 * ~ :id {id} __proto__ 1%20 %201 1%0A %00 1%00 %2531 1%2F1 %D9%A1`),
      ...words('%EF%BC%91 %F0%9F%98%80'),
      'x'.repeat(5000),
      `-${'9'.repeat(5000)}`,
    ]),
  )('%s is no positive integer', async (_, id) => {
    for (const answer of await Promise.all(requests(id))) expect(parameters(answer)).toEqual(['id'])
  })

  test.concurrent.each(
    titled([
      ...words('9007199254740991 9007199254740992 9007199254740993 9223372036854775807'),
      ...words('9223372036854775808 18446744073709551617'),
      `1${'0'.repeat(30)}`,
      '9'.repeat(5000),
    ]),
  )('%s is the id of no product', async (_, id) => {
    for (const answer of await Promise.all(requests(id))) expectProblem(answer, 404, 'not_found')
  })

  test.concurrent.each(words('% %% %z %zz %1 1% %ff %c0%80 %ed%a0%80 %F0%9F%98 %e2%82 %u0031'))(
    '%s is no percent-encoding',
    async (id) => {
      for (const answer of await Promise.all(requests(id))) expectProblem(answer, 400, 'malformed')
    },
  )

  test('is needed', async () => {
    for (const path of ['', '/', '1/', '1/x', '1/stock/x']) {
      for (const answer of await Promise.all(requests(path)))
        expectProblem(answer, 404, 'not_found')
    }
  })
})

describe('the query of a list', () => {
  afterEach(expectUntouched)

  test.concurrent.each(
    titled([
      ...words('0 -1 101 1000 abc 1.0 1.5 1e1 0x10 null NaN Infinity 1,2 1;2 99999999999999999999'),
      ...words('%2010 10%20 +10 10%0A %00 1%00 %D9%A1%D9%A0 %F0%9F%98%80'),
      ...words('1&limit=1 1&limit=2 &limit='),
      '',
      '9'.repeat(5000),
    ]),
  )('limit=%s is refused', async (_, limit) => {
    expect(parameters(await api.get(`/products?limit=${limit}`))).toEqual(['limit'])
  })

  test('limit without a value is refused', async () => {
    expect(parameters(await api.get('/products?limit'))).toEqual(['limit'])
  })

  test.concurrent.each([
    ['colour=red', ['colour']],
    ['colour', ['colour']],
    ['Limit=5', ['Limit']],
    ['limit%00=5', ['limit\0']],
    ['limit[]=5', ['limit[]']],
    ['%20limit=5', [' limit']],
    ['__proto__=1', ['__proto__']],
    ['__proto__[a]=1', ['__proto__[a]']],
    ['constructor=1', ['constructor']],
    ['toString=1', ['toString']],
    ['a=1&b=2&limit=0&a=3', ['a', 'b', 'limit']],
    ['offset=5', ['offset']],
    ['%F0%9F%98%80=1', ['😀']],
  ])('%s is refused', async (query, names) => {
    expect(parameters(await api.get(`/products?${query}`)).toSorted()).toEqual(names)
  })

  test.each([
    'limit=%',
    'limit=%zz',
    'limit=%ff',
    'cursor=%',
    'cursor=%c0%80',
    '%=1',
    '%ff=1',
    '%e2%82',
  ])('%s is no percent-encoding', async (query) => {
    for (const path of ['/products', victim]) {
      expectProblem(await api.get(`${path}?${query}`), 400, 'malformed')
    }
  })

  test('is for lists: other routes take no parameter', async () => {
    for (const query of ['limit=5', 'colour=red', '__proto__=1']) {
      const answers = [
        await api.get(`${victim}?${query}`),
        await api.post(`/products?${query}`, product()),
        await api.put(`${victim}?${query}`, product()),
        await api.patch(`${victim}?${query}`, { stock: 99 }),
        await api.delete(`${victim}?${query}`),
      ]
      for (const answer of answers) {
        expect(parameters(answer)).toEqual([query.replace(/=.*/, '')])
      }
    }
  })

  /** A cursor each way, from pages of one. */
  async function cursors(): Promise<string[]> {
    const { body: first } = await api.get('/products?limit=1')
    const { body: second } = await api.get(`/products?limit=1&cursor=${first.next_cursor}`)
    expect([first.next_cursor, second.prev_cursor]).toEqual([
      expect.any(String),
      expect.any(String),
    ])
    return [first.next_cursor, second.prev_cursor]
  }

  async function expectNoCursor(cursor: string) {
    const answer = await api.get(`/products?limit=1&cursor=${encodeURIComponent(cursor)}`)
    expect(answer.status, cursor).toBe(400)
    expect(expectProblem(answer, 400, 'malformed')).not.toHaveProperty('errors')
  }

  test('needs a cursor that has not changed in any character', async () => {
    const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_'
    for (const cursor of await cursors()) {
      for (let at = 0; at < cursor.length; at++) {
        const [before, char, after] = [cursor.slice(0, at), cursor[at]!, cursor.slice(at + 1)]
        const index = alphabet.indexOf(char)
        const others = [1, 16].map((step) => alphabet[(index + step) % alphabet.length])
        // Of two equal neighbours it is all one which is doubled or taken away.
        const texts = new Set([...others, '', char + char].map((other) => before + other + after))
        await Promise.all([...texts].map(expectNoCursor))
      }
    }
  })

  test.concurrent.each(
    titled([
      ...words('0 1 abc null {} [] = - ____ .... " 😀 \0 W10 bnVsbA WzEsIm5leHQiLDJd'),
      '',
      ' ',
      "' or 1=1 --",
      btoa('[1,"next",2]'),
      'x'.repeat(5000),
    ]),
  )('needs a cursor: %s is none', async (_, cursor) => {
    await expectNoCursor(cursor)
  })

  test('needs a cursor of this version and with its own place', async () => {
    for (const cursor of await cursors()) {
      const text = Buffer.from(cursor, 'base64url').toString()
      // What is in a cursor is nobody's business; if it is no longer this, find another way.
      expect(text).toMatch(/\[1,"(after|before)","\d+"\]$/)
      for (const changed of [
        text.replace('[1,', '[2,'),
        text.replace('[1,', '[1.0,'),
        text.replace(/"\d+"\]$/, '"9"]'),
        text.replace(/"\d+"\]$/, '9]'),
        text.replace(/"\d+"\]$/, '"x"]'),
        text.replace(/,"\d+"\]$/, ']'),
        text.replace(/\]$/, ',"1"]'),
        text.replace(/after|before/, (way) => (way === 'after' ? 'before' : 'after')),
        text.replace(/after|before/, (way) => (way === 'after' ? 'from' : 'to')),
        text.replace(/^[^[]*/, ''),
        `${text} `,
        ` ${text}`,
      ]) {
        await expectNoCursor(Buffer.from(changed).toString('base64url'))
      }
    }
  })

  test('needs a cursor that is given once', async () => {
    const [cursor] = await cursors()
    const answer = await api.get(`/products?cursor=${cursor}&cursor=${cursor}`)
    expect(parameters(answer)).toEqual(['cursor'])
  })

  test('is judged whole', async () => {
    const answer = await api.get('/products?limit=0&cursor=junk&colour=red')
    expect(parameters(answer).toSorted()).toEqual(['colour', 'limit'])
  })
})

describe('a request id that is not fit', () => {
  test.each(titled(['x'.repeat(129), 'a b', 'a;b', '<script>', 'ä', '../x', '{x}', 'a"b']))(
    'is made anew, in problems too: %s',
    async (_, id) => {
      for (const path of ['/products/0', '/products/%', '/nowhere', '/products?limit=0']) {
        const answer = await api.get(path, { 'x-request-id': Buffer.from(id).toString('latin1') })
        expect(answer.status).toBeGreaterThanOrEqual(400)
        const problem = expectProblem(answer, answer.status, answer.body.code)
        expect(problem.request_id).toMatch(/^[A-Za-z0-9._-]{1,128}$/)
        expect(answer.text).not.toContain(id)
      }
    },
  )
})

describe('a method', () => {
  afterEach(expectUntouched)

  const methods = ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS', 'PROPFIND', 'TRACE']
  const routes: Record<string, string[]> = {
    '/health': ['GET', 'HEAD'],
    '/ready': ['GET', 'HEAD'],
    '/db-test': ['GET', 'HEAD'],
    '/products': ['GET', 'HEAD', 'POST'],
    '/products/1': ['DELETE', 'GET', 'HEAD', 'PATCH', 'PUT'],
    '/products/abc': ['DELETE', 'GET', 'HEAD', 'PATCH', 'PUT'],
    '/products/9007199254740991?x=1': ['DELETE', 'GET', 'HEAD', 'PATCH', 'PUT'],
  }
  const wrong = Object.entries(routes).flatMap(([path, allowed]) =>
    methods
      .filter((method) => !allowed.includes(method))
      .map((method) => [method, path, allowed] as const),
  )

  test.concurrent.each(wrong)('%s of %s is not taken', async (method, path, allowed) => {
    for (const body of [undefined, { name: 'X', price: 1 }]) {
      if (method === 'TRACE' && body) continue
      const answer = await api.request(method, path, { body })
      expectProblem(answer, 405, 'method_not_allowed')
      expect(answer.headers['allow']!.split(/, */).toSorted()).toEqual(allowed)
    }
  })

  test.each(['GET', 'POST', 'DELETE'])('%s finds no unknown route', async (method) => {
    const paths = words(
      '/ /nowhere /products/ /product /Products //products /products//1 /products/1/ ' +
        '/products/1/x /products%2F1 /x/products/1 /__proto__ /constructor /products;x=1 /* ' +
        '/%F0%9F%98%80 /%00',
    )
    for (const path of [...paths, `/${'x'.repeat(5000)}`]) {
      const answer = await api.request(method, path)
      expect(expectProblem(answer, 404, 'not_found'), path).not.toHaveProperty('errors')
    }
  })
})

test('a burst of bad requests leaves the service as it was', async () => {
  const answers = await Promise.all(
    Array.from({ length: 100 }, (_, n) =>
      send((['POST', 'PUT', 'PATCH'] as const)[n % 3]!, { stock: '-1' }),
    ),
  )
  expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([422]))
  expect((await api.get(victim)).status).toBe(200)
  await expectUntouched()
})
