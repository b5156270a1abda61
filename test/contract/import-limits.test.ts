// Where an import comes to the limits of a line and of a record, and where its values are almost JSON.
import { beforeAll, beforeEach, expect, test } from 'vitest'
import { expectProblem, type Api, type Response } from '../support/api.ts'
import type { TestDatabase } from '../support/database.ts'
import { startTarget } from '../support/target.ts'

const MIB = 1024 * 1024

let api: Api
let database: TestDatabase

beforeAll(async () => {
  ;({ api, database } = await startTarget())
})

beforeEach(async () => {
  await database.sql`truncate products`
})

const send = (type: string, body: string) =>
  api.request('POST', '/products/import', { body, headers: { 'content-type': type } })
const importNdjson = (body: string) => send('application/x-ndjson', body)
const importCsv = (body: string) => send('text/csv', body)

const faults = (answer: Response) =>
  expectProblem(answer, 422, 'validation').errors.map(
    ({ line, pointer, code }: { line: number; pointer?: string; code: string }) => [
      line,
      pointer,
      code,
    ],
  )

test('a line of 1 MiB passes with a carriage return behind it, too', async () => {
  const line = (bytes: number) => `{"name":"X","price":1}${' '.repeat(bytes - 22)}`
  for (const end of ['', '\n', '\r\n']) {
    const answer = await importNdjson(`${line(MIB)}${end}`)
    expect(answer.body, JSON.stringify(end)).toEqual({ inserted: 1, updated: 0 })
    expectProblem(await importNdjson(`${line(MIB + 1)}${end}`), 413, 'too_large')
  }
})

test('a record of more than 1 MiB that is no CSV is told, and the lines behind its first are read', async () => {
  // The quote out of place leaves another one open, so that the record goes on and on.
  const more = '\n'.padStart(1024, 'x').repeat(1100)
  const [first, ...others] = faults(await importCsv(`name,price\n"A"B",1\n${more}`))
  expect(first).toEqual([2, undefined, 'malformed'])
  expect(others[0]).toEqual([3, undefined, 'malformed'])
})

test('attributes that are no JSON are the only fault of a line that is right otherwise', async () => {
  const csv = 'name,price,attributes\nA,1,{}\nB,2,{colour: blue}\nC,3,"{""colour"": ""blue""}"\n'
  expect(faults(await importCsv(csv))).toEqual([[3, '#/attributes', 'malformed']])
  const [row] = await database.sql`select count(*)::int from products`
  expect(row!['count']).toBe(0)
})

test('what is wrong with names is told until enough is said, however many there are', async () => {
  // Each fault repeats the path to the object that has the name.
  const names = Array.from({ length: 20_000 }, (_, n) => `"${n}\\u0000":1`)
  const body = `{"name":"X","price":1,"attributes":{"${'long '.repeat(2000)}":{${names.join()}}}}`
  const headers = { 'content-type': 'application/json' }
  const start = performance.now()
  const answer = await api.request('POST', '/products', { body, headers })
  expect(expectProblem(answer, 422, 'validation').errors.length).toBeGreaterThan(0)
  expect(answer.text.length).toBeLessThan(2 * MIB)
  expect(performance.now() - start).toBeLessThan(5000)
})
