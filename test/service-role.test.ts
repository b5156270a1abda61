// The role of the service has what it needs and no more. That it has what it needs, all other tests show.
import { randomBytes } from 'node:crypto'
import { join } from 'node:path'
import type postgres from 'postgres'
import { beforeAll, expect, test } from 'vitest'
import { rights } from '../src/cli/service-role.ts'
import { databaseUrl } from '../src/config.ts'
import type { DatabaseAddress } from '../src/database/connection.ts'
import { createApi, product } from './support/api.ts'
import { atTheEnd } from './support/clean-up.ts'
import { connect, createDatabase, type TestDatabase } from './support/database.ts'
import type { Settings } from './support/environment.ts'
import { run } from './support/process.ts'
import { runService, startService } from './support/service.ts'

const root = join(import.meta.dirname, '..')
const noStage = 'the role may not make temporary tables: imports with on_conflict=sku will fail'
const warning = 'the role may do more than the service needs: give it one of its own'

interface Admitted {
  database: TestDatabase
  service: DatabaseAddress
  migrate: (...parameters: string[]) => Promise<{ code: number | null; output: string }>
}

/** An empty database, and a role of a name that the server has not seen yet. */
async function prepare(owner: Partial<DatabaseAddress> = {}): Promise<Admitted> {
  const database = await createDatabase({ empty: true })
  const user = `service "of" ${database.address.database}`
  const service = { ...database.address, user, password: `p'w\\ ${randomBytes(6).toString('hex')}` }
  atTheEnd(async () => {
    await database.drop()
    const admin = connect({ ...database.owner, database: 'postgres' })
    await admin`drop role if exists ${admin(user)}`
    await admin.end()
  })
  const { host, port, password } = service
  const settings: Settings = {
    POSTGRES_HOST: host,
    POSTGRES_PORT: String(port),
    POSTGRES_DB: service.database,
    POSTGRES_USER: user,
    POSTGRES_PASSWORD: password,
    POSTGRES_OWNER: owner.user ?? database.owner.user,
    POSTGRES_OWNER_PASSWORD: owner.password ?? database.owner.password,
  }
  const migrate = async (...parameters: string[]) => {
    const command = run([join(root, 'src/cli/migrate.ts'), ...parameters], settings, 'SIGKILL')
    const { code } = await command.exited
    return { code, output: command.output() }
  }
  return { database, service, migrate }
}

async function failure(work: PromiseLike<unknown>): Promise<string> {
  return work.then(
    () => 'it was allowed',
    (error: unknown) => (error as postgres.PostgresError).code,
  )
}

let admitted: Admitted
let role: postgres.Sql

beforeAll(async () => {
  admitted = await prepare()
  const { code, output } = await admitted.migrate('upgrade')
  if (code !== 0 || !output.includes('created the role service "of"')) throw new Error(output)
  role = connect(admitted.service)
  atTheEnd(() => role.end({ timeout: 1 }))
  await admitted.database.sql`insert into products (name, price) values ('Here already', 1)`
})

test.for([
  'alter table products add column note text',
  'alter table products disable trigger all',
  'alter table products owner to current_user',
  'drop table products',
  'truncate products',
  'truncate idempotency_keys',
  'create index on products (description)',
  'create trigger mine before insert on products for each row execute function keep_version()',
  'create table mine (id integer)',
  'create schema mine',
  'create extension pg_trgm',
  `create function mine() returns integer language sql return 1`,
  'create or replace function keep_version() returns trigger language plpgsql as $$ begin return null; end $$',
  'drop function claim_idempotency_key',
  'create role mine',
  'create database mine',
  // What the database records by itself.
  `insert into product_changes (xid, op, product_id, prev, version) values ('1', 'delete', 1, 0, 2)`,
  `update product_changes set product = '{}'`,
  'insert into product_changes_start default values',
  'delete from product_changes_start',
  `insert into product_words (product_id, words) values (0, '')`,
  `update product_words set words = ''`,
  'delete from product_words',
  `insert into pgmigrations (name, run_on) values ('mine', now())`,
  'delete from pgmigrations',
  `select setval('products_id_seq', 1)`,
  `alter sequence products_id_seq restart`,
  `select nextval('product_changes_seq_seq')`,
  // What lies outside of it.
  'select * from pg_authid',
  'select * from pg_shadow',
  `select pg_read_file('postgresql.conf')`,
  `select pg_ls_dir('.')`,
  `copy products to '/tmp/larder-products'`,
  `copy products from program 'true'`,
  `select lo_import('/etc/passwd')`,
  'set session_replication_role = replica',
  `set role pg_read_all_data`,
  'alter system set log_statement = none',
  'select pg_reload_conf()',
  'select pg_switch_wal()',
])('it may not: %s', async (statement) => {
  expect(await failure(role.unsafe(statement))).toBe('42501')
})

test('it is nobody in particular', async () => {
  const [attributes] = await role`
    select rolsuper, rolcreaterole, rolcreatedb, rolreplication, rolbypassrls, rolcanlogin,
           (select count(*)::int from pg_auth_members where member = pg_roles.oid) as memberships,
           (select count(*)::int from pg_class where relowner = pg_roles.oid) as owned
    from pg_roles where rolname = current_user`
  expect(attributes).toEqual({
    rolsuper: false,
    rolcreaterole: false,
    rolcreatedb: false,
    rolreplication: false,
    rolbypassrls: false,
    rolcanlogin: true,
    memberships: 0,
    owned: 0,
  })
})

test('its rights on tables are those that the code names, in this database and in the tests', async () => {
  const tests = await createDatabase()
  const rightsOf = async ({ sql }: TestDatabase, user: string) =>
    Object.fromEntries(
      (
        await sql<{ table: string; rights: string }[]>`
          select relname as table, string_agg(lower(privilege_type), ', ' order by privilege_type) as rights
          from pg_class, aclexplode(relacl) as acl
          where relnamespace = 'public'::regnamespace and grantee = (
            select oid from pg_roles where rolname = ${user})
          group by relname`
      ).map(({ table, rights }) => [table, rights]),
    )
  const expected = {
    products: 'delete, insert, select, update',
    product_words: 'select',
    product_changes: 'delete, select, truncate',
    product_changes_start: 'select, update',
    idempotency_keys: 'delete, insert, select, update',
    pgmigrations: 'select',
    products_id_seq: 'usage',
  }
  expect(await rightsOf(admitted.database, admitted.service.user)).toEqual(expected)
  expect(await rightsOf(tests, tests.address.user)).toEqual(expected)
})

test('the service runs as it, without a warning', async () => {
  const service = await startService({ DATABASE_URL: databaseUrl(admitted.service) })
  const api = createApi(service.url)
  expect((await api.post('/products', product())).status).toBe(201)
  expect((await api.get('/ready')).status).toBe(200)
  expect(service.output()).not.toContain(warning)
  expect(service.output()).not.toContain(noStage)
})

test('a role that may not make temporary tables is told of at start', async () => {
  const { sql, address, url } = await createDatabase()
  await sql`revoke temporary on database ${sql(address.database)} from ${sql(address.user)}`
  const service = await startService({ DATABASE_URL: url })
  await service.logged(noStage)
})

test('later migrations and runs leave it what it needs, and take away what it was given besides', async () => {
  const { database, migrate, service } = await prepare()
  const allowed = () => failure(connected`select from idempotency_keys`)
  expect((await migrate('upgrade', '3')).code).toBe(0)
  const connected = connect(service)
  atTheEnd(() => connected.end({ timeout: 1 }))
  expect(await allowed()).toBe('42P01')
  expect(await migrate('upgrade')).toMatchObject({ code: 0 })
  expect(await allowed()).toBe('it was allowed')

  await database.sql`grant all on products to ${database.sql(service.user)}`
  await database.sql`revoke all on idempotency_keys from ${database.sql(service.user)}`
  expect(await migrate('upgrade')).toEqual({ code: 0, output: 'nothing to do\n' })
  expect(await allowed()).toBe('it was allowed')
  expect(await failure(connected`truncate products`)).toBe('42501')

  expect((await migrate('downgrade', '-1')).code).toBe(0)
  expect((await migrate('upgrade')).code).toBe(0)
  expect(await allowed()).toBe('it was allowed')
  expect((await migrate('downgrade', 'base')).code).toBe(0)
})

test('a role that is there keeps its password, and is told of what it has too much', async () => {
  const { database, migrate, service } = await prepare()
  const name = database.sql(service.user)
  await database.sql`create role ${name} login superuser password 'another'`
  expect((await migrate('upgrade')).output).toContain(
    `\nwarning: the role ${service.user} is a superuser, which the service does not need\n`,
  )
  await database.sql`alter role ${name} nosuperuser createrole`
  await database.sql`grant create on schema public to ${name}`
  const { output } = await migrate('upgrade')
  expect(output).toBe(
    ['may create roles', 'may create tables']
      .map((right) => `warning: the role ${service.user} ${right}, which the service does not need`)
      .reduce((text, line) => `${text}${line}\n`, 'nothing to do\n'),
  )
  const connected = connect({ ...service, password: 'another' })
  expect(await failure(connected`select from products`)).toBe('it was allowed')
  await connected.end()
})

test("an owner that is no superuser lets it in, and what is not the owner's is told", async () => {
  const owner = { user: `owner_${randomBytes(6).toString('hex')}`, password: 'of the owner' }
  const { database, migrate, service } = await prepare(owner)
  const { sql } = database
  await sql.unsafe(`create role ${owner.user} login password '${owner.password}'`)
  atTheEnd(async () => {
    await database.drop()
    const admin = connect({ ...database.owner, database: 'postgres' })
    await admin`drop role ${admin(owner.user)}`
    await admin.end()
  })
  await sql`grant create on schema public to ${sql(owner.user)}`
  const refused = await migrate('upgrade')
  expect(refused.code).toBe(1)
  expect(refused.output).toContain('permission denied to create role (42501)')

  // The right on the database is another's to give, until it is the owner's own.
  await sql`revoke temporary on database ${sql(database.address.database)} from public`
  await sql`create role ${sql(service.user)} login password ${sql.unsafe(`'x'`)}`
  expect(await migrate('upgrade')).toEqual({
    code: 0,
    output: `nothing to do\nwarning: the role ${service.user} may not create temporary tables, which an import with on_conflict=sku needs\n`,
  })
  await sql`alter database ${sql(database.address.database)} owner to ${sql(owner.user)}`
  expect(await migrate('upgrade')).toEqual({ code: 0, output: 'nothing to do\n' })
})

test('its password is in no log of the server, and neither is what is kept of it', async () => {
  const { database, migrate, service } = await prepare()
  const { sql } = database
  await sql`alter database ${sql(database.address.database)} set log_statement = 'all'`
  const [before] = await sql<{ size: number }[]>`
    select (pg_stat_file('server.log')).size::float8`
  expect((await migrate('upgrade')).code).toBe(0)
  const [after] = await sql<{ log: string }[]>`
    select pg_read_file('server.log', ${before!.size}::bigint, 10000000) as log`
  const { log } = after!
  expect(log).toContain('create role "service ""of"" ')
  expect(log).toContain("password 'SCRAM-SHA-256$4096:")
  expect(log).not.toContain(service.password.replaceAll("'", "''"))
  expect(log).not.toContain(service.password)
})

test('a superuser gets one warning at start', async () => {
  const { owner } = await createDatabase()
  const { log, logged } = await startService({ DATABASE_URL: databaseUrl(owner) })
  expect(await logged(warning)).toMatchObject({ level: 'warn', role: owner.user, is: 'superuser' })
  expect(log.filter(({ msg }) => msg === warning)).toHaveLength(1)
})

test('so does the owner of the tables', async () => {
  const { database, migrate, service } = await prepare()
  expect((await migrate('upgrade')).code).toBe(0)
  const { sql } = database
  await sql`alter table pgmigrations owner to ${sql(service.user)}`
  const { log, logged } = await startService({ DATABASE_URL: databaseUrl(service) })
  expect(await logged(warning)).toMatchObject({ level: 'warn', role: service.user, is: 'owner' })
  expect(log.filter(({ msg }) => msg === warning)).toHaveLength(1)
})

test('a role that nobody let in is not ready, and the log says why', async () => {
  const { database, migrate, service } = await prepare()
  expect((await migrate('upgrade')).code).toBe(0)
  const { sql } = database
  await sql`revoke select on pgmigrations from ${sql(service.user)}`
  const { code, output } = await runService({ DATABASE_URL: databaseUrl(service) })
  expect(code).toBe(1)
  expect(output).toContain('permission denied for table pgmigrations')
})

test('each table has its line in the rights', async () => {
  const tables = await admitted.database.sql<{ name: string }[]>`
    select relname as name from pg_class
    where relnamespace = 'public'::regnamespace and relkind in ('r', 'p')`
  expect(tables.map(({ name }) => name).toSorted()).toEqual(
    Object.keys(rights)
      .filter((object) => !object.startsWith('sequence '))
      .toSorted(),
  )
})
