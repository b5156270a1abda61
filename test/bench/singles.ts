// What is measured by itself: depth, counts, searches, transfers, starts, and memory under load.
import { Agent, get } from 'node:http'
import { Readable, Writable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { encodeCursor } from '../../src/http/page.ts'
import { type Database, type Databases, tidy } from './databases.ts'
import type { Load, Order } from './load.ts'
import { cpuSeconds, type Worker } from './processes.ts'
import { binding, newProduct } from './scenarios.ts'
import { type Running, type Server, startServer } from './servers.ts'
import { median } from './median.ts'

export const titles = {
  'page-first': 'first page of 20, ms',
  'page-deep': 'page of 20 below 99 % of the products, ms',
  'count-estimated': 'first page with count=estimated, ms',
  'search-rare': 'search for a rare word, ms',
  'search-common': 'search for a common word, ms',
  'export-ndjson': 'export as NDJSON, rows/s',
  'export-csv': 'export as CSV, rows/s',
  'copy-out': 'bare copy to stdout, rows/s',
  'start-larder': 'Larder: start to first answer, ms',
  'start-hono': 'naive Hono: start to first answer, ms',
  'start-cpu-larder': 'Larder: CPU until then, ms',
  'start-cpu-hono': 'naive Hono: CPU until then, ms',
  'memory-larder': 'Larder: memory under load, MB',
  'memory-hono': 'naive Hono: memory under load, MB',
  import: 'import of NDJSON, rows/s',
  'import-replacing': 'import of NDJSON with on_conflict=sku, rows/s',
  'copy-in': 'bare copy from stdin, rows/s',
}

export type SingleName = keyof typeof titles

/** One of several times that all of a group was measured. */
export interface Single {
  name: SingleName
  round: number
  value: number
}

interface Stage {
  larder: Running
  /** Where it takes part. */
  hono: Server | undefined
  databases: Databases
  load: Worker<Order, Load>
  seconds: number
}

/** Each repetition does all that is compared, one after the other. */
const REPETITIONS = 7
const LATENCY_REQUESTS = 20
const EXPORT_ROWS = 200_000
const IMPORT_ROWS = 50_000

type Values = Partial<Record<SingleName, number>>

const groups: Record<string, (stage: Stage, round: number) => Promise<Values>> = {
  async depth({ larder: { url }, databases: { large } }) {
    const id = String(Math.ceil(large.products * 0.01))
    const cursor = encodeCursor({ way: 'after', key: [id] }, binding)
    return {
      'page-first': await latency(`${url}/products?limit=20`),
      'page-deep': await latency(`${url}/products?limit=20&cursor=${cursor}`),
    }
  },

  async count({ larder: { url } }) {
    return { 'count-estimated': await latency(`${url}/products?limit=20&count=estimated`) }
  },

  async search({ larder: { url } }) {
    return {
      'search-rare': await latency(`${url}/products?limit=20&q=heirloom`),
      'search-common': await latency(`${url}/products?limit=20&q=handmade`),
    }
  },

  async export({ larder: { url }, databases: { large } }) {
    const rows = Math.min(EXPORT_ROWS, large.products)
    const path = `${url}/products/export?id[lte]=${rows}`
    const text = `copy (select * from products where id <= ${rows} order by id) to stdout`
    const copy = async () => pipeline(await large.owner.unsafe(text).readable(), nowhere())
    return {
      'copy-out': await rate(rows, copy),
      'export-ndjson': await rate(rows, () => take(path, 'application/x-ndjson')),
      'export-csv': await rate(rows, () => take(path, 'text/csv')),
    }
  },

  async start({ larder, hono, databases, load, seconds }, round) {
    const ours = await startAndLoad(larder.server, { databases, load, seconds, round })
    const theirs = hono && (await startAndLoad(hono, { databases, load, seconds, round }))
    return {
      'start-larder': ours.ms,
      'start-cpu-larder': ours.cpuMs,
      'memory-larder': ours.memoryMb,
      ...(theirs && {
        'start-hono': theirs.ms,
        'start-cpu-hono': theirs.cpuMs,
        'memory-hono': theirs.memoryMb,
      }),
    }
  },

  async import({ larder: { url }, databases: { large } }) {
    const rows = Math.min(IMPORT_ROWS, large.products)
    const send = (query: string) => {
      const body = made(rows)
        .map((product) => `${JSON.stringify(product)}\n`)
        .join('')
      return rateOfWriting(large, rows, () => put(`${url}/products/import${query}`, body))
    }
    const lines = made(rows).map(({ attributes, ...fields }) =>
      [...Object.values(fields), JSON.stringify(attributes)].join('\t'),
    )
    const columns = 'sku, name, description, price, currency, stock, attributes'
    const text = `copy products (${columns}) from stdin`
    const copy = async () =>
      pipeline(Readable.from(chunks(lines)), await large.owner.unsafe(text).writable())
    return {
      'copy-in': await rateOfWriting(large, rows, copy),
      import: await send(''),
      'import-replacing': await send('?on_conflict=sku'),
    }
  },
}

/** Those that write come after the rounds that read, and with the rounds that write. */
export const reading = ['depth', 'count', 'search', 'export', 'start']
export const writing = ['import']

export async function measureSingles(
  names: string[],
  stage: Stage,
  tell: (single: Single) => void,
): Promise<Single[]> {
  const measured: Single[] = []
  for (const name of names) {
    for (let round = 0; round <= REPETITIONS; round++) {
      const values = await groups[name]!(stage, round)
      if (round === 0) continue
      for (const [name, value] of Object.entries(values)) {
        const single = { name: name as SingleName, round, value }
        measured.push(single)
        tell(single)
      }
    }
  }
  return measured
}

/** In milliseconds, over one connection: the median of some requests. */
async function latency(url: string): Promise<number> {
  const agent = new Agent({ keepAlive: true, maxSockets: 1 })
  const times: number[] = []
  for (let n = -2; n < LATENCY_REQUESTS; n++) {
    const startedAt = performance.now()
    await new Promise<void>((resolve, reject) => {
      get(url, { agent }, (answer) => {
        if (answer.statusCode !== 200) reject(new Error(`${answer.statusCode} to ${url}`))
        answer.resume().once('end', resolve)
      }).once('error', reject)
    })
    if (n >= 0) times.push(performance.now() - startedAt)
  }
  agent.destroy()
  return median(times)
}

async function rate(rows: number, work: () => Promise<unknown>): Promise<number> {
  const startedAt = performance.now()
  await work()
  return (rows * 1000) / (performance.now() - startedAt)
}

/** What was written is removed afterwards. */
async function rateOfWriting({ owner }: Database, rows: number, work: () => Promise<unknown>) {
  const [last] = await owner<[{ id: number }]>`select max(id)::integer as id from products`
  const found = await rate(rows, work)
  const removed = await owner`delete from products where id > ${last.id}`
  if (removed.count !== rows) throw new Error(`${removed.count} of ${rows} rows were written`)
  await tidy(owner)
  return found
}

const nowhere = () => new Writable({ write: (_chunk, _encoding, done) => done() })

async function take(url: string, accept: string): Promise<void> {
  const answer = await fetch(url, { headers: { accept } })
  if (!answer.ok) throw new Error(`${answer.status} to ${url}`)
  await answer.body!.pipeTo(new WritableStream())
}

async function put(url: string, body: string): Promise<void> {
  const headers = { 'content-type': 'application/x-ndjson' }
  const answer = await fetch(url, { method: 'POST', headers, body })
  if (!answer.ok) throw new Error(`${answer.status} to ${url}: ${await answer.text()}`)
  await answer.arrayBuffer()
}

const made = (rows: number) => Array.from({ length: rows }, () => newProduct(0))

function* chunks(lines: string[]) {
  for (let n = 0; n < lines.length; n += 1000) yield `${lines.slice(n, n + 1000).join('\n')}\n`
}

/** On an instance of its own. */
async function startAndLoad(
  server: Server,
  { databases, load, seconds, round }: Omit<Stage, 'larder' | 'hono'> & { round: number },
) {
  const startedAt = performance.now()
  const running = await startServer(server, databases)
  const ms = performance.now() - startedAt
  const cpuMs = cpuSeconds(running.pid) * 1000
  try {
    const { memoryBytes } = await load.ask({
      url: running.url,
      scenario: 'get',
      seconds,
      watched: { service: running.pid, database: databases.processId },
      world: {
        number: round,
        products: databases.large.products,
        hasOpaqueCursors: server.isLarder,
        own: [],
      },
    })
    return { ms, cpuMs, memoryMb: memoryBytes / 1024 ** 2 }
  } finally {
    await running.stop()
  }
}
