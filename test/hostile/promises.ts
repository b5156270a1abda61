// What every answer is held to, whatever was asked; and how a request that broke a promise is shown.
import { expectProblem } from '../support/api.ts'
import { faultsOf, unpromised } from '../support/openapi.ts'
import type { WireAnswer } from '../support/wire.ts'
import { type HostileRequest, toBytes } from './requests.ts'

/** What Node itself answers to what is no HTTP: before there is a request, there is no app. */
const bare = new Set([400, 413, 431])

/** How long an answer may take, from the last byte of the request to the last of the answer. */
export const LONGEST_MS = 1000

/** Of Node's parser: what is longer is answered by Node. */
const MOST_HEAD_BYTES = 16 * 1024

const FIT_ID = /^[A-Za-z0-9._-]{1,128}$/
/** What goes with a key that is not known: nobody is to be told of it. */
export const CANARY = /canary-9f3c/

/** Whether it is one of Node's own, which stand where no request could be read, or one without a host. */
export function isBare({ status, headers, body }: WireAnswer): boolean {
  const names = Object.keys(headers)
  return (
    bare.has(status) &&
    body.length === 0 &&
    headers['connection'] === 'close' &&
    (names.length === 1 || (status === 400 && names.join() === 'connection,date,transfer-encoding'))
  )
}

/** @throws {Error} that says which promise is broken */
export function expectHonest(request: HostileRequest, answer: WireAnswer, secrets: string[]): void {
  const text = answer.body.toString()
  if (answer.status >= 500) throw new Error(`the service failed: ${text}`)
  expectDiscreet(answer, secrets)
  if (isBare(answer)) {
    if (answer.status === 431 && headBytes(request) > MOST_HEAD_BYTES) return
    throw new Error('refused without a document')
  }
  const { method, target } = request
  const path = pathOf(target)
  const complaints = unpromised(method, path, { ...answer, text })
  if (complaints.length > 0) throw new Error(`${complaints.join('; ')}: ${text.slice(0, 1000)}`)
  expectIds(request, answer)
  if (answer.status >= 400 && method !== 'HEAD') expectProblemOf(answer)
}

/** Likewise, where nobody can say what was asked: of an answer to bytes that may be anything. */
export function expectHonestAtAll(answer: WireAnswer, isHead: boolean, secrets: string[]): void {
  if (answer.status >= 500) throw new Error(`the service failed: ${answer.body.toString()}`)
  expectDiscreet(answer, secrets)
  if (isHead || isBare(answer) || answer.status < 400) return
  const problem = { $ref: 'document#/components/schemas/Problem' }
  const complaints = faultsOf(problem, JSON.parse(answer.body.toString()))
  if (complaints.length > 0) throw new Error(complaints.join('; '))
  expectProblemOf(answer)
}

function expectProblemOf({ status, headers, body }: WireAnswer) {
  const text = body.toString()
  const problem = JSON.parse(text) as { code: string; request_id: string }
  const told = { ...headers, 'x-request-id': problem.request_id }
  // An answer that is given once more has the id of the first.
  const own = headers['idempotency-replayed'] ? told : headers
  expectProblem({ status, headers: own, text, body: problem }, status, problem.code)
}

function expectIds({ headers: sent }: HostileRequest, { headers }: WireAnswer) {
  const given = sent.filter(([name]) => name === 'X-Request-Id').map(([, value]) => value)
  const id = headers['x-request-id'] ?? ''
  const isRight = given.length === 1 && FIT_ID.test(given[0]!) ? id === given[0] : FIT_ID.test(id)
  if (!isRight) throw new Error(`the request id is ${id}`)
}

function expectDiscreet({ headers, body }: WireAnswer, secrets: string[]) {
  const all = JSON.stringify(headers) + body.toString('latin1')
  const told = secrets.find((secret) => all.includes(secret))
  if (told) throw new Error(`the answer tells ${told}`)
  if (CANARY.test(all)) throw new Error('the answer repeats a key')
}

function headBytes(request: HostileRequest): number {
  return toBytes({ ...request, body: undefined }, '').length
}

/** As the router sees it. */
function pathOf(target: string): string {
  const url = target.startsWith('/') ? `http://host${target}` : target
  const { pathname } = URL.canParse(url) ? new URL(url) : { pathname: target }
  try {
    return decodeURI(pathname)
  } catch {
    return pathname
  }
}

/** A command that sends it again. */
export function reproduce(request: HostileRequest, url: string): string {
  return printed(toBytes(request, new URL(url).host), url)
}

export function printed(bytes: Uint8Array, url: string): string {
  const { hostname, port } = new URL(url)
  const text = Array.from(bytes, (byte) => {
    if (byte === 13) return '\\r'
    if (byte === 10) return '\\n'
    const char = String.fromCharCode(byte)
    return byte < 32 || byte > 126 || `\\'%`.includes(char)
      ? `\\x${byte.toString(16).padStart(2, '0')}`
      : char
  }).join('')
  return `printf '${text}' | nc ${hostname} ${port}`
}
