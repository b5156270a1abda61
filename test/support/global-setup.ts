// One PostgreSQL for the whole run, and in it the migrated database that the others are cloned from.
import postgres from 'postgres'
import type { TestProject } from 'vitest/node'
import { startPostgres } from '../../src/cli/embedded-postgres.ts'
import type { DatabaseAddress } from '../../src/database/connection.ts'
import { migrate } from './migrate.ts'

declare module 'vitest' {
  interface ProvidedContext {
    /** The superuser's way in. */
    postgres: DatabaseAddress
    /** The migrated database that nobody connects to. */
    template: string
    /** What the contract runs on. */
    runtime: 'node' | 'workerd'
  }
}

const TEMPLATE = 'larder_template'

export default async function setup(project: TestProject) {
  // Each test file holds up to a pool of 15 and some connections of its own.
  const server = await startPostgres({ settings: { max_connections: '300' } })
  try {
    await createTemplate(server.address)
  } catch (error) {
    await server.stop()
    throw error
  }
  project.provide('postgres', server.address)
  project.provide('template', TEMPLATE)
  return () => server.stop()
}

async function createTemplate(address: DatabaseAddress) {
  const sql = postgres({ ...address, max: 1 })
  try {
    await sql`create database ${sql(TEMPLATE)} template template0`
    await migrate({ ...address, database: TEMPLATE }, 'upgrade', 'head')
    // A database that somebody is connected to cannot be cloned.
    await sql`alter database ${sql(TEMPLATE)} with allow_connections false`
  } finally {
    await sql.end({ timeout: 1 })
  }
}
