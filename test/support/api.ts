// A client of the API that sends what it is told, byte for byte: fetch would tidy it up.
import * as http from 'node:http'
import { connect } from 'node:net'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { text } from 'node:stream/consumers'
import { expect } from 'vitest'
import { atTheEnd } from './clean-up.ts'
import { type Answer, unpromised } from './openapi.ts'

export type Headers = Record<string, string>

export interface Options {
  headers?: Headers
  /** Text, bytes and streams go as they are, anything else as JSON. */
  body?: unknown
  signal?: AbortSignal
}

export interface Response {
  status: number
  /** The names are in lower case; what was sent more than once is joined by commas. */
  headers: Headers
  text: string
  /** The parsed JSON, or undefined when it is none. What it holds is for the test to check. */
  // oxlint-disable-next-line typescript/no-explicit-any
  body: any
}

export type Api = ReturnType<typeof createApi>

export function createApi(url: string) {
  const { hostname, port } = new URL(url)
  // Connections are kept, as most clients do: an answer that leaves one in disorder shows.
  const agent = new http.Agent({ keepAlive: true })
  const close = async () => agent.destroy()
  atTheEnd(close)

  function send(method: string, path: string, options: Options = {}) {
    const { signal, body } = options
    const [payload, implied] = encode(body)
    const headers = { ...implied, ...options.headers }
    return new Promise<http.IncomingMessage>((resolve, reject) => {
      const target = { agent, hostname, port, method, path, headers }
      const request = http.request(signal ? { ...target, signal } : target)
      // A server may answer and hang up before it has read everything: then the answer counts.
      request.on('response', resolve).on('error', reject)
      if (payload instanceof Readable) pipeline(payload, request).catch(reject)
      else request.end(payload)
    })
  }

  /** Holds an answer against the OpenAPI document. */
  function expectPromised(method: string, path: string, answer: Answer) {
    const said = answer.text?.slice(0, 1000) ?? ''
    expect(unpromised(method, path, answer), `${method} ${path}: ${said}`).toEqual([])
  }

  /** Returns when the answer's headers are there; its body is to be read, or destroyed. */
  async function open(method: string, path: string, options?: Options) {
    const message = await send(method, path, options)
    const { statusCode, headers } = message
    expectPromised(method, path, { status: statusCode!, headers: joined(headers), text: undefined })
    return message
  }

  /**
   * Takes the whole answer in.
   * @throws {Error} when the transfer breaks off
   */
  async function request(method: string, path: string, options?: Options): Promise<Response> {
    const message = await send(method, path, options)
    const received = await text(message)
    const answer = {
      status: message.statusCode!,
      headers: joined(message.headers),
      text: received,
      body: parseJson(received),
    }
    expectPromised(method, path, answer)
    return answer
  }

  const withoutBody = (method: string) => (path: string, headers?: Headers) =>
    request(method, path, { headers: headers ?? {} })
  const withBody = (method: string) => (path: string, body?: unknown, headers?: Headers) =>
    request(method, path, { body, headers: headers ?? {} })

  return {
    open,
    request,
    get: withoutBody('GET'),
    head: withoutBody('HEAD'),
    delete: withoutBody('DELETE'),
    post: withBody('POST'),
    put: withBody('PUT'),
    patch: withBody('PATCH'),
    close,
  }
}

function encode(body: unknown): [payload: string | Uint8Array | Readable | undefined, Headers] {
  if (body === undefined) return [undefined, {}]
  if (typeof body === 'object' && body !== null && Symbol.asyncIterator in body) {
    return [Readable.from(body as AsyncIterable<unknown>), {}]
  }
  const isRaw = typeof body === 'string' || body instanceof Uint8Array
  const payload = isRaw ? body : JSON.stringify(body)
  const length = { 'content-length': String(Buffer.byteLength(payload)) }
  return [payload, isRaw ? length : { 'content-type': 'application/json', ...length }]
}

function joined(headers: http.IncomingHttpHeaders): Headers {
  return Object.fromEntries(Object.entries(headers).map(([name, value]) => [name, String(value)]))
}

function parseJson(received: string): unknown {
  try {
    return JSON.parse(received)
  } catch {
    return undefined
  }
}

/**
 * Sends bytes over a socket of their own and takes what comes back, as far as it comes.
 * @returns what came until the server closed the connection, or until the time was over
 */
export function raw(
  url: string,
  bytes: string | Uint8Array,
  { timeoutMs = 2000, half = false }: { timeoutMs?: number; half?: boolean } = {},
): Promise<{ text: string; closed: boolean }> {
  const { hostname, port } = new URL(url)
  return new Promise((resolve, reject) => {
    let received = ''
    const socket = connect({ host: hostname, port: Number(port), allowHalfOpen: true })
    const timer = setTimeout(() => done(false), timeoutMs)
    const done = (closed: boolean) => {
      clearTimeout(timer)
      socket.destroy()
      resolve({ text: received, closed })
    }
    socket
      .setEncoding('latin1')
      .on('data', (data: string) => (received += data))
      .on('end', () => done(true))
      .on('error', (error: NodeJS.ErrnoException) =>
        error.code === 'ECONNREFUSED' ? reject(error) : done(true),
      )
    socket.write(bytes)
    if (half) socket.end()
  })
}

/** What an answer of a status owes its client besides the document. */
const owed: Record<number, string> = {
  401: 'www-authenticate',
  405: 'allow',
  429: 'retry-after',
  503: 'retry-after',
}

/** A stack, SQL, the driver's text, a file, a host: nothing of it is for a client. */
export const inner =
  /\n\s+at |postgres|select |insert into|sqlstate|econn|node_modules|\.[jt]s:\d|\/src\/|127\.0\.0\.1|localhost/i

/** Holds an answer against what the contract says of every problem; returns the document. */
export function expectProblem(response: Response, status: number, code: string): Response['body'] {
  const { headers, body, text } = response
  expect({ status: response.status, ...body }, text).toMatchObject({
    type: `/problems/${code}`,
    title: expect.stringMatching(/\S/),
    status,
    detail: expect.stringMatching(/\S/),
    code,
    request_id: headers['x-request-id'],
  })
  expect(response.status).toBe(status)
  expect(headers['content-type']).toBe('application/problem+json')
  expect(headers['x-content-type-options']).toBe('nosniff')
  expect(text).not.toMatch(inner)
  if (owed[status]) expect(headers).toHaveProperty(owed[status])
  for (const fault of body.errors ?? []) {
    expect(fault).toMatchObject({ code: expect.any(String), detail: expect.any(String) })
    expect(Object.keys(fault)).toContainEqual(
      expect.stringMatching(/^(pointer|parameter|header|line)$/),
    )
  }
  return body
}

let products = 0

/** The body of a valid product; each has a sku of its own. */
export function product(overrides: Record<string, unknown> = {}) {
  return { name: 'Blue mug', price: 12.5, sku: `MUG-${++products}`, ...overrides }
}

let pages = 0
/** The address of a page that nobody else asks for: it shares its statement with no other request. */
export const ownPage = (query = 'limit=1') => `/products?${query}&id[lt]=${1_000_000_000 + ++pages}`

/** Too large to be written together with others. */
export const largeProduct = () => product({ description: 'All about it. '.repeat(350) })
