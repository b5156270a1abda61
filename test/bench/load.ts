// The clients of the bench, in a process of their own: they load one server at a time and count.
import autocannon, { type Client } from 'autocannon'
import { setTimeout as sleep } from 'node:timers/promises'
import { type Costs, observe, type Watched } from './costs.ts'
import { type ScenarioName, scenarios, type World } from './scenarios.ts'

export interface Order {
  url: string
  scenario: ScenarioName
  seconds: number
  watched: Watched
  world: World
}

/** Of the requests that were answered in the time. */
export interface Load extends Costs {
  requests: number
  /** Milliseconds. */
  p50: number
  p99: number
  /** Of an answer with its headers. */
  answerBytes: number
  /** How often each was answered, and what did not get an answer; before and after, too. */
  statuses: Record<string, number>
  errors: number
}

/** Until connections are open, plans are made and pools have grown. */
const LEAD_MS = 500

process.on('message', (order: Order) => {
  void load(order).then((result) => process.send!(result))
})

async function load({ url, scenario: name, seconds, watched, world }: Order): Promise<Load> {
  const { clients: connections, requests } = scenarios.find((one) => one.name === name)!
  const clients: Client[] = []
  let times: number[] = []
  let bytes = 0
  const running = autocannon({
    url,
    connections,
    duration: 3600,
    timeout: 60,
    sampleInt: 50,
    setupClient(client) {
      client.setRequests(requests(clients.length, world))
      clients.push(client)
    },
  })
  running.on('response', (_client, _status, length, milliseconds) => {
    times.push(milliseconds)
    bytes += length
  })
  await sleep(LEAD_MS)
  times = []
  bytes = 0
  const costs = await observe(watched, seconds)
  const measured = Float64Array.from(times).toSorted()
  const answerBytes = bytes / measured.length
  // No answer is cut off, which would be work of another kind: each client ends after its last one.
  for (const client of clients) client.responseMax = client.reqsMade
  const { errors, statusCodeStats } = await running
  const statuses = Object.entries(statusCodeStats).map(([status, { count }]) => [status, count])
  return {
    ...costs,
    requests: measured.length,
    p50: measured[Math.floor(measured.length * 0.5)] ?? NaN,
    p99: measured[Math.floor(measured.length * 0.99)] ?? NaN,
    answerBytes,
    statuses: Object.fromEntries(statuses),
    errors,
  }
}
