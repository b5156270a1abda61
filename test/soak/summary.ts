// The figures of a soak: what was promised and held, and how long each kind of fault was felt.
import type { Report } from '../ledger/engine.ts'
import { table } from '../support/table.ts'

export type Summary = ReturnType<typeof summarise>

/** Normal service within so long of a fault's end. */
const NORMAL_WITHIN_MS = 2000

/** Caches, plans and heaps fill for some minutes; after that nothing may grow any more. */
const GROWTH = { seconds: 600, memoryMb: 1, files: 1, connectionsAtRest: 10 }

/** What a run came to; `good` when every promise held. */
export function summarise(report: Report) {
  const { plan, settings, verdict, requests, hung, crashes, bad, health, faults, seconds } = report
  const { complaints, writes, changes, products } = verdict
  const kinds = Object.entries(Object.groupBy(faults, ({ name }) => name)).map(([name, all]) => {
    const times = all!
      .map(({ normalAfterMs = Infinity }) => normalAfterMs)
      .toSorted((a, b) => a - b)
    return {
      name,
      count: all!.length,
      medianMs: Math.round(times[times.length >> 1]!),
      worstMs: Math.round(times.at(-1)!),
    }
  })
  const late = faults.filter(({ normalAfterMs = Infinity }) => normalAfterMs > NORMAL_WITHIN_MS)
  const known = seconds.filter(({ memoryMb }) => memoryMb !== undefined)
  const slope = (value: (second: (typeof known)[0]) => number) =>
    round(60 * slopeOf(known.map((second) => [second.at, value(second)])))
  const rise = { memoryMb: slope(({ memoryMb }) => memoryMb!), files: slope(({ files }) => files!) }
  const grows =
    report.atRest.connections > GROWTH.connectionsAtRest ||
    (plan.seconds >= GROWTH.seconds &&
      (rise.memoryMb > GROWTH.memoryMb || rise.files > GROWTH.files))
  const clean =
    Object.keys(complaints).length === 0 &&
    hung + crashes.length + bad.length + health.failed.length === 0
  return {
    good: clean && late.length === 0 && !grows,
    plan,
    settings,
    requests,
    writes,
    lost: complaints.lost ?? 0,
    doubled: complaints.doubled ?? 0,
    complaints,
    crashes: crashes.length,
    hung,
    badAnswers: bad.length,
    health: { asked: health.asked, failed: health.failed.length },
    changes,
    products,
    slowestMs: Math.round(report.slowestMs),
    p50Ms: round(median(seconds.map(({ p50 }) => p50))),
    p99Ms: round(median(seconds.map(({ p99 }) => p99))),
    faults: {
      count: faults.length,
      later: late.map(({ name, from, normalAfterMs }) => ({ name, from, normalAfterMs })),
      kinds: kinds.toSorted((one, other) => other.worstMs - one.worstMs),
    },
    /** A line through the second half, when caches are full: its rise in a minute. */
    slope: rise,
    memoryMb: {
      first: round(known.find(({ at }) => at > 10)?.memoryMb ?? NaN),
      most: round(Math.max(...known.map(({ memoryMb }) => memoryMb!))),
      last: round(report.atRest.memoryMb ?? NaN),
    },
    connections: {
      most: Math.max(...seconds.map(({ connections }) => connections)),
      atRest: report.atRest.connections,
    },
  }
}

export function toMarkdown(summary: Summary): string {
  const { plan, requests, writes, faults, slope, memoryMb, connections, health } = summary
  const { unknown } = writes
  const minutes = Math.round(plan.seconds / 6) / 10
  const number = (value: number) => value.toLocaleString('en')
  const other = Object.entries(summary.complaints).map(([kind, count]) => `${count} ${kind}`)
  const rows: [string, string][] = [
    [
      'requests',
      `${number(requests.total)}, of them ${number(requests.refused)} answered 429 or 5xx and ${number(requests.broken)} broken off`,
    ],
    ['clients not let in, for 600 were under way', number(requests.turnedAway)],
    ['writes intended', number(writes.intended)],
    [
      'acknowledged',
      `${number(writes.acknowledged)}: **${summary.lost} lost, ${summary.doubled} doubled**`,
    ],
    ['refused', number(writes.refused)],
    [
      'outcome not known',
      `${number(unknown.happened + unknown.neverHappened)}: ${number(unknown.happened)} happened once, ${number(unknown.neverHappened)} did not`,
    ],
    ['complaints of the ledger', other.length > 0 ? other.join(', ') : '0'],
    ['changes in the feed', number(summary.changes)],
    ['crashes', String(summary.crashes)],
    ['requests without an answer', String(summary.hung)],
    ['answers that must not be', String(summary.badAnswers)],
    ['/health', `asked ${number(health.asked)} times, failed ${health.failed}`],
    [
      'latency',
      `median ${summary.p50Ms} ms, p99 ${summary.p99Ms} ms in the median second, slowest ${number(summary.slowestMs)} ms`,
    ],
    [
      'memory',
      `${memoryMb.first} MB at first, ${memoryMb.most} MB at most, ${memoryMb.last} MB at rest; ${slope.memoryMb} MB a minute in the second half`,
    ],
    ['open files', `${slope.files} a minute in the second half`],
    [
      'sockets to PostgreSQL, lost ones among them',
      `${connections.most} at most, ${connections.atRest} at rest`,
    ],
  ]
  const lines = [
    `# ${minutes} minutes under fire`,
    '',
    `\`npm run soak -- --minutes ${minutes} --seed ${plan.seed}\`: ${plan.rate} requests a second on two`,
    `instances, ${faults.count} faults, one after the other.`,
    '',
    ...table(['', ''], rows),
    '',
    'Normal service is back with the first second in which every request that begins in it is answered, not',
    'with 429 or 5xx, and within a second. Its distance from the end of the fault:',
    '',
    ...table(
      ['fault', 'times', 'median', 'worst'],
      faults.kinds.map(({ name, count, medianMs, worstMs }) => [
        name,
        String(count),
        `${number(medianMs)} ms`,
        `${number(worstMs)} ms`,
      ]),
    ),
    '',
  ]
  return lines.join('\n')
}

/** Of a line through the second half of the points, minute by minute, by least squares. */
function slopeOf(points: [x: number, y: number][]): number {
  const minutes = Object.values(Object.groupBy(points, ([x]) => Math.floor(x / 60)))
  const middles = minutes.map((all): [x: number, y: number] => [
    median(all!.map(([x]) => x)),
    median(all!.map(([, y]) => y)), // faults make single seconds jump
  ])
  const half = middles.slice(middles.length >> 1)
  const mean = (n: 0 | 1) => half.reduce((sum, point) => sum + point[n], 0) / half.length
  const [x, y] = [mean(0), mean(1)]
  const across = half.reduce((sum, point) => sum + (point[0] - x) ** 2, 0)
  return half.reduce((sum, point) => sum + (point[0] - x) * (point[1] - y), 0) / across
}

function median(values: (number | undefined)[]): number {
  const known = values.filter((value) => value !== undefined).toSorted((a, b) => a - b)
  return known[known.length >> 1] ?? NaN
}

const round = (value: number) => Math.round(value * 100) / 100
