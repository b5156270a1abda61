// `npm run bench`: what a request costs, Larder beside its peers, and whether the goals are met.
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { cpus, release, tmpdir, totalmem } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { onInterrupt } from '../../src/cli/processes.ts'
import { check } from './check.ts'
import type { Costs } from './costs.ts'
import { createDatabases, type Databases, tidy } from './databases.ts'
import { type Goal, judge } from './goals.ts'
import type { Load, Order } from './load.ts'
import { draw } from './picture.ts'
import { startWorker, type Worker } from './processes.ts'
import { toMarkdown } from './report.ts'
import { type Contestant, measureRounds, type Round } from './rounds.ts'
import { scenarios } from './scenarios.ts'
import { listServers, type Running, type Server, startServer } from './servers.ts'
import { measureSingles, reading, type Single, titles, writing } from './singles.ts'
import type { StatementOrder } from './statements.ts'
import type { Results } from './summary.ts'

const { values } = parseArgs({
  options: {
    only: { type: 'string' },
    servers: { type: 'string' },
    rounds: { type: 'string', default: '7' },
    seconds: { type: 'string', default: '2' },
    products: { type: 'string', default: '1000000' },
    to: { type: 'string', default: join(import.meta.dirname, '../../docs') },
  },
})
const plan = {
  products: Number(values.products),
  rounds: Number(values.rounds),
  seconds: Number(values.seconds),
}
for (const [given, known] of [
  [values.only, [...scenarios.map(({ name }) => name), ...reading, ...writing]],
  [values.servers, [...listServers('').map(({ name }) => name), 'statements']],
] as const) {
  const unknown = given?.split(',').find((name) => !(known as string[]).includes(name))
  if (unknown === undefined) continue
  process.stderr.write(`bench: ${unknown} is none of ${known.join(', ')}\n`)
  process.exit(1)
}
const isChosen = (list: string | undefined, name: string) => list?.split(',').includes(name) ?? true

const say = (text: string) => process.stdout.write(`${text}\n`)
const endings: (() => unknown)[] = []
let cleaning: Promise<void> | undefined
let interrupted = false

if (process.platform !== 'linux') {
  process.stderr.write('bench: reads the CPU time of processes in /proc, so it needs Linux\n')
  process.exit(1)
}
onInterrupt(
  () => {
    interrupted = true
    void cleanUp().finally(() => process.exit(130))
  },
  () => process.exit(130),
)
try {
  const results = await measure()
  const goals = judge(results)
  await mkdir(values.to, { recursive: true })
  await writeFile(join(values.to, 'bench.svg'), draw(results))
  await writeFile(join(values.to, 'bench.md'), toMarkdown(results, goals))
  await writeFile(join(values.to, 'bench.json'), toJson(results, goals))
  say(`\n${toMarkdown(results, goals)}`)
} catch (error) {
  // What is measured fails, too, when its servers are stopped under it.
  if (!interrupted) throw error
} finally {
  await cleanUp()
}

function cleanUp(): Promise<void> {
  cleaning ??= (async () => {
    for (const ending of endings.toReversed()) await ending()
  })()
  return cleaning
}

async function measure(): Promise<Results> {
  const folder = await mkdtemp(join(tmpdir(), 'larder-bench-'))
  endings.push(() => rm(folder, { recursive: true }))
  const servers = await preparedServers(folder)
  const databases = await createDatabases(plan.products)
  endings.push(databases.stop)
  const load = startWorker<Order, Load>(join(import.meta.dirname, 'load.ts'))
  endings.push(load.stop)
  const running: Running[] = []
  for (const server of servers) {
    const started = await startServer(server, databases)
    endings.push(started.stop)
    running.push(started)
  }
  const larder = running.find(({ server }) => server.name === 'larder')
  // Where Larder is left out, nothing is compared with it.
  for (const one of larder ? running : []) if (!one.server.isLarder) await check(one, larder!)
  const loop = startWorker<StatementOrder, Costs>(join(import.meta.dirname, 'statements.ts'))
  endings.push(loop.stop)
  const contestants = running.map((one) => toContestant(one, load, databases))
  if (isChosen(values.servers, 'statements')) contestants.push(bareStatements(loop, databases))

  const rounds: Round[] = []
  const singles: Single[] = []
  const measureAll = async (writes: boolean, names: string[]) => {
    const chosen = scenarios.filter(
      ({ name, group }) => isChosen(values.only, name) && group.includes('writ') === writes,
    )
    rounds.push(
      ...(await measureRounds({ contestants, scenarios: chosen, ...plan }, databases, tellRound)),
    )
    if (!larder) return
    const hono = servers.find(({ name }) => name === 'hono')
    const stage = { larder, hono, databases, load, seconds: plan.seconds }
    const wanted = names.filter((name) => isChosen(values.only, name))
    singles.push(...(await measureSingles(wanted, stage, tellSingle)))
  }
  // What is written makes the table and its indexes larger: what reads comes first.
  await measureAll(false, reading)
  await tidy(databases.large.owner)
  await measureAll(true, writing)

  const [{ version }] = await databases.large.owner<[{ version: string }]>`
    select current_setting('server_version') as version`
  return {
    machine: {
      processors: `${cpus().length} × ${cpus()[0]!.model}`,
      memoryGb: Math.round(totalmem() / 1024 ** 3),
      system: `${process.platform} ${release()}`,
      node: process.version.slice(1),
      postgres: version,
    },
    plan,
    contestants: contestants.map(({ name, title }) => ({ name, title })),
    rounds,
    singles,
  }
}

/** Those that are asked for, and that can be started here. */
async function preparedServers(folder: string): Promise<Server[]> {
  const prepared: Server[] = []
  for (const server of listServers(folder)) {
    if (!isChosen(values.servers, server.name)) continue
    try {
      await server.prepare?.()
      prepared.push(server)
    } catch (error) {
      say(`${server.title} is left out: ${(error as Error).message.trim()}`)
    }
  }
  return prepared
}

function bareStatements(
  loop: Worker<StatementOrder, Costs>,
  { large, processId }: Databases,
): Contestant {
  return {
    name: 'statements',
    title: "Larder's statements alone",
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

function tellRound(found: Round) {
  const { scenario, contestant, round, serviceCpu, databaseCpu, perSecond, p50, p99, lost } = found
  const parts = [
    `${round} ${scenario} ${contestant}: ${serviceCpu.toFixed(0)} + ${databaseCpu.toFixed(0)} µs`,
    `${perSecond.toFixed(0)} requests/s`,
    `p50 ${p50.toFixed(1)} ms`,
    `p99 ${p99.toFixed(1)} ms`,
    `others took ${(lost * 100).toFixed(0)} %`,
  ]
  say(parts.join(', '))
}

function tellSingle({ name, round, value }: Single) {
  say(`${round} ${titles[name]}: ${value.toFixed(value < 100 ? 1 : 0)}`)
}

/** A line for each round, so that runs can be compared. */
function toJson({ rounds, singles, contestants, ...rest }: Results, goals: Goal[]): string {
  const list = (rows: object[]) =>
    `[\n${rows.map((row) => `  ${JSON.stringify(row)}`).join(',\n')}\n]`
  const parts = Object.entries(rest).map(([name, value]) => `"${name}": ${JSON.stringify(value)}`)
  for (const [name, rows] of Object.entries({ contestants, goals, singles, rounds })) {
    parts.push(`"${name}": ${list(rows)}`)
  }
  return `{\n${parts.join(',\n')}\n}\n`
}
