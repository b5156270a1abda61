// The figures of a bench: medians and ranges of the rounds, and ratios by pairs.
import { median } from './median.ts'
import type { Round } from './rounds.ts'
import type { ScenarioName } from './scenarios.ts'
import type { Single, SingleName } from './singles.ts'

export interface Results {
  machine: Machine
  plan: { products: number; rounds: number; seconds: number }
  /** In their order. */
  contestants: { name: string; title: string }[]
  rounds: Round[]
  singles: Single[]
}

export interface Machine {
  processors: string
  memoryGb: number
  system: string
  node: string
  postgres: string
}

export interface Spread {
  median: number
  least: number
  most: number
}

/** Who did what; the same round of two of them is a pair. */
export interface Entry {
  contestant: string
  scenario: ScenarioName
}

export type Value = (round: Round) => number

export const totalCpu: Value = ({ serviceCpu, databaseCpu }) => serviceCpu + databaseCpu

export function spread(values: number[]): Spread | undefined {
  if (values.length === 0) return undefined
  return { median: median(values), least: Math.min(...values), most: Math.max(...values) }
}

export function roundsOf({ rounds }: Results, { contestant, scenario }: Entry): Round[] {
  return rounds.filter((one) => one.contestant === contestant && one.scenario === scenario)
}

/** What took place in the same round had the same machine, busy or not: that is compared. */
export function ratio(
  results: Results,
  one: Entry,
  other: Entry,
  value: Value,
): Spread | undefined {
  const others = roundsOf(results, other)
  return spread(
    roundsOf(results, one).flatMap((round) => {
      const pair = others.find((other) => other.round === round.round)
      return pair && value(pair) > 0 ? value(round) / value(pair) : []
    }),
  )
}

export function singleSpread({ singles }: Results, name: SingleName): Spread | undefined {
  return spread(singles.filter((one) => one.name === name).map(({ value }) => value))
}

export function singleRatio(results: Results, name: SingleName, other: SingleName) {
  const others = results.singles.filter((one) => one.name === other)
  return spread(
    results.singles.flatMap((single) => {
      if (single.name !== name) return []
      const pair = others.find(({ round }) => round === single.round)
      return pair ? single.value / pair.value : []
    }),
  )
}
