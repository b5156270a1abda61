// Reads a JSON body: its media type, its length, its encoding and its syntax are checked here.
import type { Context, MiddlewareHandler } from 'hono'
import { bodyLimit } from 'hono/body-limit'
import { Problem } from './problem.ts'

const MAX_BYTES = 1024 * 1024

/** The body as the `json` target of the validator. `mediaTypes` are the ones the route takes. */
export function readJson(...mediaTypes: string[]): MiddlewareHandler {
  return async function readJson(c, next) {
    checkMediaType(c, mediaTypes)
    const parse = async () => {
      // A promise, for Hono takes a falsy value (`null`, `0`) as "not read yet".
      c.req.bodyCache.json = Promise.resolve(parseJson(await readBytes(c)))
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

function parseJson(bytes: ArrayBuffer): unknown {
  let text: string
  try {
    text = new TextDecoder('utf-8', { fatal: true }).decode(bytes)
  } catch (cause) {
    throw new Problem('malformed', 'The body is not valid UTF-8.', { cause })
  }
  try {
    return JSON.parse(text)
  } catch (cause) {
    throw new Problem('malformed', 'The body is not valid JSON.', { cause })
  }
}

function tooLarge() {
  return new Problem('too_large', `The body is larger than ${MAX_BYTES} bytes.`)
}
