// `npm run bench`: what a request costs, Larder beside its peers, and whether the goals are met.
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { onInterrupt } from '../../src/cli/processes.ts'
import { check } from './check.ts'
import type { Costs } from './costs.ts'
import { createDatabases, type Databases } from './databases.ts'
import type { Load, Order } from './load.ts'
import { startWorker, type Worker } from './processes.ts'
import { type Contestant, measureRounds, type Round } from './rounds.ts'
import { scenarios } from './scenarios.ts'
import { listServers, type Running, type Server, startServer } from './servers.ts'
import type { StatementOrder } from './statements.ts'

const { values } = parseArgs({
  options: {
    only: { type: 'string' },
    servers: { type: 'string' },
    rounds: { type: 'string', default: '7' },
    seconds: { type: 'string', default: '3' },
    products: { type: 'string', default: '1000000' },
    to: { type: 'string', default: join(import.meta.dirname, '../../docs') },
  },
})
const isChosen = (list: string | undefined) => {
  const names = list?.split(',')
  return ({ name }: { name: string }) => names?.includes(name) ?? true
}

const say = (text: string) => process.stdout.write(`${text}\n`)
const endings: (() => unknown)[] = []

async function cleanUp() {
  for (const ending of endings.splice(0).toReversed()) await ending()
}

async function main() {
  const folder = await mkdtemp(join(tmpdir(), 'larder-bench-'))
  endings.push(() => rm(folder, { recursive: true }))
  const servers: Server[] = []
  for (const server of listServers(folder).filter(isChosen(values.servers))) {
    try {
      await server.prepare?.()
      servers.push(server)
    } catch (error) {
      say(`${server.title} is left out: ${(error as Error).message}`)
    }
  }
  const databases = await createDatabases(Number(values.products))
  endings.push(databases.stop)
  const load = startWorker<Order, Load>(join(import.meta.dirname, 'load.ts'))
  endings.push(load.stop)
  const running: Running[] = []
  for (const server of servers) {
    const started = await startServer(server, databases)
    endings.push(started.stop)
    running.push(started)
  }
  await checkAll(running)
  const contestants = running.map((one) => toContestant(one, load, databases))
  const loop = startWorker<StatementOrder, Costs>(join(import.meta.dirname, 'statements.ts'))
  endings.push(loop.stop)
  contestants.push(...[bareStatements(loop, databases)].filter(isChosen(values.servers)))
  return measureRounds(
    {
      contestants,
      scenarios: scenarios.filter(isChosen(values.only)),
      rounds: Number(values.rounds),
      seconds: Number(values.seconds),
    },
    databases,
    tell,
  )
}

/** Where Larder is left out, nothing is compared with it. */
async function checkAll(running: Running[]) {
  const larder = running.find(({ server }) => server.name === 'larder')
  if (!larder) return
  for (const peer of running) if (!peer.server.isLarder) await check(peer, larder)
}

function bareStatements(
  loop: Worker<StatementOrder, Costs>,
  { large, processId }: Databases,
): Contestant {
  return {
    name: 'statements',
    title: 'its statements alone',
    scenarios: ['get', 'first-page', 'post'],
    database: 'large',
    run: async ({ name, clients }, seconds, world) => {
      const order = { url: large.url, scenario: name, clients, seconds, database: processId, world }
      return { ...(await loop.ask(order)), statuses: {}, errors: 0 }
    },
  }
}

function toContestant(
  { server, url, pid }: Running,
  load: Worker<Order, Load>,
  { processId }: Databases,
): Contestant {
  const watched = { service: pid, database: processId }
  return {
    ...server,
    run: (scenario, seconds, world) =>
      load.ask({
        url,
        scenario: scenario.name,
        seconds,
        watched,
        world: { ...world, hasOpaqueCursors: server.isLarder },
      }),
  }
}

function tell(round: Round) {
  const { scenario, contestant, serviceCpu, databaseCpu, perSecond, p50, p99, lost } = round
  const cpu = `${serviceCpu.toFixed(0)} + ${databaseCpu.toFixed(0)} µs`
  const times = `p50 ${p50.toFixed(1)} p99 ${p99.toFixed(1)} ms`
  const share = `${(lost * 100).toFixed(0)} % lost`
  say(
    `${round.round} ${scenario} ${contestant}: ${cpu}, ${perSecond.toFixed(0)}/s, ${times}, ${share}`,
  )
}

if (process.platform !== 'linux') {
  process.stderr.write('bench: reads the CPU time of processes in /proc, so it needs Linux\n')
  process.exit(1)
}
onInterrupt(
  () => void cleanUp().finally(() => process.exit(130)),
  () => process.exit(130),
)
try {
  await main()
} finally {
  await cleanUp()
}
