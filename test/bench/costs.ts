// What some seconds cost: the CPU time of a service and of PostgreSQL, and what others took of the machine.
import { setTimeout as sleep } from 'node:timers/promises'
import { cpuSeconds, machineSeconds, residentBytes } from './processes.ts'

/** The roots of two trees of processes. */
export interface Watched {
  service: number
  database: number
}

/** The answers of a load so far. */
export interface Answers {
  /** Milliseconds, of each. */
  times: number[]
  /** Of all, with their headers. */
  bytes: number
}

export interface Costs {
  requests: number
  seconds: number
  /** Milliseconds. */
  p50: number
  p99: number
  answerBytes: number
  /** CPU seconds. */
  service: number
  database: number
  /** The share of the machine that neither these nor the load had: other processes, and other machines. */
  lost: number
  /** Resident, of the service. */
  memoryBytes: number
}

/** Until connections are open, plans are made and pools have grown. */
const LEAD_MS = 500

/** Of a load that is under way, and goes on when this is over: all but its beginning and its end. */
export async function observe(watched: Watched, seconds: number, answers: Answers): Promise<Costs> {
  await sleep(LEAD_MS)
  answers.times = []
  answers.bytes = 0
  const before = clocks(watched)
  await sleep(seconds * 1000)
  const after = clocks(watched)
  const times = Float64Array.from(answers.times).toSorted()
  const passed = (name: keyof typeof before) => after[name] - before[name]
  const own = watched.service === process.pid ? 0 : passed('own')
  const known = passed('idle') + passed('service') + passed('database') + own
  return {
    requests: times.length,
    seconds: passed('time'),
    p50: times[Math.floor(times.length * 0.5)] ?? NaN,
    p99: times[Math.floor(times.length * 0.99)] ?? NaN,
    answerBytes: answers.bytes / times.length,
    service: passed('service'),
    database: passed('database'),
    lost: Math.max(0, 1 - known / passed('all')),
    memoryBytes: residentBytes(watched.service),
  }
}

function clocks({ service, database }: Watched) {
  return {
    time: performance.now() / 1000,
    service: cpuSeconds(service),
    database: cpuSeconds(database),
    own: cpuSeconds(process.pid),
    ...machineSeconds(),
  }
}
