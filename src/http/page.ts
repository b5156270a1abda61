// Pages: opaque cursors, and the links to the pages beside this one.
import { Problem } from './problem.ts'

/** A place in a list: the sort key of the row beside it, and the way to go from there. */
export interface Cursor {
  direction: 'next' | 'prev'
  key: (string | number | null)[]
}

const VERSION = 1

/** `query` is what the cursor belongs to, such as its sort and filters; with another it is refused. */
export function encodeCursor(cursor: Cursor, query: string): string {
  const payload = JSON.stringify([VERSION, cursor.direction, ...cursor.key])
  const bytes = new TextEncoder().encode(`${checksum(query + payload)}${payload}`)
  return btoa(String.fromCharCode(...bytes))
    .replaceAll('+', '-')
    .replaceAll('/', '_')
    .replaceAll('=', '')
}

/** @throws {Problem} `malformed`, when it is not one of ours, or was made for another query */
export function decodeCursor(text: string, query: string): Cursor {
  try {
    const binary = atob(text.replaceAll('-', '+').replaceAll('_', '/'))
    const decoded = new TextDecoder().decode(Uint8Array.from(binary, (char) => char.charCodeAt(0)))
    const [, direction, ...key] = JSON.parse(decoded.slice(decoded.indexOf('[')))
    const cursor: Cursor = { direction, key }
    if (encodeCursor(cursor, query) === text) return cursor
  } catch {
    // Not base64, not JSON: told below.
  }
  throw new Problem(
    'malformed',
    'The cursor is not one of this service, or belongs to another query.',
  )
}

/** The `Link` header (RFC 8288) of a page; relative, so that it holds behind any proxy. */
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
