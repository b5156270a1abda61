// Reads a JSON body: its media type, its length and its encoding are checked here, its syntax by Hono.
import type { Context, MiddlewareHandler } from 'hono'
import { Problem } from './problem.ts'

const MIB = 1024 * 1024
const MOST_DISCARDED_BYTES = 16 * MIB

/**
 * The body as the `json` target of the validator. `mediaTypes` are the ones the route takes; they are
 * kept beside it, so that a test can hold the OpenAPI document against them.
 */
export const readJson = (...mediaTypes: string[]) => readJsonUpTo(MIB, ...mediaTypes)

/** Likewise, with a limit of its own. */
export function readJsonUpTo(maxBytes: number, ...mediaTypes: string[]): MiddlewareHandler {
  const read: MiddlewareHandler = async function readJson(c, next) {
    checkMediaType(c, mediaTypes)
    const bytes = await readBytes(c.req.raw, maxBytes)
    // As text, which Hono parses. What is parsed it would write out and parse again: 1e400, which
    // is Infinity to JavaScript, would come out as null. Promises, for an empty text is none to it.
    const text = Promise.resolve(decode(bytes))
    Object.assign(c.req.bodyCache, { text, arrayBuffer: Promise.resolve(bytes) })
    await next()
  }
  return Object.assign(read, { mediaTypes })
}

/**
 * @returns the one of `mediaTypes` that the body is
 * @throws {Problem} `unsupported_media_type`
 */
/** For a body that the handler takes in itself, as a stream. */
export function takeStream(...mediaTypes: string[]): MiddlewareHandler {
  const take: MiddlewareHandler = async function takeStream(c, next) {
    checkMediaType(c, mediaTypes)
    await next()
  }
  return Object.assign(take, { mediaTypes })
}

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

async function readBytes(request: Request, maxBytes: number): Promise<ArrayBuffer> {
  const length = request.headers.get('content-length')
  if (length !== null && Number(length) > maxBytes) throw tooLarge(maxBytes)
  try {
    // A server reads no more than the length that it was told, so there is nothing to count.
    return length === null ? await readCounted(request.body, maxBytes) : await request.arrayBuffer()
  } catch (cause) {
    if (cause instanceof Problem) throw cause
    throw new Problem('malformed', 'The body ended before it was complete.', { cause })
  }
}

async function readCounted(
  body: ReadableStream<Uint8Array> | null,
  maxBytes: number,
): Promise<ArrayBuffer> {
  const bytes = new ArrayBuffer(0, { maxByteLength: maxBytes })
  const reader = body?.getReader()
  for (;;) {
    const { done, value } = (await reader?.read()) ?? { done: true }
    if (done || !value) return bytes.slice(0)
    const start = bytes.byteLength
    if (start + value.length > maxBytes) {
      await discard(reader!)
      throw tooLarge(maxBytes)
    }
    bytes.resize(start + value.length)
    new Uint8Array(bytes, start).set(value)
  }
}

/**
 * Takes in the rest of a body that is refused, as far as it is not out of all proportion. Of a body
 * left half read workerd ends the connection before the client has its answer, and Node's adapter
 * after half a second, under whatever request is the next one on it by then.
 */
async function discard(reader: ReadableStreamDefaultReader<Uint8Array>): Promise<void> {
  for (let bytes = 0; bytes < MOST_DISCARDED_BYTES;) {
    const { done, value } = await reader.read()
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

function tooLarge(maxBytes: number) {
  return new Problem('too_large', `The body is larger than ${maxBytes} bytes.`)
}
