// The clients of the bench, in a process of their own: they load one server at a time and count.
import autocannon, { type Client } from 'autocannon'
import { setTimeout as sleep } from 'node:timers/promises'
import { type Answers, type Costs, observe, type Watched } from './costs.ts'
import { type Scenario, type ScenarioName, scenarios, type World } from './scenarios.ts'

export interface Order {
  url: string
  scenario: ScenarioName
  seconds: number
  watched: Watched
  world: World
}

export interface Load extends Costs {
  /** How often each was answered, and what did not get an answer. */
  statuses: Record<string, number>
  errors: number
}

process.once('disconnect', () => process.exit())
process.on('message', (order: Order) => {
  void load(order).then((result) => process.send!(result))
})

async function load({ url, scenario: name, seconds, watched, world }: Order): Promise<Load> {
  const scenario = scenarios.find((one) => one.name === name)!
  const { answers, ...costs } = await observe(watched, seconds, (seconds) =>
    runClients(url, scenario, seconds, world),
  )
  return { ...costs, statuses: answers.statuses, errors: answers.errors }
}

/** Returns with the last answer. None is cut off, which would be work of another kind. */
async function runClients(url: string, scenario: Scenario, seconds: number, world: World) {
  const clients: Client[] = []
  const answers: Answers = { requests: 0, times: [], bytes: 0 }
  const statuses: Record<string, number> = {}
  let errors = 0
  const { promise: done, resolve } = Promise.withResolvers<void>()
  let active = scenario.clients
  const running = autocannon({
    url,
    connections: scenario.clients,
    duration: 3600,
    timeout: 60,
    setupClient(client) {
      client.setRequests(scenario.requests(clients.length, world))
      client.on('done', () => --active || resolve())
      clients.push(client)
    },
  })
  running.on('response', (client, status, bytes, milliseconds) => {
    answers.requests++
    answers.bytes += bytes
    if (client.reqsMade > 1) answers.times.push(milliseconds)
    statuses[status] = (statuses[status] ?? 0) + 1
  })
  running.on('reqError', () => errors++)
  await sleep(seconds * 1000)
  // Each client ends when it has the answer to what it has sent.
  for (const client of clients) client.responseMax = client.reqsMade
  await done
  return { ...answers, statuses, errors }
}
