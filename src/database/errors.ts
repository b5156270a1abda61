// What can go wrong with a database, in kinds that a caller can act on. Recognised by SQLSTATE, never by text.
import postgres from 'postgres'

/**
 * - `conflict`: a unique, exclusion or foreign key constraint refused the row
 * - `invalid`: a value breaks a check, a not-null or a type
 * - `aborted`: rolled back so that another transaction could go on; nothing happened, try again
 * - `timeout`: a statement ran past its limit
 * - `unavailable`: no server, no connection, or the connection was lost
 * - `internal`: anything else, which is a fault of this service
 */
export type DatabaseErrorKind =
  'conflict' | 'invalid' | 'aborted' | 'timeout' | 'unavailable' | 'internal'

export class DatabaseError extends Error {
  override name = 'DatabaseError'
  readonly kind: DatabaseErrorKind
  /** SQLSTATE, or the code of the driver or of the operating system. */
  readonly code: string | undefined
  readonly constraint: string | undefined
  readonly column: string | undefined
  /** The connection went away under a statement: whether it took effect is not known. */
  readonly lost: boolean

  constructor(
    kind: DatabaseErrorKind,
    message: string,
    details: {
      cause?: unknown
      code?: string
      constraint?: string
      column?: string
      lost?: boolean
    } = {},
  ) {
    super(message, 'cause' in details ? { cause: details.cause } : {})
    this.kind = kind
    this.code = details.code
    this.constraint = details.constraint
    this.column = details.column
    this.lost = details.lost ?? false
  }
}

/** The longest matching start of a SQLSTATE decides. */
const kindBySqlState: Record<string, DatabaseErrorKind> = {
  '08': 'unavailable', // connection exception
  '0A000': 'aborted', // cached plan must not change result type: a migration ran, the next try plans anew
  '22': 'invalid', // data exception
  '23502': 'invalid', // not null
  '23503': 'conflict', // foreign key
  '23505': 'conflict', // unique
  '23514': 'invalid', // check
  '23P01': 'conflict', // exclusion
  '25P03': 'unavailable', // idle in transaction for too long: the connection is gone
  '25P04': 'unavailable', // a transaction for too long: likewise
  '25006': 'unavailable', // read-only transaction: this server was demoted to a standby
  '28': 'unavailable', // not authorised, while running: the password or pg_hba.conf was changed
  '3D000': 'unavailable', // the database is gone
  '40001': 'aborted', // serialization failure
  '40P01': 'aborted', // deadlock
  '53': 'unavailable', // out of connections, memory or disk
  '55P03': 'timeout', // lock not available, by lock_timeout
  '57014': 'timeout', // query cancelled, by statement_timeout
  '57P': 'unavailable', // shut down, crashed, starting up
  '58000': 'unavailable', // how Hyperdrive reports what has no SQLSTATE: no connection, or a lost one
}

/** Any error of the driver as a {@link DatabaseError}, with the original as its cause. */
export function toDatabaseError(error: unknown): DatabaseError {
  if (error instanceof DatabaseError) return error
  if (error instanceof postgres.PostgresError) {
    const { code, constraint_name: constraint, column_name: column } = error
    return new DatabaseError(kindOf(code), `PostgreSQL refused a statement (${code})`, {
      cause: error,
      code,
      lost: /^(08|25P0[34]|57P0[12]|58000)/.test(code),
      ...(constraint ? { constraint } : {}),
      ...(column ? { column } : {}),
    })
  }
  const { name, code = '', syscall } = error as { name?: string; code?: string; syscall?: string }
  if (ofStatement.has(code) || (code === '' && name !== 'Error')) {
    return new DatabaseError('internal', 'a statement could not be sent', { cause: error, code })
  }
  // What is left comes from the socket, from TLS or from the driver's handling of them; workerd's
  // sockets raise plain errors without a code.
  const isUnsent =
    beforeSending.has(code) ||
    notTrusted.test(code) ||
    (syscall !== undefined && opening.has(syscall))
  if (isUnsent) {
    return new DatabaseError('unavailable', `no connection (${code})`, { cause: error, code })
  }
  const message = `the connection was lost${code && ` (${code})`}`
  return new DatabaseError('unavailable', message, { cause: error, code, lost: true })
}

/** Codes of the driver for statements that it cannot send. */
const ofStatement = new Set(['UNDEFINED_VALUE', 'MAX_PARAMETERS_EXCEEDED', 'NOT_TAGGED_CALL'])
/** Codes of failures that come before a statement can be sent. */
const beforeSending = new Set([
  'ENOENT', // no Unix socket
  'ECONNREFUSED',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'ENOTFOUND',
  'EAI_AGAIN',
  'CONNECT_TIMEOUT',
])

/** What Node was doing when it failed before a statement could be sent, with EMFILE for one. */
const opening = new Set(['connect', 'getaddrinfo'])

/** A certificate is checked before anything is sent to whoever shows it. */
const notTrusted = /^UNABLE_TO_|CERT/

/** For who waits no more, so that nobody is told. */
export function clientGone(): DatabaseError {
  return new DatabaseError('unavailable', 'the client went away', { code: 'CLIENT_GONE' })
}

/** Whether waiting cannot help: wrong credentials, no such database, TLS refused or not trusted. */
export function isHopeless(error: DatabaseError): boolean {
  const cause = error.cause as { code?: unknown; syscall?: unknown } | undefined
  // A handshake that the server breaks off is a reset without a system call behind it.
  const tlsRefused = error.code === 'ECONNRESET' && cause?.syscall === undefined
  return tlsRefused || /^(28|3D|ERR_TLS|ERR_SSL|UNABLE_TO)|CERT|EPROTO/.test(error.code ?? '')
}

function kindOf(sqlState: string): DatabaseErrorKind {
  return (
    kindBySqlState[sqlState] ??
    kindBySqlState[sqlState.slice(0, 3)] ??
    kindBySqlState[sqlState.slice(0, 2)] ??
    'internal'
  )
}
