// Housekeeping from within: it leaves no gap to a reader, survives what fails, and ends with the service.
import { beforeAll, describe, expect, test } from 'vitest'
import type { Pool } from '../src/database/pool.ts'
import { keepHouse } from '../src/operations/housekeeping.ts'
import { tidyChanges } from '../src/products/changes.ts'
import * as repository from '../src/products/repository.ts'
import { createApi } from './support/api.ts'
import { createServer, lockTable, type TestDatabase } from './support/database.ts'
import { openPool } from './support/pool.ts'
import { startService } from './support/service.ts'
import { startWorker } from './support/worker.ts'

const HOUR_MS = 3_600_000

let database: TestDatabase
let sql: TestDatabase['sql']
let pool: Pool

beforeAll(async () => {
  database = await createServer()
  ;({ sql } = database)
  pool = openPool(database.address, { size: 20 })
})

const count = async () => (await sql`select from product_changes`).length

const changes = (after?: repository.Position, limit = 1000) =>
  pool.read((tag) => repository.changes(tag, after, limit))

describe('the purge', () => {
  test('stops before the first change that is young enough', async () => {
    await sql`truncate product_changes`
    await sql`insert into products (name, price) select 'P', 1 from generate_series(1, 10)`
    await sql`update product_changes set at = at - interval '2 hours' where seq % 10 <> 5`
    const [young] = await sql<{ before: number }[]>`
      select count(*)::int as before from product_changes
      where seq < (select seq from product_changes where seq % 10 = 5)`
    expect(await tidyChanges(pool, HOUR_MS)).toBe(young!.before)
    expect(await count()).toBe(10 - young!.before)
    expect(await tidyChanges(pool, HOUR_MS)).toBe(0)
    expect(await tidyChanges(pool, 3 * HOUR_MS)).toBe(0)
    expect(await tidyChanges(pool, 0)).toBe(10 - young!.before)
    expect(await count()).toBe(0)
  })

  test('leaves a reader no gap, also when several run at once and writers go on', async () => {
    await sql`truncate product_changes`
    await sql`insert into products (name, price) select 'P', 1 from generate_series(1, 20000)`
    const all = await sql<{ seq: string }[]>`select seq from product_changes order by xid, seq`
    const old = all.map(({ seq }) => String(seq))
    let purging = 4
    const purges = Array.from({ length: purging }, async () => {
      for (let idle = 0; idle < 3;) idle = (await tidyChanges(pool, 0)) === 0 ? idle + 1 : 0
      purging--
    })
    const outcomes: string[] = []
    const readers = Array.from({ length: 4 }, async () => {
      while (purging > 0) {
        let rows = await changes(undefined, 50)
        for (let last = rows!.at(-1)!; purging > 0; last = rows.at(-1)!) {
          rows = await changes(last, 50)
          outcomes.push(rows ? 'read' : 'gone')
          if (!rows) break
          const seen = rows.filter(({ json }) => json !== null).map(({ seq }) => seq)
          const start = old.indexOf(last.seq) + 1
          // A reader without a place begins where the first change is kept.
          if (start > 0 && start < old.length)
            expect(seen.slice(0, old.length - start)).toEqual(old.slice(start, start + seen.length))
        }
      }
    })
    const writers = Array.from({ length: 2 }, async () => {
      for (let n = 0; n < 100; n++) await sql`insert into products (name, price) values ('P', 1)`
    })
    await Promise.all([...purges, ...readers, ...writers])
    while (await tidyChanges(pool, 0)) continue
    expect(outcomes).toContain('read')
    expect(outcomes).toContain('gone')
    expect(await count()).toBe(0)
  })

  test('waits for nobody: not for a writer, not for another one', async () => {
    await sql`insert into products (name, price) values ('P', 1)`
    await sql.begin(async (other) => {
      await other`insert into products (name, price) values ('P', 1)`
      await other`select from product_changes_start for update`
      expect(await tidyChanges(pool, 0)).toBe(0)
    })
    expect(await tidyChanges(pool, 0)).toBe(2)
  })
})

test('changes that a dump brought from another server are removed with all others, once', async () => {
  const [row] = await sql<{ id: string }[]>`
    insert into products (name, price) values ('Restored', 1) returning id`
  const before = (await changes())!.at(-1)!
  // As they are in a server that has seen fewer transactions than the one that was dumped.
  await sql`update product_changes set xid = (xid::text::bigint + 1000000)::text::xid8`
  await sql`update product_changes_start set xid = '1000500'`
  await sql`update products set stock = 1 where id = ${row!.id}`
  expect((await changes())!.map(({ json }) => json)).toEqual([null])

  await tidyChanges(pool, HOUR_MS)
  expect(await changes(before)).toBeUndefined()
  const start = (await changes())!.at(-1)!
  await tidyChanges(pool, HOUR_MS)
  await sql`update products set stock = 2 where id = ${row!.id}`
  expect((await changes(start))!.map(({ json }) => JSON.parse(json!))).toEqual([
    expect.objectContaining({ op: 'update', id: Number(row!.id), version: 3 }),
  ])
})

test('a chore that fails is logged, and the others are done', async () => {
  const lines: [string, object][] = []
  const note = (level: string) => (fields: object) => void lines.push([level, fields])
  const log = {
    debug: note('debug'),
    info: note('info'),
    warn: note('warn'),
    error: note('error'),
    fatal: note('fatal'),
  }
  let left = 3
  const chores = {
    broken: () => pool.write(async (tag) => (await tag`delete from nowhere`).count),
    whole: async () => (left > 0 ? left-- : 0),
    stopped: async () => (stop.abort(), 1),
    never: () => Promise.reject(new Error('not after the stop')),
  }
  const stop = new AbortController()
  await keepHouse(pool, log, chores, stop.signal)
  expect(lines).toEqual([
    ['warn', { chore: 'broken', removed: 0, error: expect.objectContaining({ code: '42P01' }) }],
    ['debug', { chore: 'whole', removed: 6 }],
    ['debug', { chore: 'stopped', removed: 1 }],
  ])
})

test('on Node a round that fails is a warning, and the service goes on', async () => {
  const own = await createServer()
  const service = await startService({ DATABASE_URL: own.url })
  await own.sql`alter table product_changes_start rename to elsewhere`
  expect(await service.logged('housekeeping failed')).toMatchObject({
    level: 'warn',
    chore: 'changes',
    error: { code: '42P01' },
  })
  expect((await createApi(service.url).get('/health')).status).toBe(200)
  expect(await service.stop()).toBe(0)
})

test('on Node a stop ends it, and says nothing of it', async () => {
  const own = await createServer()
  const service = await startService({ DATABASE_URL: own.url, SHUTDOWN_TIMEOUT: '1' })
  await lockTable(own, 'product_changes')
  await expect
    .poll(
      async () =>
        (
          await own.sql`
          select from pg_stat_activity
          where application_name = 'larder' and wait_event_type = 'Lock'`
        ).length,
      { timeout: 30_000 },
    )
    .toBe(1)
  expect(await service.stop()).toBe(0)
  expect(service.output()).not.toContain('housekeeping failed')
})

test('on Workers nothing is removed by a setting that cannot be read', async () => {
  const settings = { CHANGES_RETENTION: 'a week' }
  const worker = await startWorker({ databaseUrl: database.url, settings })
  await sql`insert into products (name, price) values ('P', 1)`
  await sql`update product_changes set at = '2000-01-01'`
  const before = await count()
  await fetch(`${worker.url}/cdn-cgi/local/scheduled`)
  await expect
    .poll(() => worker.output())
    .toContain('CHANGES_RETENTION must be a number of seconds')
  expect(await count()).toBe(before)
})
