// The engine of the ledger and of the soak: a crowd of clients, faults meanwhile, and then the count.
import { setTimeout as sleep } from 'node:timers/promises'
import { connect } from '../support/database.ts'
import { type Book, type Change, openBook, type Product, type Verdict } from './book.ts'
import type { Client } from './client.ts'
import { createCrowd, type Sample } from './crowd.ts'
import { createDice, diceFor } from './dice.ts'
import { type Fault, networkFaults, processFaults } from './faults.ts'
import { type Holdings, type Instance, settings, setUp, type Stage } from './stage.ts'

export interface Plan {
  seed: number
  seconds: number
  /** Requests in a second, on both instances together. */
  rate: number
  /**
   * `measured`: one fault at a time, and the next when service has been normal again. `wild`: two
   * at a time, one of the network and one of the rest, each as soon as the one before is over.
   */
  faults: 'measured' | 'wild'
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
export interface Second extends Holdings {
  at: number
  /** Answered in it, and how: `failed` are 429, 5xx, broken connections and hung requests. */
  fine: number
  failed: number
  /** Milliseconds, of the fine ones. */
  p50: number | undefined
  p99: number | undefined
  /** Clients without an answer. */
  underWay: number
}

export interface Report {
  plan: Plan
  settings: Record<string, string>
  verdict: Verdict
  requests: Tally
  /** Requests without an answer within the deadline, and clients with a key that never got one. */
  hung: number
  /** What ended, or broke, and should not. */
  crashes: string[]
  /** Answers that the service must not give. */
  bad: string[]
  health: { asked: number; failed: string[] }
  slowestMs: number
  faults: FaultRecord[]
  seconds: Second[]
  /** At the end, when nobody asks for anything. */
  atRest: Holdings
}

/** Requests by what became of them. */
interface Tally extends Record<NonNullable<Sample['result']>, number> {
  total: number
  /** Clients that were not let in, for so many were under way: see MOST_UNDER_WAY. */
  turnedAway: number
}

/** `/health` does without the database, but not without a processor, of which others want some, too. */
const HEALTH_MS = 5000
const HEALTH_EVERY_MS = 250
/** Normal is the first second in which all requests that begin in it are answered, and in this time. */
const NORMAL_MS = 1000
const NORMAL_FOR_MS = 1000
/** After so long without a normal second, the measured run goes on. */
const NEVER_NORMAL_MS = 30_000
/** More are not let in: what cannot be served piles up, and measures the pile and not the service. */
const MOST_UNDER_WAY = 600
const WARM_UP_MS = 3000
const POLL_EVERY_MS = 150
const POLL_LIMIT = 1000
const MOST_TOLD = 20

/** Runs it all, and counts. What it has started ends with the test, or by `cleanUp`. */
export async function run(plan: Plan, onSecond?: (second: Second) => void): Promise<Report> {
  const bad: string[] = []
  const crashes: string[] = []
  let hung = 0
  const stage = await setUp({
    crash: (text) => tell(crashes, text),
    answer: (text) => tell(bad, text),
  })
  const { instances, proxy } = stage
  const clients = instances.map(({ client }) => client)
  const beganAt = performance.now()
  const now = () => (performance.now() - beganAt) / 1000

  const book = openBook()
  const watch = openWatch(now, () => crowd.busy())
  const crowd = createCrowd({
    seed: plan.seed,
    book,
    clients,
    mischief: (kind, text) => {
      if (kind === 'hung') hung++
      tell(bad, text)
    },
    onStart: (sample) => watch.onStart(sample),
    onEnd: (sample) => watch.onEnd(sample),
  })

  const busy = new AbortController()
  const complain = (text: string) => tell(bad, text)
  const reader = followFeed(clients, (change) => book.follow(change), busy.signal, complain)
  const health = { asked: 0, failed: [] as string[] }
  const doctors = instances.map((instance) => askForHealth(instance, health, busy.signal))
  const clerk = setInterval(() => {
    void watch.nextSecond(stage).then((second) => onSecond?.(second))
  }, 1000)
  let sent = 0
  const gate = setInterval(() => {
    const due = Math.floor(now() * plan.rate)
    if (crowd.busy() < MOST_UNDER_WAY) crowd.arrive(due - sent)
    else watch.turnAway(due - sent)
    sent = due
  }, 10)

  const faults: FaultRecord[] = []
  async function breakThings(kinds: Record<string, Fault>, n: number) {
    const wild = plan.faults === 'wild'
    const dice = createDice(diceFor(plan.seed, -n).whole(0, 2 ** 32 - 1))
    await sleep(WARM_UP_MS)
    for (let bag: string[] = []; now() < plan.seconds - 1;) {
      if (bag.length === 0) bag = dice.shuffle(Object.keys(kinds))
      const name = bag.pop()!
      const fault: FaultRecord = { name, from: now(), to: now() }
      faults.push(fault)
      await kinds[name]!({ ...stage, crowd }, dice)
      fault.to = now()
      if (!wild) Object.assign(fault, await watch.untilNormal())
      await sleep(dice.whole(100, wild ? 800 : 2000))
    }
  }

  try {
    await (plan.faults === 'wild'
      ? Promise.all([breakThings(networkFaults, 1), breakThings(processFaults, 2)])
      : breakThings({ ...networkFaults, ...processFaults }, 1))
    // Everybody gets an answer, what PostgreSQL still works on ends, and then it is counted.
    clearInterval(gate)
    const unanswered = await crowd.finish()
    hung += unanswered.length
    for (const text of unanswered) complain(`no final answer: ${text}`)
    proxy.bury()
    await untilIdle(stage)
  } finally {
    clearInterval(gate)
    clearInterval(clerk)
    busy.abort()
  }
  await Promise.all([...doctors, reader])
  await auditFeed(stage, book, complain)
  await auditTable(stage, book)
  await sleep(1000) // the pool closes what it has too much
  const atRest = await stage.measure()
  await stage.close()
  return {
    plan,
    settings,
    verdict: book.verdict(),
    ...watch.report(),
    hung,
    crashes,
    bad,
    health,
    faults,
    atRest,
  }
}

function tell(list: string[], text: string) {
  if (list.length < MOST_TOLD) list.push(text)
}

/** What the crowd saw of the service: counted, second by second, and whether that is normal. */
function openWatch(now: () => number, underWay: () => number) {
  const requests: Tally = {
    total: 0,
    fine: 0,
    refused: 0,
    broken: 0,
    left: 0,
    hung: 0,
    turnedAway: 0,
  }
  const seconds: Second[] = []
  let recent: Sample[] = []
  let current = { fine: [] as number[], failed: 0 }
  let slowestMs = 0

  const isBad = ({ startedAt, endedAt, result, counts }: Sample, at: number) =>
    counts &&
    result !== 'left' &&
    ((result !== undefined && result !== 'fine') || (endedAt ?? at) - startedAt > NORMAL_MS)

  return {
    onStart(sample: Sample) {
      requests.total++
      recent.push(sample)
    },

    onEnd({ startedAt, endedAt, result, counts }: Sample) {
      const ms = endedAt! - startedAt
      requests[result!]++
      if (result === 'fine') slowestMs = Math.max(slowestMs, ms)
      if (result === 'fine' && counts) current.fine.push(ms)
      else if (result !== 'fine' && result !== 'left' && counts) current.failed++
    },

    turnAway(count: number) {
      requests.turnedAway += count
      const startedAt = performance.now()
      if (count > 0) recent.push({ startedAt, endedAt: startedAt, result: 'refused', counts: true })
    },

    async nextSecond(stage: Stage): Promise<Second> {
      const { fine, failed } = current
      current = { fine: [], failed: 0 }
      fine.sort((a, b) => a - b)
      const second: Second = {
        at: now(),
        fine: fine.length,
        failed,
        p50: fine[fine.length >> 1],
        p99: fine[Math.floor(fine.length * 0.99)],
        underWay: underWay(),
        ...(await stage.measure()),
      }
      seconds.push(second)
      const longAgo = performance.now() - 2 * NEVER_NORMAL_MS
      recent = recent.filter(({ startedAt }) => startedAt > longAgo)
      return second
    },

    /** A fault is over: waits for normal service, see NORMAL_MS. */
    async untilNormal(): Promise<{ normalAfterMs?: number }> {
      const endedAt = performance.now()
      while (performance.now() < endedAt + NEVER_NORMAL_MS) {
        await sleep(100)
        const at = performance.now()
        let since = endedAt
        for (const sample of recent) {
          if (sample.startedAt < since || sample.startedAt >= since + NORMAL_FOR_MS) continue
          if (isBad(sample, at)) since = sample.startedAt + 0.001
        }
        // Whoever began in that second has had the time for an answer.
        const isSure = at > since + NORMAL_FOR_MS + NORMAL_MS
        if (isSure) return { normalAfterMs: since - endedAt }
      }
      return {}
    },

    report: () => ({ requests, seconds, slowestMs }),
  }
}

async function askForHealth(
  instance: Instance,
  health: { asked: number; failed: string[] },
  until: AbortSignal,
) {
  while (!until.aborted) {
    const { away, absences } = instance
    const askedAt = performance.now()
    const answer = await instance.client.send({ method: 'GET', path: '/health' })
    const ms = performance.now() - askedAt
    if (!away && absences === instance.absences) {
      const isWell = answer.outcome === 'answered' && answer.status === 200 && ms < HEALTH_MS
      health.asked++
      if (!isWell) tell(health.failed, `${instance.name}: ${answer.outcome} after ${ms} ms`)
    }
    await sleep(HEALTH_EVERY_MS)
  }
}

/** Polls, by one instance and the other in turn, until the signal, and then up to the feed's end. */
async function followFeed(
  clients: Client[],
  follow: (change: Change) => void,
  until: AbortSignal,
  complain: (text: string) => void,
) {
  let cursor = ''
  for (let turn = 0; ; turn++) {
    const isLast = until.aborted
    const path = `/products/changes?limit=${POLL_LIMIT}${cursor}`
    const answer = await clients[turn % clients.length]!.send({ method: 'GET', path })
    if (answer.outcome === 'answered' && answer.status === 200) {
      const { items, next_cursor } = answer.body as { items: Change[]; next_cursor: string }
      for (const change of items) follow(change)
      cursor = `&after=${next_cursor}`
      if (items.length === POLL_LIMIT) continue
      if (isLast && items.length === 0) return
    } else if (answer.outcome === 'answered' && ![429, 503, 504].includes(answer.status)) {
      complain(`the feed answers ${answer.status}: ${answer.text}`)
      if (isLast) return
    }
    await sleep(POLL_EVERY_MS)
  }
}

/** No transaction of the service is left, also of one whose connection was lost. */
async function untilIdle({ address }: Stage) {
  const sql = connect(address, 1, false)
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
async function auditFeed({ instances }: Stage, book: Book, complain: (text: string) => void) {
  const again = openBook()
  const { client } = instances[0]
  await followFeed([client], (change) => again.follow(change), AbortSignal.abort(), complain)
  const [first, second] = [book.digest(), again.digest()]
  if (first.changes !== second.changes || first.sha256 !== second.sha256) {
    book.complain('feed', 'was read as', first, 'and then, from its beginning, as', second)
  }
}

/** The table, in SQL and as an export, is what the changes make of it. */
async function auditTable({ instances, address }: Stage, book: Book) {
  const expected = book.products()
  const sql = connect(address, 1, false)
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
  const answer = await instances[0].client.send({ method: 'GET', path: '/products/export' })
  if (answer.outcome !== 'answered') return book.complain('table', 'is not exported', answer)
  const lines = answer.text.split('\n').filter((line) => line !== '')
  const products = lines.map((line) => JSON.parse(line) as Product)
  const exported = new Map(products.map((product) => [product.id, product]))
  for (const product of expected) {
    book.compare(exported.get(product.id), product)
    exported.delete(product.id)
  }
  for (const product of exported.values()) book.complain('table', 'has beyond the feed', product)
}
