// Proves at start-up that the database is there and right: its schema, and the role's rights.
import type { Database } from './pool.ts'
import { DatabaseError, isHopeless } from './errors.ts'
import { migrations } from './migrations.ts'

const UNDEFINED_TABLE = '42P01' // nothing was ever migrated here

/**
 * Asks the server for its version until it answers: `attempts` times, `delayMs` apart.
 * `onFailure` hears of each failed attempt that is followed by another.
 * @throws the failure of the last attempt, at once when waiting cannot help
 */
export async function waitForDatabase(
  database: Database,
  attempts: number,
  delayMs: number,
  onFailure: (error: DatabaseError, attempt: number) => void,
): Promise<string> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await serverVersion(database)
    } catch (error) {
      if (!(error instanceof DatabaseError) || isHopeless(error) || attempt >= attempts) throw error
      onFailure(error, attempt)
      await new Promise((resolve) => setTimeout(resolve, delayMs))
    }
  }
}

/** Such as `PostgreSQL 16.14 on x86_64-pc-linux-gnu, …`. */
export async function serverVersion(database: Database): Promise<string> {
  const rows = await database.read((sql) => sql<{ version: string }[]>`select version()`)
  return rows[0]!.version
}

/** The names of the migrations that this code was written for and the database lacks, in order. */
export async function pendingMigrations(database: Database): Promise<string[]> {
  const applied = await database
    .read((sql) => sql<{ name: string }[]>`select name from public.pgmigrations`)
    .catch((error: unknown) => {
      if (error instanceof DatabaseError && error.code === UNDEFINED_TABLE) return []
      throw error
    })
  const names = new Set(applied.map((row) => row.name))
  return migrations.filter((name) => !names.has(name))
}

interface RoleRights {
  /**
   * What makes it more than a user of the tables: it is a superuser, or it has the rights of their
   * owner, who can alter and drop them. Undefined when it is neither.
   */
  excess: { role: string; is: 'superuser' | 'owner' } | undefined
  /** Whether it may make temporary tables, which only the owner of the database can give it. */
  stages: boolean
}

/** What the role of these connections may do beyond what the service needs, and what it needs and may not. */
export async function rightsOfRole(database: Database): Promise<RoleRights> {
  const [row] = await database.read(
    (sql) => sql<{ role: string; is_superuser: boolean; is_owner: boolean; stages: boolean }[]>`
      select current_user as role,
             has_database_privilege(current_database(), 'temporary') as stages,
             (select rolsuper from pg_roles where rolname = current_user) as is_superuser,
             exists (select from pg_class
                     where oid = to_regclass('public.pgmigrations')
                       and pg_has_role(relowner, 'usage')) as is_owner`,
  )
  const { role, is_superuser: isSuperuser, is_owner: isOwner, stages } = row!
  if (isSuperuser) return { excess: { role, is: 'superuser' }, stages }
  return { excess: isOwner ? { role, is: 'owner' } : undefined, stages }
}
