// TLS to the database: verify-full takes the right certificate and no other, for the service and the migrations.
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { beforeAll, expect, test } from 'vitest'
import { databaseUrl } from '../../src/config.ts'
import type { SslMode } from '../../src/database/connection.ts'
import { createApi, expectProblem, product } from '../support/api.ts'
import { atTheEnd } from '../support/clean-up.ts'
import { connect } from '../support/database.ts'
import { migrate, SERVICE_ROLE } from '../support/migrate.ts'
import { run } from '../support/process.ts'
import { runService, startService } from '../support/service.ts'
import {
  type Certificate,
  makeAuthority,
  makeCertificate,
  startTlsServer,
  type TlsServer,
} from '../support/tls.ts'

const command = join(import.meta.dirname, '../../src/cli/migrate.ts')
const HOUR_MS = 3_600_000
/** How long the certificate has that expires under a running service: a start, and a margin. */
const SHORT_LIFE_MS = 15_000

let authority: Certificate
let server: TlsServer
/** The authority's own certificate, as a file. */
let rootFile: string

beforeAll(async () => {
  authority = await makeAuthority('The right one')
  server = await startTlsServer(await makeCertificate({ by: authority }))
  await migrate({ ...server.address, sslMode: 'require' }, 'upgrade')
  const folder = await mkdtemp(join(tmpdir(), 'larder-root-'))
  atTheEnd(() => rm(folder, { recursive: true }))
  rootFile = join(folder, 'root.crt')
  await writeFile(rootFile, authority.cert)
})

/** The settings of the service, by a URL, and those of the migrations, in parts. */
function settings(sslMode: SslMode, host = 'localhost', trust?: Record<string, string>) {
  const { port, user, password, database } = server.address
  const service = { ...server.address, ...SERVICE_ROLE, host, sslMode }
  const trusted = trust ?? (sslMode === 'verify-full' ? { POSTGRES_SSLROOTCERT: rootFile } : {})
  // Time enough to see that nothing is tried a second time.
  const patient = { ...trusted, CONNECT_RETRY_DELAY: '20' }
  return {
    service: { ...patient, DATABASE_URL: databaseUrl(service) },
    migrations: {
      ...patient,
      POSTGRES_HOST: host,
      POSTGRES_PORT: String(port),
      POSTGRES_USER: user,
      POSTGRES_PASSWORD: password,
      POSTGRES_DB: database,
      POSTGRES_SSLMODE: sslMode,
    },
  }
}

async function current(given: Record<string, string>) {
  const { exited, output } = run([command, 'current'], given, 'SIGKILL')
  return { code: (await exited).code, output: output() }
}

async function expectAccepted(given: ReturnType<typeof settings>) {
  const service = await startService(given.service)
  expect((await createApi(service.url).get('/products')).status).toBe(200)
  await service.stop()
  const migrations = await current(given.migrations)
  expect(migrations).toMatchObject({ code: 0, output: expect.stringMatching(/pending: none/) })
}

async function expectRefused(given: ReturnType<typeof settings>, reason: RegExp) {
  const { code, output, log, durationMs } = await runService(given.service)
  expect(code).toBe(1)
  expect(log, output).toHaveLength(1)
  expect(log[0]).toMatchObject({ level: 'fatal', msg: expect.stringMatching(/^cannot start: /) })
  expect(log[0]!['msg']).toMatch(reason)
  expect(durationMs).toBeLessThan(15_000)
  const migrations = await current(given.migrations)
  expect(migrations.code).toBe(1)
  expect(migrations.output).toMatch(reason)
  expect(migrations.output.trim().split('\n')).toHaveLength(1)
  expect(output).not.toContain(SERVICE_ROLE.password)
  expect(migrations.output).not.toContain(`:${server.address.password}@`)
}

test('verify-full takes the certificate of its authority for its host, by name or address', async () => {
  await server.show(await makeCertificate({ by: authority }))
  await expectAccepted(settings('verify-full'))
  await server.show(await makeCertificate({ by: authority, host: '127.0.0.1' }))
  await expectAccepted(settings('verify-full', '127.0.0.1'))
})

test('NODE_EXTRA_CA_CERTS gives the authority, too', async () => {
  await server.show(await makeCertificate({ by: authority }))
  await expectAccepted(settings('verify-full', 'localhost', { NODE_EXTRA_CA_CERTS: rootFile }))
})

test.for<[string, string, (authority: Certificate) => Promise<Certificate>, RegExp]>([
  [
    'of another authority',
    'localhost',
    async () => makeCertificate({ by: await makeAuthority('Another') }),
    /unable to verify the first certificate/,
  ],
  ['signed by itself', 'localhost', () => makeCertificate({}), /self-signed certificate/],
  [
    'for another name',
    'localhost',
    (by) => makeCertificate({ by, host: 'db.example.com' }),
    /Host: localhost. is not in the cert's altnames: DNS:db.example.com/,
  ],
  [
    'for a name, where an address was asked for',
    '127.0.0.1',
    (by) => makeCertificate({ by }),
    /IP: 127.0.0.1 is not in the cert's list/,
  ],
  [
    'that has expired',
    'localhost',
    (by) => makeCertificate({ by, until: new Date(Date.now() - HOUR_MS) }),
    /certificate has expired/,
  ],
  [
    'that is not valid yet',
    'localhost',
    (by) => makeCertificate({ by, from: new Date(Date.now() + HOUR_MS) }),
    /certificate is not yet valid/,
  ],
])('a certificate %s ends the start at once, and require takes it', async ([, host, make, why]) => {
  await server.show(await make(authority))
  await expectRefused(settings('verify-full', host), why)
  await expectAccepted(settings('require', host))
})

test('verify-full trusts no authority that nobody named', async () => {
  await server.show(await makeCertificate({ by: authority }))
  await expectRefused(settings('verify-full', 'localhost', {}), /unable to (verify|get)/)
})

test('POSTGRES_SSLROOTCERT trusts that authority alone', async () => {
  const other = await makeAuthority('Of the web')
  const file = rootFile.replace('root.crt', 'other.crt')
  await writeFile(file, other.cert)
  await server.show(await makeCertificate({ by: other }))
  const trust = { POSTGRES_SSLROOTCERT: rootFile, NODE_EXTRA_CA_CERTS: file }
  await expectRefused(settings('verify-full', 'localhost', trust), /unable to verify/)
})

test('a server that demands TLS ends a start without it, and says so', async () => {
  await expectRefused(settings('disable'), /no pg_hba.conf entry for host .*, no encryption/)
})

test('a certificate that expires under a running service shows when a new connection is made', async () => {
  const dying = await makeCertificate({
    by: authority,
    until: new Date(Date.now() + SHORT_LIFE_MS),
  })
  const expiry = Date.now() + SHORT_LIFE_MS
  await server.show(dying)
  const service = await startService(settings('verify-full').service)
  const api = createApi(service.url)
  expect((await api.get('/products')).status).toBe(200)
  expect(Date.now()).toBeLessThan(expiry)
  await sleep(expiry + 1500 - Date.now())
  // What is connected stays connected.
  expect((await api.get('/products')).status).toBe(200)

  const sql = connect({ ...server.address, sslMode: 'require' })
  atTheEnd(() => sql.end({ timeout: 1 }))
  await sql`select pg_terminate_backend(pid, 5000) from pg_stat_activity where application_name = 'larder'`
  const { detail } = expectProblem(await api.get('/products'), 503, 'unavailable')
  expect(detail).not.toMatch(/certificate|TLS/)
  // Nothing was sent, so nobody is told that it may have taken effect.
  const write = expectProblem(await api.post('/products', product()), 503, 'unavailable')
  expect(write.detail).toContain('Nothing was changed')
  expectProblem(await api.get('/ready'), 503, 'unavailable')
  expect((await api.get('/health')).status).toBe(200)
  expect(service.output()).toContain('certificate has expired')

  await server.show(await makeCertificate({ by: authority }))
  expect((await api.get('/products')).status).toBe(200)
}, 120_000)
