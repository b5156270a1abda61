// The metrics of one process, in the text format of Prometheus; for Node, which alone has a process.
import { collectDefaultMetrics, Counter, Gauge, Histogram, Registry } from 'prom-client'
import type { PoolStats } from '../database/pool.ts'
import type { Metrics } from '../http/environment.ts'

/** What the door knows, read each time that it is asked for. */
export interface Sources {
  version: string
  pool: () => PoolStats
  /** Requests that are owed an answer, to its last byte. */
  requests: () => number
  connections: () => number
  /** When housekeeping last did all it had to, in ms since 1970; undefined when it has not yet. */
  houseKeptAt: () => number | undefined
  /** Of how many clients the limiter knows; undefined without a limit. */
  clients: (() => number) | undefined
}

/** Seconds. A GET by id takes about 1 ms, a page 1 to 10, and what the pool lets wait gives up after 30. */
const BUCKETS = [0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30]

export function createMetrics(sources: Sources): Metrics {
  const registry = new Registry()
  const registers = [registry]
  collectDefaultMetrics({ register: registry })

  const answers = new Histogram({
    name: 'http_request_duration_seconds',
    help: 'Time until the answer to a request was ready, by method, route and status.',
    labelNames: ['method', 'route', 'status'],
    buckets: BUCKETS,
    registers,
  })

  const gauge = (name: string, help: string, read: () => number | undefined) =>
    new Gauge({
      name,
      help,
      registers,
      collect() {
        const value = read()
        if (value === undefined) this.remove()
        else this.set(value)
      },
    })
  gauge('http_requests_in_flight', 'Requests that are owed an answer.', sources.requests)
  gauge('http_connections', 'Connections of clients.', sources.connections)
  gauge(
    'housekeeping_last_success_timestamp_seconds',
    'When everything that is past its time was last removed.',
    () => {
      const ms = sources.houseKeptAt()
      return ms === undefined ? undefined : ms / 1000
    },
  )
  if (sources.clients) {
    gauge('rate_limit_clients', 'Clients that the limiter remembers.', sources.clients)
  }

  new Gauge({
    name: 'database_pool_connections',
    help: 'Connections to the database, by state.',
    labelNames: ['state'],
    registers,
    collect() {
      const { lent, opening, idle } = sources.pool()
      this.set({ state: 'in_use' }, lent - opening)
      this.set({ state: 'opening' }, opening)
      this.set({ state: 'idle' }, idle)
    },
  })
  const pool = (name: string, help: string, read: (stats: PoolStats) => number) =>
    gauge(`database_pool_${name}`, help, () => read(sources.pool()))
  pool('max', 'The most connections that may be open.', ({ limit }) => limit)
  pool('waiting', 'Requests that wait for a connection.', ({ waiting }) => waiting)

  const total = (name: string, help: string, read: () => number) =>
    new Counter({
      name,
      help,
      registers,
      collect() {
        this.reset()
        this.inc(read())
      },
    })
  total(
    'database_pool_timeouts_total',
    'Requests that found no connection free within POOL_TIMEOUT.',
    () => sources.pool().timeouts,
  )
  total(
    'database_pool_refusals_total',
    'Requests that were refused because the queue for connections was full.',
    () => sources.pool().refusals,
  )

  new Gauge({ name: 'larder_info', help: 'Always 1.', labelNames: ['version'], registers }).set(
    { version: sources.version },
    1,
  )

  return {
    count: ({ seconds, ...labels }) => answers.observe(labels, seconds),
    read: async () => ({ type: registry.contentType, text: await registry.metrics() }),
  }
}
