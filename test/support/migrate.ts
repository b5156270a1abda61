// The migrations as an operator runs them: the command line, in a process of its own.
import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { databaseUrl } from '../../src/config.ts'
import type { DatabaseAddress } from '../../src/database/connection.ts'
import { environment } from './environment.ts'

const run = promisify(execFile)
const command = join(import.meta.dirname, '../../src/cli/migrate.ts')

/** The role that the tests run the service as: it has the rights of the service and no others. */
export const SERVICE_ROLE = { user: 'larder', password: 'of-the-service' }

/**
 * As the owner, who lets the role of the service in.
 * @throws {Error} with the command's output when it does not exit with 0
 */
export async function migrate(owner: DatabaseAddress, ...parameters: string[]): Promise<string> {
  const options = environment({
    DATABASE_URL: databaseUrl({ ...owner, ...SERVICE_ROLE }),
    POSTGRES_OWNER: owner.user,
    POSTGRES_OWNER_PASSWORD: owner.password,
  })
  const { stdout } = await run(process.execPath, [command, ...parameters], options)
  return stdout
}
