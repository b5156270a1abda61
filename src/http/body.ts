// Reads a JSON body: its media type, its length and its encoding are checked here, its syntax by Hono.
import type { Context, MiddlewareHandler } from 'hono'
import { bodyLimit } from 'hono/body-limit'
import { Problem } from './problem.ts'

const MAX_BYTES = 1024 * 1024

/** The body as the `json` target of the validator. `mediaTypes` are the ones the route takes. */
export function readJson(...mediaTypes: string[]): MiddlewareHandler {
  return async function readJson(c, next) {
    checkMediaType(c, mediaTypes)
    const parse = async () => {
      // As text, which Hono parses. What is parsed it would write out and parse again: 1e400, which
      // is Infinity to JavaScript, would come out as null.
      c.req.bodyCache.text = Promise.resolve(decode(await readBytes(c)))
      await next()
    }
    const length = c.req.header('content-length')
    if (length === undefined) return limitUnknownLength(c, parse)
    if (Number(length) > MAX_BYTES) throw tooLarge()
    return parse()
  }
}

/** Counts while it reads; a length that is known beforehand needs none of it. */
const limitUnknownLength = bodyLimit({
  maxSize: MAX_BYTES,
  onError: () => {
    throw tooLarge()
  },
})

function checkMediaType(c: Context, mediaTypes: string[]) {
  const [mediaType, ...parameters] = (c.req.header('content-type') ?? '')
    .toLowerCase()
    .split(';')
    .map((part) => part.trim())
  const charset = parameters.find((parameter) => parameter.startsWith('charset='))
  const encoding = c.req.header('content-encoding') ?? 'identity'
  if (
    !mediaTypes.includes(mediaType!) ||
    (charset !== undefined && !/^charset="?utf-8"?$/.test(charset)) ||
    encoding !== 'identity'
  ) {
    throw new Problem(
      'unsupported_media_type',
      `The body must be ${mediaTypes.join(' or ')} in UTF-8, without a content encoding.`,
      { headers: { accept: mediaTypes.join(', ') } },
    )
  }
}

async function readBytes(c: Context): Promise<ArrayBuffer> {
  try {
    return await c.req.raw.arrayBuffer()
  } catch (cause) {
    throw new Problem('malformed', 'The body ended before it was complete.', { cause })
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
