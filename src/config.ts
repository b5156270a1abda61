// Every setting of the service, its default and its check, and the one place that builds the database URL.
import * as z from 'zod'
import type { DatabaseAddress, SslMode } from './database/connection.ts'
import { type Access, type ApiKey, keyName, scopes } from './http/access.ts'
import type { CorsOrigins } from './http/cross-origin.ts'
import type { Quota } from './http/rate-limit.ts'

/** What both doors read. */
export interface AppSettings {
  /** Undefined: everybody may do everything. */
  access: Access | undefined
  /** Undefined: pages of other origins are told nothing. */
  corsOrigins: CorsOrigins | undefined
}

/** Times are milliseconds here; in the environment they are seconds, decimals allowed. */
export interface Settings {
  app: AppSettings
  database: DatabaseAddress
  pool: {
    size: number
    maxOverflow: number
    timeoutMs: number
    queue: number
    recycleMs: number
    prePing: boolean
    connectTimeoutMs: number
    statementTimeoutMs: number
  }
  startUp: { attempts: number; delayMs: number }
  http: {
    host: string
    port: number
    shutdownTimeoutMs: number
    /** Of each client; undefined: everybody may ask as often as they like. */
    quota: Quota | undefined
    trustedProxies: number
    mostBytesHeld: number
  }
  housekeeping: HousekeepingSettings
  logLevel: (typeof logLevels)[number]
}

/** How long is kept what the service removes by itself. */
export interface HousekeepingSettings {
  changesRetentionMs: number
}

type Environment = Record<string, string | undefined>

/** The text of a file. It is the door's: nothing below knows of files. Throws when there is none. */
export type ReadFile = (path: string) => string

export const logLevels = ['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'] as const
const sslModes = ['disable', 'require', 'verify-full'] as const
/** These may stand in a file instead, named by the same setting with `_FILE`. */
const inFiles = {
  database: ['DATABASE_URL', 'POSTGRES_USER', 'POSTGRES_PASSWORD', 'POSTGRES_DB'],
  owner: ['POSTGRES_OWNER_PASSWORD'],
  app: ['API_KEYS'],
}

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
const boolean = (fallback: boolean) => {
  const error = 'must be true or false'
  // A variable of a Worker may be a boolean itself.
  return z.union([z.stringbool({ error }), z.boolean()], { error }).default(fallback)
}
const choice = <T extends readonly [string, ...string[]]>(values: T, fallback: T[number]) =>
  z.enum(values, `must be one of ${values.join(', ')}`).default(fallback)

const expectedQuota = 'must be requests/seconds, such as 100/60: up to 1000000 and up to 86400'
const quota = z
  .string()
  .regex(/^[1-9]\d*\/[1-9]\d*$/, { error: expectedQuota, abort: true })
  .transform((text): Quota => {
    const [requests, seconds] = text.split('/').map(Number) as [number, number]
    return { requests, seconds }
  })
  .refine(({ requests, seconds }) => requests <= 1_000_000 && seconds <= 86_400, expectedQuota)

const housekeepingSchema = z.object({
  CHANGES_RETENTION: seconds(604_800, 0, LONGEST_KEPT_SECONDS),
})

const appSchema = z.object({
  API_KEYS: z.string('must be text').transform(parseKeys).optional(),
  PUBLIC_READS: boolean(false),
  CORS_ORIGINS: z
    .string('must be text')
    .transform((value) => (value === '*' ? value : value.split(',').map((part) => part.trim())))
    .refine(
      (origins) => origins === '*' || origins.every(isOrigin),
      'must be * or origins such as https://shop.example.com, separated by commas',
    )
    .optional(),
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
  POOL_QUEUE: integer(1000, 0, 1_000_000),
  POOL_RECYCLE: seconds(3600, 0.001),
  POOL_PRE_PING: boolean(true),
  CONNECT_MAX_RETRIES: integer(5, 1, 1_000_000),
  CONNECT_RETRY_DELAY: seconds(2),
  CONNECT_TIMEOUT: seconds(10, 0.001),
  STATEMENT_TIMEOUT: seconds(30, 0.001),
  SHUTDOWN_TIMEOUT: seconds(15),
  RATE_LIMIT: quota.optional(),
  TRUSTED_PROXIES: integer(0, 0, 10),
  HTTP_MEMORY: integer(32, 16, 1_000_000),
})

const partsSchema = z.object({
  POSTGRES_USER: text,
  POSTGRES_PASSWORD: text,
  POSTGRES_DB: text,
  POSTGRES_HOST: z.string().default('localhost'),
  POSTGRES_PORT: integer(5432, 1, 65_535),
  POSTGRES_SSLMODE: choice(sslModes, 'disable'),
})

const authoritySchema = z.object({
  POSTGRES_SSLROOTCERT: text.optional(),
})

const ownerSchema = z.object({
  POSTGRES_OWNER: text,
  POSTGRES_OWNER_PASSWORD: text,
})

/** Names every fault of the settings, one a line, and never a value: it may be a secret. */
export class SettingsError extends Error {
  override name = 'SettingsError'
  readonly faults: string[]
  constructor(faults: string[]) {
    super(`the settings are not complete:\n${faults.map((fault) => `  ${fault}`).join('\n')}`)
    this.faults = faults
  }
}

/**
 * Reads the settings of the service from environment variables; an empty one counts as not set.
 * @throws {SettingsError} naming every missing or invalid setting at once
 */
export function readSettings(environment: Environment, readFile: ReadFile = noFiles): Settings {
  const names = [...inFiles.database, ...inFiles.app]
  const [given, fileFaults, isJudged] = withFiles(environment, names, readFile)
  const [database, databaseFaults] = readAddress(given, readFile)
  const service = serviceSchema.safeParse(given)
  const [app, appFaults] = parseApp(given)
  const serviceFaults = service.error ? describe(service.error) : []
  const valueFaults = [...databaseFaults, ...serviceFaults, ...appFaults].filter(isJudged)
  const faults = [...fileFaults, ...valueFaults]
  if (faults.length > 0 || !database || !service.success || !app) throw new SettingsError(faults)
  const env = service.data
  return {
    app,
    database,
    pool: {
      size: env.POOL_SIZE,
      maxOverflow: env.POOL_MAX_OVERFLOW,
      timeoutMs: env.POOL_TIMEOUT,
      queue: env.POOL_QUEUE,
      recycleMs: env.POOL_RECYCLE,
      prePing: env.POOL_PRE_PING,
      connectTimeoutMs: env.CONNECT_TIMEOUT,
      statementTimeoutMs: env.STATEMENT_TIMEOUT,
    },
    startUp: { attempts: env.CONNECT_MAX_RETRIES, delayMs: env.CONNECT_RETRY_DELAY },
    http: {
      host: env.HOST,
      port: env.PORT,
      shutdownTimeoutMs: env.SHUTDOWN_TIMEOUT,
      quota: env.RATE_LIMIT,
      trustedProxies: env.TRUSTED_PROXIES,
      mostBytesHeld: env.HTTP_MEMORY * 1024 * 1024,
    },
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
 * The part of the settings that the Worker reads, too, from its variables and secrets.
 * @throws {SettingsError} naming every invalid setting at once
 */
export function readAppSettings(environment: Record<string, unknown>): AppSettings {
  const [given, fileFaults, isJudged] = withFiles(environment, inFiles.app, noFiles)
  const [settings, valueFaults] = parseApp(given)
  const faults = [...fileFaults, ...valueFaults.filter(isJudged)]
  if (faults.length > 0 || !settings) throw new SettingsError(faults)
  return settings
}

/**
 * The part of the settings that made-up products and the Worker's local run need.
 * @throws {SettingsError} naming every missing or invalid setting at once
 */
export function readDatabaseAddress(
  environment: Environment,
  readFile: ReadFile = noFiles,
): DatabaseAddress {
  const [given, fileFaults, isJudged] = withFiles(environment, inFiles.database, readFile)
  const [address, valueFaults] = readAddress(given, readFile)
  const faults = [...fileFaults, ...valueFaults.filter(isJudged)]
  if (faults.length > 0 || !address) throw new SettingsError(faults)
  return address
}

/**
 * Who changes the schema, when that is not the service's own role.
 * @throws {SettingsError} naming every missing or invalid setting at once
 */
export function readOwner(
  environment: Environment,
  readFile: ReadFile = noFiles,
): Pick<DatabaseAddress, 'user' | 'password'> | undefined {
  const [given, fileFaults, isJudged] = withFiles(environment, inFiles.owner, readFile)
  if (given['POSTGRES_OWNER'] === undefined) return undefined
  const { data, error } = ownerSchema.safeParse(given)
  const faults = [...fileFaults, ...(error ? describe(error) : []).filter(isJudged)]
  if (faults.length > 0 || !data) throw new SettingsError(faults)
  return { user: data.POSTGRES_OWNER, password: data.POSTGRES_OWNER_PASSWORD }
}

/** The address as a URL, every part escaped: what `DATABASE_URL` and Hyperdrive's local run take. */
export function databaseUrl(address: DatabaseAddress): string {
  const { host, port, user, password, database, sslMode } = address
  const name = host.includes(':') ? `[${host}]` : encodeURIComponent(host)
  const credentials = `${encodeURIComponent(user)}:${encodeURIComponent(password)}`
  return `postgres://${credentials}@${name}:${port}/${encodeURIComponent(database)}?sslmode=${sslMode}`
}

function parseApp(environment: Record<string, unknown>): [AppSettings | undefined, string[]] {
  const parsed = appSchema.safeParse(withoutEmpty(environment))
  if (!parsed.success) return [undefined, describe(parsed.error)]
  const { API_KEYS: keys, PUBLIC_READS: publicReads, CORS_ORIGINS: corsOrigins } = parsed.data
  return [{ access: keys && { keys, publicReads }, corsOrigins }, []]
}

/** Faults are told by the place of the entry: what stands there may be a key itself. */
function parseKeys(value: string, { issues }: z.RefinementCtx): ApiKey[] {
  const seen = new Set<string>()
  return value.split(',').flatMap((entry, i) => {
    const fault = (message: string) =>
      issues.push({ code: 'custom', input: value, message: `entry ${i + 1} ${message}` })
    const isRepeated = (part: string) => seen.has(part) || !seen.add(part)
    const [name, scopeName, hash, ...more] = entry.trim().split(':')
    if (!name || !scopeName || !hash || more.length > 0) {
      fault('must look like name:scope:sha256hex')
      return []
    }
    const scope = scopes.find((known) => known === scopeName)
    const digits = hash.toLowerCase()
    if (!keyName.test(name)) fault('must have a name of 1 to 64 of A-Z a-z 0-9 . _ -')
    else if (isRepeated(`name ${name}`)) fault('has the name of an entry before it')
    if (!scope) fault(`must have one of the scopes ${scopes.join(', ')}`)
    if (!/^[0-9a-f]{64}$/.test(digits)) fault('must end with the SHA-256 of the key, 64 hex digits')
    else if (isRepeated(`hash ${digits}`)) fault('has the key of an entry before it')
    const digest = Uint8Array.from(digits.match(/../g) ?? [], (pair) => parseInt(pair, 16))
    return scope ? { name, scope, digest } : []
  })
}

/** As browsers send it: lower case, no port that goes without saying, no path. */
function isOrigin(text: string): boolean {
  const url = URL.parse(text)
  return !!url?.host && !url.host.includes('*') && `${url.protocol}//${url.host}` === text
}

function readAddress(
  given: Record<string, string>,
  readFile: ReadFile,
): [DatabaseAddress | undefined, string[]] {
  const [address, faults] = readServer(given)
  const path = authoritySchema.parse(given).POSTGRES_SSLROOTCERT
  if (path === undefined) return [address, faults]
  const [authority, fault] = readAuthority(path, readFile)
  if (fault !== undefined) return [undefined, [...faults, fault]]
  if (!address) return [undefined, faults]
  // Taken and left aside, it would look like a check.
  if (address.sslMode !== 'verify-full') {
    return [undefined, ['POSTGRES_SSLROOTCERT is for the sslmode verify-full alone']]
  }
  return [{ ...address, authority }, []]
}

function readAuthority(
  path: string,
  readFile: ReadFile,
): [text: string, fault?: undefined] | [text: undefined, fault: string] {
  try {
    const text = readFile(path)
    if (text.includes('-----BEGIN CERTIFICATE-----')) return [text]
    return [undefined, 'POSTGRES_SSLROOTCERT must name a file of certificates (PEM)']
  } catch (error) {
    return [undefined, `POSTGRES_SSLROOTCERT names a file that ${unreadable(error)}`]
  }
}

function readServer(given: Record<string, string>): [DatabaseAddress | undefined, string[]] {
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

/**
 * The settings, with those that stand in files taken in and a line end after them cut off; the faults
 * of these files; and which of the faults that are found later are still worth telling: not those of
 * a value that could not be read.
 */
function withFiles<T>(
  environment: Record<string, T | undefined>,
  names: string[],
  readFile: ReadFile,
): [given: Record<string, T | string>, faults: string[], isJudged: (fault: string) => boolean] {
  const given: Record<string, T | string> = withoutEmpty(environment)
  const faults: string[] = []
  const unread: string[] = []
  for (const name of names) {
    const path = given[`${name}_FILE`]
    if (path === undefined) continue
    const fault = (message: string) => {
      faults.push(`${name}_FILE ${message}`)
      unread.push(name)
      given[name] ??= 'not read'
    }
    if (given[name] !== undefined) {
      fault(`and ${name} are both set`)
      continue
    }
    try {
      const value = readFile(String(path)).replace(/\r?\n$/, '')
      if (value === '') fault('names an empty file')
      else given[name] = value
    } catch (error) {
      fault(`names a file that ${unreadable(error)}`)
    }
  }
  return [given, faults, (told) => !unread.some((name) => told.startsWith(name))]
}

/** Never the message: it holds the path, and that may be a secret put into the wrong setting. */
function unreadable(error: unknown): string {
  return `cannot be read (${String((error as { code?: unknown }).code)})`
}

function noFiles(): never {
  throw Object.assign(new Error('there are no files here'), { code: 'no files here' })
}

function withoutEmpty<T>(environment: Record<string, T | undefined>): Record<string, T> {
  return Object.fromEntries(
    Object.entries(environment).filter(
      (entry): entry is [string, T] => entry[1] !== undefined && entry[1] !== '',
    ),
  )
}

function describe(error: z.ZodError): string[] {
  return error.issues.map((issue) => `${issue.path.join('.')} ${issue.message}`)
}
