// The goals: what Larder may cost, measured by its peers and by what cannot be done for less.
import type { Round } from './rounds.ts'
import { type ScenarioName, scenarios } from './scenarios.ts'
import type { SingleName } from './singles.ts'
import {
  type Results,
  ratio,
  roundsOf,
  singleRatio,
  singleSpread,
  type Spread,
  totalCpu,
} from './summary.ts'

export interface Goal {
  text: string
  limit: number
  /** Whether the limit is one from below. */
  isLeast: boolean
  unit: ' ×' | ' ms'
  /** Undefined when it was not. */
  measured: Spread | undefined
}

/** Whether the median keeps the limit; undefined when there is none. */
export function isMet({ limit, isLeast, measured }: Goal): boolean | undefined {
  if (!measured) return undefined
  return isLeast ? measured.median >= limit : measured.median <= limit
}

const titleOf = (name: ScenarioName) => scenarios.find((one) => one.name === name)!.title
const withManyClients = scenarios.filter(({ clients }) => clients === 64).map(({ name }) => name)

export function judge(results: Results): Goal[] {
  const atMost = (text: string, limit: number, measured: Spread | undefined): Goal => {
    return { text, limit, isLeast: false, unit: ' ×', measured }
  }
  const larder = (scenario: ScenarioName) => ({ contestant: 'larder', scenario })
  const against = (
    contestant: string,
    scenario: ScenarioName,
    other: ScenarioName = scenario,
    value = totalCpu,
  ) => ratio(results, larder(scenario), { contestant, scenario: other }, value)
  const p99 = (round: Round) => round.p99
  const service = (round: Round) => round.serviceCpu
  const milliseconds = (text: string, limit: number, name: SingleName): Goal => {
    return { ...atMost(text, limit, singleSpread(results, name)), unit: ' ms' }
  }
  const rowsOfCopy = (text: string, name: SingleName, copy: SingleName): Goal => {
    const measured = singleRatio(results, name, copy)
    return { ...atMost(text, 0.5, measured), isLeast: true }
  }
  const measuredWith = (contestant: string) =>
    withManyClients.filter((scenario) => roundsOf(results, { contestant, scenario }).length > 0)

  return [
    atMost('GET by random id, of Go + pgx', 0.65, against('go', 'get')),
    atMost('first page of 20, of Go + pgx', 0.35, against('go', 'first-page')),
    atMost('page of 20 at random cursors, of Go + pgx', 1, against('go', 'cursors')),
    atMost('first page of 100, of Go + pgx', 1, against('go', 'page-of-100')),
    atMost('POST, of Go + pgx', 1.1, against('go', 'post')),
    atMost(
      'POST with Idempotency-Key, of one without',
      1.5,
      against('larder', 'post-once', 'post'),
    ),
    atMost('PATCH with If-Match, of a POST', 1.1, against('larder', 'patch', 'post')),
    atMost('GET by random id, of FastAPI', 1 / 20, against('fastapi', 'get')),
    ...measuredWith('fastapi')
      .filter((scenario) => scenario !== 'get' && scenario !== 'health')
      .map((scenario) =>
        atMost(`${titleOf(scenario)}, of FastAPI`, 1 / 10, against('fastapi', scenario)),
      ),
    atMost(
      'GET by random id without PostgreSQL, of its own /health',
      1.5,
      against('larder', 'get', 'health', service),
    ),
    atMost('/health, of node:http with a constant answer', 1.5, against('constant', 'health')),
    ...measuredWith('go').map((scenario) =>
      atMost(`p99 of ${titleOf(scenario)}, of Go + pgx`, 1, against('go', scenario, scenario, p99)),
    ),
    atMost(
      'page of 20 below 99 % of the products, of the first',
      1.3,
      singleRatio(results, 'page-deep', 'page-first'),
    ),
    atMost(
      `GET by id of ${results.plan.products.toLocaleString('en')} products, of 10,000`,
      1.2,
      against('larder-small', 'get'),
    ),
    milliseconds('page with count=estimated', 5, 'count-estimated'),
    milliseconds('search for a rare word', 20, 'search-rare'),
    milliseconds('search for a common word', 20, 'search-common'),
    rowsOfCopy('rows/s of an import, of a bare copy', 'import', 'copy-in'),
    rowsOfCopy('the same with on_conflict=sku', 'import-replacing', 'copy-in'),
    rowsOfCopy('rows/s of an export as NDJSON, of a bare copy', 'export-ndjson', 'copy-out'),
    rowsOfCopy('rows/s of an export as CSV, of a bare copy', 'export-csv', 'copy-out'),
    atMost(
      'start to first answer, of naive Hono',
      1.5,
      singleRatio(results, 'start-larder', 'start-hono'),
    ),
    atMost(
      'memory under load, of naive Hono',
      1.2,
      singleRatio(results, 'memory-larder', 'memory-hono'),
    ),
  ]
}
