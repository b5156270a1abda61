// Migrations as an operator meets them: the command line, against a real PostgreSQL, when it goes well and when not.
import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { cp, mkdtemp, readdir, readFile, realpath, rm, symlink, writeFile } from 'node:fs/promises'
import { connect as connectSocket, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { basename, extname, join } from 'node:path'
import { PG_MIGRATE_LOCK_ID } from 'node-pg-migrate'
import { expect, inject, test, vi } from 'vitest'
import { freePort } from '../src/cli/embedded-postgres.ts'
import { startPostgres } from '../src/cli/embedded-postgres.ts'
import { databaseUrl } from '../src/config.ts'
import type { DatabaseAddress } from '../src/database/connection.ts'
import { migrations } from '../src/database/migrations.ts'
import { atTheEnd } from './support/clean-up.ts'
import { connect, createDatabase } from './support/database.ts'
import type { TestDatabase } from './support/database.ts'
import { environment } from './support/environment.ts'

const root = join(import.meta.dirname, '..')

/** For other processes, on a busy machine. */
const patience = { timeout: 20_000, interval: 20 }

/** The folder's names, in its order. */
const a = '20260101000000000_create-a'
const b = '20260102000000000_create-b'
const index = '20260103000000000_add-index'
const c = '20260104000000000_create-c'

const table = (name: string) =>
  `-- Up Migration\ncreate table ${name} (id int);\n-- Down Migration\ndrop table ${name};\n`

const threeFiles = {
  [`${a}.sql`]: table('a'),
  [`${b}.sql`]: table('b'),
  [`${c}.sql`]: table('c'),
}

/** What PostgreSQL does not do in a transaction, as src/cli/migrate.ts tells to write it. */
const concurrentIndex = `
  export const up = (pgm) => {
    pgm.noTransaction()
    pgm.sql('drop index concurrently if exists a_id')
    pgm.sql('create unique index concurrently a_id on a (id)')
  }
  export const down = (pgm) => {
    pgm.noTransaction()
    pgm.sql('drop index concurrently if exists a_id')
  }`

/** A copy of the project with a folder `migrations` of its own. */
async function createProject(files?: Record<string, string>): Promise<string> {
  const folder = await realpath(await mkdtemp(join(tmpdir(), 'larder-migrations-')))
  atTheEnd(() => rm(folder, { recursive: true }))
  for (const name of ['src', 'package.json', 'migrations']) {
    await cp(join(root, name), join(folder, name), { recursive: true })
  }
  await symlink(join(root, 'node_modules'), join(folder, 'node_modules'))
  if (files) {
    for (const name of await readdir(join(folder, 'migrations')))
      await rm(join(folder, 'migrations', name))
    for (const [name, text] of Object.entries(files)) await writeMigration(folder, name, text)
  }
  return folder
}

function writeMigration(project: string, name: string, text: string): Promise<void> {
  return writeFile(join(project, 'migrations', name), text)
}

interface Outcome {
  code: number
  out: string
  err: string
}

function run(script: string, parameters: string[], options: object): Promise<Outcome> {
  return new Promise((resolve) => {
    execFile(process.execPath, [script, ...parameters], options, (error, out, err) => {
      resolve({ code: error ? Number(error.code ?? -1) : 0, out, err })
    })
  })
}

/** `npm run migrate -- …` in a project, without npm. */
function migrateWith(settings: Record<string, string>, project: string, ...parameters: string[]) {
  return run(join(project, 'src/cli/migrate.ts'), parameters, environment(settings))
}

function migrate(database: TestDatabase, project: string, ...parameters: string[]) {
  return migrateWith({ DATABASE_URL: database.url }, project, ...parameters)
}

function migrateAt(address: DatabaseAddress, ...parameters: string[]) {
  const retries = { CONNECT_MAX_RETRIES: '3', CONNECT_RETRY_DELAY: '0.1' }
  return migrateWith({ DATABASE_URL: databaseUrl(address), ...retries }, root, ...parameters)
}

/** `npx node-pg-migrate …` in a project, without npx. */
function nodePgMigrate(database: TestDatabase, project: string, ...parameters: string[]) {
  const { env } = environment({ DATABASE_URL: database.url })
  const bin = join(root, 'node_modules/node-pg-migrate/bin/node-pg-migrate.js')
  return run(bin, parameters, { env, cwd: project })
}

async function appliedIn({ sql }: TestDatabase): Promise<string[]> {
  const rows = await sql<{ name: string }[]>`select name from pgmigrations order by id`
  return rows.map((row) => row.name)
}

async function tablesIn({ sql }: TestDatabase): Promise<string[]> {
  const rows = await sql<{ name: string }[]>`
    select table_name as name from information_schema.tables
    where table_schema = 'public' and table_name <> 'pgmigrations' order by 1`
  return rows.map((row) => row.name)
}

async function invalidIndexes({ sql }: TestDatabase): Promise<number> {
  return (await sql`select from pg_index where not indisvalid`).length
}

/** The connections of running migrations. */
function sessions({ sql, address }: TestDatabase) {
  return sql<{ pid: number; query: string }[]>`
    select pid, query from pg_stat_activity
    where datname = ${address.database} and application_name = 'larder-migrate'`
}

/** Everything that a migration can leave in the schema, as text. */
async function schemaOf({ sql }: TestDatabase): Promise<string[]> {
  const rows = await sql<{ line: string }[]>`
    with relation as (
      select oid, oid::regclass::text as name, relkind from pg_class
      where relnamespace = 'public'::regnamespace and relname not like 'pgmigrations%')
    select format('%s %s', relkind, name) as line from relation
    union all
    select format('%s.%s %s %s %s %s %s', name, attname, format_type(atttypid, atttypmod),
      case when attnotnull then 'not null' end, attidentity, attcollation::regcollation,
      pg_get_expr(adbin, adrelid))
    from relation join pg_attribute on attrelid = relation.oid and attnum > 0 and not attisdropped
    left join pg_attrdef on adrelid = attrelid and adnum = attnum
    union all
    select format('%s: %s %s', name, conname, pg_get_constraintdef(c.oid))
    from relation join pg_constraint as c on conrelid = relation.oid
    union all
    select pg_get_indexdef(oid) from relation where relkind = 'i'
    union all
    select pg_get_triggerdef(t.oid)
    from relation join pg_trigger as t on tgrelid = relation.oid where not tgisinternal
    union all
    select pg_get_functiondef(p.oid) from pg_proc as p
    where pronamespace = 'public'::regnamespace
      and not exists (select from pg_depend where objid = p.oid and deptype = 'e')
    union all
    select extname from pg_extension
    order by 1`
  return rows.map((row) => row.line)
}

/** An expected failure: one line that says why, and no stack. */
function expectFailure({ code, err }: Outcome, ...parts: (string | RegExp)[]): void {
  for (const part of parts) expect(err.trimEnd().split('\n').at(-1)).toMatch(part)
  expect(err).not.toMatch(/^ {4}at /m)
  expect(code).toBe(1)
}

test('the list for Workers names the files of the folder, in their order', async () => {
  const files = await readdir(join(root, 'migrations'))
  expect(migrations).toEqual(files.map((file) => basename(file, extname(file))).sort())
  for (const name of migrations) expect(name).toMatch(/^\d{17}_[a-z0-9]+(-[a-z0-9]+)*$/)
})

test('every migration of the folder can be reverted, leaves nothing, and applied again is the same', async () => {
  const database = await createDatabase({ empty: true })
  const before = await schemaOf(database)

  expect(await migrate(database, root, 'upgrade', 'head')).toMatchObject({ code: 0, err: '' })
  const schema = await schemaOf(database)
  expect(schema).toContain('r products')
  expect(await appliedIn(database)).toEqual(migrations)

  const reverted = await migrate(database, root, 'downgrade', 'base')
  expect(reverted.out).toBe(
    migrations
      .map((name) => `reverted ${name}\n`)
      .reverse()
      .join(''),
  )
  expect(await schemaOf(database)).toEqual(before)
  expect(await appliedIn(database)).toEqual([])

  expect(await migrate(database, root, 'upgrade')).toMatchObject({ code: 0 })
  expect(await schemaOf(database)).toEqual(schema)
})

test('upgrade and downgrade go as far as they are told, and current tells where that is', async () => {
  const project = await createProject(threeFiles)
  const database = await createDatabase({ empty: true })
  const command = async (...parameters: string[]) => {
    const { code, out, err } = await migrate(database, project, ...parameters)
    expect({ code, err }).toEqual({ code: 0, err: '' })
    return out
  }

  expect(await command('current')).toBe(`current: none\npending:\n  ${a}\n  ${b}\n  ${c}\n`)
  expect(await command('upgrade', '2')).toBe(`applied ${a}\napplied ${b}\n`)
  expect(await command('current')).toBe(`current: ${b}\npending:\n  ${c}\n`)
  expect(await command('upgrade', 'head')).toBe(`applied ${c}\n`)
  expect(await command('upgrade', 'head')).toBe('nothing to do\n')
  expect(await command('current')).toBe(`current: ${c}\npending: none\n`)
  expect(await command('downgrade', '-1')).toBe(`reverted ${c}\n`)
  expect(await command('downgrade', '1')).toBe(`reverted ${b}\n`)
  expect(await tablesIn(database)).toEqual(['a'])
  expect(await command('upgrade')).toBe(`applied ${b}\napplied ${c}\n`)
  expect(await command('downgrade', 'base')).toBe(`reverted ${c}\nreverted ${b}\nreverted ${a}\n`)
  expect(await command('downgrade', 'base')).toBe('nothing to do\n')
  expect(await tablesIn(database)).toEqual([])
})

test('what cannot be done whole is not begun', async () => {
  const project = await createProject(threeFiles)
  const database = await createDatabase({ empty: true })

  expectFailure(await migrate(database, project, 'downgrade', '-1'), 'revert 1 of 0 applied')
  expectFailure(await migrate(database, project, 'upgrade', '4'), 'apply 4 of 3 pending')
  expect(await tablesIn(database)).toEqual([])
  await migrate(database, project, 'upgrade')
  expectFailure(await migrate(database, project, 'upgrade', '1'), 'apply 1 of 0 pending')
  expectFailure(await migrate(database, project, 'downgrade', '-4'), 'revert 4 of 3 applied')
  expect(await tablesIn(database)).toEqual(['a', 'b', 'c'])
})

test.for([
  '',
  'up',
  'current x',
  'create',
  'upgrade 0',
  'upgrade -1',
  'upgrade 1.5',
  'upgrade 1 2',
  'upgrade base',
  'downgrade',
  'downgrade -0',
  'downgrade --1',
  'downgrade head',
])('what is no command is answered with those that are: "%s"', async (line) => {
  const outcome = await migrateWith({}, root, ...line.split(' ').filter(Boolean))
  expect(outcome).toMatchObject({ code: 2, out: '' })
  expect(outcome.err).toMatch(/^usage: npm run migrate -- .*current.*create.*upgrade.*downgrade/s)
})

test('several runs at once wait for each other and apply each migration once', async () => {
  // The index cannot be made while somebody waits inside of a statement.
  const project = await createProject({ ...threeFiles, [`${index}.js`]: concurrentIndex })
  const database = await createDatabase({ empty: true })
  const holder = connect(database.address)
  atTheEnd(() => holder.end({ timeout: 1 }))
  await holder`select pg_advisory_lock(${PG_MIGRATE_LOCK_ID})`
  const runs = [1, 2, 3].map(() => migrate(database, project, 'upgrade', 'head'))
  await vi.waitFor(async () => expect(await sessions(database)).toHaveLength(3), patience)
  await holder`select pg_advisory_unlock(${PG_MIGRATE_LOCK_ID})`

  const outcomes = await Promise.all(runs)
  for (const { code, err } of outcomes) expect({ code, err }).toEqual({ code: 0, err: '' })
  const lines = outcomes.flatMap(({ out }) => out.trim().split('\n'))
  expect(lines.filter((line) => line.startsWith('applied'))).toEqual(
    [a, b, index, c].map((name) => `applied ${name}`),
  )
  expect(await appliedIn(database)).toEqual([a, b, index, c])
  expect(await invalidIndexes(database)).toBe(0)
})

test('a file that fails leaves nothing behind, and those before it stay', async () => {
  const failing =
    '-- Why 😀.\n-- Up Migration\ncreate table c (id int);\ninsert into nowhere\n  values (1);\n'
  const project = await createProject({ ...threeFiles, [`${c}.sql`]: failing })
  const database = await createDatabase({ empty: true })

  const outcome = await migrate(database, project, 'upgrade', 'head')
  expect(outcome.out).toBe(`applied ${a}\napplied ${b}\n`)
  expectFailure(outcome, `${c}.sql, line 4: relation "nowhere" does not exist (42P01)`)
  expect(await tablesIn(database)).toEqual(['a', 'b'])
  expect(await appliedIn(database)).toEqual([a, b])

  await writeMigration(project, `${c}.sql`, table('c'))
  expect(await migrate(database, project, 'upgrade')).toMatchObject({ out: `applied ${c}\n` })
})

test('a file without a transaction that failed half way is done by the next run', async () => {
  const project = await createProject({
    [`${a}.sql`]: table('a'),
    [`${index}.js`]: concurrentIndex,
  })
  const database = await createDatabase({ empty: true })
  await migrate(database, project, 'upgrade', '1')
  await database.sql`insert into a values (1), (1)`

  expectFailure(await migrate(database, project, 'upgrade'), `${index}.js`, '(23505)', 'duplicated')
  expect(await appliedIn(database)).toEqual([a])
  expect(await invalidIndexes(database)).toBe(1)

  await database.sql`delete from a`
  expect(await migrate(database, project, 'upgrade')).toMatchObject({ out: `applied ${index}\n` })
  expect(await invalidIndexes(database)).toBe(0)
  expect(await schemaOf(database)).toContain('i a_id')
})

test('a file that is older than an applied one, was deleted or cannot be reverted, is refused', async () => {
  const project = await createProject({ [`${a}.sql`]: table('a'), [`${c}.sql`]: table('c') })
  const database = await createDatabase({ empty: true })
  await migrate(database, project, 'upgrade')

  await writeMigration(project, `${b}.sql`, table('b'))
  expectFailure(await migrate(database, project, 'upgrade'), b, 'preceding already run', c)
  await rm(join(project, 'migrations', `${b}.sql`))

  await rm(join(project, 'migrations', `${c}.sql`))
  expectFailure(await migrate(database, project, 'downgrade', '-1'), c, 'deleted')

  await writeMigration(project, `${c}.sql`, '-- Up Migration\ncreate table c (id int);\n')
  expectFailure(await migrate(database, project, 'downgrade', '-1'), c, 'disabled down')
  expect(await tablesIn(database)).toEqual(['a', 'c'])
})

test('node-pg-migrate by itself works on the same files, table and URL', async () => {
  const project = await createProject({ ...threeFiles, [`${index}.js`]: concurrentIndex })
  const database = await createDatabase({ empty: true })
  const all = [a, b, index, c]

  expect(await migrate(database, project, 'upgrade')).toMatchObject({ code: 0 })
  const up = await nodePgMigrate(database, project, 'up')
  expect(up).toMatchObject({ code: 0, out: expect.stringContaining('No migrations to run!') })

  expect(await nodePgMigrate(database, project, 'down')).toMatchObject({ code: 0 })
  expect(await migrate(database, project, 'current')).toMatchObject({
    out: `current: ${index}\npending:\n  ${c}\n`,
  })
  expect(await migrate(database, project, 'upgrade')).toMatchObject({ out: `applied ${c}\n` })

  expect(await nodePgMigrate(database, project, 'down', '4')).toMatchObject({ code: 0 })
  expect(await tablesIn(database)).toEqual([])
  expect(await nodePgMigrate(database, project, 'up')).toMatchObject({ code: 0 })
  expect(await appliedIn(database)).toEqual(all)
  expect(await schemaOf(database)).toContain('i a_id')
  expect(await migrate(database, project, 'upgrade')).toMatchObject({ out: 'nothing to do\n' })
  expect(await migrate(database, project, 'downgrade', 'base')).toMatchObject({ code: 0 })
})

test('a run whose connection is killed says so, and the next one goes on where it was', async () => {
  const slow = '-- Up Migration\ncreate table b (id int);\nselect pg_sleep(600);\n'
  const project = await createProject({ ...threeFiles, [`${b}.sql`]: slow })
  const database = await createDatabase({ empty: true })

  const running = migrate(database, project, 'upgrade')
  await vi.waitFor(async () => {
    const queries = (await sessions(database)).map(({ query }) => query)
    expect(queries).toEqual([expect.stringContaining('pg_sleep')])
  }, patience)
  for (const { pid } of await sessions(database))
    await database.sql`select pg_terminate_backend(${pid})`
  const outcome = await running
  expect(outcome.out).toBe(`applied ${a}\n`)
  expectFailure(outcome, `${b}.sql`, 'terminating connection due to administrator command (57P01)')
  expect(await tablesIn(database)).toEqual(['a'])

  await writeMigration(project, `${b}.sql`, table('b'))
  expect(await migrate(database, project, 'upgrade')).toMatchObject({
    code: 0,
    out: `applied ${b}\napplied ${c}\n`,
  })
})

test('so does one that is killed while it waits for another', async () => {
  const database = await createDatabase({ empty: true })
  const holder = connect(database.address)
  atTheEnd(() => holder.end({ timeout: 1 }))
  await holder`select pg_advisory_lock(${PG_MIGRATE_LOCK_ID})`
  const running = migrate(database, root, 'upgrade')
  // Between two attempts, when no query is there to fail. Looked for and killed at once: a moment later
  // the next attempt may have begun.
  const killIdle = () => database.sql`
    select pg_terminate_backend(pid) from pg_stat_activity
    where datname = ${database.address.database} and application_name = 'larder-migrate'
      and state = 'idle'`
  await vi.waitFor(async () => expect(await killIdle()).toHaveLength(1), patience)
  expectFailure(await running, 'terminating connection due to administrator command (57P01)')
  expect(await tablesIn(database)).toEqual([])
})

test('names and passwords may be of any characters, in the environment, in .env and in the URL', async () => {
  const database = await createDatabase({ empty: true, name: 'a b/c?d%25#é' })
  const user = `some:one@${database.address.database}`
  const password = 'p@ss/w:rd?#%25 ü$x\\'
  await database.sql.unsafe(`create role "${user}" login password '${password}'`)
  await database.sql`grant create on schema public to ${database.sql(user)}`
  const address = { ...database.address, user, password }
  const applied = { code: 0, out: migrations.map((name) => `applied ${name}\n`).join('') }

  expect(await migrateAt(address, 'upgrade')).toMatchObject(applied)
  await migrate(database, root, 'downgrade', 'base')

  const settings = {
    POSTGRES_HOST: address.host,
    POSTGRES_PORT: String(address.port),
    POSTGRES_USER: user,
    POSTGRES_PASSWORD: password,
    POSTGRES_DB: address.database,
  }
  await database.sql`drop table pgmigrations` // the other user's
  expect(await migrateWith(settings, root, 'upgrade')).toMatchObject(applied)
  expect(await migrateWith(settings, root, 'downgrade', 'base')).toMatchObject({ code: 0 })

  const cwd = await createProject()
  const lines = Object.entries({ ...settings, POSTGRES_DB: 'elsewhere' })
  await writeFile(join(cwd, '.env'), lines.map(([name, value]) => `${name}='${value}'\n`).join(''))
  const { env } = environment({ POSTGRES_DB: address.database })
  expect(await run(join(root, 'src/cli/migrate.ts'), ['upgrade'], { env, cwd })).toMatchObject(
    applied,
  )
})

test('a wrong password ends it at once and is not told', async () => {
  const { address } = await createDatabase({ empty: true })
  const outcome = await migrateAt({ ...address, password: 'hunter2' }, 'upgrade')
  expectFailure(outcome, /^migrate: cannot connect.*password authentication failed.*28P01/)
  expect(outcome.out + outcome.err).not.toContain('hunter2')
  expect(outcome.err.trim().split('\n')).toHaveLength(1)
})

test('a database that does not exist, TLS that is refused, and missing settings end it at once', async () => {
  const { address } = await createDatabase({ empty: true })
  expectFailure(await migrateAt({ ...address, database: 'nowhere' }, 'current'), 'nowhere', '3D000')
  expectFailure(await migrateAt({ ...address, sslMode: 'require' }, 'current'), 'SSL')
  const outcome = await migrateWith({ POSTGRES_USER: 'somebody' }, root, 'upgrade')
  expect(outcome).toMatchObject({ code: 1, out: '' })
  expect(outcome.err).toMatch(/POSTGRES_PASSWORD is required\n.*POSTGRES_DB is required\n$/)
})

test('a server that is away is tried again, and its absence is the reason in the end', async () => {
  const address = { ...inject('postgres'), port: await freePort(), password: 'hunter2' }
  const outcome = await migrateAt(address, 'upgrade')
  expectFailure(outcome, `ECONNREFUSED 127.0.0.1:${address.port}`)
  expect(outcome.err.trim().split('\n')).toHaveLength(3)
  expect(outcome.err).not.toContain('hunter2')
})

test('so is a server that is there and lets nobody in yet', async () => {
  const server = await startPostgres()
  atTheEnd(() => server.stop())
  const sql = connect(server.address)
  atTheEnd(() => sql.end({ timeout: 1 }))
  // Told to stop, it waits for this connection to end, and answers others as when it starts.
  await sql`select`
  process.kill(server.processId, 'SIGTERM')
  const outcome = await migrateAt(server.address, 'current')
  expectFailure(outcome, '57P03')
  expect(outcome.err.trim().split('\n')).toHaveLength(3)
})

test('a server that comes late is waited for', async () => {
  const database = await createDatabase({ empty: true })
  const { host, port } = database.address
  const late = { ...database.address, port: await freePort() }
  const settings = { CONNECT_MAX_RETRIES: '1000', CONNECT_RETRY_DELAY: '0.05' }
  const { env, cwd } = environment({ DATABASE_URL: databaseUrl(late), ...settings })
  const command = [join(root, 'src/cli/migrate.ts'), 'upgrade', 'head']
  const child = spawn(process.execPath, command, { env, cwd, stdio: ['ignore', 'ignore', 'pipe'] })
  await once(child.stderr, 'data')
  const server = createServer((socket) => {
    const upstream = connectSocket(port, host)
    socket.pipe(upstream).pipe(socket)
    for (const end of [socket, upstream]) end.on('error', () => socket.destroy())
  })
  server.listen(late.port, late.host)
  const [code] = (await once(child, 'exit')) as [number]
  server.close()
  expect(code).toBe(0)
  expect(await appliedIn(database)).toEqual(migrations)
})

test('create makes a file that sorts last and names it in the list, without a database', async () => {
  const project = await createProject()
  const create = async (...words: string[]) => {
    const { code, out, err } = await run(
      join(project, 'src/cli/migrate.ts'),
      ['create', ...words],
      {
        ...environment({}),
        cwd: project,
      },
    )
    expect({ code, err }).toEqual({ code: 0, err: '' })
    return out.trim()
  }
  const before = await readdir(join(project, 'migrations'))
  const paths = [await create('add brand'), await create('  Add "Brand"_to ÜBER', '2 ')]
  expect(paths[0]).toMatch(/^migrations\/\d{17}_add-brand\.sql$/)
  expect(paths[1]).toMatch(/^migrations\/\d{17}_add-brand-to-ber-2\.sql$/)
  expect(await readFile(join(project, paths[0]!), 'utf8')).toBe(
    '-- Up Migration\n\n-- Down Migration\n',
  )

  await writeMigration(project, '29991231235959999_from-the-future.sql', table('future'))
  paths.push(await create('drop brand'))
  expect(paths[2]).toBe('migrations/30000101000000000_drop-brand.sql')

  const files = (await readdir(join(project, 'migrations'))).sort()
  expect(files).toHaveLength(before.length + 4)
  const list = await readFile(join(project, 'src/database/migrations.ts'), 'utf8')
  expect([...list.matchAll(/'(.+)'/g)].map(([, name]) => `${name}.sql`)).toEqual(files)
  expect(list).toMatch(/^\/\/ .*\n\/\/ .*\nexport const migrations: readonly string\[\] = \[\n/)
  const prettier = join(root, 'node_modules/prettier/bin/prettier.cjs')
  const options = ['--check', 'src/database/migrations.ts']
  expect(await run(prettier, options, { cwd: project })).toMatchObject({ code: 0 })

  const database = await createDatabase({ empty: true })
  expect(await migrate(database, project, 'upgrade')).toMatchObject({ code: 0 })
  expect(await appliedIn(database)).toEqual(files.map((file) => basename(file, '.sql')))
})

test('create wants a description that a file can be named after', async () => {
  const project = await createProject()
  const before = await readdir(join(project, 'migrations'))
  expectFailure(await migrateWith({}, project, 'create', '../ „ß“'), 'letters')
  expect(await readdir(join(project, 'migrations'))).toEqual(before)
})
