// `npm run bench`: what a request costs, Larder beside its peers, and whether the goals are met.
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { onInterrupt } from '../../src/cli/processes.ts'
import { createDatabases, type Databases } from './databases.ts'
import type { Load, Order } from './load.ts'
import { startWorker, type Worker } from './processes.ts'
import { type Contestant, measureRounds, type Round } from './rounds.ts'
import { scenarios } from './scenarios.ts'
import { listServers, type Running, startServer } from './servers.ts'

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
  const databases = await createDatabases(Number(values.products))
  endings.push(databases.stop)
  const load = startWorker<Order, Load>(join(import.meta.dirname, 'load.ts'))
  endings.push(load.stop)
  const contestants: Contestant[] = []
  for (const server of listServers().filter(isChosen(values.servers))) {
    const running = await startServer(server, databases)
    endings.push(running.stop)
    contestants.push(toContestant(running, load, databases))
  }
  const rounds = await measureRounds(
    {
      contestants,
      scenarios: scenarios.filter(isChosen(values.only)),
      rounds: Number(values.rounds),
      seconds: Number(values.seconds),
    },
    databases,
    tell,
  )
  return rounds
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
