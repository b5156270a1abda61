// The clients: a steady stream of all that the API can do, and what each of them was told goes into the book.
import { setTimeout as sleep } from 'node:timers/promises'
import type { Body, Book, Deed, Entry, Patch, Product } from './book.ts'
import type { Answer, Client, Outcome, Request } from './client.ts'
import { type Dice, diceFor } from './dice.ts'

/** One request, as the statistics see it. Times are those of `performance.now()`. */
export interface Sample {
  startedAt: number
  /** Undefined as long as it runs. */
  endedAt?: number
  /** What became of it: `fine` is every answer but 429 and 5xx. */
  result?: 'fine' | 'refused' | 'broken' | 'left' | 'hung'
  /** A client that dawdles or leaves by itself says nothing about the service. */
  counts: boolean
}

/** What must not be, beside what the book complains of. */
export type Mischief = (kind: 'answer' | 'hung', text: string) => void

export type Crowd = ReturnType<typeof createCrowd>

interface Options {
  seed: number
  book: Book
  clients: Client[]
  mischief: Mischief
  onStart: (sample: Sample) => void
  onEnd: (sample: Sample) => void
}

const JSON_TYPE = { 'content-type': 'application/json' }
/** Some are asked for again and again, so that their writers meet. */
const HOT = 8
const MOST_KNOWN = 400
/** Products that bulks and imports replace again and again. */
const SHELF_SKUS = 500
/** How many clients lose patience, or their way; more of those with a long way. */
const LEAVE = 0.05
const LEAVE_IMPORTS = 0.25
/** At the end: until every client with a key has its answer. */
const LAST_ANSWERS_MS = 60_000

/** How many of a hundred requests. */
const mix = {
  readOne: 18,
  readPage: 8,
  readShelf: 1,
  create: 13,
  replace: 8,
  merge: 14,
  changeStock: 16,
  remove: 10,
  bulk: 4,
  bulkReplace: 4,
  importFew: 1,
  importReplace: 1,
  invalid: 1,
  taken: 1,
} as const
const turns = (Object.keys(mix) as (keyof typeof mix)[]).flatMap((turn) =>
  Array<keyof typeof mix>(mix[turn]).fill(turn),
)

interface Known {
  id: number
  sku: string | null
  version: number
}

export function createCrowd({ seed, book, clients, mischief, onStart, onEnd }: Options) {
  const known: Known[] = []
  const busy = new Set<Promise<unknown>>()
  /** What clients with a key were told last, who have no final answer yet. */
  const pending = new Map<number, string>()
  let arrivals = 0
  let ending = false

  function learn({ id, sku, version }: Product) {
    const found = known.find((one) => one.id === id)
    if (found) return void Object.assign(found, { sku, version: Math.max(version, found.version) })
    if (known.length < MOST_KNOWN) known.push({ id, sku, version })
    else known[HOT + (id % (MOST_KNOWN - HOT))] = { id, sku, version }
  }
  function forget(id: number) {
    const index = known.findIndex((one) => one.id === id)
    if (index >= 0) known.splice(index, 1)
  }
  const choose = (dice: Dice): Known | undefined =>
    known.length === 0
      ? undefined
      : known[dice.whole(0, dice.happens(0.3) ? Math.min(HOT, known.length) - 1 : known.length - 1)]

  async function attempt(dice: Dice, request: Request): Promise<Outcome> {
    const counts = !request.leave && !request.pace && !request.readEveryMs
    const sample: Sample = { startedAt: performance.now(), counts }
    onStart(sample)
    const outcome = await dice.pick(clients).send(request)
    sample.endedAt = performance.now()
    sample.result = judge(outcome)
    if (outcome.outcome === 'hung') {
      mischief('hung', `${request.method} ${request.path} has no answer`)
    }
    if (outcome.outcome === 'answered' && outcome.status === 500) {
      mischief('answer', `${request.method} ${request.path}: ${outcome.text}`)
    }
    onEnd(sample)
    return outcome
  }

  function sometimesLeave(dice: Dice, { path }: Request): Partial<Request> {
    const isImport = path.startsWith('/products/import')
    if (ending || !dice.happens(isImport ? LEAVE_IMPORTS : LEAVE)) return {}
    return { leave: dice.happens(0.5) ? 'halfway' : { afterMs: dice.whole(0, 15) } }
  }

  /** A write, from the intention to what its client is told; returns the answer of one that was done. */
  async function write(
    dice: Dice,
    number: number,
    deed: Deed,
    request: Request,
    keyed: boolean,
  ): Promise<Answer | undefined> {
    const entry = book.intend(number, deed)
    if (!keyed)
      return conclude(entry, await attempt(dice, { ...request, ...sometimesLeave(dice, request) }))
    const headers = { ...request.headers, 'idempotency-key': `write-${number}` }
    const keyedRequest = { ...request, headers }
    for (;;) {
      const outcome = await attempt(dice, { ...keyedRequest, ...sometimesLeave(dice, request) })
      if (isFinal(outcome)) {
        pending.delete(number)
        const answer = conclude(entry, outcome)
        if (answer) await sendAgain(dice, keyedRequest, answer)
        return answer
      }
      pending.set(number, `${request.method} ${request.path}: ${describe(outcome)}`)
      await sleep(dice.whole(50, 500))
    }
  }

  function conclude(entry: Entry, outcome: Outcome): Answer | undefined {
    const { deed } = entry
    if (outcome.outcome === 'unsent') book.refuse(entry, undefined)
    if (outcome.outcome !== 'answered' || outcome.status === 500 || isUnknown(outcome)) {
      return undefined // nobody knows
    }
    if (outcome.status >= 300) {
      if ('id' in deed && outcome.status === 404) forget(deed.id)
      book.refuse(entry, outcome.status)
      return undefined
    }
    const { body } = outcome
    book.acknowledge(entry, body)
    if (deed.kind === 'remove') forget(deed.id)
    else for (const product of deed.kind === 'rows' ? (body.items ?? []) : [body]) learn(product)
    return outcome
  }

  /** The same once more gets the same, and something else under the same key is refused. */
  async function sendAgain(dice: Dice, request: Request, first: Answer) {
    if (dice.happens(0.3)) {
      const again = await attempt(dice, request)
      if (!isFinal(again)) return
      const isSame = again.status === first.status && again.text === first.text
      if (!isSame || again.headers['idempotency-replayed'] !== 'true') {
        mischief('answer', `${request.path} sent again: ${again.text} after ${first.text}`)
      }
    }
    if (dice.happens(0.1) && request.path === '/products') {
      const number = book.nextNumber()
      const body = newBody(dice, number)
      const entry = book.intend(number, { kind: 'create', body })
      const other = await attempt(dice, { ...request, body: JSON.stringify(body) })
      if (isFinal(other) && other.status !== 422) {
        mischief('answer', `another request under a key that is taken: ${other.text}`)
      }
      conclude(entry, other)
    }
  }

  const json = (method: string, path: string, body: unknown, headers = {}): Request => ({
    method,
    path,
    headers: { ...JSON_TYPE, ...headers },
    body: JSON.stringify(body),
  })

  /** Half of those who have read a version write on that one alone; it may be an old one by now. */
  function condition(dice: Dice, { version }: Known) {
    if (!dice.happens(0.5)) return { headers: {}, ifMatch: {} }
    return { headers: { 'if-match': `"${version}"` }, ifMatch: { ifMatch: version } }
  }

  const act: Record<keyof typeof mix, (dice: Dice) => Promise<unknown>> = {
    async readOne(dice) {
      const one = choose(dice)
      if (!one) return
      const floor = book.floor(one.id)
      const conditional = dice.happens(0.2) ? { 'if-none-match': `"${one.version}"` } : {}
      const request = { method: 'GET', path: `/products/${one.id}`, headers: conditional }
      const outcome = await attempt(dice, request)
      if (outcome.outcome !== 'answered') return
      if (outcome.status === 404) {
        book.miss(one.id)
        forget(one.id)
      }
      if (outcome.status !== 200) return
      book.read(outcome.body, floor)
      learn(outcome.body)
    },

    async readPage(dice) {
      const page = dice.pick([
        '?limit=5',
        '?limit=10&sort=-price,name',
        '?limit=10&sort=stock&stock[gte]=10',
        '?limit=5&q=mug',
        '?limit=10&sort=-updated_at&count=estimated',
        '?limit=10&price[gte]=10&price[lt]=50&sort=price',
      ])
      const outcome = await attempt(dice, { method: 'GET', path: `/products${page}` })
      if (outcome.outcome !== 'answered' || outcome.status !== 200) return
      for (const product of outcome.body.items) book.read(product, 0)
    },

    async readShelf(dice) {
      const path = '/products/export?sku[gte]=SHELF-&sku[lt]=SHELF-9'
      const outcome = await attempt(dice, {
        method: 'GET',
        path,
        ...(dice.happens(0.3) ? { readEveryMs: 50 } : {}),
      })
      if (outcome.outcome !== 'answered' || outcome.status !== 200) return
      for (const line of outcome.text.split('\n')) if (line) book.read(JSON.parse(line), 0)
    },

    async create(dice) {
      const number = book.nextNumber()
      const body = newBody(dice, number)
      const deed: Deed = { kind: 'create', body }
      await write(dice, number, deed, json('POST', '/products', body), dice.happens(0.5))
    },

    async replace(dice) {
      const one = choose(dice)
      if (!one) return
      const number = book.nextNumber()
      const body = { ...newBody(dice, number), sku: one.sku }
      const { headers, ifMatch } = condition(dice, one)
      const deed: Deed = { kind: 'replace', id: one.id, body, ...ifMatch }
      await write(dice, number, deed, json('PUT', `/products/${one.id}`, body, headers), false)
    },

    async merge(dice) {
      const one = choose(dice)
      if (!one) return
      const number = book.nextNumber()
      const note = dice.happens(0.3) ? null : { [`n${number % 7}`]: number }
      const patch: Patch = { attributes: { write: number, note } }
      if (dice.happens(0.5)) patch.price = priceOf(dice)
      if (dice.happens(0.2)) patch.stock = dice.happens(0.5) ? dice.whole(0, 500) : null
      if (dice.happens(0.3)) patch.description = dice.happens(0.5) ? null : `As of ${number}`
      const { headers, ifMatch } = condition(dice, one)
      const type = { 'content-type': 'application/merge-patch+json' }
      const request = json('PATCH', `/products/${one.id}`, patch, {
        ...headers,
        ...(dice.happens(0.5) ? type : {}),
      })
      const deed: Deed = { kind: 'merge', id: one.id, patch, ...ifMatch }
      await write(dice, number, deed, request, false)
    },

    async changeStock(dice) {
      const one = choose(dice)
      if (!one) return
      const number = book.nextNumber()
      const delta = book.nextDelta(one.id, dice.happens(0.5) ? 1 : -1)
      const { headers, ifMatch } = dice.happens(0.2)
        ? condition(dice, one)
        : { headers: {}, ifMatch: {} }
      const deed: Deed = { kind: 'stock', id: one.id, delta, ...ifMatch }
      const request = json('POST', `/products/${one.id}/stock`, { delta }, headers)
      await write(dice, number, deed, request, dice.happens(0.5))
    },

    async remove(dice) {
      const one = choose(dice)
      if (!one) return
      const { headers, ifMatch } = condition(dice, one)
      const deed: Deed = { kind: 'remove', id: one.id, ...ifMatch }
      const request = { method: 'DELETE', path: `/products/${one.id}`, headers }
      await write(dice, book.nextNumber(), deed, request, false)
    },

    bulk: (dice) => bulk(dice, freshRows(dice, 1, 5), false),
    bulkReplace: (dice) => bulk(dice, shelfRows(dice, 2, 15), true),
    importFew: (dice) => importRows(dice, freshRows(dice, 5, 15), false),
    importReplace: (dice) =>
      importRows(
        dice,
        dice.happens(0.1) ? shelfRows(dice, 400, 900) : shelfRows(dice, 10, 60),
        true,
      ),

    async invalid(dice) {
      const number = book.nextNumber()
      const body = { ...newBody(dice, number), price: 1.999 }
      const deed: Deed = { kind: 'create', body }
      await write(dice, number, deed, json('POST', '/products', body), dice.happens(0.5))
    },

    async taken(dice) {
      const one = choose(dice)
      if (!one?.sku) return
      const number = book.nextNumber()
      const body = { ...newBody(dice, number), sku: one.sku }
      // When the other one was deleted meanwhile, this is a create like others.
      const deed: Deed = { kind: 'create', body }
      await write(dice, number, deed, json('POST', '/products', body), dice.happens(0.5))
    },
  }

  async function bulk(dice: Dice, [number, bodies]: Rows, replace: boolean) {
    const path = `/products/bulk${replace ? '?on_conflict=sku' : ''}`
    const deed: Deed = { kind: 'rows', bodies, replace }
    await write(dice, number, deed, json('POST', path, [...bodies.values()]), dice.happens(0.5))
  }

  async function importRows(dice: Dice, [number, bodies]: Rows, replace: boolean) {
    const path = `/products/import${replace ? '?on_conflict=sku' : ''}`
    const isCsv = dice.happens(0.5)
    // One bad line, the last one, and nothing of all the others may be kept.
    if (dice.happens(0.15)) [...bodies.values()].at(-1)!.price = 1.999
    const rows = [...bodies.values()]
    const request: Request = {
      method: 'POST',
      path,
      headers: { 'content-type': isCsv ? 'text/csv' : 'application/x-ndjson' },
      body: isCsv ? toCsv(rows) : rows.map((row) => `${JSON.stringify(row)}\n`).join(''),
      ...(dice.happens(0.2) ? { pace: { pieces: 5, everyMs: 100 } } : {}),
    }
    await write(dice, number, { kind: 'rows', bodies, replace }, request, dice.happens(0.5))
  }

  type Rows = [number: number, bodies: Map<string, Body>]

  function freshRows(dice: Dice, least: number, most: number): Rows {
    const number = book.nextNumber()
    const count = dice.whole(least, most)
    const rows = Array.from({ length: count }, (_, row) => {
      const sku = `ROW-${number}-${row}`
      return [sku, { ...newBody(dice, number), sku }] as const
    })
    return [number, new Map(rows)]
  }

  /** In any order, so that two of them may wait for each other. */
  function shelfRows(dice: Dice, least: number, most: number): Rows {
    const number = book.nextNumber()
    const count = dice.whole(least, most)
    const places = new Set(Array.from({ length: count }, () => dice.whole(1, SHELF_SKUS)))
    const rows = [...places].map((place) => {
      const sku = `SHELF-${place}`
      return [sku, { ...newBody(dice, number), sku }] as const
    })
    return [number, new Map(rows)]
  }

  function begin(work: Promise<unknown>) {
    const running = work.finally(() => busy.delete(running))
    busy.add(running)
  }

  return {
    /** The next clients arrive, so many at once. */
    arrive(count: number) {
      for (let n = 0; n < count; n++) {
        const dice = diceFor(seed, arrivals++)
        begin(act[dice.pick(turns)](dice))
      }
    },

    /** Clients that send a byte now and then, and read as slowly. */
    dawdle(dice: Dice, count: number) {
      for (let n = 0; n < count; n++) {
        const number = book.nextNumber()
        const body = newBody(dice, number)
        const pace = { pieces: 10, everyMs: dice.whole(50, 300) }
        const request = { ...json('POST', '/products', body), pace, readEveryMs: 100 }
        begin(write(dice, number, { kind: 'create', body }, request, false))
      }
    },

    /** How many requests are under way. */
    busy: () => busy.size,

    /**
     * Nobody arrives any more; returns when everybody has an answer.
     * @returns those who have none, and what they were told last
     */
    async finish(): Promise<string[]> {
      ending = true
      const late = Symbol('late')
      const deadline = sleep(LAST_ANSWERS_MS, late, { ref: false })
      while (busy.size > 0) {
        if ((await Promise.race([Promise.all(busy), deadline])) === late) break
      }
      return busy.size > 0 ? [`${busy.size} requests under way`, ...pending.values()] : []
    },
  }
}

const describe = (outcome: Outcome) =>
  outcome.outcome === 'answered' ? outcome.text : outcome.outcome

function judge(outcome: Outcome): NonNullable<Sample['result']> {
  if (outcome.outcome === 'left' || outcome.outcome === 'hung') return outcome.outcome
  if (outcome.outcome !== 'answered') return 'broken'
  return outcome.status >= 500 || outcome.status === 429 ? 'refused' : 'fine'
}

/** "When the connection is lost under a write, the `detail` of that 503 or 504 says so." */
const isUnknown = ({ status, body }: Answer) =>
  (status === 503 || status === 504) && String(body?.detail).includes('not known')

/** Whether a client with a key is done, and need not come again. */
function isFinal(outcome: Outcome): outcome is Answer {
  if (outcome.outcome !== 'answered') return false
  const { status, headers } = outcome
  return status < 500 && status !== 429 && headers['retry-after'] === undefined
}

const words = ['mug', 'bowl', 'tray', 'pan', 'jug', 'spoon']
const colours = ['blue', 'white', 'red', 'green']

const priceOf = (dice: Dice) => dice.whole(0, 10_000) / 100

/** Some fields are left out: they get their defaults. */
function newBody(dice: Dice, number: number): Body {
  const name = `${dice.pick(colours)} ${dice.pick(words)}, "${number}"`
  const body: Body = { name, price: priceOf(dice), attributes: { write: number } }
  if (dice.happens(0.7)) body.sku = `SKU-${number}`
  if (dice.happens(0.7)) body.stock = dice.whole(0, 1000)
  if (dice.happens(0.3)) body.description = `Glazed by hand, ${dice.pick(colours)}.`
  if (dice.happens(0.2)) body.currency = dice.pick(['EUR', 'GBP'])
  return body
}

const csvFields = [
  'sku',
  'name',
  'description',
  'price',
  'currency',
  'stock',
  'attributes',
] as const

function toCsv(rows: Body[]): string {
  const lines = rows.map((row) =>
    csvFields.map((field) => {
      const value = row[field]
      if (value === undefined || value === null) return ''
      const text = typeof value === 'object' ? JSON.stringify(value) : String(value)
      return /[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text
    }),
  )
  return [csvFields, ...lines].map((line) => `${line.join()}\n`).join('')
}
