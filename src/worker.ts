// The door on Cloudflare Workers: one app per isolate, one pool of connections per request.
import { type App, createApp, createChores } from './app.ts'
import { logLevels, readAppSettings, readHousekeeping, SettingsError } from './config.ts'
import { createPool, type Pool } from './database/pool.ts'
import { DatabaseError } from './database/errors.ts'
import { openWarning } from './http/access.ts'
import type { Log } from './http/environment.ts'
import { boundless } from './http/memory.ts'
import { Problem } from './http/problem.ts'
import type { RateLimiter } from './http/rate-limit.ts'
import { refusal } from './http/refusal.ts'
import { keepHouse } from './operations/housekeeping.ts'
import { createLog } from './operations/log.ts'

interface Bindings {
  HYPERDRIVE?: { host: string; port: number; user: string; password: string; database: string }
  /** The files of src/documentation/page. */
  ASSETS: { fetch: (url: URL) => Promise<Response> }
  /** Counts by its own `limit` and `period`; without it nothing is limited. */
  RATE_LIMITER?: { limit: (by: { key: string }) => Promise<{ success: boolean }> }
  LOG_LEVEL?: string
  CHANGES_RETENTION?: string | number
  /** The settings of the app, as far as they are set. */
  [setting: string]: unknown
}

/** The platform's limit is six connections a request. */
const CONNECTIONS = 5
const STATEMENT_TIMEOUT_MS = 30_000

/** The longest period that the platform has. */
const LONGEST_PERIOD_S = 60

const NOT_LIMITED =
  'RATE_LIMIT has no effect on Workers: the limit is the binding RATE_LIMITER of wrangler.toml'

const MISSING =
  'The binding HYPERDRIVE is missing: create a Hyperdrive configuration and put its id into wrangler.toml.'

/** One of each per isolate, made when the first request brings the settings. */
let log: Log | undefined
let app: Pick<App, 'fetch'> | undefined

export default {
  fetch(request: Request, bindings: Bindings): Response | Promise<Response> {
    log ??= startLog(bindings.LOG_LEVEL)
    app ??= startApp(bindings, log)
    const { HYPERDRIVE, ASSETS, RATE_LIMITER } = bindings
    return app.fetch(request, {
      database: HYPERDRIVE ? connect(HYPERDRIVE) : noDatabase,
      log,
      notReady: HYPERDRIVE ? undefined : MISSING,
      readFile: (name) => readAsset(ASSETS, name),
      // The platform bounds the memory of an isolate by itself.
      memory: boundless,
      metrics: undefined,
      limiter: RATE_LIMITER && limitBy(RATE_LIMITER),
      address: request.headers.get('cf-connecting-ip') ?? '',
    })
  },

  /** Housekeeping, at the times that wrangler.toml names. */
  async scheduled(_: unknown, { HYPERDRIVE, LOG_LEVEL, CHANGES_RETENTION }: Bindings) {
    log ??= startLog(LOG_LEVEL)
    try {
      const chores = createChores(
        readHousekeeping({ CHANGES_RETENTION: CHANGES_RETENTION?.toString() }),
      )
      await keepHouse(HYPERDRIVE ? connect(HYPERDRIVE) : noDatabase, log, chores)
    } catch (error) {
      // With a setting that cannot be read nothing is removed.
      log.error({ error }, 'no housekeeping')
    }
  },
}

function startLog(level = 'info'): Log {
  if (logLevels.some((known) => known === level)) return createLog(level)
  const log = createLog('info')
  log.warn({}, `LOG_LEVEL must be one of ${logLevels.join(', ')}: taking info`)
  return log
}

/** With settings that are not valid nothing is served: half of them might leave it open. */
function startApp(bindings: Bindings, log: Log): Pick<App, 'fetch'> {
  try {
    const settings = readAppSettings(bindings)
    if (!settings.access) log.warn({}, openWarning)
    if (bindings['RATE_LIMIT'] && !bindings.RATE_LIMITER) log.warn({}, NOT_LIMITED)
    return createApp(settings)
  } catch (error) {
    if (!(error instanceof SettingsError)) throw error
    log.error({ faults: error.faults }, 'the settings are not valid: every request is refused')
    return refusal(new Problem('unavailable', 'The settings of the service are not valid.'))
  }
}

/** The platform tells whether, and neither how many are left nor when there are more. */
function limitBy(binding: NonNullable<Bindings['RATE_LIMITER']>): RateLimiter {
  return {
    quota: undefined,
    async take(client) {
      const { success } = await binding.limit({ key: client })
      return { allowed: success, remaining: undefined, reset: LONGEST_PERIOD_S }
    },
  }
}

async function readAsset(assets: Bindings['ASSETS'], name: string) {
  const { ok, status, body, headers } = await assets.fetch(new URL(name, 'http://assets'))
  if (!ok || !body) throw new Error(`the file ${name} is not among the assets: ${status}`)
  return { body, etag: headers.get('etag')! }
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
    // One request, and what it does side by side.
    queue: 100,
    recycleMs: Infinity,
    prePing: false,
    connectTimeoutMs: 15_000,
    queryTimeoutMs: STATEMENT_TIMEOUT_MS,
    gather: undefined,
    // Hyperdrive lends a server connection per transaction and resets it, so nothing can be set for longer.
    begin: `begin; set local statement_timeout = ${STATEMENT_TIMEOUT_MS}`,
    endSockets: false,
  })
}

/** Fails every request that needs a database, and the log says why. */
const fail = () => Promise.reject(new DatabaseError('internal', MISSING))
const noDatabase: Pool = {
  read: fail,
  readTogether: fail,
  writeTogether: fail,
  write: fail,
  session: fail,
  transfer: fail,
  heavy: () => noDatabase,
  forBorrower: () => noDatabase,
  stats: () => ({
    limit: 0,
    idle: 0,
    lent: 0,
    opening: 0,
    waiting: 0,
    timeouts: 0,
    refusals: 0,
  }),
  close: () => Promise.resolve(),
}
