// Pages: opaque cursors, and the links to the pages beside this one.
import { z } from 'zod'
import { Problem } from './problem.ts'

/** A place in a list: the sort key of the row beside it, and the way to go from there. */
export interface Cursor<Key extends unknown[]> {
  direction: 'next' | 'prev'
  key: Key
}

const VERSION = 1
const Direction = z.enum(['next', 'prev'])

/** `query` is what the cursor belongs to, such as its sort and filters; with another it is refused. */
export function encodeCursor(cursor: Cursor<unknown[]>, query: string): string {
  const payload = JSON.stringify([VERSION, cursor.direction, ...cursor.key])
  const bytes = new TextEncoder().encode(`${checksum(query + payload)}${payload}`)
  return btoa(String.fromCharCode(...bytes))
    .replaceAll('+', '-')
    .replaceAll('/', '_')
    .replaceAll('=', '')
}

/** @throws {Problem} `malformed`, when it is not one of ours, or was made for another query */
export function decodeCursor<Key extends unknown[]>(
  text: string,
  query: string,
  key: z.ZodType<Key>,
): Cursor<Key> {
  try {
    const binary = atob(text.replaceAll('-', '+').replaceAll('_', '/'))
    const decoded = new TextDecoder().decode(Uint8Array.from(binary, (char) => char.charCodeAt(0)))
    const [, direction, ...values] = JSON.parse(decoded.slice(decoded.indexOf('[')))
    // The checksum is no secret, so what it vouches for is still input.
    const cursor = { direction: Direction.parse(direction), key: key.parse(values) }
    if (encodeCursor(cursor, query) === text) return cursor
  } catch {
    // Not base64, not JSON, not a key: told below.
  }
  throw new Problem(
    'malformed',
    'The cursor is not one of this service, or belongs to another query.',
  )
}

/** The `Link` header (RFC 8288) of a page; without a host, so that it holds behind any proxy that keeps the path. */
export function pageLinks(url: string, cursors: { next: string | null; prev: string | null }) {
  const links: string[] = []
  for (const relation of ['next', 'prev'] as const) {
    const cursor = cursors[relation]
    if (cursor === null) continue
    const { pathname, searchParams } = new URL(url)
    searchParams.set('cursor', cursor)
    links.push(`<${pathname}?${searchParams.toString()}>; rel="${relation}"`)
  }
  return links.length > 0 ? { link: links.join(', ') } : undefined
}

/** FNV-1a, to see that a cursor was not changed; nothing secret depends on it. */
function checksum(text: string): string {
  let hash = 0x811c9dc5
  for (let i = 0; i < text.length; i++) {
    hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193)
  }
  return (hash >>> 0).toString(36)
}
