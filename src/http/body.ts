// Reads a JSON body: its media type, its length and its encoding are checked here, its syntax by Hono.
import type { Context, MiddlewareHandler } from 'hono'
import { Problem } from './problem.ts'

const MAX_BYTES = 1024 * 1024
const MOST_DISCARDED_BYTES = 16 * MAX_BYTES

/** The body as the `json` target of the validator. `mediaTypes` are the ones the route takes. */
export function readJson(...mediaTypes: string[]): MiddlewareHandler {
  return async function readJson(c, next) {
    checkMediaType(c, mediaTypes)
    // As text, which Hono parses. What is parsed it would write out and parse again: 1e400, which
    // is Infinity to JavaScript, would come out as null. A promise, for an empty text is none to it.
    Object.assign(c.req.bodyCache, { text: Promise.resolve(decode(await readBytes(c.req.raw))) })
    await next()
  }
}

/**
 * @returns the one of `mediaTypes` that the body is
 * @throws {Problem} `unsupported_media_type`
 */
export function checkMediaType(c: Context, mediaTypes: string[]): string {
  const [mediaType, ...parameters] = (c.req.header('content-type') ?? '')
    .toLowerCase()
    .split(';')
    .map((part) => part.trim())
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
  return mediaType!
}

async function readBytes(request: Request): Promise<ArrayBuffer> {
  const length = request.headers.get('content-length')
  if (length !== null && Number(length) > MAX_BYTES) throw tooLarge()
  try {
    // A server reads no more than the length that it was told, so there is nothing to count.
    return length === null ? await readCounted(request.body) : await request.arrayBuffer()
  } catch (cause) {
    if (cause instanceof Problem) throw cause
    throw new Problem('malformed', 'The body ended before it was complete.', { cause })
  }
}

async function readCounted(body: ReadableStream<Uint8Array> | null): Promise<ArrayBuffer> {
  const bytes = new ArrayBuffer(0, { maxByteLength: MAX_BYTES })
  const reader = body?.getReader()
  for (;;) {
    const { done, value } = (await reader?.read()) ?? { done: true }
    if (done || !value) return bytes.slice(0)
    const start = bytes.byteLength
    if (start + value.length > MAX_BYTES) {
      await discard(reader!)
      throw tooLarge()
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

function tooLarge() {
  return new Problem('too_large', `The body is larger than ${MAX_BYTES} bytes.`)
}
