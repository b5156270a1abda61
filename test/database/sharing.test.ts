// Statements that share a trip: who joins whom, what each gets, and that nobody pays for another.
import { setImmediate as endOfTurn } from 'node:timers/promises'
import { beforeEach, expect, test, vi } from 'vitest'
import type { Sql } from '../../src/database/connection.ts'
import type { DatabaseError } from '../../src/database/errors.ts'
import type { Pool, PoolOptions } from '../../src/database/pool.ts'
import { atTheEnd } from '../support/clean-up.ts'
import { createDatabase, killBackends, type TestDatabase } from '../support/database.ts'
import { openPool } from '../support/pool.ts'

let database: TestDatabase

beforeEach(async () => {
  database = await createDatabase()
})

const open = (options: Partial<PoolOptions> = {}) =>
  openPool(database.address, { gather: () => endOfTurn(), ...options })

/** A statement that doubles the numbers, and what was asked each time that it was sent. */
function doubling(seconds = 0) {
  const sent: number[][] = []
  const work = async (sql: Sql, asked: number[]) => {
    sent.push(asked)
    const rows = await sql<{ twice: number }[]>`
      select 2 * number as twice
      from jsonb_array_elements_text((${JSON.stringify(asked)}::text)::jsonb) as sent (text),
           lateral (select text::integer as number, pg_sleep(${seconds})) as slowly`
    return rows.map(({ twice }) => twice)
  }
  return { sent, work }
}

const failure = (work: Promise<unknown>) =>
  work.then(
    () => expect.fail('it did not fail'),
    (error: unknown) => error as DatabaseError,
  )

const running = async () =>
  (
    await database.sql`
      select from pg_stat_activity
      where datname = current_database() and application_name = 'larder' and state <> 'idle'`
  ).length

/** Takes every connection of the pool until it is released. */
async function fill(pool: Pool) {
  const { promise, resolve } = Promise.withResolvers<void>()
  const { limit } = pool.stats()
  const loans = Array.from({ length: limit }, () =>
    pool.session(async (sql) => {
      await sql`select 1`
      await promise
    }),
  )
  await expect.poll(() => pool.stats()).toMatchObject({ lent: limit, opening: 0 })
  return async () => {
    resolve()
    await Promise.all(loans)
  }
}

test('what is asked in one turn goes out as one statement, and each gets its own answer', async () => {
  const pool = open()
  const { sent, work } = doubling()
  const answers = [1, 2, 3, 2].map((number) => pool.readTogether('double', number, work))
  expect(await Promise.all(answers)).toEqual([2, 4, 6, 4])
  expect(sent).toEqual([[1, 2, 3, 2]])
})

test('what waits for a connection gathers until one is free', async () => {
  const pool = open()
  const { sent, work } = doubling()
  const release = await fill(pool)
  const early = pool.readTogether('double', 1, work)
  await expect.poll(() => pool.stats().waiting).toBe(1)
  const late = pool.readTogether('double', 2, work)
  expect(pool.stats().waiting).toBe(1)
  await release()
  expect(await Promise.all([early, late])).toEqual([2, 4])
  expect(sent).toEqual([[1, 2]])
})

test('nobody joins a statement that has been sent', async () => {
  const pool = open()
  const { sent, work } = doubling(0.3)
  const first = pool.readTogether('double', 1, work)
  await expect.poll(() => sent.length).toBe(1)
  // Nor who asks the very same: it may have been answered by what is no longer so.
  const later = [1, 2].map((number) => pool.readTogether('double', number, work))
  expect(await Promise.all([first, ...later])).toEqual([2, 2, 4])
  expect(sent).toEqual([[1], [1, 2]])
})

test('while a statement is under way, what is asked of its kind gathers for the next', async () => {
  const pool = open()
  const { sent, work } = doubling(0.3)
  const release = await fill(pool) // the driver needs timers to connect
  await release()
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] }) // nothing takes long by itself
  atTheEnd(async () => void vi.useRealTimers())
  const answers: Promise<number>[] = []
  for (const number of [1, 2, 3]) {
    answers.push(pool.readTogether('double', number, work))
    for (let turn = 0; turn < 5; turn++) await endOfTurn()
  }
  // Another kind has turns of its own.
  expect(await pool.readTogether('again', 4, doubling().work)).toBe(8)
  expect(sent).toEqual([[1]])
  expect(pool.stats()).toMatchObject({ lent: 1, waiting: 0 })
  expect(await Promise.all(answers)).toEqual([2, 4, 6])
  expect(sent).toEqual([[1], [2, 3]])
})

test('statements that take long hold nobody up, and leave no turn behind', async () => {
  const pool = open({ size: 5, queryTimeoutMs: 60_000 }) // nothing else ends them
  const client = new AbortController()
  const endless = doubling(60)
  const stuck: Promise<unknown>[] = []
  for (let number = 1; number <= 4; number++) {
    const borrower = pool.forBorrower(() => client.signal)
    stuck.push(failure(borrower.readTogether('double', number, endless.work)))
    await expect.poll(() => endless.sent.length).toBe(number)
  }
  const { work } = doubling()
  for (const number of [5, 6, 7]) {
    expect(await pool.readTogether('double', number, work)).toBe(2 * number)
  }
  client.abort()
  await Promise.all(stuck)
  for (const number of [8, 9]) {
    expect(await pool.readTogether('double', number, work)).toBe(2 * number)
  }
})

test('kinds, lanes and pools share nothing with each other', async () => {
  const [one, other] = [open(), open()]
  const { sent, work } = doubling()
  await Promise.all([
    one.readTogether('double', 1, work),
    one.readTogether('again', 2, work),
    one.heavy().readTogether('double', 3, work),
    one.writeTogether('double', 4, work),
    other.readTogether('double', 5, work),
  ])
  expect(new Set(sent.flat())).toEqual(new Set([1, 2, 3, 4, 5]))
  expect(sent).toHaveLength(5)
})

test('without a time to gather each goes by itself', async () => {
  const pool = open({ gather: undefined })
  const { sent, work } = doubling()
  const answers = [1, 2].map((number) => pool.readTogether('double', number, work))
  expect(await Promise.all(answers)).toEqual([2, 4])
  expect(sent).toEqual([[1], [2]])
})

test('a statement takes two hundred, and the next one the others', async () => {
  const pool = open()
  const { sent, work } = doubling()
  const numbers = Array.from({ length: 450 }, (_, index) => index)
  const answers = await Promise.all(
    numbers.map((number) => pool.readTogether('double', number, work)),
  )
  expect(answers).toEqual(numbers.map((number) => 2 * number))
  expect(sent.map(({ length }) => length).toSorted((a, b) => b - a)).toEqual([200, 200, 50])
})

test('or as many as the first of them says', async () => {
  const pool = open()
  const { sent, work } = doubling()
  const asked = Array.from({ length: 7 }, (_, n) => pool.readTogether('rows', n, work, 3))
  expect(await Promise.all(asked)).toEqual([0, 2, 4, 6, 8, 10, 12])
  expect(sent.map(({ length }) => length).toSorted((a, b) => b - a)).toEqual([3, 3, 1])
})

test('who leaves before it is sent is left out', async () => {
  const pool = open()
  const { sent, work } = doubling()
  const client = new AbortController()
  const release = await fill(pool)
  const leaving = failure(pool.forBorrower(() => client.signal).readTogether('double', 1, work))
  const staying = pool.readTogether('double', 2, work)
  await expect.poll(() => pool.stats().waiting).toBe(1)
  client.abort()
  expect(await leaving).toMatchObject({ kind: 'unavailable', code: 'CLIENT_GONE' })
  const late = pool.readTogether('double', 3, work)
  await release()
  expect(await Promise.all([staying, late])).toEqual([4, 6])
  expect(sent).toEqual([[2, 3]])
})

test('when all have left the queue, nothing is sent, and who comes then starts anew', async () => {
  const pool = open()
  const { sent, work } = doubling()
  const clients = [new AbortController(), new AbortController()]
  const release = await fill(pool)
  const leaving = clients.map(({ signal }, number) =>
    failure(pool.forBorrower(() => signal).readTogether('double', number, work)),
  )
  await expect.poll(() => pool.stats().waiting).toBe(1)
  for (const client of clients) client.abort()
  for (const error of await Promise.all(leaving)) expect(error.code).toBe('CLIENT_GONE')
  expect(pool.stats().waiting).toBe(0)
  const next = pool.readTogether('double', 7, work)
  await release()
  expect(await next).toBe(14)
  expect(sent).toEqual([[7]])
})

test('who leaves a running statement harms nobody; when all have left, it is cancelled', async () => {
  const pool = open()
  const { sent, work } = doubling(0.5)
  const [leaves, stays] = [new AbortController(), new AbortController()]
  const ask = (client: AbortController, number: number, slow = work) =>
    pool.forBorrower(() => client.signal).readTogether('double', number, slow)
  const answers = [ask(leaves, 1), ask(stays, 2)]
  await expect.poll(running).toBe(1)
  await new Promise((resolve) => setTimeout(resolve, 200)) // by now it is watched
  leaves.abort()
  expect(await answers[1]).toBe(4)
  expect(sent).toEqual([[1, 2]])

  const clients = [new AbortController(), new AbortController()]
  const endless = doubling(60)
  const lost = clients.map((client, number) => failure(ask(client, number, endless.work)))
  await expect.poll(running).toBe(1)
  for (const client of clients) client.abort()
  for (const error of await Promise.all(lost)) expect(error.code).toBe('CLIENT_GONE')
  expect(await running()).toBe(0)
})

test('a read whose connection is lost is asked again for all', async () => {
  const pool = open()
  const { sent, work } = doubling(0.5)
  const answers = [1, 2].map((number) => pool.readTogether('double', number, work))
  await expect.poll(running).toBe(1)
  await killBackends(database)
  expect(await Promise.all(answers)).toEqual([2, 4])
  expect(sent).toEqual([
    [1, 2],
    [1, 2],
  ])
})

test('a write whose connection is lost is lost for all, and sent once', async () => {
  const pool = open()
  const { sent, work } = doubling(0.5)
  const answers = [1, 2].map((number) => failure(pool.writeTogether('double', number, work)))
  await expect.poll(running).toBe(1)
  await killBackends(database)
  for (const error of await Promise.all(answers)) {
    expect(error).toMatchObject({ kind: 'unavailable', lost: true })
  }
  expect(sent).toEqual([[1, 2]])
})

test('a write that one of them breaks is undone, and done for each alone', async () => {
  const pool = open()
  const sent: number[][] = []
  const insert = async (sql: Sql, prices: number[]) => {
    sent.push(prices)
    const rows = await sql<{ id: number }[]>`
      insert into products (name, price)
      select 'one of several', price
      from jsonb_to_recordset((${JSON.stringify(prices.map((price) => ({ price })))}::text)::jsonb) as sent (price numeric)
      returning id`
    return rows.map(({ id }) => id)
  }
  const [first, bad, last] = await Promise.allSettled(
    [1, -1, 2].map((price) => pool.writeTogether('insert', price, insert)),
  )
  expect(sent[0]).toEqual([1, -1, 2])
  expect(new Set(sent.slice(1).flat())).toEqual(new Set([1, -1, 2]))
  expect(sent).toHaveLength(4)
  expect(bad).toMatchObject({ reason: { kind: 'invalid', constraint: 'products_price_range' } })
  const stored = await database.sql`select id::int, price::int from products order by price`
  expect(stored).toEqual([
    { id: (first as PromiseFulfilledResult<number>).value, price: 1 },
    { id: (last as PromiseFulfilledResult<number>).value, price: 2 },
  ])
})

test('one that breaks by itself is not sent twice', async () => {
  const pool = open()
  let sent = 0
  const broken = (sql: Sql) => {
    sent++
    return sql<never[]>`select 1 / 0`
  }
  expect((await failure(pool.writeTogether('broken', 1, broken))).kind).toBe('invalid')
  expect(sent).toBe(1)
})

test('no connection in time: all who wait are told', async () => {
  const pool = open({ timeoutMs: 300 })
  const { sent, work } = doubling()
  const release = await fill(pool)
  const answers = [1, 2].map((number) => failure(pool.readTogether('double', number, work)))
  for (const error of await Promise.all(answers)) expect(error.code).toBe('POOL_TIMEOUT')
  await release()
  expect(await pool.readTogether('double', 3, work)).toBe(6)
  expect(sent).toEqual([[3]])
})
