// Holds that no input stalls the service: each parser and each pattern gets the worst that fits into its limit.
import { existsSync, readFileSync } from 'node:fs'
import { beforeAll, expect, test } from 'vitest'
import { type Api, createApi } from '../support/api.ts'
import { createDatabase } from '../support/database.ts'
import type { Service } from '../support/process.ts'
import { startService } from '../support/service.ts'
import { LONGEST_MS } from './promises.ts'

const MIB = 1024 * 1024
/** Of a bulk, with room for what stands around. */
const BULK = 16 * MIB - 100
/** Of an address or a header: Node takes 16 KiB of both. */
const HEAD = 15_000
/** Of the clock that counts a process's time in /proc. */
const TICK_MS = 10

const JSON_TYPE = { 'content-type': 'application/json' }

let api: Api
let service: Service

beforeAll(async () => {
  service = await startService({ DATABASE_URL: (await createDatabase()).url })
  api = createApi(service.url)
  await api.post('/products', { name: 'Target', price: 1 })
})

/** So much of the unit, with commas between, between the two. */
function filled(unit: string, bytes: number, open = '', close = ''): string {
  const count = Math.floor((bytes - open.length - close.length) / (unit.length + 1))
  return open + Array(count).fill(unit).join() + close
}

/** So many bytes of members with different names. */
function members(bytes: number, value = '1'): string {
  const list: string[] = []
  for (let room = bytes, n = 0; room > 0; n++) {
    list.push(`"${n.toString(36)}":${value}`)
    room -= list.at(-1)!.length + 1
  }
  return list.slice(0, -1).join()
}

const row = (more: string) => `{"name":"x","price":1${more}}`
const rows = (more: string) => `[${Array(1000).fill(row(more)).join()}]`
/** An import may be of any length: what counts is what its lines cost. */
const lines = (line: string) => `${line}\n`.repeat(4)

const bodies: [title: string, method: string, path: string, body: () => string][] = [
  ['a bulk of numbers', 'POST', '/products/bulk', () => filled('1', BULK, '[', ']')],
  ['a bulk of empty objects', 'POST', '/products/bulk', () => filled('{}', BULK, '[', ']')],
  ['a bulk of lists in lists', 'POST', '/products/bulk', () => '['.repeat(BULK)],
  ['a bulk of one with many fields', 'POST', '/products/bulk', () => `[{${members(BULK - 9)}}]`],
  ['a bulk of many with many fields', 'POST', '/products/bulk', () => rows(`,${members(15_900)}`)],
  [
    'a bulk with very many faults',
    'POST',
    '/products/bulk',
    () => rows(`,"attributes":{"a":[${filled('1e400', 16_300)}]}`),
  ],
  [
    'a bulk that is too deep',
    'POST',
    '/products/bulk',
    () => rows(`,"attributes":${'{"a":'.repeat(2600)}1${'}'.repeat(2600)}`),
  ],
  [
    'a bulk of escapes',
    'POST',
    '/products/bulk',
    () => `["${String.raw`\"`.repeat(BULK / 2 - 4)}"]`,
  ],
  ['a bulk of backslashes', 'POST', '/products/bulk', () => `["${'\\'.repeat(BULK - 4)}"]`],
  ['a bulk of white space', 'POST', '/products/bulk', () => ' '.repeat(BULK)],
  ['many fields', 'POST', '/products', () => `{${members(MIB - 10)}}`],
  ['many attributes', 'POST', '/products', () => row(`,"attributes":{${members(MIB - 99)}}`)],
  ['a name of spaces', 'POST', '/products', () => `{"price":1,"name":"a${' '.repeat(MIB - 99)}b"}`],
  ['digits', 'POST', '/products', () => `{"name":"x","price":"${'1'.repeat(MIB - 99)}x"}`],
  ['decimals', 'POST', '/products', () => `{"name":"x","price":"0.${'1'.repeat(MIB - 99)}x"}`],
  ['open lists', 'POST', '/products', () => '['.repeat(MIB)],
  [
    'a patch of many objects',
    'PATCH',
    '/products/1',
    () => `{"attributes":{${members(MIB - 99, '{}')}}}`,
  ],
  [
    'a patch of deep objects',
    'PATCH',
    '/products/1',
    () => `{"attributes":{${members(MIB - 999, `${'{"a":'.repeat(98)}null${'}'.repeat(98)}`)}}}`,
  ],
]

test.each(bodies)('%s', async (_, method, path, body) => {
  await expectQuick(method, path, JSON_TYPE, body())
})

test.each<[title: string, type: string, line: string]>([
  ['lines of many fields', 'application/x-ndjson', `{${members(MIB - 20)}}`],
  ['lines of open lists', 'application/x-ndjson', '['.repeat(MIB - 10)],
  ['lines of quotes', 'text/csv', '"'.repeat(MIB - 10)],
  [
    'a quote that all lines are within, and bad ones',
    'text/csv',
    `x"\n${'x""\n'.repeat(99)}${'1\n'.repeat(MIB / 2 - 500)}"`,
  ],
  ['quotes that are open', 'text/csv', `"${'\n'.repeat(MIB / 16)}"x`],
  ['odd quotes', 'text/csv', 'a"b\n'.repeat(MIB / 16)],
])('an import of %s', async (_, type, line) => {
  const start = type === 'text/csv' ? 'name,price\n' : ''
  await expectQuick('POST', '/products/import', { 'content-type': type }, start + lines(line))
})

test.each<[path: string]>([
  [`/${'/'.repeat(HEAD)}`],
  [`/products/${'1/'.repeat(HEAD / 2)}`],
  [`/products/${'9'.repeat(HEAD)}x`],
  [`/products?limit=-${'1'.repeat(HEAD)}x`],
  [`/products?created_at=2026-01-01T00:00:00.${'1'.repeat(HEAD)}`],
  [`/products?price=0.${'1'.repeat(HEAD)}x`],
  [`/products?sort=${','.repeat(HEAD)}`],
  [`/products?sort=${'-'.repeat(HEAD)}`],
  [`/products?fields=${','.repeat(HEAD)}`],
  [`/products?${'a&'.repeat(HEAD / 2)}=`],
  [`/products?${'id[in]=1&'.repeat(1500)}`],
  [`/products?q=${'%41'.repeat(HEAD / 3)}%`],
  [`/products?q=${'a-'.repeat(100)}&count=exact`],
  [
    `/products?cursor=${Buffer.from(`a${'['.repeat(5000)}${']'.repeat(5000)}`).toString('base64url')}`,
  ],
  [`/products/changes?after=${'A'.repeat(HEAD)}`],
  [`/docs/${'a.'.repeat(HEAD / 2)}`],
])('%.60s…', async (path) => {
  await expectQuick('GET', path)
})

test.each<[name: string, value: string, method?: string]>([
  ['accept', 'a/b;q=0.1,'.repeat(1400)],
  ['accept', 'text/csv;q="'.repeat(1200)],
  ['accept', `a${' '.repeat(HEAD)}b`],
  ['authorization', `Bearer ${' '.repeat(HEAD)}\t`],
  ['if-none-match', '"1",'.repeat(3700)],
  ['if-none-match', `${'\t '.repeat(7000)}x`],
  ['if-none-match', `W/"${'!'.repeat(HEAD)}`],
  ['content-type', `application/json;${' ;'.repeat(7000)}`, 'POST'],
  ['content-type', `application/json;charset="${'utf-8"'.repeat(2000)}`, 'POST'],
  ['idempotency-key', 'a'.repeat(HEAD), 'POST'],
  ['x-request-id', 'a'.repeat(HEAD)],
  ['origin', `http://${'a.'.repeat(7000)}`],
])('%s: %.40s…', async (name, value, method = 'GET') => {
  const path =
    name === 'accept' ? '/products/export' : method === 'POST' ? '/products' : '/products/1'
  await expectQuick(
    method,
    path,
    { ...JSON_TYPE, [name]: value },
    method === 'POST' ? '{}' : undefined,
  )
})

/**
 * Sends it and holds the time that the service itself took, for on a busy machine everything waits;
 * where that is not told, the shortest of some tries counts.
 */
async function expectQuick(
  method: string,
  path: string,
  headers: Record<string, string> = {},
  body?: string,
) {
  const times: number[] = []
  do {
    const [start, startOfWork] = [performance.now(), workedMs()]
    const { status, text } = await api.request(method, path, { headers, body })
    expect(status, text.slice(0, 500)).toBeLessThan(500)
    times.push(Math.min(performance.now() - start, (workedMs() ?? Infinity) - (startOfWork ?? 0)))
  } while (Math.min(...times) > LONGEST_MS && times.length < 4)
  expect(Math.min(...times)).toBeLessThan(LONGEST_MS)
}

/** The time that processors have spent on the service, where the system tells it by files. */
function workedMs(): number | undefined {
  const file = `/proc/${service.process.pid}/stat`
  if (!existsSync(file)) return undefined
  const fields = readFileSync(file, 'utf8').split(') ')[1]!.split(' ')
  return (Number(fields[11]) + Number(fields[12])) * TICK_MS
}

test('while a large bulk is read, others are answered', async () => {
  const waits: number[] = []
  const body = rows(`,"attributes":{"a":[${filled('1e400', 16_300)}]}`)
  let best = Infinity
  for (let tries = 0; tries < 4 && best > LONGEST_MS; tries++) {
    let done = false
    const bulk = api.post('/products/bulk', body, JSON_TYPE).finally(() => (done = true))
    waits.length = 0
    while (!done) {
      const start = performance.now()
      await api.get('/health')
      waits.push(performance.now() - start)
    }
    expect((await bulk).status).toBe(422)
    best = Math.min(best, Math.max(...waits))
  }
  expect(best).toBeLessThan(LONGEST_MS)
})
