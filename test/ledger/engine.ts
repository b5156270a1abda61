// The machine of the ledger and of the soak: PostgreSQL, a network, two instances, a crowd, faults, and the count.
import { randomUUID } from 'node:crypto'
import { readdir, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { freePort, startPostgres } from '../../src/cli/embedded-postgres.ts'
import { databaseUrl } from '../../src/config.ts'
import { atTheEnd } from '../support/clean-up.ts'
import { connect } from '../support/database.ts'
import { migrate } from '../support/migrate.ts'
import type { Running } from '../support/process.ts'
import { startProxy } from '../support/proxy.ts'
import { spawnService } from '../support/service.ts'
import { type Change, openBook, type Product, type Verdict } from './book.ts'
import { type Client, createClient } from './client.ts'
import { createCrowd, type Sample } from './crowd.ts'
import { createDice, diceFor } from './dice.ts'
import { networkFaults, processFaults, type World } from './faults.ts'

export interface Plan {
  seed: number
  seconds: number
  /** Requests in a second, on both instances together. */
  rate: number
  /**
   * `measured`: one fault at a time, and the next when service has been normal again. `wild`: two
   * at a time, one of the network and one of the rest, as soon as the one before is over.
   */
  faults: 'measured' | 'wild'
  onSecond?: (second: Second) => void
}

/** What happened to the service, in seconds since the start. */
export interface FaultRecord {
  name: string
  from: number
  to: number
  /** Undefined where it was not measured, or did not come. */
  normalAfterMs?: number
}

/** One second of the run. */
export interface Second {
  at: number
  /** Answered in it, and how: `failed` are 429, 5xx, broken connections and hung requests. */
  fine: number
  failed: number
  /** Milliseconds, of the fine ones. */
  p50: number | undefined
  p99: number | undefined
  /** Requests without an answer. */
  underWay: number
  /** Connections to PostgreSQL, of both instances. */
  connections: number
  /** Of the instance that lives all the while: resident memory, and open files with its sockets. */
  memoryMb: number | undefined
  files: number | undefined
}

export interface Report {
  plan: Omit<Plan, 'onSecond'>
  settings: Record<string, string>
  verdict: Verdict
  requests: {
    total: number
    fine: number
    refused: number
    broken: number
    left: number
    /** Clients that were not let in, for so many were under way; see MOST_UNDER_WAY. */
    turnedAway: number
  }
  /** Requests without an answer within the deadline, and clients with a key that never got one. */
  hung: number
  /** Processes that ended and were not told to, faults nobody handled, and exits other than 0. */
  crashes: string[]
  /** Answers that the service must not give. */
  bad: string[]
  health: { asked: number; failed: string[] }
  slowestMs: number
  faults: FaultRecord[]
  seconds: Second[]
  /** At the end, when nobody asks for anything. */
  atRest: { connections: number; memoryMb: number | undefined; files: number | undefined }
}

/** All else has its default. The short limit is for a network that loses what is under way. */
export const settings = { STATEMENT_TIMEOUT: '2', LOG_LEVEL: 'warn' }

/** `/health` does without the database, but not without a processor, of which others want some, too. */
const HEALTH_MS = 5000
const HEALTH_EVERY_MS = 250
/**
 * No request may be without an answer for so long: 30 s for a connection, 3 for each statement of a
 * transaction, and some for clients that dawdle.
 */
const DEADLINE_MS = 60_000
/** Normal is the first second in which all requests that begin in it are answered, and in this time. */
const NORMAL_MS = 1000
const NORMAL_FOR_MS = 1000
/** After so long without a normal second, the measured run goes on. */
const NEVER_NORMAL_MS = 30_000
/** More are not let in: what cannot be served piles up, and measures the pile and not the service. */
const MOST_UNDER_WAY = 600
const WARM_UP_MS = 3000
const POLL_EVERY_MS = 150
const MOST_TOLD = 20

export async function run(plan: Plan): Promise<Report> {
  const { seed, seconds: duration, rate } = plan
  const wild = plan.faults === 'wild'
  const book = openBook()
  const bad: string[] = []
  const crashes: string[] = []
  const health = { asked: 0, failed: [] as string[] }
  let hung = 0
  const tell = (list: string[], text: string) => {
    if (list.length < MOST_TOLD) list.push(text)
  }

  // PostgreSQL, the network, and two instances of the service behind it.
  const folder = join(tmpdir(), `larder-ledger-${randomUUID()}`)
  const start = async (port: number) =>
    startPostgres({ folder, port, settings: { max_connections: '60', fsync: 'off' } })
  let server = await start(await freePort())
  atTheEnd(async () => {
    await server.stop()
    await rm(server.folder, { recursive: true, force: true })
  })
  const { address } = server
  await migrate(address, 'upgrade', 'head')
  const proxy = await startProxy(address)

  const spawn = (port: number) =>
    spawnService({ ...settings, DATABASE_URL: databaseUrl(proxy.address), PORT: String(port) })
  const instances = await Promise.all(
    ['first', 'second'].map(async (name) => {
      const port = await freePort()
      const complain = (text: string) => tell(bad, text)
      const instance = {
        name,
        port,
        client: createClient(port, DEADLINE_MS, complain),
        running: spawn(port),
        /** It was told to end, or stands still. */
        away: true,
      }
      watch(instance.running)
      return instance
    }),
  )
  /** Lives all the while. The other one is killed, stopped and frozen. */
  const [steady, restless] = instances as [(typeof instances)[0], (typeof instances)[0]]
  const told = new Set<Running>()

  function watch(running: Running) {
    void running.exited.then(({ code, signal }) => {
      const last = running.output().split('\n').slice(-5).join('\n')
      if (!told.has(running)) tell(crashes, `ended with ${code ?? signal}: ${last}`)
      for (const line of running.log) {
        if (line['level'] === 'fatal' || 'unparsed' in line) tell(crashes, JSON.stringify(line))
      }
    })
  }
  async function isUp({ client }: { client: Client }) {
    for (let waits = 0; waits < 600; waits++) {
      const outcome = await client.send({ method: 'GET', path: '/health' })
      if (outcome.outcome === 'answered') return
      await sleep(20)
    }
    throw new Error('the service does not start')
  }
  await Promise.all(instances.map(isUp))
  for (const instance of instances) instance.away = false
  const closeClients = async () => {
    for (const { client, running } of instances) {
      client.close()
      told.add(running)
      await running.stop()
    }
  }
  atTheEnd(closeClients)

  // The crowd, and what it saw.
  const beganAt = performance.now()
  const now = () => (performance.now() - beganAt) / 1000
  const recent: Sample[] = []
  const requests = { total: 0, fine: 0, refused: 0, broken: 0, left: 0 }
  let current = { fine: [] as number[], failed: 0 }
  let slowestMs = 0
  const crowd = createCrowd({
    seed,
    book,
    clients: instances.map(({ client }) => client),
    mischief: (kind, text) => {
      if (kind === 'hung') hung++
      tell(bad, text)
    },
    onStart: (sample) => {
      requests.total++
      if (!wild) recent.push(sample)
    },
    onEnd: ({ startedAt, endedAt, result, counts }) => {
      const ms = endedAt! - startedAt
      if (result !== 'hung') requests[result!]++
      if (result === 'fine') slowestMs = Math.max(slowestMs, ms)
      if (result === 'fine' && counts) current.fine.push(ms)
      else if (result !== 'fine' && result !== 'left' && counts) current.failed++
    },
  })

  const world: World = {
    address,
    proxy,
    crowd,
    async restartPostgres(signal, pauseMs) {
      process.kill(server.processId, signal)
      await server.stop()
      await sleep(pauseMs)
      server = await start(address.port)
    },
    async restartService(signal, pauseMs) {
      const { running, port } = restless
      told.add(running)
      restless.away = true
      const code = await running.stop(signal)
      if (signal === 'SIGTERM' && code !== 0) tell(crashes, `SIGTERM was answered with ${code}`)
      await sleep(pauseMs)
      restless.running = spawn(port)
      watch(restless.running)
      await isUp(restless)
      restless.away = false
    },
    async freezeService(ms) {
      const { pid } = restless.running.process
      restless.away = true
      process.kill(pid!, 'SIGSTOP')
      await sleep(ms)
      process.kill(pid!, 'SIGCONT')
      restless.away = false
    },
  }

  // What runs beside it: the reader of the feed, the asker of /health, the one who writes down.
  let over = false
  const reader = followFeed(
    instances.map(({ client }) => client),
    (change) => book.follow(change),
    () => !over,
    (text) => tell(bad, text),
  )
  const doctor = Promise.all(
    instances.map(async (instance) => {
      while (!over) {
        const wasAway = instance.away
        const askedAt = performance.now()
        const outcome = await instance.client.send({ method: 'GET', path: '/health' })
        const ms = performance.now() - askedAt
        const well = outcome.outcome === 'answered' && outcome.status === 200 && ms < HEALTH_MS
        if (!wasAway && !instance.away) {
          health.asked++
          if (!well) tell(health.failed, `${instance.name}: ${outcome.outcome} after ${ms} ms`)
        }
        await sleep(HEALTH_EVERY_MS)
      }
    }),
  )
  const seconds: Second[] = []
  const measure = async () => {
    const { pid } = steady.running.process
    return { connections: proxy.open(), ...(await vitals(pid!)) }
  }
  const clerk = setInterval(() => {
    const { fine, failed } = current
    current = { fine: [], failed: 0 }
    fine.sort((a, b) => a - b)
    const at = now()
    void measure().then((measured) => {
      const second: Second = {
        at,
        fine: fine.length,
        failed,
        p50: fine[fine.length >> 1],
        p99: fine[Math.floor(fine.length * 0.99)],
        underWay: crowd.busy(),
        ...measured,
      }
      seconds.push(second)
      plan.onSecond?.(second)
    })
  }, 1000)
  let sent = 0
  let turnedAway = 0
  const gate = setInterval(() => {
    const due = Math.floor(now() * rate)
    if (crowd.busy() < MOST_UNDER_WAY) crowd.arrive(due - sent)
    else turnedAway += due - sent
    sent = due
  }, 10)

  // The faults.
  const faults: FaultRecord[] = []
  const isOver = () => now() > duration - 1
  async function breakThings(kinds: Record<string, (typeof networkFaults)[string]>, n: number) {
    const dice = createDice(diceFor(seed, -n).whole(0, 2 ** 32 - 1))
    let bag: string[] = []
    while (!isOver()) {
      if (bag.length === 0) bag = dice.shuffle(Object.keys(kinds))
      const name = bag.pop()!
      const fault: FaultRecord = { name, from: now(), to: now() }
      faults.push(fault)
      await kinds[name]!(world, dice)
      fault.to = now()
      if (!wild) await normality(fault)
      await sleep(dice.whole(100, wild ? 800 : 2000))
    }
  }

  /** Waits for it; see NORMAL_MS. */
  async function normality(fault: FaultRecord) {
    const endedAt = performance.now()
    const deadline = endedAt + NEVER_NORMAL_MS
    while (performance.now() < deadline) {
      let since = endedAt
      const at = performance.now()
      for (const sample of recent) {
        if (sample.startedAt < since || !isBad(sample, at)) continue
        if (sample.startedAt < since + NORMAL_FOR_MS) since = sample.startedAt + 0.001
      }
      if (at > since + NORMAL_FOR_MS + NORMAL_MS) {
        fault.normalAfterMs = Math.max(0, since - endedAt)
        break
      }
      await sleep(100)
    }
    recent.splice(
      0,
      recent.findIndex(({ startedAt }) => startedAt > endedAt),
    )
  }
  const isBad = ({ startedAt, endedAt, result, counts }: Sample, at: number) =>
    counts &&
    result !== 'left' &&
    ((result && result !== 'fine') || (endedAt ?? at) - startedAt > NORMAL_MS)

  await sleep(WARM_UP_MS)
  await (wild
    ? Promise.all([breakThings(networkFaults, 1), breakThings(processFaults, 2)])
    : breakThings({ ...networkFaults, ...processFaults }, 1))

  // The end: everybody gets an answer, what PostgreSQL still works on ends, and then it is counted.
  clearInterval(gate)
  const unanswered = await crowd.finish()
  hung += unanswered.length
  for (const text of unanswered) tell(bad, `no final answer: ${text}`)
  await untilIdle()
  over = true
  clearInterval(clerk)
  await Promise.all([doctor, reader])
  await auditFeed()
  await auditTable()
  await sleep(1000) // the pool closes what it has too much
  const atRest = await measure()
  await closeClients()
  const { onSecond: _, ...rest } = plan
  const verdict = book.verdict()
  return {
    plan: rest,
    settings,
    verdict,
    requests: { ...requests, turnedAway },
    hung,
    crashes,
    bad,
    health,
    slowestMs,
    faults,
    seconds,
    atRest,
  }

  /** No transaction of the service is left, also of one whose connection was lost. */
  async function untilIdle() {
    proxy.bury()
    const sql = connect(address)
    for (let waits = 0; waits < 600; waits++) {
      const [row] = await sql<{ count: number }[]>`
        select count(*)::int from pg_stat_activity
        where application_name = 'larder' and state <> 'idle'`
      if (row!.count === 0) return sql.end({ timeout: 1 })
      await sleep(100)
    }
    throw new Error('transactions of the service do not end')
  }

  /** The feed a second time, from its beginning: it has to be the same, in the same order. */
  async function auditFeed() {
    const again = openBook()
    const { client } = steady
    await followFeed(
      [client],
      (change) => again.follow(change),
      () => false,
      (text) => tell(bad, text),
    )
    const [first, second] = [book.digest(), again.digest()]
    if (first.changes !== second.changes || first.sha256 !== second.sha256) {
      book.complain('feed', 'was read as', first, 'and then, from its beginning, as', second)
    }
  }

  /** The table, in SQL and as an export, is what the changes make of it. */
  async function auditTable() {
    const expected = book.products()
    const sql = connect(address)
    const [row] = await sql<{ count: number; stock: string; versions: string }[]>`
      select count(*)::int, coalesce(sum(stock), 0)::text as stock,
             coalesce(sum(version), 0)::text as versions
      from products`
    await sql.end({ timeout: 1 })
    const sum = (field: 'stock' | 'version') =>
      String(expected.reduce((total, product) => total + product[field], 0))
    const replayed = { count: expected.length, stock: sum('stock'), versions: sum('version') }
    if (JSON.stringify(row) !== JSON.stringify(replayed)) {
      book.complain('table', 'has', row, 'and the feed makes', replayed)
    }
    const outcome = await steady.client.send({ method: 'GET', path: '/products/export' })
    const text = outcome.outcome === 'answered' ? outcome.text : ''
    const exported = new Map(
      text
        .split('\n')
        .filter((line) => line !== '')
        .map((line) => JSON.parse(line) as Product)
        .map((product) => [product.id, product]),
    )
    for (const product of expected) {
      const stored = exported.get(product.id)
      exported.delete(product.id)
      if (!stored) book.complain('table', 'has no', product)
      else book.compare(stored, product)
    }
    for (const product of exported.values()) book.complain('table', 'has beyond the feed', product)
  }
}

/** Polls until `goOn` says no and then up to the end; by one instance and the other in turn. */
async function followFeed(
  clients: Client[],
  follow: (change: Change) => void,
  goOn: () => boolean,
  complain: (text: string) => void,
) {
  let cursor = ''
  for (let turn = 0; ; turn++) {
    const isLast = !goOn()
    const path = `/products/changes?limit=1000${cursor}`
    const outcome = await clients[turn % clients.length]!.send({ method: 'GET', path })
    if (outcome.outcome === 'answered' && outcome.status === 200) {
      for (const change of outcome.body.items as Change[]) follow(change)
      cursor = `&after=${outcome.body.next_cursor as string}`
      if (outcome.body.items.length === 1000) continue
      if (isLast && outcome.body.items.length === 0) return
    } else if (outcome.outcome === 'answered' && ![429, 503, 504].includes(outcome.status)) {
      complain(`the feed answers ${outcome.status}: ${outcome.text}`)
      if (isLast) return
    }
    if (!isLast) await sleep(POLL_EVERY_MS)
  }
}

/** As Linux tells of a process; elsewhere nothing is known. */
async function vitals(pid: number) {
  try {
    const status = await readFile(`/proc/${pid}/status`, 'utf8')
    const files = await readdir(`/proc/${pid}/fd`)
    return { memoryMb: Number(/VmRSS:\s+(\d+)/.exec(status)![1]) / 1024, files: files.length }
  } catch {
    return { memoryMb: undefined, files: undefined }
  }
}
