// The report of a bench: a table for each scenario, and which goals are met.
import { table } from '../support/table.ts'
import { type Goal, isMet } from './goals.ts'
import { type ScenarioName, scenarios } from './scenarios.ts'
import { type SingleName, titles } from './singles.ts'
import {
  ratio,
  type Results,
  roundsOf,
  singleSpread,
  type Spread,
  spread,
  totalCpu,
  type Value,
} from './summary.ts'

const HEAD = [
  '',
  'service, µs',
  'PostgreSQL, µs',
  'together, µs',
  'of Go + pgx',
  'of naive Hono',
  'requests/s',
  'p50, ms',
  'p99, ms',
  'MB',
]

export function toMarkdown(results: Results, goals: Goal[]): string {
  const { machine, plan, rounds } = results
  const lost = spread(rounds.map(({ lost }) => lost * 100))
  const lines = [
    '# What a request costs',
    '',
    `\`npm run bench -- --products ${plan.products} --rounds ${plan.rounds} --seconds ${plan.seconds}\` on`,
    `${machine.processors}, ${machine.memoryGb} GB, ${machine.system}; Node ${machine.node}, PostgreSQL ${machine.postgres},`,
    'all on the one machine. CPU time is of a whole tree of processes, in microseconds per request, the median of',
    'the rounds and their range. Ratios are of the CPU of service and PostgreSQL together, by pairs of the same',
    `round, and of these the median. Of the machine others took ${lost ? shown(lost, ' %') : 'nothing'} in a round.`,
    '',
    ...scenarios.flatMap(({ name, title, clients }) => {
      const rows = scenarioRows(results, name)
      if (rows.length === 0) return []
      return [`## ${title}, ${clients} clients`, '', ...table(HEAD, rows), '']
    }),
    ...singleLines(results),
    '## Goals',
    '',
    ...table(
      ['goal', '', 'measured', ''],
      goals.map((goal) => [
        goal.text,
        `${goal.isLeast ? 'at least' : 'at most'} ${number(goal.limit)}${goal.unit}`,
        goal.measured ? shown(goal.measured, goal.unit) : '',
        verdicts[String(isMet(goal))]!,
      ]),
    ),
    '',
  ]
  return lines.join('\n')
}

const verdicts: Record<string, string> = {
  true: 'met',
  false: '**not met**',
  undefined: 'not measured',
}

function scenarioRows(results: Results, scenario: ScenarioName): string[][] {
  return results.contestants.flatMap(({ name, title }) => {
    const entry = { contestant: name, scenario }
    const rounds = roundsOf(results, entry)
    if (rounds.length === 0) return []
    const of = (value: Value) => shown(spread(rounds.map(value))!)
    const times = (contestant: string) => {
      const found = ratio(results, entry, { contestant, scenario }, totalCpu)
      return found && contestant !== name ? shown(found) : ''
    }
    return [
      [
        title,
        of(({ serviceCpu }) => serviceCpu),
        of(({ databaseCpu }) => databaseCpu),
        of(totalCpu),
        times('go'),
        times('hono'),
        of(({ perSecond }) => perSecond),
        of(({ p50 }) => p50),
        of(({ p99 }) => p99),
        of(({ memoryMb }) => memoryMb),
      ],
    ]
  })
}

function singleLines(results: Results): string[] {
  const rows = (Object.keys(titles) as SingleName[]).flatMap((name) => {
    const found = singleSpread(results, name)
    return found ? [[titles[name], shown(found)]] : []
  })
  return rows.length > 0 ? ['## By themselves', '', ...table(['', ''], rows), ''] : []
}

const shown = ({ median, least, most }: Spread, unit = '') =>
  `${number(median)}${unit} (${number(least)}–${number(most)})`

/** Three digits that say something. */
function number(value: number): string {
  const decimals = value === 0 ? 0 : Math.max(0, 2 - Math.floor(Math.log10(Math.abs(value))))
  return value.toLocaleString('en', { maximumFractionDigits: Math.min(decimals, 3) })
}
