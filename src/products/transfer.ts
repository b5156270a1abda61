// Import and export: any number of products, streamed, in one transaction and in bounded memory.
import { Hono } from 'hono'
import { accepts } from 'hono/accepts'
import type { Sql } from '../database/connection.ts'
import { DatabaseError } from '../database/errors.ts'
import { answer } from '../http/answer.ts'
import { mediaTypeOf, takeStream } from '../http/body.ts'
import { readCsv } from '../http/csv.ts'
import type { Environment } from '../http/environment.ts'
import {
  type Body,
  discardRest,
  type Line,
  type OnChunk,
  readLines,
  readRest,
} from '../http/lines.ts'
import { startFingerprint } from '../http/fingerprint.ts'
import { parseJson } from '../http/parse-json.ts'
import { type Fault, Problem } from '../http/problem.ts'
import { streamText } from '../http/stream.ts'
import { MOST_FAULTS, toFaults, valid } from '../http/validation.ts'
import { answeringOnce, HEADER } from '../idempotency/once.ts'
import * as repository from './repository.ts'
import {
  BulkQuery,
  type ImportResult,
  NewProduct,
  productConstraints,
  productList,
} from './schema.ts'

const NDJSON = 'application/x-ndjson'
const CSV = 'text/csv'

/** With four times as many a million rows took as long, and more memory. */
const MOST_BATCH_ROWS = 250
const MOST_BATCH_CHARACTERS = 256 * 1024

const answerOnce = answeringOnce(productConstraints)

export const transfer = new Hono<Environment>()

  .post('/import', valid('query', BulkQuery), takeStream(NDJSON, CSV), async (c) => {
    const { body, signal } = c.req.raw
    const replace = c.req.valid('query').on_conflict === 'sku'
    const isCsv = mediaTypeOf(c) === CSV
    const fingerprint = startFingerprint(c)
    const digested = c.req.header(HEADER) !== undefined ? fingerprint.update : undefined
    try {
      return await answerOnce<ImportResult>(
        c,
        (work) => c.get('database').heavy().transfer(work, signal),
        async (sql) => {
          const rows = readProducts(body, isCsv, digested)
          const counts = await importProducts(sql, rows, replace)
          return {
            status: 200,
            headers: { 'content-type': 'application/json' },
            body: JSON.stringify(counts),
          }
        },
        {
          async fingerprint() {
            await readRest(body, fingerprint.update)
            return fingerprint.digest()
          },
        },
      )
    } catch (error) {
      await discardRest(body)
      throw error
    }
  })

  .get('/export', valid('query', productList.selection), async (c) => {
    const type = c.req.header('accept')
      ? accepts(c, { header: 'Accept', supports: [NDJSON, CSV, '*/*'], default: '' })
      : NDJSON
    if (type === '') throw new Problem('not_acceptable', `The export is ${NDJSON} or ${CSV}.`)
    const selection = c.req.valid('query')
    const format = type === CSV ? 'csv' : 'ndjson'
    const headers = {
      'content-type': format === 'csv' ? `${CSV}; charset=utf-8; header=present` : NDJSON,
      'content-disposition': `attachment; filename="products.${format}"`,
      vary: 'accept',
    }
    if (c.req.method === 'HEAD') return answer(c, null, 200, headers)
    return answer(
      c,
      await streamText(c, (write, signal) =>
        c
          .get('database')
          .heavy()
          .transfer(async (sql) => {
            await repository.keepSnapshot(sql)
            const read = (after: number) => repository.exportBatch(sql, format, selection, after)
            let start = format === 'csv' ? repository.csvHeader : ''
            let next = read(0)
            for (let last: number | null = 0; last !== null; start = '') {
              const batch = await next
              last = batch.last
              if (last !== null) {
                next = read(last) // while the client takes this one
                next.catch(() => {}) // it is awaited when this one is taken
              }
              await write(start + batch.text)
            }
          }, signal),
      ),
      200,
      headers,
    )
  })

/** A product as it was sent, and what is wrong with its line beyond that, if there is something. */
export interface Row {
  line: number
  /** Undefined when the line could not be parsed. */
  input?: unknown
  fault?: Omit<Fault, 'line'>
}

/**
 * Writes every row, or none. What comes after a fault is still taken to the table, and taken
 * back at the end: only it knows which skus are taken, by others or by an earlier line.
 * @param replace whether a product whose sku is known is replaced, as by PUT
 * @throws {Problem} `validation` or `conflict`, with the first 100 faults
 */
export async function importProducts(
  sql: Sql,
  bunches: AsyncIterable<Iterable<Row>>,
  replace: boolean,
): Promise<ImportResult> {
  if (replace) await repository.openStage(sql)
  const faults: Fault[] = []
  const counts: ImportResult = { inserted: 0, updated: 0 }
  let invalid = false
  let batch = newBatch()
  /** One batch is written while the next is read. */
  let writing = Promise.resolve()

  /** One of the rows that were written: it knows the others. */
  let witness: number | null = null

  const write = async (rows: string) => {
    if (replace) {
      counts.inserted += await repository.stageRows(sql, rows)
      return
    }
    const result = await repository.importRows(sql, rows, witness)
    witness ??= result.witness
    counts.inserted += result.inserted
    for (const { line, own } of result.refused) {
      if (own) tellTwice(line)
      else faults.push({ line, pointer: '#/sku', ...taken })
    }
  }
  const tellTwice = (line: number) => {
    invalid = true
    faults.push({ line, pointer: '#/sku', code: 'duplicate', detail: 'is that of an earlier line' })
  }
  const flush = async () => {
    await writing
    const full = batch
    batch = newBatch()
    writing = full.rows.length > 0 ? write(`[${full.rows.join()}]`) : Promise.resolve()
    writing.catch(() => {}) // it is awaited when the next batch is full
  }

  reading: for await (const bunch of bunches) {
    for (const row of bunch) {
      const { line } = row
      const { product, faults: found } = check(row)
      if (!product) {
        invalid = true
        faults.push(...found.map((fault) => ({ line, ...fault })))
      } else if (product.sku !== null && batch.skus.has(product.sku)) {
        tellTwice(line)
      } else {
        if (product.sku !== null) batch.skus.add(product.sku)
        const json = JSON.stringify({ line, ...product })
        batch.rows.push(json)
        batch.characters += json.length
        if (batch.rows.length >= MOST_BATCH_ROWS || batch.characters >= MOST_BATCH_CHARACTERS) {
          await flush()
        }
      }
      if (faults.length >= MOST_FAULTS) break reading
    }
  }
  await flush()
  await writing
  if (replace) for (const line of await repository.repeatedLines(sql, MOST_FAULTS)) tellTwice(line)
  if (faults.length === 0) {
    if (!replace) return counts
    await repository.closeStage(sql)
    const { inserted, updated } = await writeStaged(sql)
    return { inserted: counts.inserted + inserted, updated }
  }
  faults.sort((one, other) => one.line! - other.line!)
  const detail = 'Lines of the import were refused; nothing of it was kept.'
  throw new Problem(invalid ? 'validation' : 'conflict', detail, {
    faults: faults.slice(0, MOST_FAULTS),
  })
}

/** Once more, when a deadlock with another ended the first try: the rows are all here. */
async function writeStaged(sql: Sql): Promise<ImportResult> {
  try {
    return await writeAllStaged(sql)
  } catch (error) {
    if (!(error instanceof DatabaseError && error.kind === 'aborted')) throw error
    await repository.backToStage(sql)
    return writeAllStaged(sql)
  }
}

async function writeAllStaged(sql: Sql): Promise<ImportResult> {
  const counts = { inserted: 0, updated: 0 }
  for (let last: string | null = ''; last !== null;) {
    const result = await repository.writeStaged(sql, last)
    counts.inserted += result.inserted
    counts.updated += result.updated
    last = result.last
  }
  return counts
}

const { field: _, ...taken } = productConstraints['products_sku_key']!

interface Batch {
  /** As JSON. */
  rows: string[]
  characters: number
  skus: Set<string>
}

function newBatch(): Batch {
  return { rows: [], characters: 0, skus: new Set() }
}

function check({ input, fault }: Row): { product?: NewProduct; faults: Omit<Fault, 'line'>[] } {
  const faults = fault ? [fault] : []
  if (fault && input === undefined) return { faults }
  const { data, error } = NewProduct.safeParse(input)
  if (!error) return fault ? { faults } : { product: data, faults }
  return { faults: faults.concat(error.issues.flatMap((issue) => toFaults('json', issue, input))) }
}

/** The rows of an import, in bunches as they come. */
export function readProducts(
  body: Body,
  isCsv: boolean,
  onChunk?: OnChunk,
): AsyncGenerator<Iterable<Row>> {
  const lines = readLines(body, onChunk)
  return isCsv ? readCsvProducts(lines) : readJsonProducts(lines)
}

async function* readJsonProducts(bunches: AsyncIterable<Line[]>): AsyncGenerator<Iterable<Row>> {
  for await (const lines of bunches) yield toRows(lines)
}

/** One by one, so that of a bunch one at a time is in memory as an object. */
function* toRows(lines: Line[]): Generator<Row> {
  for (const line of lines) if (line.text.trim() !== '') yield toRow(line)
}

function toRow({ number: line, text }: Line): Row {
  try {
    return { line, input: parseJson(text) }
  } catch {
    return { line, fault: { code: 'malformed', detail: 'is not valid JSON' } }
  }
}

/** The header names the fields, in any order. */
async function* readCsvProducts(lines: AsyncIterable<Line[]>): AsyncGenerator<Iterable<Row>> {
  let header: string[] | undefined
  for await (const records of readCsv(lines)) {
    const rows: Row[] = []
    for (const { line, fields } of records) {
      if (!header) header = checkHeader(line, fields)
      else if (!fields) rows.push({ line, fault: notCsv })
      else if (fields.length !== header.length) {
        const detail = `has ${fields.length} fields, the header ${header.length}`
        rows.push({ line, fault: { code: 'malformed', detail } })
      } else rows.push(toProduct(line, header, fields))
    }
    yield rows
  }
}

const notCsv = { code: 'malformed', detail: 'is not valid CSV: a quote is out of place' }

const knownFields = new Set(Object.keys(NewProduct.in.shape))
const requiredFields = ['name', 'price']

/** @throws {Problem} `validation` */
function checkHeader(line: number, names: (string | undefined)[] | undefined): string[] {
  const faults: Fault[] = []
  const header = new Set<string>()
  const tell = (name: string, code: string, detail: string) =>
    faults.push({ line, pointer: `#/${encodeURIComponent(name.toWellFormed())}`, code, detail })
  for (const name of names?.map((name = '') => name) ?? []) {
    if (!knownFields.has(name)) tell(name, 'unknown', 'is not a field of this resource')
    else if (header.has(name)) tell(name, 'duplicate', 'is named twice')
    header.add(name)
  }
  if (!names) faults.push({ line, ...notCsv })
  else {
    for (const name of requiredFields) {
      if (!header.has(name)) tell(name, 'required', 'is required')
    }
  }
  if (faults.length > 0) {
    throw new Problem('validation', `The header, line ${line}, does not name the fields.`, {
      faults: faults.slice(0, MOST_FAULTS),
    })
  }
  return [...header]
}

/** A product out of texts: what is no number or JSON stays text, and is refused as such. */
function toProduct(line: number, header: string[], fields: (string | undefined)[]): Row {
  const input: Record<string, unknown> = {}
  for (const [index, name] of header.entries()) {
    const text = fields[index]
    if (text === undefined) continue
    input[name] = name === 'stock' && /^-?\d+$/.test(text) ? Number(text) : text
  }
  if (typeof input['attributes'] === 'string') {
    try {
      input['attributes'] = parseJson(input['attributes'])
    } catch {
      delete input['attributes']
      const detail = 'is not valid JSON'
      return { line, input, fault: { pointer: '#/attributes', code: 'malformed', detail } }
    }
  }
  return { line, input }
}
