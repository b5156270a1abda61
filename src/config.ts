// Every setting of the service, its default and its check, and the one place that builds the database URL.
import { z } from 'zod'
import type { DatabaseAddress, SslMode } from './database/connection.ts'

/** Times are milliseconds here; in the environment they are seconds, decimals allowed. */
export interface Settings {
  database: DatabaseAddress
  pool: {
    size: number
    maxOverflow: number
    timeoutMs: number
    recycleMs: number
    prePing: boolean
    connectTimeoutMs: number
    statementTimeoutMs: number
  }
  startUp: { attempts: number; delayMs: number }
  http: { host: string; port: number; shutdownTimeoutMs: number }
  housekeeping: HousekeepingSettings
  logLevel: (typeof logLevels)[number]
}

/** How long is kept what the service removes by itself. */
export interface HousekeepingSettings {
  changesRetentionMs: number
}

type Environment = Record<string, string | undefined>

export const logLevels = ['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'] as const
const sslModes = ['disable', 'require', 'verify-full'] as const

/** Timers of more than 2^31 ms (some 24 days) overflow in JavaScript and fire at once; this leaves a margin. */
const LONGEST_SECONDS = 2_000_000
/** For what no timer waits for: ten years. */
const LONGEST_KEPT_SECONDS = 315_360_000

const text = z.string('is required')
const integer = (fallback: number, least: number, most: number) =>
  z
    .string()
    .regex(/^\d+$/, { error: `must be a whole number from ${least} to ${most}`, abort: true })
    .transform(Number)
    .refine((n) => n >= least && n <= most, `must be a whole number from ${least} to ${most}`)
    .default(fallback)
const seconds = (fallback: number, least = 0, most = LONGEST_SECONDS) => {
  const expected = `must be a number of seconds from ${least} to ${most}, such as 2 or 0.5`
  return z
    .string()
    .regex(/^\d+(\.\d+)?$/, { error: expected, abort: true })
    .transform(Number)
    .refine((n) => n >= least && n <= most, expected)
    .transform((n) => Math.round(n * 1000))
    .default(fallback * 1000)
}
const boolean = (fallback: boolean) =>
  z.stringbool({ error: 'must be true or false' }).default(fallback)
const choice = <T extends readonly [string, ...string[]]>(values: T, fallback: T[number]) =>
  z.enum(values, `must be one of ${values.join(', ')}`).default(fallback)

const housekeepingSchema = z.object({
  CHANGES_RETENTION: seconds(604_800, 0, LONGEST_KEPT_SECONDS),
})

const serviceSchema = z.object({
  ...housekeepingSchema.shape,
  HOST: z.string().default('0.0.0.0'),
  PORT: integer(8000, 0, 65_535),
  DEBUG: boolean(false),
  LOG_LEVEL: choice(logLevels, 'info'),
  POOL_SIZE: integer(5, 1, 1000),
  POOL_MAX_OVERFLOW: integer(10, 0, 1000),
  POOL_TIMEOUT: seconds(30),
  POOL_RECYCLE: seconds(3600, 0.001),
  POOL_PRE_PING: boolean(true),
  CONNECT_MAX_RETRIES: integer(5, 1, 1_000_000),
  CONNECT_RETRY_DELAY: seconds(2),
  CONNECT_TIMEOUT: seconds(10, 0.001),
  STATEMENT_TIMEOUT: seconds(30, 0.001),
  SHUTDOWN_TIMEOUT: seconds(15),
})

const partsSchema = z.object({
  POSTGRES_USER: text,
  POSTGRES_PASSWORD: text,
  POSTGRES_DB: text,
  POSTGRES_HOST: z.string().default('localhost'),
  POSTGRES_PORT: integer(5432, 1, 65_535),
  POSTGRES_SSLMODE: choice(sslModes, 'disable'),
})

/** Names every fault of the settings, one a line, and never a value: it may be a secret. */
export class SettingsError extends Error {
  override name = 'SettingsError'
  constructor(faults: string[]) {
    super(`the settings are not complete:\n${faults.map((fault) => `  ${fault}`).join('\n')}`)
  }
}

/**
 * Reads the settings of the service from environment variables; an empty one counts as not set.
 * @throws {SettingsError} naming every missing or invalid setting at once
 */
export function readSettings(environment: Environment): Settings {
  const [database, databaseFaults] = readAddress(environment)
  const service = serviceSchema.safeParse(withoutEmpty(environment))
  const faults = [...databaseFaults, ...(service.error ? describe(service.error) : [])]
  if (!database || !service.success || faults.length > 0) throw new SettingsError(faults)
  const env = service.data
  return {
    database,
    pool: {
      size: env.POOL_SIZE,
      maxOverflow: env.POOL_MAX_OVERFLOW,
      timeoutMs: env.POOL_TIMEOUT,
      recycleMs: env.POOL_RECYCLE,
      prePing: env.POOL_PRE_PING,
      connectTimeoutMs: env.CONNECT_TIMEOUT,
      statementTimeoutMs: env.STATEMENT_TIMEOUT,
    },
    startUp: { attempts: env.CONNECT_MAX_RETRIES, delayMs: env.CONNECT_RETRY_DELAY },
    http: { host: env.HOST, port: env.PORT, shutdownTimeoutMs: env.SHUTDOWN_TIMEOUT },
    housekeeping: { changesRetentionMs: env.CHANGES_RETENTION },
    logLevel: env.DEBUG && env.LOG_LEVEL === 'info' ? 'debug' : env.LOG_LEVEL,
  }
}

/**
 * The part of the settings that the Worker's housekeeping needs.
 * @throws {SettingsError} naming every invalid setting at once
 */
export function readHousekeeping(environment: Environment): HousekeepingSettings {
  const { data, error } = housekeepingSchema.safeParse(withoutEmpty(environment))
  if (error) throw new SettingsError(describe(error))
  return { changesRetentionMs: data.CHANGES_RETENTION }
}

/**
 * The part of the settings that the migrations and the Worker's local run need.
 * @throws {SettingsError} naming every missing or invalid setting at once
 */
export function readDatabaseAddress(environment: Environment): DatabaseAddress {
  const [address, faults] = readAddress(environment)
  if (!address) throw new SettingsError(faults)
  return address
}

/** The address as a URL, every part escaped: what `DATABASE_URL` and Hyperdrive's local run take. */
export function databaseUrl(address: DatabaseAddress): string {
  const { host, port, user, password, database, sslMode } = address
  const name = host.includes(':') ? `[${host}]` : encodeURIComponent(host)
  const credentials = `${encodeURIComponent(user)}:${encodeURIComponent(password)}`
  return `postgres://${credentials}@${name}:${port}/${encodeURIComponent(database)}?sslmode=${sslMode}`
}

function readAddress(environment: Environment): [DatabaseAddress | undefined, string[]] {
  const given = withoutEmpty(environment)
  if (given['DATABASE_URL'] !== undefined) return parseUrl(given['DATABASE_URL'])
  const parts = partsSchema.safeParse(given)
  if (!parts.success) return [undefined, describe(parts.error)]
  const env = parts.data
  return [
    {
      host: env.POSTGRES_HOST,
      port: env.POSTGRES_PORT,
      user: env.POSTGRES_USER,
      password: env.POSTGRES_PASSWORD,
      database: env.POSTGRES_DB,
      sslMode: env.POSTGRES_SSLMODE,
    },
    [],
  ]
}

function parseUrl(value: string): [DatabaseAddress | undefined, string[]] {
  const expected = 'DATABASE_URL must look like postgres://user:password@host:5432/database'
  let address: DatabaseAddress
  const faults: string[] = []
  try {
    const url = new URL(value)
    const sslMode = url.searchParams.get('sslmode') ?? 'disable'
    address = {
      host: decodeURIComponent(url.hostname).replace(/^\[(.*)\]$/, '$1'),
      port: Number(url.port || 5432),
      user: decodeURIComponent(url.username),
      password: decodeURIComponent(url.password),
      database: decodeURIComponent(url.pathname.slice(1)),
      sslMode: sslMode as SslMode,
    }
    if (!/^postgres(ql)?:$/.test(url.protocol) || !address.host || !address.user) {
      faults.push(expected)
    } else if (!address.database) {
      faults.push(`${expected}; it names no database`)
    }
    if (!sslModes.some((mode) => mode === sslMode)) {
      faults.push(`DATABASE_URL: sslmode must be one of ${sslModes.join(', ')}`)
    }
    // Not by its name: with a password that holds a question mark, it would be a part of that.
    if ([...url.searchParams.keys()].some((name) => name !== 'sslmode')) {
      faults.push('DATABASE_URL: no parameter but sslmode is supported')
    }
  } catch {
    return [undefined, [`${expected}, with special characters percent-encoded`]]
  }
  return faults.length > 0 ? [undefined, faults] : [address, []]
}

function withoutEmpty(environment: Environment): Record<string, string> {
  return Object.fromEntries(
    Object.entries(environment).filter((entry): entry is [string, string] => !!entry[1]),
  )
}

function describe(error: z.ZodError): string[] {
  return error.issues.map((issue) => `${issue.path.join('.')} ${issue.message}`)
}
