// What some seconds cost: the CPU time of a service and of PostgreSQL, and what others took of the machine.
import { setTimeout as sleep } from 'node:timers/promises'
import { cpuSeconds, machineSeconds, residentBytes } from './processes.ts'

/** The roots of two trees of processes. */
export interface Watched {
  service: number
  database: number
}

export interface Costs {
  seconds: number
  /** CPU seconds. */
  service: number
  database: number
  /** The share of the machine that neither these nor the load had: other processes, and other machines. */
  lost: number
  /** Resident, of the service. */
  bytes: number
}

/** Reads the clocks in the very moment of the call, and when the time is over. */
export async function observe(watched: Watched, seconds: number): Promise<Costs> {
  const before = clocks(watched)
  await sleep(seconds * 1000)
  const after = clocks(watched)
  const passed = (name: keyof typeof before) => after[name] - before[name]
  const own = watched.service === process.pid ? 0 : passed('own')
  const known = passed('idle') + passed('service') + passed('database') + own
  return {
    seconds: passed('time'),
    service: passed('service'),
    database: passed('database'),
    lost: Math.max(0, 1 - known / passed('all')),
    bytes: residentBytes(watched.service),
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
