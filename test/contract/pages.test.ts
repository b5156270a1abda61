// Holds that a walk through the pages meets every product once, both ways, whatever others write meanwhile.
import { beforeAll, describe, expect, test } from 'vitest'
import type { Api, Response } from '../support/api.ts'
import type { TestDatabase } from '../support/database.ts'
import { startTarget } from '../support/target.ts'

const COUNT = 205

let api: Api
let database: TestDatabase
let empty: Response
/** Of all products, the newest first. */
let ids: number[]

beforeAll(async () => {
  ;({ api, database } = await startTarget())
  empty = await api.get('/products')
  // Every third id is left free, as after deletions.
  await database.sql`
    insert into products (name, price, sku)
    select 'Product ' || n, n, 'SKU-' || n from generate_series(1, 307) as n`
  await database.sql`delete from products where id % 3 = 0`
  ids = await storedIds()
})

async function storedIds(): Promise<number[]> {
  const rows = await database.sql<{ id: number }[]>`
    select id::int as id from products order by id desc`
  return rows.map(({ id }) => id)
}

type Way = 'next' | 'prev'
/** Where a client goes from a page, or null at the end. */
type Follow = (page: Response, way: Way) => string | null

/** As a client that builds its own addresses. */
const byCursor =
  (limit: number): Follow =>
  ({ body }, way) => {
    const cursor: string | null = body[`${way}_cursor`]
    return cursor && `/products?limit=${limit}&cursor=${encodeURIComponent(cursor)}`
  }

/** As a client that knows links only. */
const byLink: Follow = ({ headers }, way) => {
  const links = (headers['link'] ?? '').split(/, */)
  const link = links.find((candidate) => candidate.endsWith(`; rel="${way}"`))
  return link ? /^<([^>]+)>/.exec(link)![1]! : null
}

async function fetchPage(path: string): Promise<Response> {
  const page = await api.get(path)
  expect(page.status, page.text).toBe(200)
  return page
}

/** Goes on from a page, in one direction to the end. */
async function* walk(start: Response, way: Way, follow: Follow) {
  let path = follow(start, way)
  // A walk that does not end is a failure, too.
  for (let pages = 0; path && pages < 1000; pages++) {
    const page = await fetchPage(path)
    yield page
    path = follow(page, way)
  }
}

async function toTheEnd(start: Response, way: Way, follow: Follow): Promise<Response[]> {
  const pages: Response[] = []
  for await (const page of walk(start, way, follow)) pages.push(page)
  return pages
}

const idsOf = (page: Response): number[] => page.body.items.map(({ id }: { id: number }) => id)

test('an empty table has one page, without items and neighbours', () => {
  expect(empty.status).toBe(200)
  expect(empty.body).toEqual({ items: [], next_cursor: null, prev_cursor: null })
  expect(empty.headers).not.toHaveProperty('link')
})

describe('a page', () => {
  test('has 20 products, the newest first, when nothing else is asked for', async () => {
    const page = await fetchPage('/products')
    expect(Object.keys(page.body)).toEqual(['items', 'next_cursor', 'prev_cursor'])
    expect(page.headers['content-type']).toBe('application/json')
    expect(idsOf(page)).toEqual(ids.slice(0, 20))
    expect(page.body).toMatchObject({ next_cursor: expect.any(String), prev_cursor: null })
  })

  test.each([1, 2, 20, 99, 100])('has as many as asked for: %i', async (limit) => {
    expect(idsOf(await fetchPage(`/products?limit=${limit}`))).toEqual(ids.slice(0, limit))
  })

  test('has the products whole', async () => {
    const { body } = await fetchPage('/products?limit=3')
    for (const item of body.items) {
      expect((await api.get(`/products/${item.id}`)).body).toEqual(item)
    }
  })

  test('links to both neighbours, with the limit kept', async () => {
    const first = await fetchPage('/products?limit=7')
    const second = await fetchPage(byCursor(7)(first, 'next')!)
    expect(byLink(first, 'prev')).toBeNull()
    for (const [page, way] of [
      [first, 'next'],
      [second, 'next'],
      [second, 'prev'],
    ] as const) {
      const { searchParams, pathname } = new URL(byLink(page, way)!, 'http://host')
      expect(pathname).toBe('/products')
      expect(Object.fromEntries(searchParams)).toEqual({
        limit: '7',
        cursor: page.body[`${way}_cursor`],
      })
    }
  })

  test('may have another limit than the one that its cursor came from', async () => {
    const first = await fetchPage('/products?limit=20')
    const second = await fetchPage(byCursor(7)(first, 'next')!)
    const third = await fetchPage(byCursor(100)(second, 'next')!)
    expect([...idsOf(second), ...idsOf(third)]).toEqual(ids.slice(20, 127))
    const back = await fetchPage(byCursor(5)(third, 'prev')!)
    expect(idsOf(back)).toEqual(ids.slice(22, 27))
  })

  test('is the same each time that its cursor is used', async () => {
    const first = await fetchPage('/products?limit=20')
    const pages = await Promise.all(
      Array.from({ length: 5 }, () => fetchPage(byCursor(20)(first, 'next')!)),
    )
    expect(new Set(pages.map(({ text }) => text)).size).toBe(1)
  })
})

describe('a walk there and back', () => {
  // 41 divides the number of products: the last page is full, and none comes after it.
  test.concurrent.each([
    [1, 'cursors', byCursor(1)],
    [20, 'cursors', byCursor(20)],
    [20, 'links', byLink],
    [41, 'cursors', byCursor(41)],
    [100, 'cursors', byCursor(100)],
    [100, 'links', byLink],
  ])('meets every product once there, at limit %i by %s', async (limit, _, follow) => {
    const first = await fetchPage(`/products?limit=${limit}`)
    const pages = [first, ...(await toTheEnd(first, 'next', follow))]
    expect(pages.flatMap(idsOf)).toEqual(ids)
    expect(pages).toHaveLength(Math.ceil(COUNT / limit))
    const some = expect.any(String)
    expect(pages.map(({ body }) => [body.prev_cursor, body.next_cursor])).toEqual(
      pages.map((_page, n) => [n === 0 ? null : some, n === pages.length - 1 ? null : some]),
    )
  })

  test.concurrent.each([
    [1, 'links', byLink],
    [20, 'cursors', byCursor(20)],
    [20, 'links', byLink],
    [41, 'cursors', byCursor(41)],
    [100, 'cursors', byCursor(100)],
    [100, 'links', byLink],
  ])('meets every product once back, at limit %i by %s', async (limit, _, follow) => {
    const last = await lastPage(limit)
    const pages = await toTheEnd(last, 'prev', follow)
    expect([...pages.toReversed(), last].flatMap(idsOf)).toEqual(ids)
    // The pages have bounds of their own: the last one there was shorter, here it is the first.
    expect(pages.slice(0, -1).every((page) => idsOf(page).length === limit)).toBe(true)
    const some = expect.any(String)
    expect(pages.map(({ body }) => [body.prev_cursor, body.next_cursor])).toEqual(
      pages.map((_page, n) => [n === pages.length - 1 ? null : some, some]),
    )
  })

  /** Gets there with few requests, the last of them with this limit. */
  async function lastPage(limit: number): Promise<Response> {
    const rest = COUNT % limit || limit
    const before = COUNT - rest
    let page = await fetchPage(`/products?limit=${Math.min(before, 100)}`)
    for (let met = idsOf(page).length; met < before; met += idsOf(page).length) {
      page = await fetchPage(byCursor(Math.min(before - met, 100))(page, 'next')!)
    }
    const last = await fetchPage(byCursor(limit)(page, 'next')!)
    expect(last.body.next_cursor).toBeNull()
    return last
  }

  test('can turn round at any page', async () => {
    let page = await fetchPage('/products?limit=20')
    for await (const next of walk(page, 'next', byCursor(20))) {
      const turned = await fetchPage(byCursor(20)(next, 'prev')!)
      expect(idsOf(turned)).toEqual(idsOf(page))
      expect(idsOf(await fetchPage(byCursor(20)(turned, 'next')!))).toEqual(idsOf(next))
      page = next
    }
  })
})

describe('a walk while others write', () => {
  const insertAt = (id: number) => database.sql`
    insert into products (id, name, price) overriding system value
    values (${id}, 'Inserted', 1) on conflict do nothing`
  const insertNew = () => database.sql`insert into products (name, price) values ('New', 1)`
  const remove = (id: number) => database.sql`delete from products where id = ${id}`

  /** Each that was there all along is met once, and all that is met is in order. */
  function expectWhole(met: number[], before: number[], after: number[]) {
    const stayed = before.filter((id) => after.includes(id))
    expect(stayed.length).toBeGreaterThan(10)
    expect(met.filter((id) => stayed.includes(id))).toEqual(stayed)
    expect(met).toEqual([...new Set(met)].toSorted((a, b) => b - a))
  }

  test('misses nothing when the products beside its cursor go', async () => {
    const before = await storedIds()
    const first = await fetchPage('/products?limit=4')
    const met = [first]
    for await (const page of walk(first, 'next', byCursor(4))) {
      met.push(page)
      // The next cursor stands at the last of them, the way back begins at the first.
      await remove(idsOf(page).at(-1)!)
      if (met.length % 5 === 0) await remove(idsOf(page)[0]!)
      await insertNew()
    }
    expectWhole(met.flatMap(idsOf), before, await storedIds())
  })

  test('misses nothing on its way back either', async () => {
    const pages = await toTheEnd(await fetchPage('/products?limit=6'), 'next', byCursor(6))
    const before = await storedIds()
    const last = pages.at(-1)!
    const met = [last]
    for await (const page of walk(last, 'prev', byCursor(6))) {
      met.push(page)
      await remove(idsOf(page)[0]!)
      if (met.length % 5 === 0) await insertNew()
    }
    expectWhole(met.toReversed().flatMap(idsOf), before, await storedIds())
  })

  test('misses nothing while several writers insert and delete all over', async () => {
    const before = await storedIds()
    const top = before[0]!
    let over = false
    async function write(start: number) {
      for (let n = start; !over; n += 3) {
        await insertAt((n * 3) % top || 3)
        // Not for ever, for the way back is to come to an end.
        if (n < 100) await insertNew()
        // An id that ends in 7 goes, wherever the walk is, and comes back.
        const flickering = (n % Math.floor(top / 10)) * 10 + 7
        await remove(flickering)
        await insertAt(flickering)
      }
    }
    const writers = Promise.all([write(1), write(2), write(3)])
    const first = await fetchPage('/products?limit=7')
    const there = [first, ...(await toTheEnd(first, 'next', byCursor(7)))]
    const back = await toTheEnd(there.at(-1)!, 'prev', byLink)
    over = true
    await writers
    // What was removed for a moment may be missing; all else may not.
    const steady = before.filter((id) => id % 10 !== 7)
    const after = await storedIds()
    expectWhole(there.flatMap(idsOf), steady, after)
    expectWhole([...back.toReversed(), there.at(-1)!].flatMap(idsOf), steady, after)
    expect(after.length).toBeGreaterThan(before.length)
  })
})

test('a page whose products are gone still leads back', async () => {
  const first = await fetchPage('/products?limit=3')
  const second = await fetchPage(byCursor(3)(first, 'next')!)
  const kept = idsOf(second)
  await database.sql`delete from products where id > ${kept.at(0)!} or id < ${kept.at(-1)!}`

  const after = await fetchPage(byCursor(3)(second, 'next')!)
  expect(after.body).toMatchObject({ items: [], next_cursor: null })
  expect(idsOf(await fetchPage(byCursor(3)(after, 'prev')!))).toEqual(kept)

  const before = await fetchPage(byCursor(3)(second, 'prev')!)
  expect(before.body).toMatchObject({ items: [], prev_cursor: null })
  expect(idsOf(await fetchPage(byCursor(3)(before, 'next')!))).toEqual(kept)
})
