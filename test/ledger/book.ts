// The ledger: what each client wanted and was told, held against the change feed, the reads and the table.
//
// It knows the service by its README alone, and none of its code. Every write carries a number of its
// own into the product (`attributes.write`), or is a stock change by an amount that no other has asked
// for on that product: so each change in the feed is one certain client's, or nobody's.
import { createHash, hash } from 'node:crypto'
import { isDeepStrictEqual } from 'node:util'

type Json = unknown
type Attributes = Record<string, Json>

/** What a client may say of a product. */
export interface Fields {
  sku: string | null
  name: string
  description: string | null
  price: number
  currency: string
  stock: number
  attributes: Attributes
}

export interface Product extends Fields {
  id: number
  version: number
  created_at: string
  updated_at: string
}

export interface Change {
  op: 'insert' | 'update' | 'delete'
  id: number
  version: number
  at: string
  product: Product | null
}

/** A body as it is sent: what is left out gets its default. */
export type Body = Partial<Fields> & Pick<Fields, 'name' | 'price'>
export type Patch = { [Field in keyof Fields]?: Fields[Field] | null }

/** What a client wants done. */
export type Deed =
  | { kind: 'create'; body: Body }
  | { kind: 'replace'; id: number; body: Body; ifMatch?: number }
  | { kind: 'merge'; id: number; patch: Patch; ifMatch?: number }
  | { kind: 'stock'; id: number; delta: number; ifMatch?: number }
  | { kind: 'remove'; id: number; ifMatch?: number }
  /** Bulk and import; the skus are different. */
  | { kind: 'rows'; bodies: Map<string, Body>; replace: boolean }

export interface Entry {
  number: number
  deed: Deed
  /** `open` as long as nobody knows: also when the client was told that nobody does. */
  told: 'open' | 'acknowledged'
  /** As acknowledged; the body is undefined when there was none. */
  answer?: Json
  /** The changes that it made, by sku for rows; a change of one product has the key ''. */
  seen: Map<string, Change>
}

export type Complaint =
  /** A write that was acknowledged is not there. */
  | 'lost'
  /** A write happened more than once. */
  | 'doubled'
  /** A write that was refused is there, or one that nobody made. */
  | 'ghost'
  /** A part of what is all or nothing. */
  | 'torn'
  /** A product is not what the writes make of it, or an answer is not what was written. */
  | 'wrong'
  /** A read gave less than was acknowledged before it began. */
  | 'stale'
  /** The feed has a gap, a repetition, or another order in a second reading. */
  | 'feed'
  /** The table is not what the feed makes of it. */
  | 'table'

/** Every failure by its kind; of each kind the first few are told. */
export interface Verdict {
  complaints: Partial<Record<Complaint, number>>
  texts: string[]
  /** Wanted, and what became of them. Those never known are in `happened` or in `neverHappened`. */
  writes: {
    intended: number
    acknowledged: number
    refused: number
    unknown: { happened: number; neverHappened: number }
  }
  changes: number
  products: number
}

const MOST_TEXTS = 12

/** What became of a write that is settled, one byte a write. */
const SETTLED = { no: 0, done: 1, refused: 2 }

interface Shelf {
  /** Undefined when it was deleted. */
  state: Product | undefined
  /** The version of the latest change. */
  version: number
  /** What each version looked like. */
  looks: Map<number, string>
  /** Reads of versions that the feed has not shown yet. */
  unread: Map<number, string>
  /** The stock changes that are not settled, by what they add. */
  deltas: Map<number, Entry>
  removals: Entry[]
}

export type Book = ReturnType<typeof openBook>

export function openBook() {
  const entries = new Map<number, Entry>()
  const shelves = new Map<number, Shelf>()
  /** The least version that a reader must get, by what was acknowledged or read; Infinity: none. */
  const floors = new Map<number, number>()
  const asked = new Map<number, number>()
  const missed = new Set<number>()
  const mismatched: { id: number; ifMatch: number }[] = []
  const complaints: Partial<Record<Complaint, number>> = {}
  const texts: string[] = []
  const digest = createHash('sha256')
  let settled = new Uint8Array(1024)
  let numbers = 0
  let intended = 0
  let acknowledged = 0
  let refused = 0
  let changes = 0

  function complain(kind: Complaint, text: string, ...things: unknown[]) {
    complaints[kind] = (complaints[kind] ?? 0) + 1
    if (complaints[kind] > MOST_TEXTS) return
    texts.push(`${kind}: ${text} ${things.map(inWords).join(' ')}`.trim())
  }

  function shelfOf(id: number): Shelf {
    let shelf = shelves.get(id)
    if (!shelf) {
      const none = { state: undefined, version: 0, looks: new Map(), unread: new Map() }
      shelves.set(id, (shelf = { ...none, deltas: new Map(), removals: [] }))
    }
    return shelf
  }

  function settle(entry: Entry, fate: number) {
    entries.delete(entry.number)
    settled[entry.number] = fate
    const { deed } = entry
    // A stock change stays in its place, so that a second one by the same amount is recognised.
    if (deed.kind === 'stock' && fate === SETTLED.refused)
      shelfOf(deed.id).deltas.delete(deed.delta)
  }

  const wanted = ({ deed }: Entry) => (deed.kind === 'rows' ? deed.bodies.size : 1)

  /** All of it has been seen and its client was told: what was told is held against what was seen. */
  function close(entry: Entry) {
    const { deed, answer, seen } = entry
    settle(entry, SETTLED.done)
    if (deed.kind === 'stock') entry.answer = undefined // the entry stays, what it holds need not
    if (deed.kind === 'remove' || answer === undefined) return
    if (deed.kind !== 'rows') {
      const { product } = seen.get('')!
      if (!isDeepStrictEqual(answer, product)) {
        complain('wrong', `write ${entry.number} was told`, answer, 'and made', product)
      }
      return
    }
    const told = answer as { inserted: number; updated: number; items?: Product[] }
    const count = (op: string) => [...seen.values()].filter((change) => change.op === op).length
    const made = { inserted: count('insert'), updated: count('update') }
    if (told.inserted !== made.inserted || told.updated !== made.updated) {
      const { inserted, updated } = told
      complain('wrong', `write ${entry.number} was told`, { inserted, updated }, 'and made', made)
    }
    const skus = [...deed.bodies.keys()]
    for (const [index, item] of told.items?.entries() ?? []) {
      const product = seen.get(skus[index]!)?.product
      if (!isDeepStrictEqual(item, product)) {
        complain('wrong', `row ${index} of write ${entry.number} was told`, item, 'made', product)
      }
    }
  }

  function see(entry: Entry, key: string, change: Change) {
    if (entry.seen.has(key)) {
      complain('doubled', `write ${entry.number} happened twice`, entry.deed.kind, change)
      return
    }
    entry.seen.set(key, change)
    if (entry.seen.size === wanted(entry) && entry.told === 'acknowledged') close(entry)
  }

  /** Whose change it is; undefined when it is nobody's, which is told then. */
  function findWriter(number: unknown, change: Change): Entry | undefined {
    const entry = entries.get(number as number)
    if (entry) return entry
    const fate = settled[number as number] ?? SETTLED.no
    if (fate === SETTLED.done) complain('doubled', `write ${String(number)} happened twice`, change)
    else if (fate === SETTLED.refused)
      complain('ghost', `write ${String(number)} was refused and happened`, change)
    else complain('ghost', 'nobody made', change)
    return undefined
  }

  function checkVersion(entry: Entry, change: Change) {
    const { deed } = entry
    if (!('ifMatch' in deed) || deed.ifMatch === undefined) return
    if (deed.ifMatch !== change.version - 1) {
      complain('wrong', `write ${entry.number} wanted If-Match ${deed.ifMatch} and made`, change)
    }
  }

  function checkProduct(change: Change, expected: Fields, before: Product | undefined) {
    const product = change.product!
    const { id, version, created_at, updated_at, ...fields } = product
    const same =
      isDeepStrictEqual(fields, expected) &&
      id === change.id &&
      version === change.version &&
      (before ? created_at === before.created_at : created_at === updated_at)
    if (!same) complain('wrong', 'expected', expected, 'but there is', product, 'after', before)
  }

  function added(change: Change) {
    const product = change.product!
    const entry = findWriter(product.attributes['write'], change)
    if (!entry) return
    const { deed } = entry
    if (deed.kind === 'create') {
      checkProduct(change, complete(deed.body), undefined)
      see(entry, '', change)
    } else if (deed.kind === 'rows' && deed.bodies.has(product.sku!)) {
      checkProduct(change, complete(deed.bodies.get(product.sku!)!), undefined)
      see(entry, product.sku!, change)
    } else complain('ghost', `write ${entry.number} wanted no`, change)
  }

  function changed(change: Change, before: Product, shelf: Shelf) {
    const product = change.product!
    const number = product.attributes['write']
    if (number === before.attributes['write']) {
      const delta = product.stock - before.stock
      const entry = shelf.deltas.get(delta)
      if (!entry) return complain('ghost', `nobody changed the stock by ${delta} in`, change)
      checkProduct(change, { ...fieldsOf(before), stock: product.stock }, before)
      checkVersion(entry, change)
      return see(entry, '', change)
    }
    const entry = findWriter(number, change)
    if (!entry) return
    const { deed } = entry
    if ((deed.kind === 'replace' || deed.kind === 'merge') && deed.id === change.id) {
      const whole = deed.kind === 'replace' ? complete(deed.body) : merge(before, deed.patch)
      checkProduct(change, whole, before)
      checkVersion(entry, change)
      see(entry, '', change)
    } else if (deed.kind === 'rows' && deed.replace && deed.bodies.has(before.sku!)) {
      checkProduct(change, complete(deed.bodies.get(before.sku!)!), before)
      see(entry, before.sku!, change)
    } else complain('ghost', `write ${entry.number} wanted no`, change)
  }

  return {
    /** The number of the next write, to be put into what it writes. */
    nextNumber(): number {
      numbers += 1
      if (numbers >= settled.length) {
        const larger = new Uint8Array(settled.length * 2)
        larger.set(settled)
        settled = larger
      }
      return numbers
    },

    /** An amount that nobody has asked for on this product; 1, 2, 3 and so on, or less than 0. */
    nextDelta(id: number, sign: 1 | -1): number {
      const amount = (asked.get(id) ?? 0) + 1
      asked.set(id, amount)
      return sign * amount
    },

    /** Before the write is sent for the first time. */
    intend(number: number, deed: Deed): Entry {
      const entry: Entry = { number, deed, told: 'open', seen: new Map() }
      entries.set(number, entry)
      intended += 1
      if (deed.kind === 'stock') shelfOf(deed.id).deltas.set(deed.delta, entry)
      if (deed.kind === 'remove') shelfOf(deed.id).removals.push(entry)
      return entry
    },

    acknowledge(entry: Entry, answer: Json) {
      acknowledged += 1
      entry.told = 'acknowledged'
      entry.answer = answer
      const { deed } = entry
      if (deed.kind === 'remove') floors.set(deed.id, Infinity)
      else if (deed.kind === 'rows') {
        for (const { id, version } of (answer as { items?: Product[] }).items ?? []) {
          floors.set(id, Math.max(version, floors.get(id) ?? 0))
        }
      } else {
        const { id, version } = answer as Product
        floors.set(id, Math.max(version, floors.get(id) ?? 0))
      }
      if (entry.seen.size === wanted(entry)) close(entry)
    },

    /** The client was told that nothing happened. */
    refuse(entry: Entry, status: number | undefined) {
      refused += 1
      const { deed, seen } = entry
      for (const change of seen.values()) {
        complain('ghost', `write ${entry.number} was refused with ${status} and made`, change)
      }
      if ('id' in deed) {
        if (status === 404) missed.add(deed.id)
        if (status === 412) mismatched.push({ id: deed.id, ifMatch: deed.ifMatch! })
        if (deed.kind === 'remove') {
          const { removals } = shelfOf(deed.id)
          removals.splice(removals.indexOf(entry), 1)
        }
      }
      settle(entry, SETTLED.refused)
    },

    /** To be taken before a product is read, and given to `read` or `miss` after it. */
    floor: (id: number) => floors.get(id) ?? 0,

    read(product: Product, floor: number) {
      const { id, version } = product
      const shelf = shelfOf(id)
      const look = lookOf(product)
      const known = shelf.looks.get(version)
      if (version < floor) complain('stale', `version ${floor} was there before`, product)
      if (floor !== Infinity) floors.set(id, Math.max(version, floors.get(id) ?? 0))
      if (known === undefined) shelf.unread.set(version, look)
      else if (known !== look) complain('wrong', 'no version looked like', product)
    },

    /** A read was told that there is no such product. */
    miss: (id: number) => void missed.add(id),

    /** The next change of the feed, each of them once and in its order. */
    follow(change: Change) {
      digest.update(`${JSON.stringify(change)}\n`)
      changes += 1
      const { op, id, version, product } = change
      const shelf = shelfOf(id)
      const { state: before } = shelf
      if (
        version !== shelf.version + 1 ||
        (op === 'insert') !== (version === 1) ||
        !before !== (version === 1)
      ) {
        complain('feed', `version ${shelf.version} was followed by`, change)
      }
      shelf.version = version
      shelf.state = product ?? undefined
      if (product) {
        const look = lookOf(product)
        shelf.looks.set(version, look)
        const read = shelf.unread.get(version)
        shelf.unread.delete(version)
        if (read !== undefined && read !== look) complain('wrong', 'was read otherwise:', product)
      }
      if (op === 'insert') return added(change)
      if (op === 'update') return before && changed(change, before, shelf)
      // Who deleted it is for the verdict, when all clients were told.
    },

    /** How many changes there were, and a digest of them in their order. */
    digest: () => ({ changes, sha256: digest.copy().digest('hex') }),

    complain,

    /** What is stored, and what the feed says of it. */
    compare(stored: Product | undefined, replayed: Product) {
      if (!isDeepStrictEqual(stored, replayed)) complain('table', 'has', stored, 'not', replayed)
    },

    /** The products that there are at the end of the feed, by id. */
    products(): Product[] {
      const states = [...shelves.values()].flatMap(({ state }) => (state ? [state] : []))
      return states.toSorted((one, other) => one.id - other.id)
    },

    /** When nobody writes any more and the feed has come to its end. */
    verdict(): Verdict {
      let neverHappened = 0
      let happened = 0
      for (const entry of entries.values()) {
        const { deed, told, seen, number } = entry
        if (deed.kind === 'remove') continue
        if (seen.size > 0 && seen.size < wanted(entry)) {
          complain('torn', `write ${number} is there with ${seen.size} of`, wanted(entry))
        } else if (seen.size === 0 && told === 'acknowledged') {
          complain('lost', `write ${number} was acknowledged`, deed, entry.answer)
        } else if (seen.size === 0) neverHappened += 1
        else happened += 1
      }
      for (const [id, { state, version, removals, unread }] of shelves) {
        const sure = removals.filter(({ told }) => told === 'acknowledged')
        const isGone = version > 0 && !state
        if (!isGone && sure.length > 0) complain('lost', `product ${id} was deleted and is there`)
        if (sure.length > 1) complain('doubled', `product ${id} was deleted ${sure.length} times`)
        const may = sure.length > 0 ? sure : removals
        const could = ({ deed }: Entry) =>
          [undefined, version - 1].includes((deed as { ifMatch?: number }).ifMatch)
        if (isGone && !may.some(could)) complain('ghost', `nobody deleted product ${id}`, version)
        const unsure = removals.length - sure.length
        if (isGone && sure.length === 0) happened += 1
        neverHappened += isGone && sure.length === 0 ? unsure - 1 : unsure
        for (const read of unread.keys()) complain('wrong', `product ${id} had no version ${read}`)
      }
      for (const id of missed) {
        // What is not there may have been asked for by a number that came from nowhere.
        if (shelves.get(id)?.state) complain('stale', `product ${id} is there and was not found`)
      }
      for (const { id, ifMatch } of mismatched) {
        if (shelves.get(id)?.state?.version === ifMatch) {
          complain('wrong', `product ${id} is in version ${ifMatch}, which was refused with 412`)
        }
      }
      const writes = { intended, acknowledged, refused, unknown: { happened, neverHappened } }
      return { complaints, texts, writes, changes, products: this.products().length }
    },
  }
}

/** What is left out has its default. */
export function complete(body: Body): Fields {
  const defaults = { sku: null, description: null, currency: 'USD', stock: 0, attributes: {} }
  return { ...defaults, ...body }
}

/** RFC 7396 on the fields of a product: null takes one back to its default. */
export function merge(before: Product, patch: Patch): Fields {
  const fields = fieldsOf(before)
  const { attributes, ...rest } = patch
  const defaults: Record<string, unknown> = { ...complete({ name: '', price: 0 }) }
  for (const [name, value] of Object.entries(rest)) {
    Object.assign(fields, { [name]: value ?? defaults[name] })
  }
  if (attributes === null) fields.attributes = {}
  else if (attributes) fields.attributes = mergeJson(fields.attributes, attributes) as Attributes
  return fields
}

function mergeJson(target: Json, patch: Json): Json {
  if (!isObject(patch)) return patch
  const merged: Attributes = isObject(target) ? { ...target } : {}
  for (const [name, value] of Object.entries(patch)) {
    if (value === null) delete merged[name]
    else merged[name] = mergeJson(merged[name], value)
  }
  return merged
}

const isObject = (value: Json): value is Attributes =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

function fieldsOf({ sku, name, description, price, currency, stock, attributes }: Product): Fields {
  return { sku, name, description, price, currency, stock, attributes }
}

const inWords = (thing: unknown) =>
  String(
    JSON.stringify(thing, (_, value) => (value instanceof Map ? Object.fromEntries(value) : value)),
  ).slice(0, 1000)

/** A short stand-in for a version, for there are many. */
function lookOf(product: Product): string {
  const { created_at, updated_at } = product
  return hash('sha1', JSON.stringify([fieldsOf(product), created_at, updated_at]), 'base64')
}
