// Random writes by many clients under random faults, and then the count: nothing lost, doubled or made up.
import { expect, test } from 'vitest'
import { run } from './engine.ts'

const seed = Number(process.env['LEDGER_SEED'] ?? Math.floor(Math.random() * 2 ** 32))
const seconds = Number(process.env['LEDGER_SECONDS'] ?? 30)

/** The start of PostgreSQL, the last answers, and the count. */
const AROUND_MS = 180_000

test(
  `the ledger (LEDGER_SEED=${seed} LEDGER_SECONDS=${seconds})`,
  { timeout: seconds * 1000 + AROUND_MS },
  async () => {
    const { verdict, hung, crashes, bad, health, faults, requests } = await run({
      seed,
      seconds,
      rate: 120,
      faults: 'wild',
    })
    const { texts, complaints, writes } = verdict
    const told = `LEDGER_SEED=${seed}\n${[...texts, ...bad, ...crashes].join('\n')}`
    expect({ complaints, hung, crashes, bad, sick: health.failed }, told).toEqual({
      complaints: {},
      hung: 0,
      crashes: [],
      bad: [],
      sick: [],
    })
    // It was a ledger of something: work was done, things broke, and outcomes were not known.
    expect(writes.acknowledged, 'acknowledged').toBeGreaterThan(seconds * 10)
    expect(faults.length).toBeGreaterThan(seconds / 5)
    expect(requests.refused + requests.broken).toBeGreaterThan(0)
    expect(health.asked).toBeGreaterThan(seconds)
  },
)
