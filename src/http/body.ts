// Reads a JSON body: its media type, length, pace and encoding are checked here.
import type { Context, MiddlewareHandler } from 'hono'
import type { Environment } from './environment.ts'
import { type Memory, noRoom, PACE, SENDING_IN_NEED } from './memory.ts'
import { parseJson } from './parse-json.ts'
import { Problem } from './problem.ts'

const MIB = 1024 * 1024
const MOST_DISCARDED_BYTES = 16 * MIB
/** A longer body is held by the length that it declares; a shorter one is in its connection's buffers until it has come. */
const SHORT_BYTES = 64 * 1024

/** How often is looked whether a body is too slow. */
const LOOK_MS = 500

/**
 * The body as the `json` target of the validator. `mediaTypes` are the ones the route takes; they are
 * kept beside it, so that a test can hold the OpenAPI document against them.
 */
export const readJson = (...mediaTypes: string[]) => readJsonUpTo(MIB, ...mediaTypes)

/** Likewise, with a limit of its own. */
export function readJsonUpTo(maxBytes: number, ...mediaTypes: string[]): MiddlewareHandler {
  const read: MiddlewareHandler<Environment> = async function readJson(c, next) {
    checkMediaType(c, mediaTypes)
    const held = holdIn(c.env.memory)
    try {
      const bytes = await readBytes(c.req.raw, maxBytes, held)
      // As text. What is parsed Hono would write out and parse again: 1e400, which is Infinity to
      // JavaScript, would come out as null. Promises, for an empty text is none to it.
      const text = decode(bytes)
      Object.assign(c.req.bodyCache, {
        text: Promise.resolve(text),
        arrayBuffer: Promise.resolve(bytes),
      })
      c.req.json = async <T>() => parseJson(text) as T
      await next()
    } finally {
      held.release()
    }
  }
  return Object.assign(read, { mediaTypes })
}

/** For a body that the handler takes in itself, as a stream. */
export function takeStream(...mediaTypes: string[]): MiddlewareHandler {
  const take: MiddlewareHandler = async function takeStream(c, next) {
    checkMediaType(c, mediaTypes)
    await next()
  }
  return Object.assign(take, { mediaTypes })
}

/** What is larger is not written together with others, who would have to wait for it. */
const SMALL_BYTES = 4096

/** Whether the head says that the body is small. */
export const isSmall = (c: Context): boolean =>
  Number(c.req.header('content-length') ?? Infinity) <= SMALL_BYTES

/** In lower case, without its parameters; empty when there is none. */
export function mediaTypeOf(c: Context): string {
  return contentType(c)[0]!
}

function contentType(c: Context): string[] {
  const header = c.req.header('content-type') ?? ''
  return header
    .toLowerCase()
    .split(';')
    .map((part) => part.trim())
}

/** @throws {Problem} `unsupported_media_type` */
function checkMediaType(c: Context, mediaTypes: string[]) {
  const [mediaType, ...parameters] = contentType(c)
  const charset = parameters.find((parameter) => parameter.startsWith('charset='))
  const encoding = c.req.header('content-encoding')?.toLowerCase() ?? 'identity'
  if (
    !mediaTypes.includes(mediaType!) ||
    (charset !== undefined && !/^charset="?utf-8"?$/.test(charset)) ||
    encoding !== 'identity'
  ) {
    throw new Problem(
      'unsupported_media_type',
      `The body must be ${mediaTypes.join(' or ')} in UTF-8, without a content encoding.`,
      {
        headers: { [c.req.method === 'PATCH' ? 'accept-patch' : 'accept']: mediaTypes.join(', ') },
      },
    )
  }
}

interface Held {
  /** Whether there is room for so many bytes more; they are held until `release`. */
  take: (bytes: number) => boolean
  release: () => void
  isShort: () => boolean
}

function holdIn({ take, give, isShort }: Memory): Held {
  let held = 0
  return {
    take(bytes) {
      if (!take(bytes)) return false
      held += bytes
      return true
    },
    release() {
      give(held)
      held = 0
    },
    isShort,
  }
}

async function readBytes(request: Request, maxBytes: number, held: Held): Promise<ArrayBuffer> {
  const header = request.headers.get('content-length')
  const length = header === null ? undefined : Number(header)
  if (length !== undefined && length > maxBytes) throw tooLarge(maxBytes)
  try {
    if (length === undefined || length > SHORT_BYTES) {
      return await readCounted(request.body, length, maxBytes, held)
    }
    // A server reads no more than the length that it was told, so there is nothing to count.
    const bytes = await inTime(request.arrayBuffer(), performance.now(), length, held)
    if (!held.take(length)) throw noRoom()
    return bytes
  } catch (cause) {
    if (cause instanceof Problem) throw cause
    throw new Problem('malformed', 'The body ended before it was complete.', { cause })
  }
}

/** A length that is known is held from the beginning, so that who has begun can come to an end. */
async function readCounted(
  body: ReadableStream<Uint8Array> | null,
  length: number | undefined,
  maxBytes: number,
  held: Held,
): Promise<ArrayBuffer> {
  const begunAt = performance.now()
  const reader = body?.getReader()
  if (length !== undefined && !held.take(length)) {
    await discard(reader!, held)
    throw noRoom()
  }
  const bytes = new ArrayBuffer(0, { maxByteLength: maxBytes })
  for (;;) {
    const start = bytes.byteLength
    const step = reader && inTime(reader.read(), begunAt, start, held)
    const { done, value } = (await step) ?? { done: true }
    if (done || !value) return bytes.slice(0)
    const refusal =
      start + value.length > maxBytes
        ? tooLarge(maxBytes)
        : length === undefined && !held.take(value.length)
          ? noRoom()
          : undefined
    if (refusal) {
      held.release()
      await discard(reader!, held)
      throw refusal
    }
    bytes.resize(start + value.length)
    new Uint8Array(bytes, start).set(value)
  }
}

/**
 * What comes of reading, if the body has kept to the least pace: `bytes` are those that it has.
 * @throws {Problem} `request_timeout`
 */
async function inTime<T>(
  reading: Promise<T>,
  begunAt: number,
  bytes: number,
  { isShort }: Held,
): Promise<T> {
  let timer: ReturnType<typeof setInterval> | undefined
  const late = new Promise<never>((_, reject) => {
    timer = setInterval(() => {
      const { firstMs, leastBytesPerMs } = isShort() ? SENDING_IN_NEED : PACE
      const lateMs = performance.now() - begunAt - firstMs - bytes / leastBytesPerMs
      if (lateMs > 0) reject(tooSlow())
    }, LOOK_MS)
  })
  try {
    return await Promise.race([reading, late])
  } finally {
    clearInterval(timer)
  }
}

/**
 * Takes in the rest of a body that is refused, as far as it is not out of all proportion. Of a body
 * left half read workerd ends the connection before the client has its answer, and Node's adapter
 * after half a second, under whatever request is the next one on it by then.
 */
async function discard(reader: ReadableStreamDefaultReader<Uint8Array>, held: Held): Promise<void> {
  const begunAt = performance.now()
  for (let bytes = 0; bytes < MOST_DISCARDED_BYTES;) {
    const { done, value } = await inTime(reader.read(), begunAt, bytes, held)
    if (done) return
    bytes += value.length
  }
}

function decode(bytes: ArrayBuffer): string {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes)
  } catch (cause) {
    throw new Problem('malformed', 'The body is not valid UTF-8.', { cause })
  }
}

function tooSlow() {
  return new Problem('request_timeout', 'The body has not come in time.', {
    headers: { connection: 'close' },
  })
}

function tooLarge(maxBytes: number) {
  return new Problem('too_large', `The body is larger than ${maxBytes} bytes.`)
}
