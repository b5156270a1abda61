// The settings: their defaults, all faults at once, and a database URL that holds any character.
import { expect, test } from 'vitest'
import { databaseUrl, readDatabaseAddress, readSettings, SettingsError } from '../src/config.ts'

const parts = { POSTGRES_USER: 'larder', POSTGRES_PASSWORD: 'secret', POSTGRES_DB: 'larder' }

function faultsOf(environment: Record<string, string>): string[] {
  try {
    readSettings(environment)
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
  expect(readSettings(parts)).toEqual({
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
      recycleMs: 3_600_000,
      prePing: true,
      connectTimeoutMs: 10_000,
      statementTimeoutMs: 30_000,
    },
    startUp: { attempts: 5, delayMs: 2000 },
    http: { host: '0.0.0.0', port: 8000, shutdownTimeoutMs: 15_000 },
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
      POOL_PRE_PING: 'maybe',
      STATEMENT_TIMEOUT: '0',
      CONNECT_TIMEOUT: '1e3',
      LOG_LEVEL: 'loud',
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
    'POOL_PRE_PING must be true or false',
    'CONNECT_TIMEOUT must be a number of seconds from 0.001 to 2000000, such as 2 or 0.5',
    'STATEMENT_TIMEOUT must be a number of seconds from 0.001 to 2000000, such as 2 or 0.5',
  ])
})

test('a message holds no value, for it may be a secret', () => {
  const url = 'postgres://larder:s3cr3t@localhost:5432/?sslmode=s3cr3t'
  expect(faultsOf({ DATABASE_URL: url }).join()).not.toContain('s3cr3t')
  expect(faultsOf({ DATABASE_URL: 's3cr3t' }).join()).not.toContain('s3cr3t')
  const unescaped = 'postgres://u:1234?s3cr3t@10.0.0.1/d'
  expect(faultsOf({ DATABASE_URL: unescaped }).join()).not.toContain('s3cr3t')
  expect(faultsOf({ ...parts, POOL_SIZE: 's3cr3t' }).join()).not.toContain('s3cr3t')
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

test('DEBUG says more in the log', () => {
  expect(readSettings({ ...parts, DEBUG: 'true' }).logLevel).toBe('debug')
  expect(readSettings({ ...parts, DEBUG: 'true', LOG_LEVEL: 'warn' }).logLevel).toBe('warn')
})
