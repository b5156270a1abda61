// Housekeeping as clients of the feed see it: what is past its time goes, and no cursor leads over the gap.
import { beforeAll, expect, test } from 'vitest'
import { expectProblem } from '../support/api.ts'
import { connect, createServer, type TestDatabase } from '../support/database.ts'
import { startTarget, type Target } from '../support/target.ts'

let target: Target
let database: TestDatabase

beforeAll(async () => {
  database = await createServer()
  target = await startTarget({ CHANGES_RETENTION: '3600', LOG_LEVEL: 'debug' }, database)
})

/** A round of housekeeping: on Workers a trigger starts it, on Node it comes by itself. */
async function keepHouse() {
  if (target.runtime === 'workerd') {
    expect(await (await fetch(`${target.url}/cdn-cgi/local/scheduled`)).text()).toBe('ok')
  } else {
    await target.logged('housekeeping')
  }
}

test('changes are removed after CHANGES_RETENTION, and the cursors before them are gone', async () => {
  const { api } = target
  const { sql } = database
  const get = async (query: string) => {
    const answer = await api.get(`/products/changes?${query}`)
    expect(answer.status, answer.text).toBe(200)
    return answer.body
  }
  const age = () => sql`update product_changes set at = at - interval '1 hour'`

  const { next_cursor: empty } = await get('')
  // Several batches of the housekeeping.
  await sql`insert into products (name, price) select 'Old', n from generate_series(1, 2300) as n`
  const { next_cursor: early } = await get('limit=1000')
  const { next_cursor: middle } = await get(`limit=1000&after=${early}`)
  const { items, next_cursor: edge } = await get(`limit=1000&after=${middle}`)
  expect(items).toHaveLength(300)

  // As old as the others, but nobody could see it yet: a transaction from before it is open.
  const open = connect(database.owner)
  await open`begin`
  const [first] = await open<{ id: string }[]>`
    insert into products (name, price) values ('Open', 1) returning id`
  const [second] = await sql<{ id: string }[]>`
    insert into products (name, price) values ('Hidden', 1) returning id`
  await age()
  await keepHouse()
  await expect.poll(async () => (await sql`select from product_changes`).length).toBe(1)
  await open`commit`
  await open.end()

  for (const cursor of [empty, early, middle]) {
    const answer = await api.get(`/products/changes?after=${cursor}`)
    const { detail } = expectProblem(answer, 410, 'gone')
    expect(detail).toContain('not kept any more')
  }
  const ids = async (query: string) =>
    (await get(query)).items.map(({ id }: { id: number }) => String(id))
  await expect.poll(() => ids(`after=${edge}`)).toEqual([first!.id, second!.id])
  expect(await ids('')).toEqual([first!.id, second!.id])
  expect(JSON.stringify(target.log)).not.toContain('housekeeping failed')
})
