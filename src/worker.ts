// The door on Cloudflare Workers: one app per isolate, one pool of connections per request.
import { createApp } from './app.ts'
import { logLevels } from './config.ts'
import { createPool, type Pool } from './database/pool.ts'
import { DatabaseError } from './database/errors.ts'
import type { Log } from './http/environment.ts'
import { createLog } from './operations/log.ts'

interface Bindings {
  HYPERDRIVE?: { host: string; port: number; user: string; password: string; database: string }
  LOG_LEVEL?: string
}

/** The platform's limit is six connections a request. */
const CONNECTIONS = 5
const STATEMENT_TIMEOUT_MS = 30_000

const MISSING =
  'The binding HYPERDRIVE is missing: create a Hyperdrive configuration and put its id into wrangler.toml.'

const app = createApp()
/** One per isolate, made when the first request brings its level. */
let log: Log | undefined

export default {
  fetch(request: Request, bindings: Bindings): Response | Promise<Response> {
    log ??= startLog(bindings.LOG_LEVEL)
    const { HYPERDRIVE } = bindings
    return HYPERDRIVE
      ? app.fetch(request, { database: connect(HYPERDRIVE), log, notReady: undefined })
      : app.fetch(request, { database: noDatabase, log, notReady: MISSING })
  },
}

function startLog(level = 'info'): Log {
  if (logLevels.some((known) => known === level)) return createLog(level)
  const log = createLog('info')
  log.warn({}, `LOG_LEVEL must be one of ${logLevels.join(', ')}: taking info`)
  return log
}

function connect(hyperdrive: NonNullable<Bindings['HYPERDRIVE']>): Pool {
  // The parts, not `connectionString`: in a local run that one is not escaped.
  const { host, port, user, password, database } = hyperdrive
  return createPool({
    // Hyperdrive itself speaks TLS with the server; the way to it stays inside the platform.
    address: { host, port: Number(port), user, password, database, sslMode: 'disable' },
    size: CONNECTIONS,
    maxOverflow: 0,
    timeoutMs: 30_000,
    recycleMs: Infinity,
    prePing: false,
    connectTimeoutMs: 15_000,
    queryTimeoutMs: STATEMENT_TIMEOUT_MS,
    // Hyperdrive lends a server connection per transaction and resets it, so nothing can be set for longer.
    begin: `begin; set local statement_timeout = ${STATEMENT_TIMEOUT_MS}`,
    endSockets: false,
  })
}

/** Fails every request that needs a database, and the log says why. */
const fail = () => Promise.reject(new DatabaseError('internal', MISSING))
const noDatabase: Pool = {
  read: fail,
  write: fail,
  session: fail,
  transfer: fail,
  forBorrower: () => noDatabase,
  stats: () => ({ limit: 0, idle: 0, lent: 0, opening: 0, waiting: 0, timeouts: 0 }),
  close: () => Promise.resolve(),
}
