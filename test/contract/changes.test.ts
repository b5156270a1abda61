// The change feed: every committed change once and in order, whoever writes and however, on a server of its own.
import { setTimeout as sleep } from 'node:timers/promises'
import type postgres from 'postgres'
import { encodeCursor } from '../../src/http/page.ts'
import { beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { type Api, expectProblem, product } from '../support/api.ts'
import { atTheEnd } from '../support/clean-up.ts'
import { connect, createServer, type TestDatabase } from '../support/database.ts'
import { startTarget } from '../support/target.ts'

interface Change {
  op: 'insert' | 'update' | 'delete'
  id: number
  version: number
  at: string
  product: Record<string, unknown> | null
}

let api: Api
let database: TestDatabase
let sql: TestDatabase['sql']
/** Where the feed ended when the test began. */
let before: string

beforeAll(async () => {
  database = await createServer({ max_prepared_transactions: '5' })
  ;({ sql } = database)
  ;({ api } = await startTarget({}, database))
})

beforeEach(async () => {
  await sql`delete from products`
  await untilQuiet()
  before = (await poll('now')).cursor
})

/** Not even the service's housekeeping has a transaction under way that the next test could see. */
async function untilQuiet() {
  const isQuiet = async () =>
    (
      await sql`select from pg_current_snapshot() as s where pg_snapshot_xmin(s) = pg_snapshot_xmax(s)`
    ).length
  await expect.poll(isQuiet).toBe(1)
}

async function poll(after?: string, limit?: number) {
  const query = new URLSearchParams({
    ...(after && { after }),
    ...(limit && { limit: `${limit}` }),
  })
  const answer = await api.get(`/products/changes?${query.toString()}`)
  expect(answer.status, answer.text).toBe(200)
  const { items, next_cursor: cursor }: { items: Change[]; next_cursor: string } = answer.body
  expect(Object.keys(answer.body)).toEqual(['items', 'next_cursor'])
  expect(cursor).toMatch(/^[\w-]+$/)
  return { items, cursor, text: answer.text }
}

/** Polls as a client does, until there are so many changes; the service's own statements may delay one. */
async function changesAfter(after: string | undefined, count: number, limit = 1000) {
  const items: Change[] = []
  let cursor = after
  for (const deadline = performance.now() + 20_000; performance.now() < deadline;) {
    const page = await poll(cursor, limit)
    items.push(...page.items)
    cursor = page.cursor
    if (items.length >= count && page.items.length === 0) break
  }
  expect(items).toHaveLength(count)
  return items
}

const short = (items: Change[]) => items.map(({ op, id, version }) => `${op} ${id} v${version}`)

/** The changes since the test began, without their content. */
const since = async (count: number) => short(await changesAfter(before, count))

async function insert(name = 'Mug'): Promise<number> {
  const [row] = await sql<{ id: number }[]>`
    insert into products (name, price) values (${name}, 12.5) returning id::int`
  return row!.id
}

/** A connection for a transaction that stays open. */
function session(): postgres.Sql {
  const client = connect(database.owner)
  atTheEnd(() => client.end({ timeout: 1 }))
  return client
}

/** The SQLSTATE that refuses it, or nothing. */
const refusal = (statement: Promise<unknown>) =>
  statement.then(
    () => undefined,
    (error: { code?: string }) => error.code,
  )

describe('a change', () => {
  test('tells what was done, and the product as GET shows it', async () => {
    const created = await api.post('/products', product({ price: '12.50' }))
    const { id } = created.body
    const patched = await api.patch(`/products/${id}`, { stock: 3, attributes: { a: [1, 1.1] } })
    await api.delete(`/products/${id}`)
    await changesAfter(before, 3)
    const { items, text } = await poll(before)
    expect(short(items)).toEqual([`insert ${id} v1`, `update ${id} v2`, `delete ${id} v3`])
    for (const item of items) {
      expect(Object.keys(item)).toEqual(['op', 'id', 'version', 'at', 'product'])
      expect(item.at).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$/)
    }
    expect(items[2]!.product).toBeNull()
    // To the letter: 12.50 keeps its scale, and times their microseconds.
    expect(created.text).toContain('"price":12.50')
    for (const answer of [created, patched]) expect(text).toContain(`"product":${answer.text}`)
  })

  test('keeps what is hardest to keep', async () => {
    const writer = session()
    await writer`set timezone = 'America/New_York'`
    const rows = await writer<{ id: number }[]>`
      insert into products (sku, name, description, price, attributes, created_at, updated_at)
      values
        ('A', 'First of all', null, 9999999999.99, '{"n": 1.10}', '0001-01-01Z', '0001-01-01 00:00:00.000001Z'),
        (null, E'A "quoted"\u2028😀', E'\\\\ \u0001', 0, '{"": [{}]}', '9999-12-31 23:59:59.999999Z', '1883-11-18 12:03:58Z')
      returning id::int`
    await changesAfter(before, 2)
    const { text } = await poll(before)
    for (const { id } of rows) {
      expect(text).toContain(`"product":${(await api.get(`/products/${id}`)).text}`)
    }
  })

  test('is written by every kind of statement', async () => {
    const id = await insert()
    await sql`update products set stock = 1 where id = ${id}`
    await sql`
      insert into products (id, name, price) overriding system value
      values (${id}, 'Mug', 1), (${id + 1000}, 'Jug', 2)
      on conflict (id) do update set name = 'Cup'`
    await sql`
      merge into products using (values (${id}::bigint), (${id + 1000}), (${id + 1001})) as wanted (id)
      on products.id = wanted.id
      when matched and products.name = 'Cup' then delete
      when matched then update set stock = stock + 1
      when not matched then insert (id, name, price) overriding system value values (wanted.id, 'New', 3)`
    const seen = await since(7)
    // Within one statement there is no order but by product.
    expect(seen.slice(0, 4).toSorted()).toEqual(
      [
        `insert ${id} v1`,
        `update ${id} v2`,
        `update ${id} v3`,
        `insert ${id + 1000} v1`,
      ].toSorted(),
    )
    expect(seen.slice(4).toSorted()).toEqual(
      [`delete ${id} v4`, `update ${id + 1000} v2`, `insert ${id + 1001} v1`].toSorted(),
    )
  })

  test('is written by COPY, too', async () => {
    const stream = await sql`copy products (name, price) from stdin`.writable()
    stream.end('Copied\t1\nCopied\t2\n')
    expect((await changesAfter(before, 2)).map(({ product }) => product!['name'])).toEqual([
      'Copied',
      'Copied',
    ])
  })

  test('of a whole bulk is one for each row', async () => {
    await sql`insert into products (name, price) select 'Bulk', 1 from generate_series(1, 1000)`
    await sql`update products set stock = case when id % 2 = 0 then 1 else 0 end`
    await sql`delete from products`
    const items = await changesAfter(before, 2500, 300)
    const count = (op: string) => items.filter((item) => item.op === op).length
    expect([count('insert'), count('update'), count('delete')]).toEqual([1000, 500, 1000])
    expect(replay(items).size).toBe(0)
  })

  test('is none when nothing changed, or nothing was found', async () => {
    const id = await insert()
    await sql`update products set stock = stock, name = name`
    await sql`update products set stock = 1 where id = -1`
    await sql`delete from products where id = -1`
    await api.patch(`/products/${id}`, { name: 'Mug' })
    await api.put(`/products/${id}`, { name: 'Mug', price: 12.5 })
    await sql`update products set stock = 5`
    expect(await since(2)).toEqual([`insert ${id} v1`, `update ${id} v2`])
  })

  test('of an id is the end of one product and the begin of another', async () => {
    const id = await insert()
    const [row] = await sql<{ id: number }[]>`
      update products set id = default where id = ${id} returning id::int`
    expect((await since(3)).toSorted()).toEqual(
      [`insert ${id} v1`, `delete ${id} v2`, `insert ${row!.id} v2`].toSorted(),
    )
  })

  test('that TRUNCATE makes is a deletion for each product', async () => {
    const ids = [await insert(), await insert()]
    await sql`update products set stock = 1 where id = ${ids[1]!}`
    await sql`truncate products`
    expect((await since(5)).slice(3).toSorted()).toEqual(
      [`delete ${ids[0]} v2`, `delete ${ids[1]} v3`].toSorted(),
    )
    // Its snapshot may be older than a product that it would take away unseen.
    for (const level of ['repeatable read', 'serializable'])
      expect(
        await refusal(sql.begin(`isolation level ${level}`, (t) => t`truncate products`)),
      ).toBe('25000')
  })

  test('is written for whoever may write to products, without rights on the feed', async () => {
    const writer = session()
    await sql`create role writer`
    await sql`grant insert, select, update, delete, truncate on products to writer`
    await writer`set role writer`
    await writer`set search_path = pg_temp`
    const [row] = await writer<{ id: number }[]>`
      insert into public.products (name, price) values ('Theirs', 1) returning id::int`
    await writer`delete from public.products where id = ${row!.id}`
    await writer`truncate public.products`
    expect(await since(2)).toEqual([`insert ${row!.id} v1`, `delete ${row!.id} v2`])
  })
})

describe('a transaction', () => {
  test('shows all of its changes, in order, when it is committed, and what it took back never', async () => {
    const writer = session()
    const id = await insert()
    await writer`begin`
    await writer`update products set stock = 1 where id = ${id}`
    await writer`savepoint one`
    await writer`update products set stock = 2 where id = ${id}`
    await writer`savepoint two`
    await writer`delete from products where id = ${id}`
    await writer`rollback to one`
    await writer`update products set stock = 3 where id = ${id}`
    await writer`delete from products where id = ${id}`
    await writer`insert into products (id, name, price) overriding system value values (${id}, 'Again', 1)`
    await writer`update products set stock = 4 where id = ${id}`
    expect(await since(1)).toEqual([`insert ${id} v1`])
    await writer`commit`
    const items = await changesAfter(before, 6)
    expect(short(items)).toEqual([
      `insert ${id} v1`,
      `update ${id} v2`,
      `update ${id} v3`,
      `delete ${id} v4`,
      `insert ${id} v1`,
      `update ${id} v2`,
    ])
    expect(items[2]!.product).toMatchObject({ stock: 3 })
  })

  test('that is rolled back shows nothing', async () => {
    const writer = session()
    await writer`begin`
    await writer`insert into products (name, price) values ('Never', 1)`
    await writer`rollback`
    const id = await insert()
    expect(await since(1)).toEqual([`insert ${id} v1`])
  })

  test('that began early and writes late stands behind what it changed', async () => {
    const early = session()
    const id = await insert()
    await early`begin`
    await early`select pg_current_xact_id()`
    await sql`update products set stock = 1 where id = ${id}`
    await sql`delete from products where id = ${id}`
    const other = await insert('Other')
    // Nothing after the early one is shown, for it may still write before that.
    expect(await since(1)).toEqual([`insert ${id} v1`])
    await early`insert into products (id, name, price) overriding system value values (${id}, 'Late', 1)`
    await early`update products set stock = 9 where id = ${other}`
    const mine = await early<{ id: number }[]>`
      insert into products (name, price) values ('Mine', 1) returning id::int`
    await early`commit`
    const seen = await since(7)
    const of = (wanted: number) => seen.filter((change) => change.includes(` ${wanted} `))
    expect(of(id)).toEqual([
      `insert ${id} v1`,
      `update ${id} v2`,
      `delete ${id} v3`,
      `insert ${id} v1`,
    ])
    expect(of(other)).toEqual([`insert ${other} v1`, `update ${other} v2`])
    expect(of(mine[0]!.id)).toEqual([`insert ${mine[0]!.id} v1`])
  })

  test('that is prepared is waited for', async () => {
    const writer = session()
    const id = await insert()
    await writer`begin`
    await writer`update products set stock = 1 where id = ${id}`
    await writer`prepare transaction 'one'`
    const other = await insert()
    const meanwhile = short((await poll(before)).items)
    await sql`commit prepared 'one'`
    expect(meanwhile).toEqual([`insert ${id} v1`])
    expect(await since(3)).toEqual([`insert ${id} v1`, `update ${id} v2`, `insert ${other} v1`])
  })

  test('that only reads delays nothing', async () => {
    const reader = session()
    await reader`begin isolation level repeatable read`
    await reader`select count(*) from products`
    const id = await insert()
    expect(await since(1)).toEqual([`insert ${id} v1`])
  })

  test.each(['repeatable read', 'serializable'])(
    'in %s writes in order, or not at all',
    async (level) => {
      const [id, other, third] = [await insert(), await insert(), await insert()]
      const old = session()
      await old.unsafe(`begin isolation level ${level}`)
      await old`select pg_current_xact_id(), count(*) from products`
      await sql`delete from products where id = ${id}`
      await sql`update products set stock = 1 where id = ${other}`
      await old`savepoint one`
      // The deletion is behind its snapshot, so it could only stand before it.
      expect(
        await refusal(
          old`insert into products (id, name, price) overriding system value values (${id}, 'Anew', 1)`,
        ),
      ).toBe('23505')
      await old`rollback to one`
      expect(await refusal(old`update products set stock = 2 where id = ${other}`)).toBe('40001')
      await old`rollback to one`
      if (level === 'repeatable read') {
        await old`update products set stock = 2 where id = ${third}`
        await old`commit`
        expect((await since(6)).slice(3).toSorted()).toEqual(
          [`delete ${id} v2`, `update ${other} v2`, `update ${third} v2`].toSorted(),
        )
      }
    },
  )
})

describe('a cursor', () => {
  test('is there when there is nothing, and stays good', async () => {
    const { items, cursor } = await poll('now')
    expect(items).toEqual([])
    expect(await poll(cursor)).toMatchObject({ items: [], cursor })
    const id = await insert()
    expect(short(await changesAfter(cursor, 1))).toEqual([`insert ${id} v1`])
    // Now is where reading to the end leads.
    expect(await poll('now')).toEqual(await poll((await poll(cursor)).cursor))
  })

  test('gives the same each time, and each change once at any limit', async () => {
    await sql`insert into products (name, price) select 'Many', n from generate_series(1, 250) as n`
    await sql`update products set stock = 1`
    expect((await poll(before, 1)).items).toEqual((await poll(before, 3)).items.slice(0, 1))
    const all = await changesAfter(before, 500)
    for (const limit of [9, 100, 499, 500, 501]) {
      expect(await changesAfter(before, 500, limit)).toEqual(all)
    }
    expect((await poll(before)).items).toEqual(all.slice(0, 100))
    expect(await poll(before)).toEqual(await poll(before))
    // Without one the feed begins with the oldest change that is kept.
    const [{ count } = { count: 0 }] = await sql<{ count: number }[]>`
      select count(*)::int as count from product_changes`
    expect((await changesAfter(undefined, count)).slice(-500)).toEqual(all)
  })

  test('for now has before it only what a snapshot taken later shows', async () => {
    const early = session()
    const id = await insert()
    await early`begin`
    await early`update products set stock = 1 where id = ${id}`
    const hidden = await insert()
    const { items, cursor } = await poll('now')
    expect(items).toEqual([])
    await early`commit`
    // The early one was open: it comes. What began after it comes again, though it was there.
    expect(short(await changesAfter(cursor, 2))).toEqual([`update ${id} v2`, `insert ${hidden} v1`])
  })

  test('that is not ours is malformed', async () => {
    const { cursor } = await poll('now')
    await insert()
    await insert()
    const { next_cursor: list } = (await api.get('/products?limit=1')).body
    const changed = Array.from(cursor, (character, at) => {
      const other = character === 'A' ? 'B' : 'A'
      return cursor.slice(0, at) + other + cursor.slice(at + 1)
    })
    for (const after of ['', 'NOW', 'then', list, cursor.slice(1), `${cursor}A`, ...changed]) {
      const query = new URLSearchParams({ after }).toString()
      expectProblem(await api.get(`/products/changes?${query}`), 400, 'malformed')
    }
    expectProblem(await api.get(`/products?cursor=${cursor}`), 400, 'malformed')
  })

  test('of another time is gone', async () => {
    const { cursor } = await poll('now')
    const gone = async (after: string) => {
      const answer = await api.get(`/products/changes?after=${after}`)
      const { detail } = expectProblem(answer, 410, 'gone')
      expect(detail).toContain('Start over from an export')
    }
    // From a server that had seen more transactions than this one.
    const [era, xid, seq] = readCursor(cursor)
    await gone(makeCursor([era, String(BigInt(xid) + 1000n), seq]))
    await gone(makeCursor([era, '9'.repeat(19), '9'.repeat(15)]))
    await gone(makeCursor([crypto.randomUUID(), xid, seq]))
    const malformed = await api.get(
      `/products/changes?after=${makeCursor([era, xid, '9'.repeat(19)])}`,
    )
    expectProblem(malformed, 400, 'malformed')
    // After a restore an operator says so.
    await sql`truncate product_changes`
    await gone(cursor)
    const id = await insert()
    expect(short(await changesAfter(undefined, 1))).toEqual([`insert ${id} v1`])
  })

  const readCursor = (cursor: string) => {
    const text = Buffer.from(cursor, 'base64url').toString()
    const [, , ...key] = JSON.parse(text.slice(text.indexOf('['))) as [number, string]
    return key as unknown as [era: string, xid: string, seq: string]
  }

  /** As the service makes them, for the checksum is no secret. */
  const makeCursor = (key: [era: string, xid: string, seq: string]) =>
    encodeCursor({ way: 'after', key }, 'products changes')
})

test.each([
  ['limit=0', 'limit', 'too_small'],
  ['limit=1001', 'limit', 'too_big'],
  ['limit=ten', 'limit', 'invalid_format'],
  ['limit=1&limit=2', 'limit', 'invalid_type'],
  ['after=now&after=now', 'after', 'invalid_type'],
  ['before=now', 'before', 'unknown'],
])('?%s is not valid', async (query, parameter, code) => {
  const { errors } = expectProblem(await api.get(`/products/changes?${query}`), 422, 'validation')
  expect(errors).toMatchObject([{ parameter, code }])
})

test('HEAD answers as GET does, and a wrong method does not', async () => {
  const [head, get] = [await api.head('/products/changes'), await api.get('/products/changes')]
  expect(head).toMatchObject({ status: 200, text: '' })
  expect(get.headers['content-type']).toBe('application/json')
  expect(head.headers['content-type']).toBe('application/json')
})

/** What a client has that applies changes in order; it sees for itself that none is missing or early. */
function replay(items: Change[], start: ReadonlyMap<number, Change['product']> = new Map()) {
  const products = new Map(start)
  for (const { op, id, version, product } of items) {
    const had = products.get(id)
    const expected = op === 'insert' ? [undefined, version] : [version - 1, version]
    expect([had?.['version'], version], `${op} ${id} v${version}`).toEqual(expected)
    if (op === 'delete') products.delete(id)
    else products.set(id, product)
    expect(product?.['version'] ?? version).toBe(version)
  }
  return products
}

test('30 writers, some holding their transactions open: readers see every commit once and in order', async () => {
  const WRITERS = 30
  const COMMITTED = 500
  const IDS = Array.from({ length: 80 }, (_, n) => 9000 + n)
  /** What was committed, as the writers know it. */
  const ledger: string[] = []
  let writing = WRITERS
  let rolledBack = 0
  const levels = ['repeatable read', 'serializable']
  const random = (below: number) => Math.floor(Math.random() * below)

  async function write() {
    const client = session()
    while (ledger.length < COMMITTED) {
      const done: string[] = []
      const note = (op: string, rows: { id: number; version: number }[]) =>
        done.push(...rows.map(({ id, version }) => `${op} ${id} v${version}`))
      const one = async () => {
        const id = IDS[random(IDS.length)]!
        const kind = random(10)
        if (kind < 3) {
          note(
            'insert',
            await client`
              insert into products (id, name, price) overriding system value
              values (${id}, 'Busy', 1) on conflict do nothing returning id::int, version::int`,
          )
        } else if (kind < 7) {
          note(
            'update',
            await client`
              update products set stock = stock + 1 where id = ${id} returning id::int, version::int`,
          )
        } else if (kind === 7) {
          note(
            'update',
            await client`
              update products set stock = stock + 1
              where id in (select id from products where id % 16 = ${random(16)} order by id for update)
              returning id::int, version::int`,
          )
        } else if (kind === 8) {
          note(
            'delete',
            await client`
              delete from products where id = ${id} returning id::int, version::int + 1 as version`,
          )
        } else {
          await client`update products set stock = stock where id = ${id}`
        }
      }
      try {
        const level = levels[random(10)] ?? 'read committed'
        await client.unsafe(`begin isolation level ${level}`)
        if (random(3) === 0) await client`select pg_current_xact_id()`
        if (random(2) === 0) await sleep(random(60))
        for (let n = random(3); n >= 0; n--) {
          await one()
          if (random(4) === 0) await sleep(random(30))
          if (random(4) === 0) {
            const kept = done.length
            await client`savepoint taken_back`
            await one()
            await client`rollback to taken_back`
            done.length = kept
          }
        }
        if (random(3) === 0) await sleep(random(80))
        if (random(5) === 0) throw new Error('a writer changes its mind')
        await client`commit`
        ledger.push(...done)
      } catch (error) {
        const { code, message } = error as { code?: string; message: string }
        // Serialisation, deadlocks, and what a snapshot cannot see. Anything else is a fault.
        if (!/^(40001|40P01|23505)$/.test(code ?? '') && !message.includes('changes its mind'))
          throw error
        rolledBack++
        await client`rollback`
      }
    }
    writing--
  }

  async function read(start: string): Promise<Change[]> {
    const items: Change[] = []
    for (let cursor = start, quiet = false; ;) {
      const over = writing === 0
      const page = await poll(cursor, 1 + random(40))
      items.push(...page.items)
      cursor = page.cursor
      if (page.items.length === 0) {
        if (over && quiet) return items
        quiet = over
        await sleep(random(20))
      }
    }
  }

  async function everything() {
    const { items }: { items: Change[] } = (await api.get('/products?limit=100')).body
    return new Map<number, unknown>(items.map((item) => [item.id, item]))
  }

  /** A client that starts in the middle: a cursor, a copy of everything, then the changes. */
  async function join() {
    while (ledger.length < COMMITTED / 3) await sleep(20)
    const { cursor } = await poll('now')
    const products = await everything()
    for (const { op, id, product } of await read(cursor)) {
      if (op === 'delete') products.delete(id)
      else products.set(id, product)
    }
    return products
  }

  const [joined, first, second] = await Promise.all([
    join(),
    read(before),
    read(before),
    ...Array.from({ length: WRITERS }, () => write()),
  ])

  expect(rolledBack).toBeGreaterThan(20)
  expect(first).toEqual(second)
  expect(short(first).toSorted()).toEqual(ledger.toSorted())
  const products = replay(first)
  const stored = await everything()
  expect(stored.size).toBeGreaterThan(10)
  expect(products).toEqual(stored)
  expect(joined).toEqual(stored)
})
