// `npm run seed` adds as many products as it was told, or none, and leaves the table as it was.
import { randomBytes } from 'node:crypto'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { databaseUrl } from '../src/config.ts'
import { createDatabase, type TestDatabase } from './support/database.ts'
import { run } from './support/process.ts'

const command = join(import.meta.dirname, '../src/cli/seed.ts')

function start(url: string, ...parameters: string[]) {
  return run([command, ...parameters], { DATABASE_URL: url }, 'SIGKILL')
}

async function seed(url: string, ...parameters: string[]) {
  const { exited, output } = start(url, ...parameters)
  return { code: (await exited).code, output: output() }
}

/** How many products there are, and everything that makes the table what it is. */
async function look({ sql }: TestDatabase) {
  const [products] = await sql<{ count: number }[]>`select count(*)::int from products`
  const schema = await sql`
    select pg_get_indexdef(indexrelid) as is, indisvalid as valid
    from pg_index where indrelid = 'products'::regclass
    union all
    select pg_get_constraintdef(oid), convalidated from pg_constraint where conrelid = 'products'::regclass
    union all
    select pg_get_triggerdef(oid), tgenabled = 'O' from pg_trigger where tgrelid = 'products'::regclass
    order by 1`
  return { count: products!.count, schema: [...schema] }
}

/** Waits until a seed is at work, and returns when nothing of it is left on the server. */
const atWork = ({ sql, address }: TestDatabase) => sql<{ count: number }[]>`
  select count(*)::int from pg_stat_activity
  where datname = ${address.database} and application_name = 'larder-seed' and xact_start is not null`

test('adds products of all kinds, and as many again', async () => {
  const database = await createDatabase()
  const { sql } = database
  const before = await look(database)
  const first = await seed(databaseUrl(database.owner), '20000')
  expect(first, first.output).toMatchObject({ code: 0 })
  expect(first.output).toMatch(/^20,000 of 20,000 products$/m)
  expect(first.output).toMatch(
    /^added 20,000 products to larder_\w+ on 127.0.0.1:\d+ in [\d.]+ s$/m,
  )
  expect(await look(database)).toEqual({ ...before, count: 20_000 })

  const [found] = await sql`
    select count(*) filter (where sku is null)::int as without_sku,
           count(*) filter (where description is null)::int as without_description,
           count(*) filter (where name ~ 'Handmade')::int as handmade,
           count(*) filter (where name ~ 'limited')::int as limited,
           count(*) filter (where description ~ 'heirloom')::int as heirloom,
           count(*) filter (where currency = 'USD')::int as usd,
           count(*) filter (where currency = 'EUR')::int as eur,
           count(*) filter (where currency = 'GBP')::int as gbp,
           count(*) filter (where currency = 'CHF')::int as chf,
           count(*) filter (where currency = 'ISK')::int as isk,
           count(*) filter (where created_at > now() or updated_at > now())::int as ahead,
           count(*) filter (where updated_at < created_at)::int as backwards,
           now() - min(created_at) between '729 days' and '733 days' as is_two_years,
           corr(id, extract(epoch from created_at)) > 0.999 as is_in_order
    from products`
  expect(found).toEqual({
    without_sku: 2000,
    without_description: 4000,
    handmade: 10_000,
    limited: 200,
    heirloom: 2,
    usd: 17_000,
    eur: 2000,
    gbp: 800,
    chf: 180,
    isk: 20,
    ahead: 0,
    backwards: 0,
    is_two_years: true,
    is_in_order: true,
  })
  const [varied] = await sql`
    select count(distinct name)::int as names, count(distinct price)::int as prices,
           count(*) filter (where stock = 0)::int as sold_out,
           count(*) filter (where updated_at > created_at)::int as changed,
           (select relallvisible > 0 and reltuples = 20000 from pg_class where relname = 'products') as is_analysed
    from products`
  expect(varied!['names']).toBeGreaterThan(15_000)
  expect(varied!['prices']).toBeGreaterThan(300)
  expect(varied!['prices']).toBeLessThan(2000)
  // By chance: 6,000 each, and these bounds are more than ten standard deviations away.
  for (const column of ['sold_out', 'changed']) {
    expect(varied![column]).toBeGreaterThan(5200)
    expect(varied![column]).toBeLessThan(6800)
  }
  expect(varied!['is_analysed']).toBe(true)

  expect(await seed(databaseUrl(database.owner), '15')).toMatchObject({ code: 0 })
  expect(await look(database)).toEqual({ ...before, count: 20_015 })
})

test.for(['SIGINT', 'SIGTERM', 'SIGKILL'] as const)(
  '%s leaves no product behind',
  async (signal) => {
    const database = await createDatabase()
    expect(await seed(databaseUrl(database.owner), '10')).toMatchObject({ code: 0 })
    const before = await look(database)
    const seeding = start(databaseUrl(database.owner), '1000000')
    // Both are in the middle of their transactions, and some of the batches are through.
    await expect.poll(async () => (await atWork(database))[0]!.count).toBe(2)
    await expect
      .poll(
        async () =>
          (await database.sql`select pg_relation_size('products') > 2e6 as grown`)[0]!['grown'],
      )
      .toBe(true)
    const code = await seeding.stop(signal)
    expect(code).toBe(signal === 'SIGKILL' ? null : 130)
    if (signal !== 'SIGKILL') {
      expect(seeding.output()).toBe('seed: interrupted: no product was added\n')
    }
    await expect.poll(async () => (await atWork(database))[0]!.count).toBe(0)
    expect(await look(database)).toEqual(before)
  },
)

test('keeps nothing when a row is refused', async () => {
  const database = await createDatabase()
  await database.sql`alter table products add constraint none_from_iceland check (currency <> 'ISK')`
  const before = await look(database)
  const { code, output } = await seed(databaseUrl(database.owner), '50000')
  expect(code).toBe(1)
  expect(output).toMatch(/^seed: .*"none_from_iceland"$/m)
  expect(await look(database)).toEqual(before)
})

test.for([
  [[]],
  [['0']],
  [['-5']],
  [['1.5']],
  [['1e6']],
  [['many']],
  [['100000000']],
  [['5', '5']],
] as const)('refuses %j', async ([parameters]) => {
  const { code, output } = await seed('postgres://nobody@127.0.0.1:1/none', ...parameters)
  expect(code).toBe(1)
  expect(output).toMatch(/^seed: usage: npm run seed -- 1000000, .*\n$/)
})

test('says in one line what its database lacks', async () => {
  const database = await createDatabase({ empty: true })
  const missing = { ...database.address, database: `no_${randomBytes(6).toString('hex')}` }
  const { port } = database.address
  const { url } = database
  for (const [target, line] of [
    [url, /^seed: larder_\w+ lacks \d+_create-products, .*: run npm run migrate -- upgrade\n$/],
    [
      url.replace(database.address.database, missing.database),
      /^seed: cannot use no_.* on 127.0.0.1:\d+ \(.*does not exist\): create it first\n$/,
    ],
    [
      url.replace(`:${port}/`, ':1/'),
      /^seed: cannot use .* on 127.0.0.1:1 \(.*ECONNREFUSED.*\): check DATABASE_URL or POSTGRES_\*\n$/,
    ],
    ['mysql://a@b/c', /^seed: the settings are not complete: DATABASE_URL .*\n$/],
  ] as const) {
    const { code, output } = await seed(target, '10')
    expect(output).toMatch(line)
    expect(code).toBe(1)
  }
})
