// One connection to PostgreSQL: a postgres.js client with a single socket, made safe to lend.
import postgres from 'postgres'
import { DatabaseError, toDatabaseError } from './errors.ts'

export type SslMode = 'disable' | 'require' | 'verify-full'

export interface DatabaseAddress {
  host: string
  port: number
  user: string
  password: string
  database: string
  /** `require` encrypts and trusts any certificate; `verify-full` checks it and the host's name. */
  sslMode: SslMode
  /** Certificates (PEM) that `verify-full` trusts in place of the runtime's own. */
  authority?: string
}

/** How values that JavaScript would bend are read: times keep their microseconds as text. */
const types = {
  bigint: { to: 20, from: [20], parse: Number, serialize: String },
  time: { to: 1184, from: [1082, 1114, 1184], parse: (x: string) => x, serialize: String },
}

type Parameter = postgres.ParameterOrFragment<number | string>

/** The template tag that statements are written with. A statement runs when it is awaited. */
export interface Sql {
  <Rows extends readonly object[] = postgres.Row[]>(
    template: TemplateStringsArray,
    ...parameters: readonly Parameter[]
  ): postgres.PendingQuery<Rows>
  json(value: postgres.JSONValue): postgres.Parameter
}

/** A part of a statement, written with the tag and put into a template of it; nothing to be awaited. */
export type Fragment = postgres.PendingQuery<postgres.Row[]>

export interface ConnectionOptions {
  address: DatabaseAddress
  connectTimeoutMs: number
  /** When no answer has come after this time, the connection is thrown away. */
  queryTimeoutMs: number
  /** Session parameters, sent with the start-up packet; a pooler such as Hyperdrive takes none. */
  parameters?: Record<string, string | number>
  /** workerd frees a request's sockets itself, and raises an error when they are ended. */
  endSockets: boolean
}

export type Connection = ReturnType<typeof openConnection>

const NO_PORT = 0
/**
 * The server keeps each statement that was prepared on a connection, some 20 kB of it, as long as the
 * connection lives, and filters and sorts combine to more statements than anybody has memory for.
 */
const MOST_STATEMENTS = 200

/** How long the server may take to end what was cancelled. */
const CANCEL_TIMEOUT_MS = 5000
/**
 * How long the effect of one request to cancel is waited for. One that arrives between two messages of
 * a statement does nothing, so there may have to be another.
 */
const CANCEL_PAUSE_MS = 100
/**
 * How long a request to cancel may take to arrive when the statement is over. The server starts a process
 * for it: on two busy processors that took longer than 100 ms, and a good connection was thrown away.
 */
const CANCEL_ARRIVAL_MS = 1000

/** What postgres.js's queries are made of; pinned to 3.4.9, and tests hold it. */
interface DriverQuery {
  handler: (query: DriverQuery) => void
  resolve: (result: unknown) => void
  reject: (error: unknown) => void
  /** The server has its statement before all others of the connection. */
  active: boolean
  canceller: (query: DriverQuery) => Promise<void>
}

/**
 * Before a statement that is new to a connection postgres.js asks for the types of its parameters, which
 * is a round trip of its own; on Workers every statement is new. Ours are sent as text whatever their
 * type, so it is told that there is nothing to ask.
 */
const UNASKED = { get: () => false, set() {} }

/**
 * A connection that opens its socket with the first statement.
 *
 * postgres.js by itself reconnects behind a caller's back, waits for ever on a silent network, and
 * answers one caller with another's leftovers after a failure. Here a connection that has failed
 * once is dead, and every statement of it that is still open fails at once, whatever the driver
 * does about it.
 */
export function openConnection(options: ConnectionOptions) {
  const { address, connectTimeoutMs, queryTimeoutMs, parameters, endSockets } = options
  const pending = new Set<DriverQuery>()
  const statements = new Set<string>()
  const openedAt = performance.now()
  let death: DatabaseError | undefined
  let established = false
  let soiled = false
  let usedAt = openedAt
  let whenQuiet = () => {}

  const client = postgres({
    ...route(address),
    user: address.user,
    password: address.password,
    database: address.database,
    ssl: sslOption(address),
    max: 1,
    connect_timeout: connectTimeoutMs / 1000,
    // A connection that a router forgot is noticed after 5 s and ten probes, not after minutes.
    keep_alive: 5,
    idle_timeout: 0,
    max_lifetime: null,
    fetch_types: false,
    prepare: true,
    types,
    connection: { application_name: 'larder', ...parameters },
    onnotice: () => {},
    onclose: () => die(lost('the server closed the connection', 'CONNECTION_CLOSED')),
  })

  function die(reason: DatabaseError) {
    if (death) return
    death = reason
    for (const query of pending) query.reject(reason)
    // Without a time-out `end` waits for ever when an answer is outstanding.
    if (endSockets) void client.end({ timeout: 0 })
  }

  /** Watches over one statement: its deadline, its failure, and that it still may be sent. */
  function guard<Query extends object>(query: Query, refusal?: () => Error | undefined): Query {
    const guarded = query as unknown as DriverQuery
    const { handler, resolve, reject } = guarded
    guarded.handler = (self) => {
      const refused = refusal?.() ?? death
      if (refused) return reject(refused)
      const timer = setTimeout(() => die(deadlineError(queryTimeoutMs)), queryTimeoutMs)
      const settle = () => {
        clearTimeout(timer)
        pending.delete(guarded)
        usedAt = performance.now()
        if (pending.size === 0) whenQuiet()
      }
      guarded.resolve = (result) => {
        settle()
        established = true
        const { statement } = result as { statement?: { name: string } }
        if (statement?.name) statements.add(statement.name)
        resolve(result)
      }
      guarded.reject = (cause) => {
        settle()
        const error = isNoSecondTry(cause) ? hungUp() : toDatabaseError(cause)
        reject(error)
        soiled = true
        if (error.kind === 'unavailable') die(error)
        else established = true
      }
      pending.add(guarded)
      Object.defineProperty(guarded, 'describeFirst', UNASKED)
      handler(self)
    }
    return query
  }

  return {
    get dead() {
      return death !== undefined
    },
    get established() {
      return established
    },
    get busy() {
      return pending.size > 0
    },
    get ageMs() {
      return performance.now() - openedAt
    },
    /** Has prepared so many statements that the server had better forget them. */
    get worn() {
      return statements.size > MOST_STATEMENTS
    },
    /** When the last answer came, on the clock of `performance.now()`. */
    get usedAt() {
      return usedAt
    },
    /**
     * After a statement that failed, rows it had sent before stay in the driver and would stand at
     * the head of the next result; any statement in between takes them away.
     */
    get soiled() {
      return soiled
    },

    /** Runs a statement of the pool's own, such as `begin`; several in one trip are allowed. */
    async run(statement: string): Promise<string> {
      const result = await guard(client.unsafe(statement))
      soiled = false
      return result.command
    },

    /** A tag for one borrower, and the end of its validity: what is sent after it fails for the reason. */
    lend(): { sql: Sql; end: (reason?: () => DatabaseError) => void } {
      let over: (() => DatabaseError) | undefined
      const refusal = () => over?.()
      const tag = (template: TemplateStringsArray, ...values: Parameter[]) =>
        guard(client(template, ...values), refusal)
      const json = (value: postgres.JSONValue) => client.json(value)
      const sql = Object.assign(tag, { json }) as Sql
      return { sql, end: (reason = sessionOver) => (over ??= reason) }
    },

    /**
     * Has the server end what it does for this connection. When this returns, it has, and no request
     * to cancel is on its way any more that could meet a later statement; or else the connection was
     * thrown away.
     */
    async cancel(): Promise<void> {
      const deadline = performance.now() + CANCEL_TIMEOUT_MS
      const quiet = new Promise<void>((resolve) => (whenQuiet = resolve))
      /** Whether each request has arrived: the server closes its connection when it has done it. */
      let arrived = true
      // Over TLS, postgres.js 3.4.9 does not tell: there is nothing to wait longer for.
      const arrivalMs = address.sslMode === 'disable' ? CANCEL_ARRIVAL_MS : CANCEL_PAUSE_MS
      while (pending.size > 0 && !death && performance.now() < deadline) {
        // While the connection opens none is active, and nothing runs that could be cancelled.
        const [running] = [...pending].filter(({ active }) => active)
        if (running) {
          // Not `query.cancel()`, whose failure nobody could catch.
          const request = running.canceller(running).then(
            () => true,
            () => false,
          )
          await within(CANCEL_PAUSE_MS, quiet)
          arrived &&= (await within(arrivalMs, request)) ?? false
        }
        if (pending.size > 0) await within(CANCEL_PAUSE_MS, quiet)
      }
      if (pending.size > 0 || !arrived) {
        die(lost('what was cancelled did not end', 'CONNECTION_DESTROYED'))
      }
    },

    /** Throws the connection away, whatever it is doing. */
    discard: () => die(lost('the connection was given up', 'CONNECTION_DESTROYED')),

    /** Says goodbye to the server; resolves when the socket is closed, or after a second. */
    async close(): Promise<void> {
      if (death) return
      death = lost('the connection was closed', 'CONNECTION_ENDED')
      if (endSockets) await client.end({ timeout: 1 })
    },
  }
}

/**
 * Where the driver connects to. As lists, for it takes a string with colons, an IPv6 address, apart.
 *
 * When a server hangs up before it has let us in, the driver tries the next port at once and without
 * end: some thousand times a second, and `connect_timeout` starts anew each time. Nothing can listen
 * on port 0, so its second try is its last.
 */
function route({ host, port }: DatabaseAddress): { path: string } | { host: string; port: number } {
  if (host.startsWith('/')) return { path: `${host}/.s.PGSQL.${port}` }
  const lists = { host: [host], port: [port, NO_PORT] }
  return lists as object as { host: string; port: number } // the driver's types leave lists out
}

function isNoSecondTry(cause: unknown): boolean {
  // Several, when the name has several addresses.
  const [first] = (cause as Partial<AggregateError>).errors ?? [cause]
  const { code, address, port } = first as { code?: string; address?: string; port?: number }
  // Node names every port but 0; a Unix socket has none, and a path for its address.
  return code === 'ECONNREFUSED' && port === undefined && !address?.startsWith('/')
}

function sslOption({ sslMode, host, authority }: DatabaseAddress) {
  if (sslMode === 'disable') return false
  if (sslMode === 'require') return 'require'
  // postgres.js checks the certificate against "localhost" when the host is an address, unless told.
  return { rejectUnauthorized: true, host, ...(authority ? { ca: authority } : {}) }
}

/** What comes of the work, or undefined when the time is over before. */
async function within<T>(ms: number, work: Promise<T>): Promise<T | undefined> {
  let timer: ReturnType<typeof setTimeout> | undefined
  const late = new Promise<undefined>((resolve) => (timer = setTimeout(resolve, ms, undefined)))
  const result = await Promise.race([work, late])
  clearTimeout(timer)
  return result
}

function sessionOver() {
  return new DatabaseError('internal', 'a statement was sent after its session had ended')
}

function lost(message: string, code: string) {
  return new DatabaseError('unavailable', message, { code, lost: true })
}

function hungUp() {
  return new DatabaseError('unavailable', 'the server hung up before it let us in', {
    code: 'CONNECTION_CLOSED',
  })
}

function deadlineError(ms: number) {
  return new DatabaseError('timeout', `no answer within ${ms / 1000} s`, {
    code: 'DEADLINE',
    lost: true,
  })
}
