// The migrations as an operator runs them: the command line, in a process of its own.
import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { databaseUrl } from '../../src/config.ts'
import type { DatabaseAddress } from '../../src/database/connection.ts'
import { environment } from './environment.ts'

const run = promisify(execFile)
const command = join(import.meta.dirname, '../../src/cli/migrate.ts')

/** @throws {Error} with the command's output when it does not exit with 0 */
export async function migrate(address: DatabaseAddress, ...parameters: string[]): Promise<string> {
  const options = environment({ DATABASE_URL: databaseUrl(address) })
  const { stdout } = await run(process.execPath, [command, ...parameters], options)
  return stdout
}
