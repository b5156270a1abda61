// Statements that cannot be sent, and transactions that cannot begin: each is told for what it is, and costs the pool nothing.
import { expect, test } from 'vitest'
import { connect, createDatabase } from '../support/database.ts'
import { openPool } from '../support/pool.ts'
import { startProxy } from '../support/proxy.ts'

test('a statement with a value that is undefined is a fault of ours, and its connection goes on', async () => {
  const { address } = await createDatabase()
  const pool = openPool(address, { size: 1, maxOverflow: 0 })
  const pid = () => pool.read((sql) => sql`select pg_backend_pid() as pid`)
  const before = await pid()
  const nothing = undefined as unknown as string
  for (const way of ['read', 'write', 'session'] as const) {
    await expect(pool[way]((sql) => sql`select ${nothing}`)).rejects.toMatchObject({
      kind: 'internal',
      code: 'UNDEFINED_VALUE',
      lost: false,
    })
  }
  expect(await pid()).toEqual(before)
  expect(pool.stats()).toMatchObject({ lent: 0, waiting: 0 })
})

test('a transaction that gets no connection leaves its place to the next', async () => {
  const { address } = await createDatabase()
  const proxy = await startProxy(address)
  const pool = openPool(proxy.address, { size: 1, maxOverflow: 1 })
  proxy.refuse()
  const ask = () => pool.session((sql) => sql`select 1 as one`)
  for (let n = 0; n < 5; n++) {
    await expect(ask()).rejects.toMatchObject({ kind: 'unavailable', lost: false })
    expect(pool.stats()).toMatchObject({ lent: 0, opening: 0, waiting: 0 })
  }
  await proxy.pass()
  expect(await Promise.all([ask(), ask(), ask()])).toHaveLength(3)
  const sql = connect(address)
  const open = await sql`
    select from pg_stat_activity where datname = ${address.database} and state like 'idle in%'`
  expect(open).toHaveLength(0)
  await sql.end()
})
