// Takes a body of any length apart into its lines, as they arrive: memory holds one piece, and one line at most.
import { PATIENCE_MS, withPatience } from './patience.ts'
import { Problem } from './problem.ts'

export interface Line {
  /** From 1. */
  number: number
  /** Without its line feed; a carriage return before that is left. */
  text: string
}

export type Body = ReadableStream<Uint8Array> | null
/** Sees every byte of a body as it is read. */
export type OnChunk = (chunk: Uint8Array) => void

/** Of a line, without its end. */
export const MOST_LINE_BYTES = 1024 * 1024

/**
 * For so much of a body its client may take the time that it has for one pause, what it is held up
 * aside: a byte now and then would else hold a connection, and a transaction, for ever.
 */
const PART_BYTES = 800_000

const LINE_FEED = 10
const BYTE_ORDER_MARK = '\ufeff'
const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

/**
 * The lines of a body, in bunches as they come; blank ones are there, for they count. The caller may
 * stop early; `onChunk` sees every byte that was read.
 * @throws {Problem} `malformed` for a body that ends half way or is not UTF-8, `too_large` for a line,
 *   `request_timeout`
 */
export async function* readLines(body: Body, onChunk?: OnChunk): AsyncGenerator<Line[]> {
  // The beginning of a line whose end has not come. It grows by doubling: a list of the pieces would
  // let a body in pieces of one byte take a hundred times its size.
  let begun = new Uint8Array(64 * 1024)
  let length = 0
  let number = 1
  const keep = (bytes: Uint8Array) => {
    if (length + bytes.length > MOST_LINE_BYTES + 1) throw tooLong(number)
    if (length + bytes.length > begun.length) {
      const grown = new Uint8Array(Math.max(2 * begun.length, length + bytes.length))
      grown.set(begun.subarray(0, length))
      begun = grown
    }
    begun.set(bytes, length)
    length += bytes.length
  }
  for await (const chunk of readChunks(body)) {
    onChunk?.(chunk)
    const end = chunk.lastIndexOf(LINE_FEED)
    if (end === -1) {
      keep(chunk)
      continue
    }
    let whole = chunk.subarray(0, end)
    if (length > 0) {
      const first = chunk.indexOf(LINE_FEED)
      keep(chunk.subarray(0, first))
      whole = new Uint8Array(length + end - first)
      whole.set(begun.subarray(0, length))
      whole.set(chunk.subarray(first, end), length)
    }
    const lines = toLines(whole, number)
    number += lines.length
    yield lines
    length = 0
    keep(chunk.subarray(end + 1))
  }
  if (length > 0) yield toLines(begun.subarray(0, length), number)
}

/** Takes in the rest of a body that is refused: most clients look at no answer before all is sent. */
export async function discardRest(body: Body): Promise<void> {
  await readRest(body, () => {}).catch(() => {
    // It broke off: there is nobody left to answer.
  })
}

/** @throws {Problem} `malformed`, when it ends half way; `request_timeout` */
export async function readRest(body: Body, onChunk: OnChunk): Promise<void> {
  for await (const chunk of readChunks(body)) onChunk(chunk)
}

/** Bodies of which no more is to come. */
const brokenOff = new WeakSet<object>()

async function* readChunks(body: Body): AsyncGenerator<Uint8Array> {
  if (!body) return
  if (brokenOff.has(body)) throw new Problem('malformed', 'The body has broken off.')
  const reader = body.getReader()
  const late = () =>
    new Problem('request_timeout', 'The body has not come in time.', {
      headers: { connection: 'close' },
    })
  let partBytes = 0
  let waitedMs = 0
  try {
    for (;;) {
      const begunAt = performance.now()
      const { done, value } = await withPatience(reader.read(), late, PATIENCE_MS - waitedMs)
      if (done) return
      waitedMs += performance.now() - begunAt
      partBytes += value.length
      if (partBytes >= PART_BYTES) partBytes = waitedMs = 0
      yield value
    }
  } catch (cause) {
    brokenOff.add(body)
    if (cause instanceof Problem) throw cause
    throw new Problem('malformed', 'The body ended before it was complete.', { cause })
  } finally {
    reader.releaseLock()
  }
}

/** A line feed is no part of any other character, so whole lines hold whole characters. */
function toLines(bytes: Uint8Array, first: number): Line[] {
  let text: string
  try {
    text = decoder.decode(bytes)
  } catch (cause) {
    throw new Problem('malformed', `Line ${badLine(bytes, first)} is not valid UTF-8.`, { cause })
  }
  if (first === 1 && text.startsWith(BYTE_ORDER_MARK)) text = text.slice(1)
  return text.split('\n').map((text, index) => {
    if (isTooLong(text)) throw tooLong(first + index)
    return { number: first + index, text }
  })
}

function badLine(bytes: Uint8Array, first: number): number {
  for (let number = first, start = 0; ; number++) {
    const end = bytes.indexOf(LINE_FEED, start)
    if (end === -1) return number
    try {
      decoder.decode(bytes.subarray(start, end))
    } catch {
      return number
    }
    start = end + 1
  }
}

function isTooLong(text: string): boolean {
  if (text.length * 3 <= MOST_LINE_BYTES) return false
  const withoutEnd = text.endsWith('\r') ? text.slice(0, -1) : text
  return new TextEncoder().encode(withoutEnd).length > MOST_LINE_BYTES
}

export function tooLong(line: number): Problem {
  return new Problem('too_large', `Line ${line} is longer than ${MOST_LINE_BYTES} bytes.`)
}
