// The fault suite is worth what its broken network is worth: here each way of breaking is seen.
import type postgres from 'postgres'
import { beforeEach, expect, test } from 'vitest'
import { connect, createDatabase, type TestDatabase } from './support/database.ts'
import { startProxy, type Proxy } from './support/proxy.ts'
import { atTheEnd } from './support/clean-up.ts'

let database: TestDatabase
let proxy: Proxy
/** A client whose connection through the proxy is open. */
let sql: postgres.Sql

beforeEach(async () => {
  database = await createDatabase({ empty: true })
  proxy = await startProxy(database.address)
  sql = client()
  await sql`select 1`
})

test('what is held back in silence arrives when it is over, on new connections too', async () => {
  proxy.silence()
  const held = [sql, client()].map((through) => outcome(through`select 'held'`))
  await expect.poll(proxy.accepted).toBe(2)
  await expectNotToReachTheServer('held')

  await proxy.pass()
  expect(await Promise.all(held)).toEqual(['answered', 'answered'])
})

test('a connection that the client closes in silence ends for the server when it is over', async () => {
  proxy.silence()
  await sql.end({ timeout: 0 })
  for (let trips = 0; trips < 20; trips++) expect(await connections()).toBe(1)

  await proxy.pass()
  await expect.poll(connections).toBe(0)
  await expect.poll(proxy.open).toBe(0)
})

test('a lost connection stays silent for good, while new ones work', async () => {
  proxy.lose()
  const lost = outcome(sql`select 'lost'`)
  await proxy.pass()
  expect(await outcome(client()`select 1`)).toBe('answered')
  await expectNotToReachTheServer('lost')

  await proxy.stop()
  expect(await lost).not.toBe('answered')
})

test('a statement whose answer is lost takes effect', async () => {
  await sql`create table things (id integer)`
  proxy.loseAnswerTo('insert into things')
  const inserted = outcome(sql`insert into things values (1)`)
  const things = () => database.sql`select from things`
  await expect.poll(async () => (await things()).length).toBe(1)

  proxy.reset()
  expect(await inserted).toBe('ECONNRESET')
  expect(await outcome(client()`select from things`)).toBe('answered')
})

test('when it refuses, connections that are there go on', async () => {
  proxy.refuse()
  expect(await outcome(client()`select 1`)).toBe('ECONNREFUSED')
  expect(await outcome(sql`select 1`)).toBe('answered')

  await proxy.pass()
  expect(await outcome(client()`select 1`)).toBe('answered')
})

test('a reset ends a statement in flight, and the next connection works', async () => {
  const waiting = outcome(sql`select pg_sleep(60)`)
  await expect.poll(() => running('pg_sleep')).toBe(1)
  proxy.reset()
  expect(await waiting).toBe('ECONNRESET')
  expect(await outcome(client()`select 1`)).toBe('answered')
  await expect.poll(proxy.open).toBe(1)
})

test('a cut ends an idle connection on both sides, and the next one works', async () => {
  expect(await connections()).toBe(1)
  proxy.cut()
  await expect.poll(connections).toBe(0)
  await expect.poll(proxy.open).toBe(0)
  expect(await outcome(sql`select 1`)).toBe('answered')
  expect(proxy.accepted()).toBe(2)
})

test('a statement that a cut hits learns that its connection is closed', async () => {
  const waiting = outcome(sql`select pg_sleep(60)`)
  await expect.poll(() => running('pg_sleep')).toBe(1)
  proxy.cut()
  expect(await waiting).toBe('CONNECTION_CLOSED')
})

function client(): postgres.Sql {
  const sql = connect(proxy.address)
  atTheEnd(() => sql.end({ timeout: 0 }))
  return sql
}

/** The code of its failure, when it fails. */
async function outcome(query: postgres.PendingQuery<postgres.Row[]>): Promise<string> {
  try {
    await query
    return 'answered'
  } catch (error) {
    return (error as { code: string }).code
  }
}

/** Later statements of this process have been answered, and this one has not been heard of. */
async function expectNotToReachTheServer(words: string) {
  for (let trips = 0; trips < 20; trips++) expect(await running(words)).toBe(0)
}

/** How many connections through the proxy run such a statement, or did so last. */
async function running(words: string): Promise<number> {
  const rows = await database.sql`
    select from pg_stat_activity
    where datname = ${database.address.database} and pid <> pg_backend_pid()
      and query like ${`%${words}%`}`
  return rows.length
}

/** How many connections through the proxy the server has. */
async function connections(): Promise<number> {
  const rows = await database.sql`
    select from pg_stat_activity
    where datname = ${database.address.database} and backend_type = 'client backend'
      and pid <> pg_backend_pid()`
  return rows.length
}
