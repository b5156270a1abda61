// `npm run dev:worker`: the Worker in workerd on this machine, offline, against a real PostgreSQL.
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { databaseUrl, readDatabaseAddress, SettingsError } from '../config.ts'
import { loadEnvironment, readText } from './environment.ts'
import { endGroup, onInterrupt, signalGroup, startGroup } from './processes.ts'

/** Where wrangler looks for the database of the binding HYPERDRIVE in a local run. */
const VARIABLE = 'CLOUDFLARE_HYPERDRIVE_LOCAL_CONNECTION_STRING_HYPERDRIVE'

/** What a deployed Worker has as secrets and variables. */
const SETTINGS = ['API_KEYS', 'API_KEYS_FILE', 'PUBLIC_READS', 'CORS_ORIGINS', 'LOG_LEVEL']

const environment = loadEnvironment()
const env = {
  ...environment,
  [VARIABLE]: findDatabase(),
  // Each of these would ask another host for something.
  WRANGLER_SEND_METRICS: 'false',
  WRANGLER_SEND_ERROR_REPORTS: 'false',
  WRANGLER_HIDE_BANNER: 'true',
  CLOUDFLARE_CF_FETCH_ENABLED: 'false',
}
process.chdir(fileURLToPath(new URL('../..', import.meta.url)))
const wrangler = startGroup(process.execPath, [findWrangler(), ...parameters()], env)
let stopping = false
onInterrupt(
  () => (stopping = wrangler.leader.kill('SIGTERM')),
  () => signalGroup(wrangler.leader, 'SIGKILL'),
)
const code = await wrangler.ended
await endGroup(wrangler)
process.exit(stopping ? 0 : (code ?? 1))

function findDatabase(): string {
  try {
    return process.env[VARIABLE] || databaseUrl(readDatabaseAddress(environment, readText))
  } catch (error) {
    if (!(error instanceof SettingsError)) throw error
    console.error(error.message)
    process.exit(1)
  }
}

function findWrangler(): string {
  return join(
    dirname(createRequire(import.meta.url).resolve('wrangler/package.json')),
    'bin/wrangler.js',
  )
}

function parameters(): string[] {
  const port = process.env['PORT'] || '8787'
  const given = SETTINGS.filter((name) => process.env[name])
  const variables = given.flatMap((name) => ['--var', `${name}:${process.env[name]}`])
  return ['dev', '--local', '--ip', '127.0.0.1', '--port', port, ...variables]
}
