// What some seconds cost: the CPU time of a service and of PostgreSQL, and what others took of the machine.
import { cpuSeconds, machineSeconds, residentBytes } from './processes.ts'

/** The roots of two trees of processes. */
export interface Watched {
  service: number
  database: number
}

/** What a load got: all that it asked for, down to the last answer. */
export interface Answers {
  requests: number
  /** Milliseconds, of those that did not have to wait for their connection. */
  times: number[]
  /** With their headers. */
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

/** Until plans are made and pools have grown. */
const LEAD_SECONDS = 0.5

/**
 * Runs the load twice, first to warm up. No request is under way when the clocks are read: of a slow
 * service there are so few that those in the middle would be a good part of them.
 */
export async function observe<Load extends Answers>(
  watched: Watched,
  seconds: number,
  load: (seconds: number) => Promise<Load>,
): Promise<Costs & { answers: Load }> {
  await load(LEAD_SECONDS)
  const before = clocks(watched)
  const answers = await load(seconds)
  const after = clocks(watched)
  const times = Float64Array.from(answers.times).toSorted()
  const passed = (name: keyof typeof before) => after[name] - before[name]
  const own = watched.service === process.pid ? 0 : passed('own')
  const known = passed('idle') + passed('service') + passed('database') + own
  return {
    answers,
    requests: answers.requests,
    seconds: passed('time'),
    p50: times[Math.floor(times.length * 0.5)] ?? NaN,
    p99: times[Math.floor(times.length * 0.99)] ?? NaN,
    answerBytes: answers.bytes / answers.requests,
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
