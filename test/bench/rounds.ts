// The rounds: what is compared is measured in turn, A B C A B C, while all servers are up.
import type { Database, Databases } from './databases.ts'
import type { Load } from './load.ts'
import { type OwnProduct, type Scenario, type ScenarioName, type World } from './scenarios.ts'

/** Who takes part: a server under load, or a bare loop. */
export interface Contestant {
  name: string
  title: string
  scenarios: readonly ScenarioName[]
  database: 'large' | 'small'
  run(scenario: Scenario, seconds: number, world: Omit<World, 'hasOpaqueCursors'>): Promise<Load>
}

export interface Round {
  scenario: ScenarioName
  contestant: string
  round: number
  /** Microseconds per request. */
  serviceCpu: number
  databaseCpu: number
  perSecond: number
  /** Milliseconds. */
  p50: number
  p99: number
  answerBytes: number
  memoryMb: number
  /** The share of the machine that others had. */
  lost: number
}

interface Plan {
  contestants: Contestant[]
  /** Those that are to be measured. */
  scenarios: readonly Scenario[]
  rounds: number
  seconds: number
}

/** As many products for each of 64 clients. */
const OWN_PRODUCTS = 64 * 8
/**
 * Plans are made, pools grow, and each process of PostgreSQL meets the pages of the table, of which the
 * first touch is a fault.
 */
const WARM_UP_SECONDS = 5

let loads = 0

/** The groups one after the other; in each first a warm-up of all, then the rounds. */
export async function measureRounds(
  { contestants, scenarios, rounds, seconds }: Plan,
  databases: Databases,
  tell: (round: Round) => void,
): Promise<Round[]> {
  const measured: Round[] = []
  const groups = Map.groupBy(scenarios, ({ group }) => group)
  for (const group of groups.values()) {
    for (let round = 0; round <= rounds; round++) {
      const time = round === 0 ? Math.min(WARM_UP_SECONDS, 3 * seconds) : seconds
      for (const scenario of group) {
        for (const contestant of contestants) {
          if (!contestant.scenarios.includes(scenario.name)) continue
          const load = await runOnce(contestant, scenario, time, databases[contestant.database])
          if (round === 0) continue
          const result = toRound(contestant, scenario, round, load)
          measured.push(result)
          tell(result)
        }
      }
    }
  }
  return measured
}

/** @throws {Error} when an answer is not what the scenario is about, or does not come */
async function runOnce(
  contestant: Contestant,
  scenario: Scenario,
  seconds: number,
  database: Database,
): Promise<Load> {
  const number = ++loads
  const own = await ownProducts(database, number)
  const { products } = database
  const load = await contestant.run(scenario, seconds, { number, products, own })
  const isExpected = (status: string) => scenario.statuses.includes(Number(status))
  if (load.errors > 0 || !Object.keys(load.statuses).every(isExpected) || load.requests === 0) {
    const { requests, errors, statuses } = load
    const told = JSON.stringify({ requests, errors, statuses })
    throw new Error(`${contestant.title} failed in ${scenario.title}: ${told}`)
  }
  return load
}

/** Others in each load, as long as there are others, so that none has a long row of dead versions. */
async function ownProducts({ owner, products }: Database, load: number): Promise<OwnProduct[]> {
  const first = 1 + ((load * OWN_PRODUCTS) % Math.max(1, products - OWN_PRODUCTS))
  return owner<OwnProduct[]>`
    select id::integer as id, version::integer as version from products
    where id >= ${first} order by id limit ${OWN_PRODUCTS}`
}

function toRound(contestant: Contestant, scenario: Scenario, round: number, load: Load): Round {
  const { requests, seconds } = load
  const micro = (cpuSeconds: number) => (cpuSeconds * 1e6) / requests
  return {
    scenario: scenario.name,
    contestant: contestant.name,
    round,
    serviceCpu: micro(load.service),
    databaseCpu: micro(load.database),
    perSecond: requests / seconds,
    p50: load.p50,
    p99: load.p99,
    answerBytes: load.answerBytes,
    memoryMb: load.memoryBytes / 1024 ** 2,
    lost: load.lost,
  }
}
