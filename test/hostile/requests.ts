// Requests of every route that the OpenAPI document has, and of none, made after its schemas and against them.
import { readFileSync } from 'node:fs'
import { METHODS } from 'node:http'
import fc from 'fast-check'
import { among, anyJson, anyText, productJson, spoilt } from './inputs.ts'

export interface HostileRequest {
  method: string
  target: string
  /** Values are sent byte for byte, as ISO 8859-1. */
  headers: [name: string, value: string][]
  body: Buffer | undefined
  /** In chunks of this size, or with a length. */
  chunkBytes: number | undefined
  /** It may be no HTTP, which a server may refuse without a document. */
  odd: boolean
}

interface Schema {
  $ref?: string
  type?: string | string[]
  enum?: unknown[]
  const?: unknown
  anyOf?: Schema[]
  items?: Schema
  properties?: Record<string, Schema>
  required?: string[]
  pattern?: string
  minimum?: number
  maximum?: number
}
interface Parameter {
  $ref?: string
  in: 'query' | 'path' | 'header'
  name: string
  schema: Schema
}
interface Operation {
  parameters?: Parameter[]
  requestBody?: { content: Record<string, { schema: Schema; example?: unknown }> }
}

const file = new URL('../../src/documentation/page/openapi.json', import.meta.url)
const document = JSON.parse(readFileSync(file, 'utf8')) as {
  paths: Record<string, Record<string, Operation>>
}
const METHODS_OF_REST = ['get', 'post', 'put', 'patch', 'delete']

function resolve<T extends { $ref?: string }>(value: T): T {
  if (value.$ref === undefined) return value
  let found: unknown = document
  for (const step of value.$ref.split('/').slice(1))
    found = (found as Record<string, unknown>)[step]
  return found as T
}

/** JSON as a schema has it, mostly. */
function jsonOf(given: Schema): fc.Arbitrary<string> {
  const schema = resolve(given)
  const fitting = fittingJson(schema)
  return fc.oneof({ weight: 15, arbitrary: fitting }, { weight: 1, arbitrary: anyJson })
}

function fittingJson(schema: Schema): fc.Arbitrary<string> {
  const { anyOf, type, minimum = -1e9, maximum = 1e9 } = schema
  if (anyOf) return fc.oneof(...anyOf.map(jsonOf))
  if ('const' in schema) return fc.constant(JSON.stringify(schema.const))
  if (schema.enum) return fc.constantFrom(...schema.enum.map((value) => JSON.stringify(value)))
  switch (Array.isArray(type) ? type[0] : type) {
    case 'object': {
      const { properties = {}, required = [] } = schema
      const names = Object.keys(properties)
      if (names.length === 0) return anyJson
      const optional = names.filter((name) => !required.includes(name))
      return fc
        .shuffledSubarray(optional)
        .chain((some) =>
          fc.tuple(
            ...[...required, ...some].map((name) =>
              jsonOf(properties[name]!).map((json) => `${JSON.stringify(name)}:${json}`),
            ),
          ),
        )
        .map((members) => `{${members.join()}}`)
    }
    case 'array':
      return fc
        .array(jsonOf(schema.items ?? {}), { maxLength: 4 })
        .map((items) => `[${items.join()}]`)
    case 'integer':
      return fc.oneof(
        fc.integer({ min: 0, max: 100 }).map(String),
        among([minimum - 1, minimum, maximum, maximum + 1].map(String)),
      )
    case 'number':
      return fc.oneof(
        fc.nat({ max: 9999 }).map((cents) => String(cents / 100)),
        among([minimum, maximum].map(String)),
      )
    case 'string':
      return (schema.pattern ? fc.stringMatching(new RegExp(schema.pattern)) : anyText).map(
        (text) => JSON.stringify(text),
      )
    case 'boolean':
      return fc.constantFrom('true', 'false')
    case 'null':
      return fc.constant('null')
    default:
      return anyJson
  }
}

/** As a text of an address or of a header. */
const textOf = (schema: Schema) =>
  fc.oneof(
    {
      weight: 3,
      arbitrary: jsonOf(schema).map((json) => {
        const value: unknown = JSON.parse(json)
        return typeof value === 'string' ? value : json
      }),
    },
    { weight: 1, arbitrary: anyText },
  )

const cell = fc.oneof(
  anyText.map((text) => `"${text.replaceAll('"', '""')}"`),
  fc.constantFrom('', '""', '1', '9.99', 'Mug', '{}', '"{""a"": [1, 2]}"', 'a"b', '"a"b', '"', ' '),
)
const csv = fc
  .tuple(
    fc.shuffledSubarray(['sku', 'name', 'price', 'stock', 'attributes', 'currency', 'id', 'x'], {
      minLength: 1,
    }),
    fc.array(fc.array(cell, { maxLength: 6 }), { maxLength: 5 }),
    fc.constantFrom('\n', '\r\n', '\r', '\n\n'),
  )
  .map(([header, rows, end]) => [header, ...rows].map((row) => row.join()).join(end))

const ndjson = fc
  .tuple(
    fc.array(fc.oneof(productJson('?'), fc.constantFrom('', ' ', '[]', 'null', '{')), {
      maxLength: 6,
    }),
    fc.constantFrom('\n', '\r\n', '\n\n', '\r'),
  )
  .map(([lines, end]) => lines.join(end))

/** Bytes that are UTF-8 mostly; of a text that has none, the nearest. */
const bytesOf = (texts: fc.Arbitrary<string>) =>
  fc
    .tuple(texts, fc.nat({ max: 19 }), fc.nat(), fc.constantFrom(...notUtf8))
    .map(([text, way, place, bad]) => {
      const bytes = Buffer.from(text)
      if (way > 1) return bytes
      if (way === 1) return Buffer.from(text, 'utf16le')
      const at = place % (bytes.length + 1)
      return Buffer.concat([bytes.subarray(0, at), bad, bytes.subarray(at)])
    })

const notUtf8 = [
  [0xff],
  [0x80],
  [0xc0, 0x80],
  [0xc0, 0xaf],
  [0xe2, 0x82],
  [0xed, 0xa0, 0x80],
  [0xf4, 0x90, 0x80, 0x80],
  [0xf8, 0x88, 0x80, 0x80, 0x80],
  [0x00],
  [0xef, 0xbb, 0xbf],
].map((bytes) => Buffer.from(bytes))

function bodyOf(mediaType: string, schema: Schema): fc.Arbitrary<Buffer> {
  const fitting = mediaType.endsWith('json')
    ? jsonOf(schema)
    : mediaType === 'text/csv'
      ? csv
      : ndjson
  const texts = mediaType === 'application/x-ndjson' ? ndjson : fitting
  return bytesOf(
    fc.oneof(
      { weight: 6, arbitrary: texts },
      { weight: 3, arbitrary: spoilt(texts) },
      { weight: 1, arbitrary: anyText },
    ),
  )
}

const version = fc.oneof(
  fc.constantFrom(
    '*',
    '"1"',
    '"2"',
    'W/"1"',
    '"1", "2"',
    '1',
    '"',
    '"x"',
    ',',
    '',
    '"9999999999999999"',
  ),
  fc.constantFrom(
    'W/',
    '"1""2"',
    '"1" "2"',
    ', ,"1",',
    '"\u00ff"',
    '"1"'.repeat(500),
    '"1",'.repeat(2000),
  ),
)

/** Values of headers that mean something to somebody on the way. */
const known: Record<string, fc.Arbitrary<string>> = {
  'Content-Type': among(
    ['application/json', 'application/merge-patch+json', 'application/x-ndjson', 'text/csv'],
    ['application/json; charset=utf-8', 'APPLICATION/JSON;CHARSET="UTF-8"', 'text/plain', ''],
    ['application/json; charset=utf-16', 'application/json;;;', 'multipart/form-data', '*/*'],
    ['text/csv; header=absent', 'application/json, text/csv', 'a'.repeat(4000)],
  ),
  'Content-Encoding': fc.constantFrom('identity', 'gzip', 'br', '', 'identity, identity'),
  Accept: among(
    ['*/*', 'text/csv', 'application/x-ndjson', 'text/html', 'text/csv;q=0', '', ',', ';q=', 'x'],
    ['text/csv;q=x, */*;q=-1', 'text/csv;'.repeat(300), '"', 'application/json;q=1e9', '*'],
  ),
  'If-Match': version,
  'If-None-Match': version,
  'Idempotency-Key': fc.oneof(
    fc.uuid(),
    fc.constantFrom(
      'a',
      'b',
      '',
      ' ',
      'a b',
      '\u00e9',
      'x'.repeat(255),
      'x'.repeat(256),
      '"quoted"',
    ),
  ),
  'X-Request-Id': fc.constantFrom(
    'mine',
    '',
    'a b',
    '<script>',
    'x'.repeat(128),
    'x'.repeat(129),
    '\u00e4',
  ),
  Range: fc.constantFrom('bytes=0-', 'bytes=5-1', 'bytes=0-0,1-1', 'items=0-9', 'x'),
  Expect: fc.constantFrom('100-continue', '200-ok', ''),
  Origin: fc.constantFrom('https://shop.example.com', 'null', 'https://evil.example', '*', ''),
  'Access-Control-Request-Method': fc.constantFrom('POST', 'PUT', 'x'),
  Cookie: fc.constantFrom('a=b', ';;;', '__proto__=1'),
  'X-Forwarded-Host': fc.constantFrom('evil.example', 'evil.example:99999'),
  'X-Forwarded-For': fc.constantFrom('127.0.0.1', 'x', '::1', '1.2.3.4, 5.6.7.8'),
  'X-HTTP-Method-Override': fc.constantFrom('DELETE', 'x'),
  'Accept-Encoding': fc.constantFrom('gzip', 'br;q=1', '*', 'identity;q=0'),
  'If-Modified-Since': fc.constantFrom('Thu, 01 Jan 1970 00:00:00 GMT', 'x'),
  'If-Unmodified-Since': fc.constantFrom('Thu, 01 Jan 1970 00:00:00 GMT', 'x'),
  'If-Range': version,
  TE: fc.constantFrom('trailers', 'x'),
  Via: fc.constantFrom('1.1 x', 'x'.repeat(3000)),
  'X-Long': fc.constantFrom('x'.repeat(5000), ' '.repeat(5000), '\u00ff'.repeat(5000)),
}
const strangeHeader = fc.constantFrom<[string, string][]>(
  [['Transfer-Encoding', 'gzip']],
  [['Transfer-Encoding', 'identity']],
  [['Content-Length', '-1']],
  [['Content-Length', '1e3']],
  [['Content-Length', '5, 6']],
  [['X-Control', 'a\u0001b']],
  [['X-Null', 'a\0b']],
  [['X Space', 'a']],
  [['', 'a']],
  [['X-Fold', 'a\r\n b']],
  [['X-Bare', 'a\nb']],
  [['Host', 'two.example']],
  [['Host', 'a b']],
  [['Host', '[::1']],
  [['X-Huge', 'x'.repeat(20_000)]],
  [
    ['Connection', 'Upgrade'],
    ['Upgrade', 'websocket'],
  ],
  [
    ['Connection', 'Upgrade, HTTP2-Settings'],
    ['Upgrade', 'h2c'],
    ['HTTP2-Settings', 'AAMAAABkAAQAAP__'],
  ],
  Array.from({ length: 3000 }, (_, n): [string, string] => ['X', `${n}`]),
)

export interface World {
  /** What an answer must not tell; sent as the key. */
  key: string
  /** Cursors of pages and of the feed. */
  cursors: string[]
  /** Whether what stands before the service takes only what is HTTP without any doubt. */
  polite: boolean
}

function headersOf(operation: Operation | undefined, world: World, hasBody: boolean) {
  const types = Object.keys(operation?.requestBody?.content ?? {})
  const named = (operation?.parameters ?? [])
    .map(resolve)
    .filter(
      (parameter) => parameter.in === 'header' && !(parameter.name.toLowerCase() in lowerKnown),
    )
    .map(({ name, schema }) =>
      textOf(schema).map((text): [string, string] => [name, inLatin1(text)]),
    )
  const others = Object.entries(known)
    .filter(([name]) => name !== 'Content-Type' && !(world.polite && impolite.has(name)))
    .map(([name, values]) => values.map((value): [string, string] => [name, value]))
  const type: fc.Arbitrary<string> =
    types.length > 0
      ? fc.oneof({ weight: 8, arbitrary: fc.constantFrom(...types) }, known['Content-Type']!)
      : known['Content-Type']!
  const authorization = fc.oneof(
    { weight: 20, arbitrary: fc.constant(`Bearer ${world.key}`) },
    {
      weight: 1,
      arbitrary: fc.constantFrom('', 'Bearer', 'Bearer  ', 'Basic x', 'bearer canary-9f3c'),
    },
    { weight: 1, arbitrary: fc.constant(`Bearer ${world.key}x canary-9f3c`) },
  )
  return fc
    .tuple(
      authorization,
      type,
      fc.array(fc.oneof(...named, ...others), { maxLength: 3 }),
      fc.nat({ max: 39 }),
      world.polite ? fc.constant([]) : strangeHeader,
    )
    .map(([bearer, mediaType, some, chance, strange]) => ({
      headers: [
        ['Authorization', bearer],
        ...(hasBody || chance < 3 ? [['Content-Type', mediaType]] : []),
        ...some,
        ...(chance === 39 ? strange : []),
      ] as [string, string][],
      odd: chance === 39 && strange.length > 0,
    }))
}
const lowerKnown = Object.fromEntries(Object.keys(known).map((name) => [name.toLowerCase(), true]))
const impolite = new Set([
  'Expect',
  'TE',
  'X-Long',
  'Via',
  'Content-Encoding',
  'X-Request-Id',
  'Accept-Encoding',
])
const inLatin1 = (text: string) => text.replaceAll(/[^\t -~\u0080-\u00ff]/g, '?')

const ids = fc.oneof(
  { weight: 8, arbitrary: fc.integer({ min: 1, max: 130 }).map(String) },
  {
    weight: 2,
    arbitrary: fc.constantFrom('0', '-1', '01', '9007199254740991', '9007199254740992'),
  },
  { weight: 1, arbitrary: anyText.map((text) => encodeURIComponent(text.toWellFormed())) },
)

function targetOf(path: string, operation: Operation | undefined, world: World) {
  const parameters = (operation?.parameters ?? []).map(resolve)
  const segments = path.split('/').map((segment) => {
    const name = /^\{(\w+)\}$/.exec(segment)?.[1]
    if (name === undefined) return fc.constant(segment)
    if (name === 'id') return ids
    const { schema } = parameters.find((parameter) => parameter.name === name)!
    return textOf(schema).map((text) => encodeURIComponent(text.toWellFormed()))
  })
  const queries = parameters.filter((parameter) => parameter.in === 'query')
  const pair =
    queries.length === 0
      ? fc.tuple(anyText, anyText)
      : fc.oneof(
          {
            weight: 8,
            arbitrary: fc
              .constantFrom(...queries)
              .chain(({ name, schema }) =>
                fc.tuple(
                  fc.constant(name),
                  ['cursor', 'after'].includes(name) ? cursorOf(world) : textOf(schema),
                ),
              ),
          },
          { weight: 1, arbitrary: fc.tuple(anyText, anyText) },
        )
  const pairs = fc.array(
    fc.oneof(
      {
        weight: 12,
        arbitrary: pair.map(
          ([name, value]) =>
            `${encodeURIComponent(name.toWellFormed())}=${encodeURIComponent(value.toWellFormed())}`,
        ),
      },
      {
        weight: 1,
        arbitrary: fc.constantFrom(
          '',
          '=',
          '&',
          '%',
          '%zz=1',
          'a=%ff',
          '+',
          'a=b=c',
          '?',
          'id[in]=1&'.repeat(150),
          'a&'.repeat(2000),
        ),
      },
    ),
    { maxLength: queries.length === 0 ? 1 : 4 },
  )
  return fc
    .tuple(fc.tuple(...segments), pairs, fc.nat({ max: 3 }))
    .map(([parts, query, chance]) => {
      const none = query.length === 0 || (queries.length === 0 && chance > 0)
      return parts.join('/') + (none ? '' : `?${query.join('&')}`)
    })
}

/** A real cursor, as it came or changed: also one whose checksum was made to fit. */
const cursorOf = ({ cursors }: World) =>
  fc.oneof(
    { weight: 3, arbitrary: fc.constantFrom(...cursors) },
    { weight: 2, arbitrary: spoilt(fc.constantFrom(...cursors)) },
    {
      weight: 2,
      arbitrary: spoilt(
        fc.constantFrom(...cursors).map((cursor) => Buffer.from(cursor, 'base64url').toString()),
      ).map((text) => Buffer.from(text).toString('base64url')),
    },
    { weight: 1, arbitrary: anyText },
  )

const nowhere = fc.oneof(
  among(
    [
      '/',
      '//',
      '///products',
      '/products/',
      '//products',
      '/products//1',
      '/Products',
      '/products;a=1',
    ],
    [
      '/./products',
      '/products/../health',
      '/products/%2e%2e/health',
      '/%70roducts',
      '/products%2F1',
    ],
    [
      '/products/1/stock/',
      '/products/bulk/1',
      '/docs/',
      '/docs/../openapi.json',
      '/docs/%2e%2e%2fnode.ts',
    ],
    [
      '/docs/..%5c..%5cpackage.json',
      '/favicon.ico',
      '/.env',
      '/metrics',
      '/__proto__',
      '/%',
      '/%zz',
      '/%ff',
    ],
    [
      '/products?',
      '/products??',
      '/products?&&&',
      '/products#x',
      '/products/1?#',
      '/%00',
      '/\\products',
    ],
    ['/products/1%20', '/products/%31', '/*', '/:id', '/{id}', `/${'x'.repeat(7000)}`],
    [`/${'a/'.repeat(3000)}`, `/products/${'9'.repeat(6000)}`, `/products?q=${'%41'.repeat(2000)}`],
  ),
  anyText.map((text) => `/${encodeURIComponent(text.toWellFormed())}`),
)
const oddTargets = among(
  [
    '*',
    'products',
    'http://evil.example/products',
    'http://',
    'http://[::1/products',
    '?',
    '',
    '/a b',
  ],
  [
    '/\0',
    '/products/\u00e9',
    '/\u0001',
    'ftp://x/',
    '//evil.example:99999/x',
    '/products\t',
    `/${'x'.repeat(17_000)}`,
  ],
)

/** Requests that are HTTP, but for some that are marked as `odd`. */
export function hostileRequest(world: World): fc.Arbitrary<HostileRequest> {
  const operations = Object.entries(document.paths).flatMap(([path, item]) =>
    METHODS_OF_REST.flatMap((method) =>
      item[method] ? [{ path, method, operation: item[method] }] : [],
    ),
  )
  const usual = fc.constantFrom(...operations).chain(({ path, method, operation }) => {
    const content = Object.entries(operation.requestBody?.content ?? {})
    const bodies: fc.Arbitrary<Buffer | undefined> =
      content.length > 0
        ? fc.oneof(
            {
              weight: 9,
              arbitrary: fc.oneof(...content.map(([type, { schema }]) => bodyOf(type, schema))),
            },
            { weight: 1, arbitrary: fc.constant(undefined) },
          )
        : fc.constantFrom(
            undefined,
            undefined,
            undefined,
            undefined,
            Buffer.from('{"name":"X","price":1}'),
          )
    return fc.record({
      // HEAD stands for GET, and now and then another method for any.
      method: fc.oneof(
        { weight: 10, arbitrary: fc.constant(method.toUpperCase()) },
        {
          weight: 1,
          arbitrary: fc.constantFrom(...(method === 'get' ? ['HEAD'] : ['GET', 'OPTIONS'])),
        },
      ),
      target: targetOf(path, operation, world),
      body: bodies,
      head: headersOf(operation, world, content.length > 0),
      chunkBytes: fc.constantFrom(undefined, undefined, undefined, 1000, 7),
    })
  })
  const methods = [
    'GET',
    'HEAD',
    'POST',
    'PUT',
    'PATCH',
    'DELETE',
    'OPTIONS',
    ...(world.polite ? [] : METHODS),
  ]
  const unusual = fc.record({
    method: fc.constantFrom(...methods.filter((method) => method !== 'CONNECT')),
    target: fc.oneof(
      nowhere,
      fc.constantFrom(...operations).map(({ path }) => path),
    ),
    body: fc.constantFrom(undefined, Buffer.from('{}'), Buffer.from('x'.repeat(3000))),
    head: headersOf(undefined, world, false),
    chunkBytes: fc.constantFrom(undefined, 100),
  })
  const odd = fc
    .tuple(
      unusual,
      fc.constantFrom(undefined, 'get', 'G\u00e9T', 'FOO', '', 'GET GET', 'PRI', 'x'.repeat(9000)),
      oddTargets,
    )
    .map(([request, method = request.method, target]) => ({
      ...request,
      method,
      target,
      head: { ...request.head, odd: true },
    }))
  return fc
    .oneof(
      { weight: 16, arbitrary: usual },
      { weight: 3, arbitrary: unusual },
      ...(world.polite ? [] : [{ weight: 1, arbitrary: odd }]),
    )
    .map(({ head, ...request }) => ({ ...request, ...head }))
    .filter(({ target }) => !world.polite || target.length <= MOST_POLITE_TARGET)
}

/** Of Cloudflare; what is longer never comes to a Worker (workerd by itself answers 414 from 64 KiB on). */
const MOST_POLITE_TARGET = 16 * 1024

/** What goes over the wire. */
export function toBytes(request: HostileRequest, host: string): Buffer {
  const { method, target, headers, body, chunkBytes } = request
  const lines = [`${method} ${target} HTTP/1.1`, `Host: ${host}`]
  for (const [name, value] of headers) lines.push(`${name}: ${value}`)
  const head = (framing: string[]) =>
    Buffer.from([...lines, ...framing, '', ''].join('\r\n'), 'latin1')
  if (!body) return head([])
  if (!chunkBytes) return Buffer.concat([head([`Content-Length: ${body.length}`]), body])
  const chunks: Buffer[] = [head(['Transfer-Encoding: chunked'])]
  for (let at = 0; at < body.length; at += chunkBytes) {
    const chunk = body.subarray(at, at + chunkBytes)
    chunks.push(Buffer.from(`${chunk.length.toString(16)}\r\n`), chunk, Buffer.from('\r\n'))
  }
  return Buffer.concat([...chunks, Buffer.from('0\r\n\r\n')])
}
