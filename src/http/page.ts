// Pages: what is sent of a list, opaque cursors, and the links to the pages beside this one.
import { Buffer } from 'node:buffer'
import * as z from 'zod'
import { isBackwards, type Place } from '../database/keyset.ts'
import { Problem } from './problem.ts'

/** One row of a list. */
export interface Row {
  json: string
  /** Its sort key, as the text of a JSON array. */
  key: string
}

export interface Page {
  /** Read away from `place`: one more than `limit` when there are more. */
  rows: Row[]
  limit: number
  place: Place | undefined
  /** What its cursors belong to, such as sort and filters. */
  binding: string
  total: number | undefined
  /** What the total is. */
  count: 'exact' | 'estimated' | undefined
}

const VERSION = 1
const Way = z.enum(['after', 'before', 'from', 'to'])
/** A client takes some 16 kB of headers, a proxy often less. What is longer is in the body alone. */
const LONGEST_LINKS = 8192

/** In characters. */
const LARGEST_BYTES = 256 * 1024

/**
 * What is sent for a page that was asked for by this address. As bytes, which several answers share:
 * with text for each of them, a page of 100 took a quarter more of the service's CPU, one of 20 a
 * twelfth. A large one stays text: bytes lie outside of what Node collects, and pages of 5 MB as bytes
 * made it twice as large, 1.2 GB, under the flood of `test/faults/memory.test.ts`.
 */
export function renderPage(url: string, page: Page) {
  const { total, count } = page
  const back = isBackwards(page.place)
  const read = page.rows.slice(0, page.limit)
  const items = back ? read.toReversed() : read
  const cursors = cursorsOf(page, items)
  const json =
    `{"items":[${items.map((item) => item.json).join(',')}],` +
    `"next_cursor":${JSON.stringify(cursors.next)},"prev_cursor":${JSON.stringify(cursors.prev)}` +
    `${count ? `,"total":${total},"total_is":"${count}"` : ''}}`
  const sent = json.length > LARGEST_BYTES ? json : Buffer.from(json)
  return { json: sent, headers: pageLinks(url, cursors) }
}

function cursorsOf({ rows, limit, place, binding }: Page, items: Row[]) {
  const more = rows.length > limit
  const back = isBackwards(place)
  const [first, last] = [items[0], items.at(-1)]
  const encode = (way: Place['way'], key: Place['key']) => encodeCursor({ way, key }, binding)
  const keyOf = (row: Row): Place['key'] => JSON.parse(row.key)
  const next = () => (last ? encode('after', keyOf(last)) : turn(place!))
  const prev = () => (first ? encode('before', keyOf(first)) : turn(place!))
  /** From a page whose rows are gone, back to what its place divides it from. */
  const turn = ({ way, key }: Place) => encode(opposite[way], key)
  return {
    next: back || more ? next() : null,
    prev: (back ? more : place !== undefined) ? prev() : null,
  }
}

/** The other side of a place. */
const opposite = { after: 'to', to: 'after', before: 'from', from: 'before' } as const

/** `binding` is what the cursor belongs to, such as sort and filters; with another it is refused. */
export function encodeCursor({ way, key }: Place, binding: string): string {
  return encode([VERSION, way, ...key], binding)
}

/**
 * @param toKey checks the values of a key, and throws
 * @throws {Problem} `malformed`, when it is not one of ours, or was made for another query
 */
export function decodeCursor(
  text: string,
  binding: string,
  toKey: (values: unknown[]) => Place['key'],
): Place {
  try {
    const decoded = Buffer.from(text, 'base64url').toString()
    const payload: unknown[] = JSON.parse(decoded.slice(decoded.indexOf('[')))
    const [version, way, ...values] = payload
    if (version === VERSION && encode(payload, binding) === text) {
      // The checksum is no secret, so what it vouches for is still input.
      return { way: Way.parse(way), key: toKey(values) }
    }
  } catch {
    // Not base64, not JSON, not a key: told below.
  }
  throw new Problem(
    'malformed',
    'The cursor is not one of this service, or belongs to another query.',
  )
}

function encode(payload: unknown[], binding: string): string {
  const json = JSON.stringify(payload)
  return Buffer.from(`${checksum(binding + json)}${json}`).toString('base64url')
}

/** The `Link` header (RFC 8288) of a page; without a host, so that it holds behind any proxy that keeps the path. */
function pageLinks(url: string, cursors: { next: string | null; prev: string | null }) {
  const links: string[] = []
  const { pathname, searchParams } = new URL(url)
  for (const relation of ['next', 'prev'] as const) {
    const cursor = cursors[relation]
    if (cursor === null) continue
    searchParams.set('cursor', cursor)
    links.push(`<${pathname}?${searchParams.toString()}>; rel="${relation}"`)
  }
  const link = links.join(', ')
  return link !== '' && link.length <= LONGEST_LINKS ? { link } : undefined
}

/** FNV-1a, to see that a cursor was not changed; nothing secret depends on it. */
function checksum(text: string): string {
  let hash = 0x811c9dc5
  for (let i = 0; i < text.length; i++) {
    hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193)
  }
  return (hash >>> 0).toString(36)
}
