// The door on Node: settings, pool, proof of the database, server; on a signal it drains and stops.
import { existsSync } from 'node:fs'
import { createServer, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { getRequestListener, RequestError } from '@hono/node-server'
import { createApp } from './app.ts'
import { readSettings, type Settings, SettingsError } from './config.ts'
import { createPool, type Pool } from './database/pool.ts'
import { pendingMigrations, waitForDatabase } from './database/verification.ts'
import { Problem, problemResponse } from './http/problem.ts'
import { newRequestId } from './http/request-id.ts'
import { createLog, rootCause } from './operations/log.ts'

/** Ctrl-C reaches a process twice when npm passes it on: that is one press. */
const ONE_PRESS_MS = 1000
/** The server cuts a long statement; the limit on this side is for a server that cannot be heard. */
const ANSWER_GRACE_MS = 1000
/** Longer than the idle time of common load balancers (60 s), which would meet a closed connection. */
const KEEP_ALIVE_MS = 65_000

const settings = loadSettings()
const log = createLog(settings.logLevel)
const pool = connect(settings)
const lent = { database: pool, log, notReady: undefined as string | undefined }
const unanswered = new Set<ServerResponse>()
const server = createHttpServer()
let stoppedAt: number | undefined

process.on('SIGTERM', (signal) => void stop(signal))
process.on('SIGINT', (signal) => void stop(signal))
process.on('uncaughtException', (error) => void crash(error))
process.on('unhandledRejection', (error) => void crash(error))
await start()

function loadSettings(): Settings {
  try {
    if (existsSync('.env')) process.loadEnvFile('.env') // fills in what the environment leaves out
    return readSettings(process.env)
  } catch (error) {
    if (!(error instanceof SettingsError)) throw error
    process.stderr.write(`${error.message}\n`)
    process.exit(1)
  }
}

function connect({ database: address, pool }: Settings): Pool {
  return createPool({
    ...pool,
    address,
    queryTimeoutMs: pool.statementTimeoutMs + ANSWER_GRACE_MS,
    begin: 'begin',
    endSockets: true,
    parameters: {
      TimeZone: 'UTC',
      statement_timeout: pool.statementTimeoutMs,
      // For a service that vanished: its transactions and statements end, and free their locks.
      idle_in_transaction_session_timeout: 60_000,
      client_connection_check_interval: 10_000,
      tcp_keepalives_idle: 30,
      tcp_keepalives_interval: 10,
      tcp_keepalives_count: 3,
    },
  })
}

function createHttpServer() {
  const app = createApp()
  const listener = getRequestListener((request) => app.fetch(request, lent), {
    errorHandler: refuse,
    hostname: 'localhost', // for HTTP/1.0, which needs no Host header
  })
  const server = createServer({ keepAliveTimeout: KEEP_ALIVE_MS }, (request, response) => {
    void listener(request, response)
  })
  server.prependListener('request', (_, response: ServerResponse) => {
    unanswered.add(response)
    if (lent.notReady) response.shouldKeepAlive = false
    response.once('close', () => {
      unanswered.delete(response)
      if (lent.notReady) server.closeIdleConnections()
    })
  })
  // An expectation that is not known may be ignored (RFC 9110); Node would refuse it without a document.
  server.on('checkExpectation', (request, response) => server.emit('request', request, response))
  return server
}

/** What the adapter could not make a request of never reached the app. */
function refuse(error: unknown): Response {
  const isRequest = error instanceof RequestError
  if (!isRequest) log.error({ error }, 'request failed')
  const problem = isRequest
    ? new Problem('malformed', 'The Host header or the address is not valid.')
    : new Problem('internal', 'Something went wrong here.')
  return problemResponse(problem, newRequestId())
}

/** Nothing listens before the database has answered. */
async function start(): Promise<void> {
  const { attempts, delayMs } = settings.startUp
  try {
    const version = await waitForDatabase(pool, attempts, delayMs, (error, attempt) => {
      log.warn({ attempt, attempts, reason: rootCause(error) }, 'the database does not answer yet')
    })
    log.info({ version }, 'database ready')
    const pending = await pendingMigrations(pool)
    if (pending.length > 0)
      log.warn({ pending }, 'migrations are pending: npm run migrate -- upgrade')
    const { host, port } = settings.http
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject).listen(port, host, resolve)
    })
    log.info({ host, port: (server.address() as AddressInfo).port }, 'listening')
  } catch (error) {
    if (stoppedAt !== undefined) return // the stop has closed the pool under the attempt
    log.fatal({ error }, `cannot start: ${rootCause(error)}`)
    process.exit(1)
  }
}

async function stop(signal: string): Promise<void> {
  if (stoppedAt !== undefined) {
    if (performance.now() - stoppedAt > ONE_PRESS_MS) process.exit(1)
    return
  }
  stoppedAt = performance.now()
  if (!server.listening) {
    await pool.close(0)
    process.exit(0)
  }
  const clean = await drain(signal)
  process.exit(clean ? 0 : 1)
}

async function crash(error: unknown): Promise<void> {
  log.fatal({ error }, 'a fault that nothing handled: stopping')
  await drain('fault')
  process.exit(1)
}

/** Answers what was taken, then closes the pool; tells whether it was done in time. */
async function drain(reason: string): Promise<boolean> {
  lent.notReady = 'The service is draining.'
  for (const response of unanswered) if (!response.headersSent) response.shouldKeepAlive = false
  const deadline = performance.now() + settings.http.shutdownTimeoutMs
  const closed = new Promise((resolve) => server.close(resolve))
  log.info({ reason, requests: unanswered.size }, 'draining')
  const answered = await within(deadline, closed)
  if (!answered) log.error({ requests: unanswered.size }, 'requests cut off by SHUTDOWN_TIMEOUT')
  server.closeAllConnections()
  await pool.close(Math.max(0, deadline - performance.now()))
  log.info({}, 'stopped')
  return answered
}

async function within(deadline: number, work: Promise<unknown>): Promise<boolean> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<boolean>((resolve) => {
    timer = setTimeout(resolve, Math.max(0, deadline - performance.now()), false)
  })
  const done = await Promise.race([work.then(() => true), late])
  clearTimeout(timer)
  return done
}
