// The clients of the bench, in a process of their own: they load one server at a time and count.
import autocannon, { type Client } from 'autocannon'
import { type Answers, type Costs, observe, type Watched } from './costs.ts'
import { type ScenarioName, scenarios, type World } from './scenarios.ts'

export interface Order {
  url: string
  scenario: ScenarioName
  seconds: number
  watched: Watched
  world: World
}

export interface Load extends Costs {
  /** How often each was answered, and what did not get an answer: before and after, too. */
  statuses: Record<string, number>
  errors: number
}

process.once('disconnect', () => process.exit())
process.on('message', (order: Order) => {
  void load(order).then((result) => process.send!(result))
})

async function load({ url, scenario: name, seconds, watched, world }: Order): Promise<Load> {
  const { clients: connections, requests } = scenarios.find((one) => one.name === name)!
  const clients: Client[] = []
  const answers: Answers = { times: [], bytes: 0 }
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
    answers.times.push(milliseconds)
    answers.bytes += length
  })
  const costs = await observe(watched, seconds, answers)
  // No answer is cut off, which would be work of another kind: each client ends after its last one.
  for (const client of clients) client.responseMax = client.reqsMade
  const { errors, statusCodeStats } = await running
  const statuses = Object.entries(statusCodeStats).map(([status, { count }]) => [status, count])
  return { ...costs, statuses: Object.fromEntries(statuses), errors }
}
