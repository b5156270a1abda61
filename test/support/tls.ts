// A PostgreSQL that lets nobody in without TLS, and the certificates that it shows.
import { X509Certificate } from 'node:crypto'
import { once } from 'node:events'
import { chmod, chown, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { connect as connectSocket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { connect as connectTls } from 'node:tls'
import { generate } from 'selfsigned'
import { expect } from 'vitest'
import { startPostgres } from '../../src/cli/embedded-postgres.ts'
import { findAccount } from '../../src/cli/postgres-binaries.ts'
import type { DatabaseAddress } from '../../src/database/connection.ts'
import { atTheEnd } from './clean-up.ts'
import { connect } from './database.ts'

export interface Certificate {
  cert: string
  private: string
}

export interface TlsServer {
  /** The superuser's way in; it says nothing of TLS. */
  address: DatabaseAddress
  /** From the next connection on; those that are there go on with what they had. */
  show: (certificate: Certificate) => Promise<void>
}

interface Issue {
  /** A name, or an address. */
  host?: string
  from?: Date
  until?: Date
  /** Whose signature it has; its own when left out. */
  by?: Certificate
}

const EC = { keyType: 'ec', algorithm: 'sha256' } as const
const DAY_MS = 86_400_000

export function makeAuthority(name: string): Promise<Certificate> {
  return generate([{ name: 'commonName', value: name }], {
    ...EC,
    extensions: [
      { name: 'basicConstraints', cA: true, critical: true },
      { name: 'keyUsage', keyCertSign: true, cRLSign: true, critical: true },
    ],
  })
}

/** Valid from yesterday until tomorrow, for `localhost`, if nothing else is said. */
export function makeCertificate({ host = 'localhost', from, until, by }: Issue) {
  const isAddress = /^[\d.]+$/.test(host)
  return generate([{ name: 'commonName', value: 'PostgreSQL' }], {
    ...EC,
    notBeforeDate: from ?? new Date(Date.now() - DAY_MS),
    notAfterDate: until ?? new Date(Date.now() + DAY_MS),
    extensions: [
      { name: 'basicConstraints', cA: false },
      { name: 'extKeyUsage', serverAuth: true },
      {
        name: 'subjectAltName',
        altNames: [isAddress ? { type: 7, ip: host } : { type: 2, value: host }],
      },
    ],
    ...(by ? { ca: { key: by.private, cert: by.cert } } : {}),
  })
}

export async function startTlsServer(first: Certificate): Promise<TlsServer> {
  const account = await findAccount(undefined)
  const folder = await mkdtemp(join(tmpdir(), 'larder-tls-'))
  await chmod(folder, 0o755)
  atTheEnd(() => rm(folder, { recursive: true }))
  const write = async (name: string, text: string) => {
    const path = join(folder, name)
    await writeFile(path, text, { mode: 0o600 })
    if (account) await chown(path, account.uid, account.gid)
    return path
  }
  const writePair = async (certificate: Certificate) => ({
    ssl_cert_file: await write('server.crt', certificate.cert),
    ssl_key_file: await write('server.key', certificate.private),
  })
  const server = await startPostgres({
    settings: {
      ssl: 'on',
      ...(await writePair(first)),
      hba_file: await write('pg_hba.conf', 'hostssl all all 127.0.0.1/32 scram-sha-256\n'),
    },
  })
  atTheEnd(() => server.stop())
  const { address } = server
  return {
    address,
    async show(certificate) {
      await writePair(certificate)
      const sql = connect({ ...address, sslMode: 'require' })
      await sql`select pg_reload_conf()`
      await sql.end()
      const { fingerprint256 } = new X509Certificate(certificate.cert)
      await expect.poll(() => shownBy(address)).toBe(fingerprint256)
    },
  }
}

/** The fingerprint of the certificate that a new connection sees. */
async function shownBy({ host, port }: DatabaseAddress): Promise<string> {
  const socket = connectSocket(port, host)
  const request = Buffer.alloc(8)
  request.writeInt32BE(8)
  request.writeInt32BE(80_877_103, 4) // SSLRequest
  socket.write(request)
  await once(socket, 'data')
  const secure = connectTls({ socket, rejectUnauthorized: false })
  await once(secure, 'secureConnect')
  const { fingerprint256 } = secure.getPeerCertificate()
  secure.destroy()
  return fingerprint256
}
