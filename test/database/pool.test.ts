// What the pool and its sessions promise, and the behaviour of postgres.js 3.4.9 that they lean on.
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { type AddressInfo, connect, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { beforeEach, expect, test } from 'vitest'
import type { Sql } from '../../src/database/connection.ts'
import type { DatabaseError } from '../../src/database/errors.ts'
import { atTheEnd } from '../support/clean-up.ts'
import {
  backends,
  createDatabase,
  killBackends,
  lockTable,
  type TestDatabase,
} from '../support/database.ts'
import { openPool } from '../support/pool.ts'
import { startProxy } from '../support/proxy.ts'

let database: TestDatabase

beforeEach(async () => {
  database = await createDatabase()
})

const one = (sql: Sql) => sql<{ n: number }[]>`select 1 as n`
const pid = (sql: Sql) => sql<{ pid: number }[]>`select pg_backend_pid() as pid`
const insert = (sql: Sql, name: string) =>
  sql`insert into products (name, price) values (${name}, 1)`
const named = async (name: string) =>
  (await database.sql`select count(*)::int as n from products where name = ${name}`)[0]!['n']
const failure = (work: Promise<unknown>) =>
  work.then(
    () => expect.fail('it did not fail'),
    (error: unknown) => error as DatabaseError,
  )
/** How many statements the server is at, for the pool. */
const running = async () =>
  (
    await database.sql<{ n: number }[]>`
      select count(*)::int as n from pg_stat_activity
      where datname = current_database() and application_name = 'larder' and state <> 'idle'`
  )[0]!.n
const sleep = (sql: Sql, seconds = 60) => sql`select pg_sleep(${seconds})`
const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms))
/** A promise and the means to settle it. */
function gate() {
  return Promise.withResolvers<void>()
}

test('a session commits when it returns', async () => {
  const pool = openPool(database.address)
  const result = await pool.session(async (sql) => {
    await insert(sql, 'committed')
    return 7
  })
  expect(result).toBe(7)
  expect(await named('committed')).toBe(1)
  expect(pool.stats()).toMatchObject({ lent: 0, idle: 1, waiting: 0 })
})

test('a session rolls back when it throws, and its connection is clean', async () => {
  const pool = openPool(database.address)
  const fault = new Error('changed my mind')
  const error = await failure(
    pool.session(async (sql) => {
      await insert(sql, 'rolled back')
      throw fault
    }),
  )
  expect(error).toBe(fault)
  expect(await named('rolled back')).toBe(0)
  const [backend] = await pool.read(pid)
  const states = await database.sql`select state from pg_stat_activity where pid = ${backend!.pid}`
  expect(states).toEqual([{ state: 'idle' }])
  expect(await backends(database)).toBe(1)
})

test('a session whose failed statement was swallowed is an error, not a commit', async () => {
  const pool = openPool(database.address)
  const error = await failure(
    pool.session(async (sql) => {
      await insert(sql, 'half')
      await sql`select 1 / 0`.catch(() => {})
    }),
  )
  expect(error).toMatchObject({ name: 'DatabaseError', kind: 'internal' })
  expect(await named('half')).toBe(0)
})

test('a statement after the end of its session is refused, never run elsewhere', async () => {
  const pool = openPool(database.address)
  let leaked: Sql
  await pool.session(async (sql) => {
    leaked = sql
    await one(sql)
  })
  expect(await failure(insert(leaked!, 'leaked').execute())).toMatchObject({ kind: 'internal' })
  expect(await named('leaked')).toBe(0)
})

test('a statement that is still running when its loan ends takes the connection with it', async () => {
  const pool = openPool(database.address)
  let straggler: Promise<unknown>
  await pool.write(async (sql) => {
    straggler = sql`select pg_sleep(5)`.execute()
    straggler.catch(() => {})
    await new Promise(setImmediate)
  })
  expect(await failure(straggler!)).toMatchObject({ kind: 'unavailable', lost: true })
  expect(pool.stats()).toMatchObject({ idle: 0, lent: 0 })
  expect((await pool.read(one))[0]!.n).toBe(1)
})

test('single statements need no transaction around them', async () => {
  const pool = openPool(database.address)
  await pool.write((sql) => insert(sql, 'single'))
  expect(await named('single')).toBe(1)
  const [row] = await pool.read(
    (sql) => sql`select pg_current_xact_id_if_assigned() is null as none`,
  )
  expect(row!['none']).toBe(true)
})

test('no more than the limit is lent, and no more than the size is kept', async () => {
  const pool = openPool(database.address)
  const { release } = await lockTable(database)
  const reads = Array.from({ length: 8 }, () =>
    pool.read((sql) => sql`select count(*) from products`),
  )
  await expect.poll(() => pool.stats()).toMatchObject({ lent: 3, waiting: 5 })
  await expect.poll(() => backends(database)).toBe(3)
  await release()
  await Promise.all(reads)
  await expect.poll(() => pool.stats()).toMatchObject({ lent: 0, idle: 2, waiting: 0, limit: 3 })
  await expect.poll(() => backends(database)).toBe(2)
})

test('waiters are served first come, first served', async () => {
  const pool = openPool(database.address, { size: 1, maxOverflow: 0 })
  const { promise, resolve } = gate()
  const order: number[] = []
  const first = pool.write(() => promise)
  const others = [1, 2, 3].map((n) => pool.write(async () => void order.push(n)))
  resolve()
  await Promise.all([first, ...others])
  expect(order).toEqual([1, 2, 3])
})

test('a waiter leaves at its time-out', async () => {
  const pool = openPool(database.address, { size: 1, maxOverflow: 0, timeoutMs: 200 })
  const { promise, resolve } = gate()
  const holder = pool.write(() => promise)
  const start = performance.now()
  const error = await failure(pool.read(one))
  expect(performance.now() - start).toBeGreaterThan(190)
  expect(performance.now() - start).toBeLessThan(1000)
  expect(error).toMatchObject({ kind: 'unavailable', code: 'POOL_TIMEOUT' })
  expect(pool.stats()).toMatchObject({ waiting: 0, timeouts: 1 })
  resolve()
  await holder
  expect((await pool.read(one))[0]!.n).toBe(1)
})

test('a waiter leaves when its client does, and does not take a connection along', async () => {
  const pool = openPool(database.address, { size: 1, maxOverflow: 0 })
  const { promise, resolve } = gate()
  const holder = pool.write(() => promise)
  const client = new AbortController()
  const waiter = failure(pool.forBorrower(() => client.signal).read(one))
  expect(pool.stats().waiting).toBe(1)
  client.abort()
  expect(await waiter).toMatchObject({ code: 'CLIENT_GONE' })
  expect(pool.stats().waiting).toBe(0)
  resolve()
  await holder
  expect((await pool.read(one))[0]!.n).toBe(1)
})

test('when the queue is full, the next is refused at once', async () => {
  const pool = openPool(database.address, { size: 1, maxOverflow: 0, queue: 2 })
  const { promise, resolve } = gate()
  const holder = pool.write(() => promise)
  const waiters = [pool.read(one), pool.read(one)]
  const start = performance.now()
  expect(await failure(pool.read(one))).toMatchObject({ kind: 'unavailable', code: 'POOL_QUEUE' })
  expect(performance.now() - start).toBeLessThan(100)
  expect(pool.stats()).toMatchObject({ waiting: 2, refusals: 1, timeouts: 0 })
  resolve()
  await Promise.all([holder, ...waiters])
  expect(await pool.read(one)).toEqual([{ n: 1 }])

  const impatient = openPool(database.address, { size: 1, maxOverflow: 0, queue: 0 })
  const second = gate()
  const other = impatient.write(() => second.promise)
  for (const lane of [impatient, impatient.heavy()]) {
    expect(await failure(lane.read(one))).toMatchObject({ code: 'POOL_QUEUE' })
  }
  second.resolve()
  await other
})

test('heavy work has two thirds of the connections and of the queue, and quick work the rest', async () => {
  const pool = openPool(database.address, { size: 3, maxOverflow: 0, queue: 6 })
  const { promise, resolve } = gate()
  const served: string[] = []
  const heavy = Array.from({ length: 6 }, (_, n) =>
    pool.heavy().write(async () => {
      served.push(`heavy ${n}`)
      await promise
    }),
  )
  expect(pool.stats()).toMatchObject({ waiting: 4 })
  expect(await failure(pool.heavy().session(one))).toMatchObject({ code: 'POOL_QUEUE' })
  // Those who wait do not stand before what is quick.
  for (let i = 0; i < 10; i++) expect(await pool.read(one)).toEqual([{ n: 1 }])
  expect(served).toEqual(['heavy 0', 'heavy 1'])
  resolve()
  await Promise.all(heavy)
  expect(served).toEqual([0, 1, 2, 3, 4, 5].map((n) => `heavy ${n}`))
  expect(pool.stats()).toMatchObject({ lent: 0, waiting: 0, refusals: 1 })
})

test('over both lanes, too, the first who may is the next', async () => {
  const pool = openPool(database.address, { size: 3, maxOverflow: 0 })
  const gates = [gate(), gate(), gate()]
  const served: string[] = []
  const holders = gates.map(({ promise }, n) =>
    n < 2 ? pool.heavy().write(() => promise) : pool.write(() => promise),
  )
  const wait = (name: string, lane: Pick<typeof pool, 'write'>) =>
    lane.write(async () => void served.push(name))
  const waiters = [
    wait('heavy 1', pool.heavy()),
    wait('quick 1', pool),
    wait('heavy 2', pool.heavy()),
    wait('quick 2', pool),
  ]
  await expect.poll(() => pool.stats()).toMatchObject({ lent: 3, waiting: 4 })
  gates[2]!.resolve() // heavy work has its share: its turn has not come
  await Promise.all([waiters[1], waiters[3]])
  expect(served).toEqual(['quick 1', 'quick 2'])
  const last = wait('quick 3', pool)
  await last
  gates[0]!.resolve()
  gates[1]!.resolve()
  await Promise.all([...holders, ...waiters])
  expect(served).toEqual(['quick 1', 'quick 2', 'quick 3', 'heavy 1', 'heavy 2'])
})

test('a pool of one connection has both lanes', async () => {
  const pool = openPool(database.address, { size: 1, maxOverflow: 0, queue: 1 })
  expect(await pool.heavy().read(one)).toEqual([{ n: 1 }])
  expect(await Promise.all([pool.heavy().read(one), pool.heavy().read(one)])).toHaveLength(2)
  expect(await pool.read(one)).toEqual([{ n: 1 }])
})

test.for([
  ['a read', 'read'],
  ['a write', 'write'],
  ['a session', 'session'],
] as const)('the statement of %s ends when its client leaves', async ([, method]) => {
  const pool = openPool(database.address, { size: 1, maxOverflow: 0, queryTimeoutMs: 60_000 })
  const client = new AbortController()
  let attempts = 0
  const work = failure(
    pool
      .forBorrower(() => client.signal)
      [method](async (sql) => {
        attempts++
        if (method === 'session') await insert(sql, 'left')
        return sleep(sql)
      }),
  )
  await expect.poll(running).toBe(1)
  const before =
    await database.sql`select pid from pg_stat_activity where application_name = 'larder'
    and datname = current_database()`
  client.abort()
  expect(await work).toMatchObject({ kind: 'unavailable', code: 'CLIENT_GONE' })
  expect(await running()).toBe(0)
  expect(attempts).toBe(1)
  expect(await named('left')).toBe(0)
  // The connection has survived, and is clean.
  expect(pool.stats()).toMatchObject({ lent: 0, idle: 1 })
  const [after] = await pool.read(pid)
  expect([after]).toEqual([...before])
  expect(await pool.session(one)).toEqual([{ n: 1 }])
})

test('a client that leaves between two statements sends no more of them', async () => {
  const pool = openPool(database.address)
  const client = new AbortController()
  const error = await failure(
    pool
      .forBorrower(() => client.signal)
      .session(async (sql) => {
        await insert(sql, 'half done')
        await pause(300)
        client.abort()
        await insert(sql, 'half done').catch(() => {})
      }),
  )
  expect(error).toMatchObject({ code: 'CLIENT_GONE' })
  expect(await named('half done')).toBe(0)
  expect(pool.stats()).toMatchObject({ lent: 0, idle: 1 })
})

test('statements of a session that were sent together end together', async () => {
  const pool = openPool(database.address, { size: 1, maxOverflow: 0, queryTimeoutMs: 60_000 })
  const client = new AbortController()
  const outcomes: string[] = []
  const session = failure(
    pool
      .forBorrower(() => client.signal)
      .session(async (sql) => {
        const sent = [sleep(sql), sql`select 2 as n`, sql`select 3 as n`].map((query) =>
          query.then(
            () => outcomes.push('done'),
            () => outcomes.push('failed'),
          ),
        )
        await Promise.all(sent)
      }),
  )
  await expect.poll(running).toBe(1)
  client.abort()
  expect(await session).toMatchObject({ code: 'CLIENT_GONE' })
  expect(outcomes).toEqual(['failed', 'failed', 'failed'])
  expect(await pool.read(one)).toEqual([{ n: 1 }])
})

test('whoever is quick is not asked whether it is still there', async () => {
  const pool = openPool(database.address)
  let asked = 0
  const borrower = pool.forBorrower(() => {
    asked++
    return new AbortController().signal
  })
  for (let i = 0; i < 20; i++) await borrower.read(one)
  await borrower.session(one)
  expect(asked).toBe(0)
  await borrower.read((sql) => sleep(sql, 0.5))
  expect(asked).toBe(1)
})

test('where a statement cannot be cancelled, the connection is thrown away', async () => {
  const proxy = await startProxy(database.address)
  const pool = openPool(proxy.address, { size: 1, maxOverflow: 0, queryTimeoutMs: 60_000 })
  const client = new AbortController()
  const work = failure(pool.forBorrower(() => client.signal).read((sql) => sleep(sql)))
  await expect.poll(running).toBe(1)
  proxy.refuse()
  client.abort()
  const start = performance.now()
  expect(await work).toMatchObject({ code: 'CLIENT_GONE' })
  // Until then it counts as lent, for the server is at it.
  expect(performance.now() - start).toBeGreaterThan(4500)
  expect(pool.stats()).toMatchObject({ lent: 0, idle: 0 })
  await proxy.pass()
  expect(await pool.read(one)).toEqual([{ n: 1 }])
}, 20_000)

test('clients that leave all the time harm nobody else, and never pile statements up', async () => {
  const pool = openPool(database.address, { size: 4, maxOverflow: 2, timeoutMs: 20_000 })
  const until = performance.now() + 6000
  const wrong: unknown[] = []
  let [left, stayed, late, most] = [0, 0, 0, 0]
  /** Goes when its statement is about to end: its request to cancel often comes too late. */
  const leave = async () => {
    while (performance.now() < until) {
      const client = new AbortController()
      const seconds = 0.15 + Math.random() * 0.1
      setTimeout(() => client.abort(), seconds * 1000 + Math.random() * 20 - 8)
      const method = Math.random() < 0.5 ? 'read' : 'session'
      await pool
        .forBorrower(() => client.signal)
        [method]((sql) => sleep(sql, seconds))
        .then(
          () => late++,
          (error: DatabaseError) => {
            left++
            if (error.code !== 'CLIENT_GONE') wrong.push(error)
          },
        )
    }
  }
  const stay = async () => {
    for (let n = 0; performance.now() < until; n++, stayed++) {
      const method = n % 3 === 0 ? 'session' : 'write'
      await pool[method]((sql) => sql`select ${n}::int as n, pg_sleep(0.001)`).then(
        (rows) => rows[0]?.['n'] === n || wrong.push(rows),
        (error: unknown) => wrong.push(error),
      )
    }
  }
  const watch = async () => {
    while (performance.now() < until) {
      most = Math.max(most, await backends(database))
      await pause(20)
    }
  }
  await Promise.all([...Array.from({ length: 6 }, leave), stay(), stay(), stay(), watch()])
  expect(wrong).toEqual([])
  expect(left).toBeGreaterThan(30)
  expect(late).toBeGreaterThan(0)
  expect(stayed).toBeGreaterThan(100)
  expect(most).toBeLessThanOrEqual(6)
  expect(pool.stats()).toMatchObject({ lent: 0, waiting: 0 })
  expect(await running()).toBe(0)
}, 30_000)

test('an old connection is replaced when it is lent, not in use', async () => {
  const pool = openPool(database.address, { recycleMs: 300 })
  const [first] = await pool.session(async (sql) => {
    const before = await pid(sql)
    await sql`select pg_sleep(0.4)`
    expect((await pid(sql))[0]).toEqual(before[0])
    return before
  })
  const [second] = await pool.read(pid)
  expect(second!.pid).not.toBe(first!.pid)
  await expect.poll(() => backends(database)).toBe(1)
})

test.for([
  ['a statement', (sql: Sql) => one(sql), 'read'],
  ['a session', (sql: Sql) => one(sql), 'session'],
] as const)('%s does not notice that idle connections were killed', async ([, work, method]) => {
  const pool = openPool(database.address, { size: 3, maxOverflow: 0 })
  await Promise.all([1, 2, 3].map(() => pool.read((sql) => sql`select pg_sleep(0.1)`)))
  expect(pool.stats().idle).toBe(3)
  expect(await killBackends(database)).toBe(3)
  for (let i = 0; i < 10; i++) await pool[method](work)
})

test('connections that a silent network took away cost one test, not one each', async () => {
  const proxy = await startProxy(database.address)
  const limits = { size: 3, maxOverflow: 0, timeoutMs: 20_000, queryTimeoutMs: 20_000 }
  const pool = openPool(proxy.address, limits)
  await Promise.all([1, 2, 3].map(() => pool.write((sql) => sql`select pg_sleep(0.1)`)))
  proxy.lose()
  await new Promise((resolve) => setTimeout(resolve, 1100)) // longer than a connection is trusted
  const start = performance.now()
  await pool.write(one)
  expect(performance.now() - start).toBeLessThan(6500)
  const next = performance.now()
  await Promise.all([1, 2, 3].map(() => pool.write(one)))
  expect(performance.now() - next).toBeLessThan(1000)
}, 20_000)

test.for([
  ['on Node', true],
  ['in workerd', false],
])('a killed backend fails its session, and nothing else (%s)', async ([, endSockets]) => {
  const pool = openPool(database.address, { endSockets: endSockets as boolean })
  const error = await failure(
    pool.session(async (sql) => {
      await insert(sql, 'killed')
      await killBackends(database)
      await expect.poll(() => pool.stats().lent).toBe(1)
      // The transaction is gone: on a new connection this would be committed by itself.
      await insert(sql, 'killed').catch(() => {})
      await insert(sql, 'killed')
    }),
  )
  expect(error).toMatchObject({ kind: 'unavailable' })
  expect(await named('killed')).toBe(0)
  for (let i = 0; i < 5; i++) expect((await pool.read(one))[0]!.n).toBe(1)
})

test.for([
  ['a server that says goodbye', '57P01'],
  ['Hyperdrive, when it does not say what it was,', '58000'],
])('%s loses a read no answer, and a write is not tried again', async ([, code]) => {
  await database.sql.unsafe(`
    create function fail() returns void language plpgsql as
    $$ begin raise exception 'gone' using errcode = '${code}'; end $$`)
  const pool = openPool(database.address)
  let attempts = 0
  const rows = await pool.read((sql) =>
    ++attempts === 1 ? sql`select fail()` : sql`select 2 as n`,
  )
  expect(rows).toEqual([{ n: 2 }])
  attempts = 0
  const write = pool.write((sql) => {
    attempts++
    return sql`select fail()`
  })
  // Whether it took effect is not known.
  expect(await failure(write)).toMatchObject({ kind: 'unavailable', lost: true })
  expect(attempts).toBe(1)
})

test('a read whose connection is lost under way is tried again, a write is not', async () => {
  const pool = openPool(database.address)
  const sleeping = async () =>
    (
      await database.sql`
    select count(*)::int as n from pg_stat_activity where query like '%pg_sleep(2)%'
    and application_name = 'larder' and datname = current_database() and state = 'active'`
    )[0]!['n']
  let attempts = 0
  const sleep = (sql: Sql) => {
    attempts++
    return sql`select pg_sleep(2)`
  }
  const read = pool.read(sleep)
  await expect.poll(sleeping).toBe(1)
  await killBackends(database)
  expect(await read).toHaveLength(1)
  expect(attempts).toBe(2)

  attempts = 0
  const write = failure(pool.write(sleep))
  await expect.poll(sleeping).toBe(1)
  await killBackends(database)
  expect(await write).toMatchObject({ kind: 'unavailable', lost: true })
  expect(attempts).toBe(1)
})

test('a deadlock is broken by PostgreSQL, and the session that lost is run again', async () => {
  const pool = openPool(database.address, { queryTimeoutMs: 20_000 })
  await database.sql`insert into products (name, price, sku) values ('d', 1, 'd1'), ('d', 1, 'd2')`
  let attempts = 0
  const lock = (sql: Sql, sku: string) =>
    sql`update products set stock = stock + 1 where sku = ${sku}`
  const both = gate()
  const crossing = (first: string, second: string) =>
    pool.session(async (sql) => {
      await lock(sql, first)
      if (++attempts === 2) both.resolve()
      await both.promise
      await lock(sql, second)
    })
  await Promise.all([crossing('d1', 'd2'), crossing('d2', 'd1')])
  expect(attempts).toBe(3)
  const rows = await database.sql`select stock from products where sku in ('d1', 'd2')`
  expect(rows.map((row) => row['stock'])).toEqual([2, 2])
})

test('a prepared statement survives a migration of its table', async () => {
  const pool = openPool(database.address, { size: 1, maxOverflow: 0 })
  await database.sql`create table changing (a integer)`
  await database.sql`grant select on changing to public`
  const read = (sql: Sql) => sql`select * from changing`
  await pool.session(read)
  await database.sql`alter table changing add b integer`
  await pool.session(read)
  await database.sql`alter table changing add c integer`
  await pool.read(read)
})

test('rows of a statement that failed do not reach the next one', async () => {
  const pool = openPool(database.address, { size: 1, maxOverflow: 0 })
  const failing = (sql: Sql) => sql`select 1 / (3 - n) from generate_series(1, 5) as n`
  expect(await failure(pool.read(failing))).toMatchObject({ kind: 'invalid', code: '22012' })
  expect(await pool.read(one)).toEqual([{ n: 1 }])
  expect(pool.stats().idle).toBe(1)
})

test('a statement past the limit of the server is a time-out, and its connection stays', async () => {
  const pool = openPool(database.address, { parameters: { statement_timeout: 200 } })
  expect(await failure(pool.read((sql) => sql`select pg_sleep(5)`))).toMatchObject({
    kind: 'timeout',
    code: '57014',
  })
  expect(pool.stats().idle).toBe(1)
})

test('a statement past the limit on this side gives its connection up', async () => {
  const pool = openPool(database.address, { queryTimeoutMs: 200 })
  const start = performance.now()
  expect(await failure(pool.read((sql) => sql`select pg_sleep(5)`))).toMatchObject({
    kind: 'timeout',
  })
  expect(performance.now() - start).toBeLessThan(1500)
  expect(pool.stats()).toMatchObject({ idle: 0, lent: 0 })
})

test('constraints are recognised by name, values by column, nothing by text', async () => {
  const pool = openPool(database.address)
  await database.sql`insert into products (name, price, sku) values ('c', 1, 'twice')`
  const write = (statement: (sql: Sql) => Promise<unknown>) => failure(pool.write(statement))
  expect(
    await write((sql) => sql`insert into products (name, price, sku) values ('c', 1, 'twice')`),
  ).toMatchObject({ kind: 'conflict', code: '23505', constraint: 'products_sku_key' })
  expect(
    await write((sql) => sql`insert into products (name, price) values ('c', -1)`),
  ).toMatchObject({ kind: 'invalid', constraint: 'products_price_range' })
  expect(await write((sql) => sql`insert into products (price) values (1)`)).toMatchObject({
    kind: 'invalid',
    column: 'name',
  })
  expect(await write((sql) => sql`select ${'x'}::text::integer`)).toMatchObject({ kind: 'invalid' })
  expect(await write((sql) => sql`select * from nothing`)).toMatchObject({ kind: 'internal' })
})

test.for([
  ['unavailable', '08006 25006 25P03 25P04 28000 28P01 3D000 53100 53300 57P01 57P02 57P03 58000'],
  ['invalid', '22001 22003 22P02 22P05 23502 23514'],
  ['conflict', '23503 23505 23P01'],
  ['aborted', '0A000 40001 40P01'],
  ['timeout', '55P03 57014'],
  ['internal', '42501 42601 42P01 54001 XX000 XX001 P0001'],
])('the SQLSTATE decides: %s', async ([kind, codes]) => {
  const pool = openPool(database.address)
  for (const code of codes!.split(' ')) {
    await database.sql.unsafe(`
      create or replace function fail() returns void language plpgsql as
      $$ begin raise exception 'in another language' using errcode = '${code}'; end $$`)
    expect(await failure(pool.write((sql) => sql`select fail()`)), code).toMatchObject({
      kind,
      code,
    })
  }
})

test('without a pre-ping it is the borrower who finds a stale connection', async () => {
  for (const prePing of [true, false]) {
    const proxy = await startProxy(database.address)
    const pool = openPool(proxy.address, { prePing, timeoutMs: 10_000, queryTimeoutMs: 1000 })
    await pool.write(one)
    proxy.lose()
    await new Promise((resolve) => setTimeout(resolve, 1100)) // longer than a connection is trusted
    const outcome = await pool.write(one).then(
      () => 'replaced',
      (error: DatabaseError) => error.code,
    )
    expect(outcome).toBe(prePing ? 'replaced' : 'DEADLINE')
  }
}, 20_000)

test('times keep their microseconds and bigints are numbers', async () => {
  const pool = openPool(database.address, { parameters: { TimeZone: 'UTC' } })
  const [row] = await pool.read(
    (sql) => sql`select '2026-01-02 03:04:05.678901Z'::timestamptz as t, 9007199254740991 as n`,
  )
  expect(row).toEqual({ t: '2026-01-02 03:04:05.678901+00', n: 9007199254740991 })
})

test('closing refuses newcomers and waiters, lets borrowers finish, leaves no backend', async () => {
  const own = await createDatabase()
  const pool = openPool(own.address, { size: 1, maxOverflow: 0 })
  const { promise, resolve } = gate()
  const holder = pool.session(async (sql) => {
    await insert(sql, 'last one')
    await promise
  })
  await expect.poll(() => pool.stats().opening).toBe(0)
  const waiter = failure(pool.read(one))
  const closed = pool.close(2000)
  expect(await waiter).toMatchObject({ kind: 'unavailable', code: 'POOL_CLOSED' })
  expect(await failure(pool.read(one))).toMatchObject({ code: 'POOL_CLOSED' })
  resolve()
  await holder
  await closed
  expect(await own.sql`select name from products`).toEqual([{ name: 'last one' }])
  expect(await backends(own)).toBe(0)
})

test('closing does not wait longer than its grace', async () => {
  const pool = openPool(database.address)
  const sleeper = failure(pool.read((sql) => sql`select pg_sleep(5)`))
  await expect.poll(() => backends(database)).toBe(1)
  const start = performance.now()
  await pool.close(100)
  expect(performance.now() - start).toBeLessThan(1000)
  expect(await sleeper).toMatchObject({ kind: 'unavailable' })
})

test('a server that was demoted to a standby is left', async () => {
  const pool = openPool(database.address)
  await pool.read(one)
  const error = await failure(
    pool.write((sql) => sql`do $$ begin raise exception using errcode = '25006'; end $$`),
  )
  expect(error).toMatchObject({ kind: 'unavailable', code: '25006' })
  expect(pool.stats()).toMatchObject({ idle: 0, lent: 0 })
})

test('a server that hangs up before it lets anybody in is asked once, not without end', async () => {
  let asked = 0
  const server = createServer((client) => {
    asked++
    client
      .on('error', () => {})
      .resume()
      .end()
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  atTheEnd(async () => server.close())
  const { port } = server.address() as AddressInfo
  const pool = openPool({ ...database.address, port }, { size: 5, maxOverflow: 10 })
  const start = performance.now()
  const errors = await Promise.all(Array.from({ length: 15 }, () => failure(pool.read(one))))
  expect(performance.now() - start).toBeLessThan(1000)
  for (const error of errors) {
    expect(error).toMatchObject({ kind: 'unavailable', code: 'CONNECTION_CLOSED' })
    expect(error.message).toBe('the server hung up before it let us in')
  }
  expect(asked).toBe(15)
  expect(pool.stats()).toMatchObject({ idle: 0, lent: 0, opening: 0 })
})

test('a server is reached by an address with colons, and by a name', async () => {
  for (const host of ['::ffff:127.0.0.1', 'localhost']) {
    const pool = openPool({ ...database.address, host })
    expect((await pool.read(one))[0]!.n).toBe(1)
  }
})

test('a server is reached by its Unix socket, and missed where there is none', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'larder-socket-'))
  atTheEnd(() => rm(folder, { recursive: true }))
  const { host, port } = database.address
  const relay = createServer((client) => {
    const server = connect(port, host).on('error', () => {})
    client
      .on('error', () => {})
      .pipe(server)
      .pipe(client)
  }).listen(join(folder, `.s.PGSQL.${port}`))
  await once(relay, 'listening')
  atTheEnd(async () => relay.close())
  const pool = openPool({ ...database.address, host: folder })
  expect((await pool.read(one))[0]!.n).toBe(1)
  await pool.close(1000)
  const nowhere = openPool({ ...database.address, host: folder, port: 1 })
  expect(await failure(nowhere.read(one))).toMatchObject({ kind: 'unavailable', code: 'ENOENT' })
})

test('connections beyond the size are reused while the load lasts', async () => {
  const pool = openPool(database.address, { size: 1, maxOverflow: 5 })
  const pids = new Set<number>()
  const client = async () => {
    for (let i = 0; i < 50; i++) pids.add((await pool.read(pid))[0]!.pid)
  }
  await Promise.all(Array.from({ length: 6 }, client))
  expect(pids.size).toBe(6)
  await expect.poll(() => pool.stats().idle).toBe(1)
})

test('a transfer commits or rolls back as a session does, and runs once', async () => {
  const pool = openPool(database.address)
  const { signal } = new AbortController()
  await pool.transfer((sql) => insert(sql, 'transferred'), signal)
  let runs = 0
  const error = await failure(
    pool.transfer(async (sql) => {
      runs++
      await insert(sql, 'not transferred')
      await sql`do $$ begin raise serialization_failure; end $$`
    }, signal),
  )
  expect(error).toMatchObject({ kind: 'aborted' })
  expect(runs).toBe(1)
  expect([await named('transferred'), await named('not transferred')]).toEqual([1, 0])
  expect(pool.stats()).toMatchObject({ lent: 0, idle: 1 })
})

test('a transfer that is given up ends its statement on the server, too', async () => {
  const pool = openPool(database.address, { queryTimeoutMs: 60_000 })
  const giveUp = new AbortController()
  const transfer = pool.transfer(async (sql) => {
    await insert(sql, 'given up')
    await sql`select pg_sleep(60)`
  }, giveUp.signal)
  const failed = failure(transfer)
  await expect.poll(() => backends(database)).toBe(1)
  await new Promise((resolve) => setTimeout(resolve, 200))
  giveUp.abort()
  expect(await failed).toMatchObject({ kind: 'unavailable' })
  expect(await running()).toBe(0)
  expect(pool.stats()).toMatchObject({ lent: 0, idle: 1 })
  expect(await named('given up')).toBe(0)
  // One that was given up before it began takes nothing.
  await failure(pool.transfer((sql) => insert(sql, 'given up'), giveUp.signal))
  expect(await named('given up')).toBe(0)
})

test('a connection that has prepared many statements is replaced', async () => {
  const pool = openPool(database.address)
  const prepared = async () => {
    const [row] = await pool.read(
      (sql) => sql<{ n: number }[]>`select count(*)::int as n from pg_prepared_statements`,
    )
    return row!.n
  }
  const [first] = await pool.read(pid)
  let most = 0
  for (let n = 0; n < 250; n++) {
    // A statement of its own, as another filter is.
    const template = Object.assign([`select ${n} as n`], { raw: [`select ${n} as n`] })
    await pool.read((sql) => sql(template))
    if (n % 25 === 0) most = Math.max(most, await prepared())
  }
  expect(most).toBeGreaterThan(100)
  expect(await prepared()).toBeLessThan(100)
  const [last] = await pool.read(pid)
  expect(last!.pid).not.toBe(first!.pid)
})
