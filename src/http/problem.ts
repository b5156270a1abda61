// Every failure as a problem document (RFC 9457): the catalogue, and the one renderer.
import type { Context, MiddlewareHandler } from 'hono'
import { HTTPException } from 'hono/http-exception'
import { DatabaseError, type DatabaseErrorKind } from '../database/errors.ts'
import { answer } from './answer.ts'
import { requestIdOf } from './request-id.ts'
import type { Environment } from './environment.ts'

/** The status and the title of each code. */
export const catalogue = {
  malformed: [400, 'The request cannot be parsed'],
  unauthorized: [401, 'The request needs a key'],
  forbidden: [403, 'The key does not reach so far'],
  not_found: [404, 'There is nothing at this address'],
  method_not_allowed: [405, 'The resource does not take this method'],
  not_acceptable: [406, 'The resource has no such form'],
  request_timeout: [408, 'The request came too slowly'],
  conflict: [409, 'The request conflicts with what is stored'],
  insufficient_stock: [409, 'There is not so much in stock'],
  gone: [410, 'What is asked for is kept no longer'],
  precondition_failed: [412, 'The resource has changed'],
  too_large: [413, 'The body is too large'],
  unsupported_media_type: [415, 'The media type of the body is not supported'],
  validation: [422, 'The request is not valid'],
  rate_limited: [429, 'The client asks too often'],
  internal: [500, 'The service failed'],
  unavailable: [503, 'The service cannot answer at the moment'],
  timeout: [504, 'The request took too long'],
} as const

export type ProblemCode = keyof typeof catalogue

/** One fault of the input, and where it is. */
export interface Fault {
  /** A JSON Pointer fragment into the body, such as `#/price`. */
  pointer?: string
  /** A parameter of the query or the path. */
  parameter?: string
  header?: string
  /** A line of an import, from 1. */
  line?: number
  code: string
  detail: string
}

/** What a client reads; `errors` is there for invalid input and for conflicts that have a place. */
export interface ProblemDocument {
  type: string
  title: string
  status: number
  detail: string
  code: ProblemCode
  request_id: string
  errors?: Fault[]
}

/** Where codes share a status, the first of them is the general one. */
const codeByStatus = new Map<number, ProblemCode>(
  (Object.keys(catalogue) as ProblemCode[]).toReversed().map((code) => [catalogue[code][0], code]),
)

/** A failure that the client is told of. */
export class Problem extends Error {
  override name = 'Problem'
  readonly code: ProblemCode
  readonly faults: Fault[] | undefined
  readonly headers: Record<string, string>

  constructor(
    code: ProblemCode,
    detail: string,
    options: { faults?: Fault[]; headers?: Record<string, string>; cause?: unknown } = {},
  ) {
    super(detail, 'cause' in options ? { cause: options.cause } : {})
    this.code = code
    this.faults = options.faults
    this.headers = options.headers ?? {}
  }

  get status() {
    return catalogue[this.code][0]
  }
}

/** Which field of a request a constraint of the database speaks of, and what to say. */
export type ConstraintFaults = Record<string, { field: string; code: string; detail: string }>

const codeByKind: Record<DatabaseErrorKind, ProblemCode> = {
  conflict: 'conflict',
  invalid: 'validation',
  aborted: 'unavailable',
  timeout: 'timeout',
  unavailable: 'unavailable',
  internal: 'internal',
}

const INTERNAL = 'Something went wrong here. It is logged under the request id.'
const detailByKind: Record<DatabaseErrorKind, string> = {
  conflict: 'The request conflicts with what is stored.',
  invalid: 'The database refused a value.',
  aborted: 'Another change was under way, so nothing was changed here. Try again.',
  timeout: 'A statement ran past its time limit. Nothing was changed.',
  unavailable: 'The database cannot be used at the moment. Nothing was changed. Try again.',
  internal: INTERNAL,
}
const LOST = 'The database gave no answer. Whether a change was made is not known.'

/** For the routes of a resource: which field each constraint of its tables speaks of. */
export const speaksOf = (constraints: ConstraintFaults): MiddlewareHandler<Environment> =>
  async function speaksOf(c, next) {
    c.set('constraints', constraints)
    await next()
  }

/** The error handler of the app. */
export function renderProblems(error: Error, c: Context<Environment>): Response {
  const problem = toProblem(error, c.get('constraints'))
  // Nobody reads the answer to a client that has gone away, and nothing of ours has failed.
  if (problem.status >= 500 && !c.req.raw.signal.aborted) {
    const request_id = requestIdOf(c)
    if (problem.code === 'unavailable') {
      const reason = [error, error.cause].filter((x) => x instanceof Error).map((x) => x.message)
      c.env.log.warn({ request_id, reason: reason.join(': ') }, 'request refused')
    } else {
      c.env.log.error({ request_id, error }, 'request failed')
    }
  }
  return problemResponse(problem, c)
}

/** Hono hands what is thrown to the error handler when it is an `Error`, and to nobody otherwise. */
export const onlyErrors: MiddlewareHandler = async function onlyErrors(_, next) {
  try {
    await next()
  } catch (cause) {
    throw new Error('not an Error was thrown', { cause })
  }
}

export function problemResponse(problem: Problem, c: Context<Environment>): Response {
  const { status, headers, body } = problemDocument(problem, requestIdOf(c))
  return answer(c, body, status, headers)
}

/** What `problemResponse` answers, apart from the header of the one request. */
export function problemDocument(problem: Problem, requestId: string) {
  const [status, title] = catalogue[problem.code]
  const document: ProblemDocument = {
    type: `/problems/${problem.code}`,
    title,
    status,
    detail: problem.message,
    code: problem.code,
    request_id: requestId,
    ...(problem.faults ? { errors: problem.faults } : {}),
  }
  const headers: Record<string, string> = {
    'content-type': 'application/problem+json',
    ...(problem.code === 'unavailable' ? { 'retry-after': '1' } : {}),
    ...problem.headers,
  }
  return { status, headers, body: JSON.stringify(document) }
}

/** What a client is told of a failure, whatever its source. */
export function toProblem(error: Error, constraints: ConstraintFaults = {}): Problem {
  if (error instanceof Problem) return error
  if (error instanceof DatabaseError) return fromDatabase(error, constraints)
  if (error instanceof HTTPException) {
    // Hono's validator raises 400 for a body that it cannot parse.
    if (error.status === 400) return new Problem('malformed', 'The body is not valid JSON.')
    const code = codeByStatus.get(error.status)
    if (code) return new Problem(code, `${catalogue[code][1]}.`, { cause: error })
  }
  return new Problem('internal', INTERNAL, { cause: error })
}

function fromDatabase(error: DatabaseError, constraints: ConstraintFaults): Problem {
  const code = codeByKind[error.kind]
  const known = error.constraint === undefined ? undefined : constraints[error.constraint]
  const field = known?.field ?? error.column
  if ((code === 'conflict' || code === 'validation') && field !== undefined) {
    const { code: fault, detail } = known ?? { code: 'invalid', detail: 'is not valid' }
    return new Problem(code, `${field} ${detail}.`, {
      faults: [{ pointer: `#/${field}`, code: fault, detail }],
      cause: error,
    })
  }
  return new Problem(code, error.lost ? LOST : detailByKind[error.kind], { cause: error })
}
