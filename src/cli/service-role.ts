// The role of the service and what it may do: the rights it needs, given anew after each migration.
import { createHash, createHmac, pbkdf2Sync, randomBytes } from 'node:crypto'
import { type Client, escapeIdentifier, escapeLiteral } from 'pg'

export interface Role {
  user: string
  password: string
}

/**
 * By table (or sequence); beyond these it may make temporary tables. What triggers write they write as
 * the owner, so the role reads the changes and the words of products, and forges none. A new table needs
 * its line: the tests run the service as such a role.
 */
export const rights: Record<string, string> = {
  products: 'select, insert, update, delete',
  // A bulk, and an import that replaces, draw their ids before they insert.
  'sequence products_id_seq': 'usage',
  product_words: 'select',
  // The housekeeping removes the oldest, or all of them when they came with a dump.
  product_changes: 'select, delete, truncate',
  product_changes_start: 'select, update',
  idempotency_keys: 'select, insert, update, delete',
  pgmigrations: 'select',
}

/** PostgreSQL's own default. */
const SCRAM_ITERATIONS = 4096

/**
 * Gives the role its rights in the database of the connection. Creates it when there is none of that
 * name; one that is there keeps its password and its attributes.
 * @returns what there is to tell: a line for the new role, one for each right it has too many, and one
 *   for the right that only the owner of the database can give
 */
export async function admit(client: Client, { user, password }: Role): Promise<string[]> {
  const role = escapeIdentifier(user)
  await client.query('begin')
  const found = await client.query('select from pg_roles where rolname = $1', [user])
  if (found.rowCount === 0) {
    await client.query(`create role ${role} login password ${escapeLiteral(verifier(password))}`)
  }
  await client.query(`grant usage on schema public to ${role}`)
  await setDefaults(client, role)
  for (const [object, allowed] of Object.entries(rights)) {
    const [name, kind = 'table'] = object.split(' ').toReversed()
    if (!(await exists(client, name!))) continue
    await client.query(`revoke all on ${kind} public.${name} from ${role}`)
    await client.query(`grant ${allowed} on ${kind} public.${name} to ${role}`)
  }
  await client.query('commit')
  const created = found.rowCount === 0 ? [`created the role ${user}`] : []
  return [...created, ...(await findDeviations(client, user))]
}

/**
 * PostgreSQL lets every role make temporary tables and, before 15, tables: where it is the owner's to
 * say, nobody may any more, but the role temporary ones. An import that replaces keeps its rows there.
 */
async function setDefaults(client: Client, role: string): Promise<void> {
  const { rows } = await client.query<{ database: string; is_ours: boolean }>(
    `select datname as database, pg_has_role(datdba, 'usage') as is_ours
     from pg_database where datname = current_database()`,
  )
  const { database, is_ours: isOurs } = rows[0]!
  if (!isOurs) return
  await client.query(`revoke temporary on database ${escapeIdentifier(database)} from public`)
  await client.query(`grant temporary on database ${escapeIdentifier(database)} to ${role}`)
  await client.query('revoke create on schema public from public')
}

/** Partway through the migrations not every table is there. */
async function exists(client: Client, name: string): Promise<boolean> {
  const text = 'select to_regclass($1) is not null as found'
  const { rows } = await client.query<{ found: boolean }>(text, [`public.${name}`])
  return rows[0]!.found
}

async function findDeviations(client: Client, user: string): Promise<string[]> {
  const { rows } = await client.query<Record<string, boolean>>(
    `select rolsuper as "is a superuser",
            rolcreaterole as "may create roles",
            rolcreatedb as "may create databases",
            has_schema_privilege(oid, 'public', 'create') as "may create tables",
            has_database_privilege(oid, current_database(), 'temporary') as stages,
            pg_has_role(oid, current_user, 'usage') as "has the rights of the owner"
     from pg_roles where rolname = $1`,
    [user],
  )
  const { 'is a superuser': isSuperuser, stages, ...others } = rows[0]!
  const excess = isSuperuser ? { 'is a superuser': true } : others
  const warnings = Object.entries(excess).flatMap(([right, has]) =>
    has ? `warning: the role ${user} ${right}, which the service does not need` : [],
  )
  if (stages) return warnings
  const need = 'may not create temporary tables, which an import with on_conflict=sku needs'
  return [...warnings, `warning: the role ${user} ${need}`]
}

/** What the server keeps in place of a password: sent so, it is in none of the server's logs. */
function verifier(password: string): string {
  const salt = randomBytes(16)
  const salted = pbkdf2Sync(password, salt, SCRAM_ITERATIONS, 32, 'sha256')
  const hmac = (text: string) => createHmac('sha256', salted).update(text).digest()
  const stored = createHash('sha256').update(hmac('Client Key')).digest('base64')
  const server = hmac('Server Key').toString('base64')
  return `SCRAM-SHA-256$${SCRAM_ITERATIONS}:${salt.toString('base64')}$${stored}:${server}`
}
