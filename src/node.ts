// The door on Node: settings, pool, proof of the database, server; on a signal it drains and stops.
import { createHash } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { createServer, type ServerResponse } from 'node:http'
import { type AddressInfo, Server as NetServer, type Socket } from 'node:net'
import { setImmediate as endOfTurn, setTimeout as sleep } from 'node:timers/promises'
import { format } from 'node:util'
import {
  getRequestListener,
  type Http2Bindings,
  type HttpBindings,
  RequestError,
} from '@hono/node-server'
import { pino } from 'pino'
import { createApp, createChores } from './app.ts'
import { loadEnvironment, readText } from './cli/environment.ts'
import { readSettings, type Settings, SettingsError } from './config.ts'
import { createPool, type Pool } from './database/pool.ts'
import { pendingMigrations, rightsOfRole, waitForDatabase } from './database/verification.ts'
import { openWarning } from './http/access.ts'
import { clientAddress } from './http/address.ts'
import { createMemory, PACE, TAKING_IN_NEED } from './http/memory.ts'
import { Problem } from './http/problem.ts'
import { refusal } from './http/refusal.ts'
import { keepHouse } from './operations/housekeeping.ts'
import { createLog, rootCause } from './operations/log.ts'
import { createMetrics } from './operations/prometheus.ts'
import about from '../package.json' with { type: 'json' }

/** Ctrl-C reaches a process twice when npm passes it on: that is one press. */
const ONE_PRESS_MS = 1000
/** The server cuts a long statement; the limit on this side is for a server that cannot be heard. */
const ANSWER_GRACE_MS = 1000
/** Longer than the idle time of common load balancers (60 s), which would meet a closed connection. */
const KEEP_ALIVE_MS = 65_000

/** Until the headers of a request have come, and how often is looked for what is late. */
const HEADERS_MS = 10_000
const LOOK_MS = 500
/** Until the last byte of a request has come: an import may take its time, and Node would give it 5 minutes. */
const REQUEST_MS = 24 * 3_600_000

/** To count what is unsent goes over all connections. */
const COUNTED_MS = 50
/** Each has buffers, and takes a file that the pool may need. */
const MOST_CONNECTIONS = 2000

/** A client that is in the middle of sending a request may finish sending it. */
const HALF_SENT_MS = 1000
/**
 * Lines of the log are written together: each by itself, they were a tenth of the CPU of a GET by id. At 64
 * clients writing took 4.7 % of it in pieces of 4 KiB, and 1.7 in those of 16.
 */
const LINES_MS = 10
const MOST_LINES = 16384
/** A log that nobody reads any more does not keep the process. */
const FLUSH_MS = 1000
/** Between two rounds of housekeeping; the first comes soon, when the start is over. */
const HOUSEKEEPING_MS = 60_000
const FIRST_HOUSEKEEPING_MS = 10_000

const settings = loadSettings()
/**
 * Written without waiting, so that a reader who stalls does not hold the service up. The number is
 * taken from `process.stdout`, which makes a pipe non-blocking; 1 by itself would hang at the exit.
 */
const logOutput = pino.destination({ dest: process.stdout.fd, sync: false })
let lines = ''
let linesWaiting: ReturnType<typeof setTimeout> | undefined
const log = createLog(settings.logLevel, {
  write(line) {
    lines += line
    if (lines.length > MOST_LINES) writeLines()
    else linesWaiting ??= setTimeout(writeLines, LINES_MS)
  },
})
// Libraries speak on the console, the driver of a message that it does not know, for one.
for (const method of ['log', 'info', 'warn', 'error'])
  Object.assign(console, {
    [method]: (...said: unknown[]) => log.warn({ said: format(...said) }, 'a library speaks'),
  })
const pool = connect(settings)
const { quota, trustedProxies } = settings.http
// Only where it is needed: its package brings stores of every kind, 10 ms of CPU of a start.
const limiter = quota && (await import('./http/memory-limiter.ts')).createMemoryLimiter(quota)
/** Of each connection the answers that it is owed, and how much of it had been read after the last. */
const connections = new Map<Socket, { owed: Set<ServerResponse>; readBytes: number }>()
let houseKeptAt: number | undefined
const metrics = createMetrics({
  version: about.version,
  pool: () => pool.stats(),
  requests: countOwed,
  connections: () => connections.size,
  houseKeptAt: () => houseKeptAt,
  clients: limiter?.clients,
})
/** Since when an answer has been there as a whole, of so many bytes, for a client that does not take it. */
const untaken = new WeakMap<ServerResponse, { since: number; bytes: number }>()
const unsent = { bytes: 0, countedAt: -Infinity }
const memory = createMemory(settings.http.mostBytesHeld, countUnsent)
const lent = {
  database: pool,
  log,
  notReady: undefined as string | undefined,
  readFile: readPage,
  memory,
  metrics,
  limiter,
  address: '',
}
const server = createHttpServer()
let stoppedAt: number | undefined
const housekeeping = new AbortController()

process.on('SIGTERM', (signal) => void stop(signal))
process.on('SIGINT', (signal) => void stop(signal))
process.on('uncaughtException', (error) => void crash(error))
process.on('unhandledRejection', (error) => void crash(error))
await start()

function loadSettings(): Settings {
  try {
    const environment = loadEnvironment()
    // libpq's variables are no settings of ours, but the driver would read them.
    for (const name of Object.keys(process.env))
      if (/^PG[A-Z]+$/.test(name)) delete process.env[name]
    return readSettings(environment, readText)
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
    // What arrived together has been read by then.
    gather: () => endOfTurn(),
    endSockets: true,
    parameters: {
      TimeZone: 'UTC',
      statement_timeout: pool.statementTimeoutMs,
      // Processors are for requests side by side. Of a search for a rare word among a million products,
      // 43 ms, starting two more processes were 36. As text, for the driver leaves out a 0.
      max_parallel_workers_per_gather: '0',
      // For a service that vanished: its transactions and statements end, and free their locks.
      idle_in_transaction_session_timeout: 60_000,
      client_connection_check_interval: 1000,
      tcp_keepalives_idle: 30,
      tcp_keepalives_interval: 10,
      tcp_keepalives_count: 3,
    },
  })
}

async function readPage(name: string) {
  const body = await readFile(new URL(`documentation/page/${name}`, import.meta.url))
  return { body, etag: `"${createHash('sha256').update(body).digest('base64url')}"` }
}

function createHttpServer() {
  const app = createApp(settings.app)
  const fetch = (
    request: Request,
    { incoming }: Pick<HttpBindings | Http2Bindings, 'incoming'>,
  ) => {
    if (!limiter) return app.fetch(request, lent)
    const peer = incoming.socket.remoteAddress ?? ''
    const forwardedFor = request.headers.get('x-forwarded-for')
    return app.fetch(request, {
      ...lent,
      address: clientAddress(peer, forwardedFor, trustedProxies),
    })
  }
  const listener = getRequestListener(fetch, {
    errorHandler: refuse,
    hostname: 'localhost', // for HTTP/1.0, which needs no Host header
  })
  const server = createServer(
    {
      keepAliveTimeout: KEEP_ALIVE_MS,
      headersTimeout: HEADERS_MS,
      requestTimeout: REQUEST_MS,
      connectionsCheckingInterval: LOOK_MS,
    },
    (request, response) => {
      void listener(request, response)
    },
  )
  server.maxConnections = MOST_CONNECTIONS
  setInterval(cutOffSlowReaders, LOOK_MS).unref()
  server.on('connection', (socket) => {
    const owed = new Set<ServerResponse>()
    connections.set(socket, { owed, readBytes: 0 })
    socket.once('close', () => {
      connections.delete(socket)
      // Node does not tell those that wait behind another answer that their client has gone.
      for (const response of owed) if (!response.socket) response.emit('close')
    })
  })
  server.prependListener('request', ({ socket }, response: ServerResponse) => {
    const connection = connections.get(socket)!
    connection.owed.add(response)
    if (lent.notReady) response.shouldKeepAlive = false
    response.once('close', () => {
      connection.owed.delete(response)
      connection.readBytes = socket.bytesRead
      if (lent.notReady && connection.owed.size === 0) socket.destroySoon()
    })
  })
  // Node would not wait for the turn of this answer: of two requests sent at once, where the second
  // is answered first, the interim answer ends up in the body of the second.
  server.on('checkContinue', (request, response) => {
    if (response.socket) response.writeContinue()
    else response.once('socket', () => response.headersSent || response.writeContinue())
    server.emit('request', request, response)
  })
  // An expectation that is not known may be ignored (RFC 9110); Node would refuse it without a document.
  server.on('checkExpectation', (request, response) => server.emit('request', request, response))
  return server
}

/** What the adapter could not make a request of never reached the app. */
function refuse(error: unknown): Response | Promise<Response> {
  const problem =
    error instanceof RequestError
      ? new Problem('malformed', 'The Host header or the address is not valid.')
      : new Problem('internal', 'Something went wrong here.', { cause: error })
  return refusal(problem).fetch(new Request('http://localhost/'), lent)
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
    const { excess, stages } = await rightsOfRole(pool)
    if (excess)
      log.warn(excess, 'the role may do more than the service needs: give it one of its own')
    if (!stages)
      log.warn({}, 'the role may not make temporary tables: imports with on_conflict=sku will fail')
    if (!settings.app.access) log.warn({}, openWarning)
    const { host, port } = settings.http
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject).listen(port, host, resolve)
    })
    log.info({ host, port: (server.address() as AddressInfo).port }, 'listening')
    void keepHouseFrom(FIRST_HOUSEKEEPING_MS)
  } catch (error) {
    if (stoppedAt !== undefined) return // the stop has closed the pool under the attempt
    log.fatal({ error }, `cannot start: ${rootCause(error)}`)
    await exit(1)
  }
}

/** One round after the other, until the drain. */
async function keepHouseFrom(delayMs: number): Promise<void> {
  const { signal } = housekeeping
  const chores = createChores(settings.housekeeping)
  for (let ms = delayMs; !signal.aborted; ms = HOUSEKEEPING_MS) {
    await sleep(ms, undefined, { ref: false, signal }).catch(() => {})
    if (await keepHouse(pool, log, chores, signal)) houseKeptAt = Date.now()
  }
}

async function stop(signal: string): Promise<void> {
  if (stoppedAt !== undefined) {
    if (performance.now() - stoppedAt > ONE_PRESS_MS) exitNow(1)
    return
  }
  stoppedAt = performance.now()
  if (server.listening) return exit((await drain(signal)) ? 0 : 1)
  await pool.close(0)
  log.info({ reason: signal }, 'stopped')
  return exit(0)
}

async function crash(error: unknown): Promise<void> {
  log.fatal({ error }, 'a fault that nothing handled: stopping')
  stoppedAt ??= performance.now()
  await drain('fault')
  return exit(1)
}

/** Answers what was taken, then closes the pool; tells whether it was done in time. */
async function drain(reason: string): Promise<boolean> {
  lent.notReady = 'The service is draining.'
  housekeeping.abort()
  const deadline = performance.now() + settings.http.shutdownTimeoutMs
  // Not the method of node:http, which also cuts off answers that have not been sent to their end.
  const closed = new Promise((resolve) => NetServer.prototype.close.call(server, resolve))
  log.info({ reason, requests: countOwed() }, 'draining')
  for (const [socket, { owed, readBytes }] of connections) {
    const last = [...owed].at(-1)
    if (last && !last.headersSent) last.shouldKeepAlive = false
    if (!last && socket.bytesRead === readBytes) socket.destroySoon()
  }
  setTimeout(() => {
    for (const [socket, { owed }] of connections) if (owed.size === 0) socket.destroySoon()
  }, HALF_SENT_MS)
  await within(deadline, closed)
  const cutOff = countOwed()
  if (cutOff > 0) log.error({ requests: cutOff }, 'requests cut off by SHUTDOWN_TIMEOUT')
  server.closeAllConnections()
  await pool.close(Math.max(0, deadline - performance.now()))
  log.info({}, 'stopped')
  return cutOff === 0
}

/** Not to clients that have gone: the server is closed a little before their sockets say so. */
function countOwed(): number {
  let count = 0
  for (const [socket, { owed }] of connections) if (!socket.destroyed) count += owed.size
  return count
}

/** The bytes of answers that are there, and that nobody has taken; of a moment ago. */
function countUnsent(): number {
  const now = performance.now()
  if (now - unsent.countedAt < COUNTED_MS) return unsent.bytes
  let bytes = 0
  for (const { owed } of connections.values()) {
    for (const response of owed) bytes += response.writableLength
  }
  Object.assign(unsent, { bytes, countedAt: now })
  return bytes
}

/** An answer that nobody takes is memory that nobody has. */
function cutOffSlowReaders() {
  const now = performance.now()
  const { firstMs, leastBytesPerMs } = memory.isShort() ? TAKING_IN_NEED : PACE
  for (const [socket, { owed }] of connections) {
    for (const response of owed) {
      // One that waits behind another is not late by its client's fault.
      if (!response.writableEnded || !response.socket) continue
      const seen = untaken.get(response) ?? { since: now, bytes: response.writableLength }
      untaken.set(response, seen)
      if (now - seen.since > firstMs + seen.bytes / leastBytesPerMs) socket.destroy()
    }
  }
}

function writeLines() {
  clearTimeout(linesWaiting)
  linesWaiting = undefined
  logOutput.write(lines)
  lines = ''
}

/** Follows a last line of the log: when that is written, all of it is. */
async function exit(code: number): Promise<never> {
  const written = new Promise((resolve) => logOutput.once('drain', resolve))
  writeLines()
  await within(performance.now() + FLUSH_MS, written)
  return exitNow(code)
}

/** Without the log's own hook, which would wait for a reader that has stalled. */
function exitNow(code: number): never {
  process.removeAllListeners('exit')
  process.exit(code)
}

async function within(deadline: number, work: Promise<unknown>): Promise<void> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, Math.max(0, deadline - performance.now()))
  })
  await Promise.race([work, late])
  clearTimeout(timer)
}
