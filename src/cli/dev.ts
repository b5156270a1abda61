// `npm run dev`: the whole of Larder on one machine, with nothing to install or to set up.
//
// The database is always its own, whatever POSTGRES_* and DATABASE_URL say: those are for
// `npm start`. PORT and the other settings hold.
import { once } from 'node:events'
import { createServer, type AddressInfo } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { databaseUrl, readSettings } from '../config.ts'
import { openConnection, type DatabaseAddress, type Sql } from '../database/connection.ts'
import { loadEnvironment, readText } from './environment.ts'
import { DEVELOPMENT, startPostgres } from './embedded-postgres.ts'
import {
  endGroup,
  hasEnded,
  onInterrupt,
  signalGroup,
  startGroup,
  type Group,
} from './processes.ts'
import { sampleProducts } from './sample-products.ts'

const HOST = '127.0.0.1'
/** How long the service may take to answer for the first time. */
const START_MS = 20_000

const stopping = new AbortController()
/** What a second Ctrl-C kills; PostgreSQL stops by itself when this process is gone. */
let running: Group | undefined

onInterrupt(
  () => stopping.abort(),
  () => {
    if (running) signalGroup(running.leader, 'SIGKILL')
    process.exit(1)
  },
)
process.chdir(fileURLToPath(new URL('../..', import.meta.url)))
const fault = await dev().catch((error: unknown) => error)
if (!stopping.signal.aborted) {
  console.error(`npm run dev: ${fault instanceof Error ? fault.message : String(fault)}`)
}
process.exit(stopping.signal.aborted ? 0 : 1)

/** Ends only by an exception: a fault, or that of `stopping`. */
async function dev(): Promise<never> {
  const environment = withoutDatabase(loadEnvironment())
  const unknown = { ...environment, DATABASE_URL: 'postgres://not@yet/known' }
  const settings = readSettings(unknown, readText)
  const port = await findPort(settings.http.port)
  const server = await startPostgres({ folder: DEVELOPMENT.folder })
  try {
    const { user, password } = server.address
    const address = { ...server.address, database: DEVELOPMENT.database }
    const url = databaseUrl({ ...address, ...DEVELOPMENT.role })
    const env = { ...environment, DATABASE_URL: url, HOST, PORT: String(port) }
    const owner = { POSTGRES_OWNER: user, POSTGRES_OWNER_PASSWORD: password }
    await createDatabase(server.address)
    const migrate = ['src/cli/migrate.ts', 'upgrade', 'head']
    await withNode(migrate, { ...env, ...owner }, async ({ ended }) => {
      if ((await ended) !== 0) throw new Error('the migrations failed, for the reason above')
    })
    await addSamples(address)
    const watching = ['--watch', '--watch-preserve-output', 'src/node.ts']
    return await withNode(watching, env, async (service) => {
      await firstAnswer(port, service)
      console.log(invitation(`http://${HOST}:${port}`, databaseUrl(address), server.folder))
      await service.ended
      throw new Error('the service has ended')
    })
  } finally {
    await server.stop()
  }
}

/** Emptied and not left out, or `.env` would fill them in again. */
function withoutDatabase(environment: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  const names = Object.keys(environment).filter((name) => /^(DATABASE_URL|POSTGRES_)/.test(name))
  return { ...environment, ...Object.fromEntries(names.map((name) => [name, ''])) }
}

/** Runs Node until `use` is done or a stop is asked for; none of it is left when this returns. */
async function withNode<T>(
  parameters: string[],
  env: NodeJS.ProcessEnv,
  use: (group: Group) => Promise<T>,
): Promise<T> {
  const { signal } = stopping
  signal.throwIfAborted()
  const stopped = once(signal, 'abort').then(() => signal.throwIfAborted())
  const group = (running = startGroup(process.execPath, parameters, env))
  try {
    return (await Promise.race([use(group), stopped])) as T
  } finally {
    await endGroup(group)
  }
}

/** @returns a port that nobody has taken, which `npm run dev` then keeps over restarts */
async function findPort(wanted: number): Promise<number> {
  const probe = createServer().listen(wanted, HOST)
  await once(probe, 'listening').catch((error: Error) => {
    const way = 'end what listens there, or choose another: PORT=8001 npm run dev'
    throw new Error(`port ${wanted} cannot be used (${error.message}): ${way}`)
  })
  const { port } = probe.address() as AddressInfo
  await once(probe.close(), 'close')
  return port
}

async function createDatabase(superuser: DatabaseAddress): Promise<void> {
  await withConnection(superuser, async ({ run, sql }) => {
    const { database } = DEVELOPMENT
    const found = await sql`select from pg_database where datname = ${database}`
    if (found.length === 0) await run(`create database ${database}`)
  })
}

async function addSamples(address: DatabaseAddress): Promise<void> {
  await withConnection(address, async ({ sql }) => {
    const { count } = await sql`
      insert into products (sku, name, description, price, currency, stock, attributes)
      select sku, name, description, price, currency, stock, attributes
      from jsonb_to_recordset(${JSON.stringify(sampleProducts)}::text::jsonb) as sample (
        sku text, name text, description text, price numeric, currency text, stock integer,
        attributes jsonb)
      where not exists (select from products)`
    if (count > 0) console.log(`added ${count} sample products`)
  })
}

async function withConnection(
  address: DatabaseAddress,
  use: (connection: { run: (statement: string) => Promise<string>; sql: Sql }) => Promise<void>,
): Promise<void> {
  const limits = { connectTimeoutMs: 10_000, queryTimeoutMs: 60_000 }
  const connection = openConnection({ address, ...limits, endSockets: true })
  try {
    await use({ run: (statement) => connection.run(statement), sql: connection.lend().sql })
  } finally {
    await connection.close()
  }
}

async function firstAnswer(port: number, { leader }: Group): Promise<void> {
  const deadline = performance.now() + START_MS
  while (performance.now() < deadline && !hasEnded(leader)) {
    const signal = AbortSignal.timeout(1000)
    const answer = await fetch(`http://${HOST}:${port}/health`, { signal }).catch(() => undefined)
    if (answer?.ok) return
    await sleep(100)
  }
  throw new Error('the service did not start, for the reason above')
}

function invitation(service: string, database: string, folder: string): string {
  const json = `-H 'Content-Type: application/json'`
  return `
  Larder:      ${service}
  PostgreSQL:  ${database}
  its data:    ${folder}

  curl '${service}/products?limit=3'
  curl -i ${service}/products/1
  curl -i ${service}/products ${json} -d '{"name": "Butter dish", "price": 24.5}'
  curl -i -X PATCH ${service}/products/1 ${json} -d '{"price": 8.75}'
  curl -g '${service}/products?q=mug&price[lt]=20&sort=-price'
  curl ${service}/products/1/stock ${json} -d '{"delta": 5}'
  ${service}/docs   to read and try all of it

  Changes in src/ restart the service. Ctrl-C ends both; the data stays.
`
}
