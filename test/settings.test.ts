// The settings: their defaults, all faults at once, and a database URL that holds any character.
import { expect, test } from 'vitest'
import {
  databaseUrl,
  readAppSettings,
  readDatabaseAddress,
  readOwner,
  readSettings,
  SettingsError,
} from '../src/config.ts'
import { digestOf } from '../src/http/access.ts'
import { makeKey } from './support/keys.ts'

const parts = { POSTGRES_USER: 'larder', POSTGRES_PASSWORD: 'secret', POSTGRES_DB: 'larder' }

/** What the door reads files with; here they are these. */
const files: Record<string, string> = {
  '/run/secrets/password': 's3cr3t\n',
  '/run/secrets/crlf': 's3cr3t\r\n',
  '/run/secrets/lines': 's3cr3t \n\n',
  '/run/secrets/user': 'larder',
  '/run/secrets/url': 'postgres://u:s3cr3t@h/d?sslmode=verify-full\n',
  '/run/secrets/wrong-url': 'mysql://u:s3cr3t@h/d',
  '/run/secrets/empty': '',
  '/run/secrets/blank': '\n',
  '/run/root.crt': '-----BEGIN CERTIFICATE-----\n…\n-----END CERTIFICATE-----\n',
}
const readFile = (path: string) => {
  const text = files[path]
  if (text === undefined) throw Object.assign(new Error(`no ${path}`), { code: 'ENOENT' })
  return text
}

function faultsOf(environment: Record<string, string>): string[] {
  try {
    readSettings(environment, readFile)
  } catch (error) {
    if (error instanceof SettingsError)
      return error.message
        .split('\n')
        .slice(1)
        .map((line) => line.trim())
  }
  return []
}

test('what is left out has the default of the table', () => {
  expect(readSettings(parts)).toStrictEqual({
    app: { access: undefined, corsOrigins: undefined },
    database: {
      host: 'localhost',
      port: 5432,
      user: 'larder',
      password: 'secret',
      database: 'larder',
      sslMode: 'disable',
    },
    pool: {
      size: 5,
      maxOverflow: 10,
      timeoutMs: 30_000,
      queue: 1000,
      recycleMs: 3_600_000,
      prePing: true,
      connectTimeoutMs: 10_000,
      statementTimeoutMs: 30_000,
    },
    startUp: { attempts: 5, delayMs: 2000 },
    http: {
      host: '0.0.0.0',
      port: 8000,
      shutdownTimeoutMs: 15_000,
      quota: undefined,
      trustedProxies: 0,
      mostBytesHeld: 33_554_432,
    },
    housekeeping: { changesRetentionMs: 604_800_000 },
    logLevel: 'info',
  })
})

test('every fault is named at once, an empty value counts as missing', () => {
  expect(
    faultsOf({
      POSTGRES_USER: '',
      POSTGRES_PORT: '0',
      POSTGRES_SSLMODE: 'prefer',
      PORT: '65536',
      POOL_SIZE: '0',
      POOL_TIMEOUT: '-1',
      POOL_QUEUE: '-1',
      POOL_PRE_PING: 'maybe',
      STATEMENT_TIMEOUT: '0',
      CONNECT_TIMEOUT: '1e3',
      LOG_LEVEL: 'loud',
      RATE_LIMIT: 'some',
      TRUSTED_PROXIES: '-1',
      API_KEYS: 'key',
      PUBLIC_READS: 'some',
      CORS_ORIGINS: 'shop.example.com',
    }),
  ).toEqual([
    'POSTGRES_USER is required',
    'POSTGRES_PASSWORD is required',
    'POSTGRES_DB is required',
    'POSTGRES_PORT must be a whole number from 1 to 65535',
    'POSTGRES_SSLMODE must be one of disable, require, verify-full',
    'PORT must be a whole number from 0 to 65535',
    'LOG_LEVEL must be one of trace, debug, info, warn, error, fatal, silent',
    'POOL_SIZE must be a whole number from 1 to 1000',
    'POOL_TIMEOUT must be a number of seconds from 0 to 2000000, such as 2 or 0.5',
    'POOL_QUEUE must be a whole number from 0 to 1000000',
    'POOL_PRE_PING must be true or false',
    'CONNECT_TIMEOUT must be a number of seconds from 0.001 to 2000000, such as 2 or 0.5',
    'STATEMENT_TIMEOUT must be a number of seconds from 0.001 to 2000000, such as 2 or 0.5',
    'RATE_LIMIT must be requests/seconds, such as 100/60: up to 1000000 and up to 86400',
    'TRUSTED_PROXIES must be a whole number from 0 to 10',
    'API_KEYS entry 1 must look like name:scope:sha256hex',
    'PUBLIC_READS must be true or false',
    'CORS_ORIGINS must be * or origins such as https://shop.example.com, separated by commas',
  ])
})

test('a message holds no value, for it may be a secret', () => {
  const url = 'postgres://larder:s3cr3t@localhost:5432/?sslmode=s3cr3t'
  expect(faultsOf({ DATABASE_URL: url }).join()).not.toContain('s3cr3t')
  expect(faultsOf({ DATABASE_URL: 's3cr3t' }).join()).not.toContain('s3cr3t')
  const unescaped = 'postgres://u:1234?s3cr3t@10.0.0.1/d'
  expect(faultsOf({ DATABASE_URL: unescaped }).join()).not.toContain('s3cr3t')
  expect(faultsOf({ ...parts, POOL_SIZE: 's3cr3t' }).join()).not.toContain('s3cr3t')
  for (const API_KEYS of [
    's3cr3t',
    's3cr3t:s3cr3t:s3cr3t',
    'a:read:s3cr3t',
    's3cr3t:x',
    ':s3cr3t',
  ]) {
    expect(faultsOf({ ...parts, API_KEYS }).join()).toMatch(/^API_KEYS ((?!s3cr3t).)+$/)
  }
})

test.for(['mysql://u:p@h/d', 'postgres://u:p@h', 'postgres:///d', 'u:p@h/d', 'postgres://u:%@h/d'])(
  'DATABASE_URL %s is refused',
  (url) => {
    expect(faultsOf({ DATABASE_URL: url })).toEqual([
      expect.stringContaining(
        'DATABASE_URL must look like postgres://user:password@host:5432/database',
      ),
    ])
  },
)

test('a parameter that would be ignored is refused', () => {
  expect(faultsOf({ DATABASE_URL: 'postgres://u:p@h/d?max=5&sslmode=require' })).toEqual([
    'DATABASE_URL: no parameter but sslmode is supported',
  ])
})

test('DATABASE_URL takes the place of the parts', () => {
  const url = 'postgresql://u:p@[::1]:6543/d?sslmode=verify-full'
  expect(readDatabaseAddress({ ...parts, DATABASE_URL: url })).toEqual({
    host: '::1',
    port: 6543,
    user: 'u',
    password: 'p',
    database: 'd',
    sslMode: 'verify-full',
  })
})

test('the URL holds any character in any part', () => {
  const printable = Array.from({ length: 95 }, (_, i) => String.fromCharCode(32 + i)).join('')
  for (const text of [printable, 'ü💥 é', '%41', 'a@b/c:d?e#f', '[x]']) {
    for (const host of ['db.example.com', '10.0.0.1', '::1', '/var/run/postgresql']) {
      const address = {
        host,
        port: 5432,
        user: text,
        password: text,
        database: text,
        sslMode: 'require' as const,
      }
      expect(readDatabaseAddress({ DATABASE_URL: databaseUrl(address) })).toEqual(address)
    }
  }
})

test('secrets stand in files, and one line end after them is cut off', () => {
  const { POSTGRES_DB } = parts
  const read = (file: string) =>
    readDatabaseAddress(
      {
        POSTGRES_DB,
        POSTGRES_USER_FILE: '/run/secrets/user',
        POSTGRES_PASSWORD_FILE: `/run/secrets/${file}`,
      },
      readFile,
    )
  expect(read('password')).toMatchObject({ user: 'larder', password: 's3cr3t' })
  expect(read('crlf').password).toBe('s3cr3t')
  expect(read('lines').password).toBe('s3cr3t \n')
  const url = { DATABASE_URL_FILE: '/run/secrets/url', POSTGRES_USER: 'not this one' }
  expect(readDatabaseAddress(url, readFile)).toMatchObject({ user: 'u', password: 's3cr3t' })
  const keys = { API_KEYS_FILE: '/run/secrets/keys' }
  files['/run/secrets/keys'] = `ci:read:${'ab'.repeat(32)}\n`
  expect(readSettings({ ...parts, ...keys }, readFile).app.access?.keys).toHaveLength(1)
  const owner = {
    POSTGRES_OWNER: 'owner',
    POSTGRES_OWNER_PASSWORD_FILE: '/run/secrets/password',
  }
  expect(readOwner(owner, readFile)).toEqual({ user: 'owner', password: 's3cr3t' })
})

test('a secret that is there twice, or not to be read, is a fault that names its setting alone', () => {
  const faults = faultsOf({
    ...parts,
    POSTGRES_USER_FILE: '/run/secrets/user',
    POSTGRES_PASSWORD: '',
    POSTGRES_PASSWORD_FILE: '/run/secrets/s3cr3t',
    API_KEYS_FILE: '/run/secrets/empty',
    POOL_SIZE: '0',
  })
  expect(faults).toEqual([
    'POSTGRES_USER_FILE and POSTGRES_USER are both set',
    'POSTGRES_PASSWORD_FILE names a file that cannot be read (ENOENT)',
    'API_KEYS_FILE names an empty file',
    'POOL_SIZE must be a whole number from 1 to 1000',
  ])
  expect(faultsOf({ DATABASE_URL_FILE: '/run/secrets/blank' })).toEqual([
    'DATABASE_URL_FILE names an empty file',
  ])
  expect(faultsOf({ DATABASE_URL_FILE: '/run/secrets/wrong-url' })).toEqual([
    'DATABASE_URL must look like postgres://user:password@host:5432/database',
  ])
  expect(faultsOf({ ...parts, API_KEYS_FILE: '/run/secrets/password' }).join()).not.toMatch(/s3cr/)
})

test('the service does not look for the secrets of the owner', () => {
  const owner = { POSTGRES_OWNER: 'o', POSTGRES_OWNER_PASSWORD_FILE: '/root/readable-by-root' }
  expect(faultsOf({ ...parts, ...owner })).toEqual([])
  expect(() => readOwner(owner, readFile)).toThrow(
    'POSTGRES_OWNER_PASSWORD_FILE names a file that cannot be read (ENOENT)',
  )
  expect(() => readOwner({ POSTGRES_OWNER: 'o' })).toThrow('POSTGRES_OWNER_PASSWORD is required')
  expect(readOwner({ POSTGRES_OWNER_PASSWORD: 'of nobody' })).toBeUndefined()
})

test('where there are no files, a setting that names one is a fault: it might leave the service open', () => {
  expect(() => readAppSettings({ API_KEYS_FILE: '/run/secrets/keys' })).toThrow(
    'API_KEYS_FILE names a file that cannot be read (no files here)',
  )
})

test('POSTGRES_SSLROOTCERT is read, and is for verify-full alone', () => {
  const root = { POSTGRES_SSLROOTCERT: '/run/root.crt' }
  const authority = files['/run/root.crt']
  const inParts = { ...parts, ...root, POSTGRES_SSLMODE: 'verify-full' }
  expect(readDatabaseAddress(inParts, readFile)).toMatchObject({ authority })
  const byUrl = { ...root, DATABASE_URL_FILE: '/run/secrets/url' }
  expect(readDatabaseAddress(byUrl, readFile)).toMatchObject({ authority, host: 'h' })
  expect(faultsOf({ ...parts, ...root, POSTGRES_SSLMODE: 'require' })).toEqual([
    'POSTGRES_SSLROOTCERT is for the sslmode verify-full alone',
  ])
  expect(faultsOf({ ...inParts, POSTGRES_SSLROOTCERT: '/run/none.crt' })).toEqual([
    'POSTGRES_SSLROOTCERT names a file that cannot be read (ENOENT)',
  ])
  expect(faultsOf({ ...inParts, POSTGRES_SSLROOTCERT: '/run/secrets/password' })).toEqual([
    'POSTGRES_SSLROOTCERT must name a file of certificates (PEM)',
  ])
})

test('DEBUG says more in the log', () => {
  expect(readSettings({ ...parts, DEBUG: 'true' }).logLevel).toBe('debug')
  expect(readSettings({ ...parts, DEBUG: 'true', LOG_LEVEL: 'warn' }).logLevel).toBe('warn')
})

test('RATE_LIMIT is so many requests in so many seconds', () => {
  const read = (RATE_LIMIT: string) => readSettings({ ...parts, RATE_LIMIT }).http.quota
  expect(read('')).toBeUndefined()
  expect(read('100/60')).toEqual({ requests: 100, seconds: 60 })
  expect(read('1/1')).toEqual({ requests: 1, seconds: 1 })
  expect(read('1000000/86400')).toEqual({ requests: 1_000_000, seconds: 86_400 })
})

test.each([
  '100',
  '0/60',
  '100/0',
  '1000001/60',
  '1/86401',
  '1.5/60',
  '10/60s',
  ' 1/1',
  '1/1/1',
  '/',
])('RATE_LIMIT=%s is refused', (RATE_LIMIT) => {
  expect(faultsOf({ ...parts, RATE_LIMIT })).toEqual([
    'RATE_LIMIT must be requests/seconds, such as 100/60: up to 1000000 and up to 86400',
  ])
})

test('API_KEYS names who may do what, by the hash of the key', async () => {
  const ci = makeKey('ci', 'write')
  const ops = makeKey('A-Z.a_z-09', 'admin')
  const { access } = readAppSettings({
    API_KEYS: `${ci.entry}, ${ops.entry.replace(ops.hash, ops.hash.toUpperCase())}`,
  })
  expect(access).toEqual({
    keys: [
      { name: 'ci', scope: 'write', digest: await digestOf(ci.key) },
      { name: 'A-Z.a_z-09', scope: 'admin', digest: await digestOf(ops.key) },
    ],
    publicReads: false,
  })
  expect(access!.keys[0]!.digest).toHaveLength(32)
})

const hash = 'ab'.repeat(32)
const other = 'cd'.repeat(32)

test.for<[string, string[]]>([
  [
    ',',
    ['entry 1 must look like name:scope:sha256hex', 'entry 2 must look like name:scope:sha256hex'],
  ],
  [' ', ['entry 1 must look like name:scope:sha256hex']],
  [`a:read:${hash},`, ['entry 2 must look like name:scope:sha256hex']],
  [`a:read:${hash}:x`, ['entry 1 must look like name:scope:sha256hex']],
  [`:read:${hash}`, ['entry 1 must look like name:scope:sha256hex']],
  [`a b:read:${hash}`, ['entry 1 must have a name of 1 to 64 of A-Z a-z 0-9 . _ -']],
  [`${'x'.repeat(65)}:read:${hash}`, ['entry 1 must have a name of 1 to 64 of A-Z a-z 0-9 . _ -']],
  [`a:Read:${hash}`, ['entry 1 must have one of the scopes read, write, admin']],
  [`a:read:${hash}0`, ['entry 1 must end with the SHA-256 of the key, 64 hex digits']],
  [`a:read:${hash.slice(1)}g`, ['entry 1 must end with the SHA-256 of the key, 64 hex digits']],
  [`a:read:${hash},a:read:${other}`, ['entry 2 has the name of an entry before it']],
  [`a:read:${hash},b:read:${hash.toUpperCase()}`, ['entry 2 has the key of an entry before it']],
  [
    `a:all:x,b:read:${hash},b:write:${hash}`,
    [
      'entry 1 must have one of the scopes read, write, admin',
      'entry 1 must end with the SHA-256 of the key, 64 hex digits',
      'entry 3 has the name of an entry before it',
      'entry 3 has the key of an entry before it',
    ],
  ],
])('API_KEYS=%s is refused', ([value, faults]) => {
  expect(faultsOf({ ...parts, API_KEYS: value })).toEqual(
    faults.map((fault) => `API_KEYS ${fault}`),
  )
})

test('what a Worker has as a variable that is no text does not leave it open', () => {
  for (const API_KEYS of [false, 0, null, [], {}, true, 1]) {
    expect(() => readAppSettings({ API_KEYS })).toThrow('API_KEYS must be text')
  }
  expect(readAppSettings({ API_KEYS: `a:read:${hash}`, PUBLIC_READS: true }).access).toMatchObject({
    publicReads: true,
  })
})

test('CORS_ORIGINS is what browsers send', () => {
  const read = (CORS_ORIGINS: string) => readAppSettings({ CORS_ORIGINS }).corsOrigins
  expect(read('*')).toBe('*')
  expect(read('https://shop.example.com')).toEqual(['https://shop.example.com'])
  const several = ['http://localhost:3000', 'https://[::1]:8443', 'chrome-extension://abcdef']
  expect(read(several.join(' , '))).toEqual(several)
})

test.each([
  ' ',
  'shop.example.com',
  'https://',
  'https://shop.example.com/',
  'https://shop.example.com/path',
  'https://shop.example.com?x',
  'https://shop.example.com:443',
  'https://Shop.example.com',
  'https://user@shop.example.com',
  'https://*.example.com',
  'https://bücher.example',
  'https://shop.example.com,',
  'https://shop.example.com,*',
  'null',
])('CORS_ORIGINS=%s is refused', (value) => {
  expect(faultsOf({ ...parts, CORS_ORIGINS: value })).toEqual([
    'CORS_ORIGINS must be * or origins such as https://shop.example.com, separated by commas',
  ])
})
