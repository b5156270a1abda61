// Who may do what: a key for each caller, a scope for each key, and what is open to everybody.
import type { Context } from 'hono'
import type { Environment } from './environment.ts'
import { Problem } from './problem.ts'
import type { Step } from './steps.ts'

/** Each includes the ones before it. */
export const scopes = ['read', 'write', 'admin'] as const
export type Scope = (typeof scopes)[number]

export const keyName = /^[A-Za-z0-9._-]{1,64}$/

export interface ApiKey {
  /** Of whom; it is in the log, the key is not. */
  name: string
  scope: Scope
  /** SHA-256 of the key, 32 bytes; the key itself is in no setting. */
  digest: Uint8Array
}

export interface Access {
  keys: ApiKey[]
  /** Reads need no key. */
  publicReads: boolean
}

export const openWarning = 'API_KEYS is not set: whoever reaches the service may read and write'

const openPath = /^\/(health|ready|openapi\.json|docs(\/.*)?)$/s

/** Finds the key of a request and leaves its name and its scope with it; refuses nobody. */
export function identify(rules: Access | undefined): Step {
  // A digest takes 48 µs of CPU (it goes through a thread), a fifth of a GET by id; this takes 3.
  // No more than there are rules, for none but keys that were found get in.
  const found = new Map<string, ApiKey>()

  const keep = (c: Context<Environment>, key?: ApiKey) => {
    c.set('caller', key ? key.name : '')
    c.set('scope', key?.scope)
  }
  return function identify(c) {
    const given = rules && bearer(c.req.header('authorization'))
    const known = given && found.get(given)
    if (!given || known) return keep(c, known || undefined)
    return findKey(rules.keys, given).then((key) => {
      if (key) found.set(given, key)
      keep(c, key)
    })
  }
}

/** Lets through who has the scope that a request needs. Without rules everybody may do everything. */
export function admit(rules: Access | undefined): Step {
  return function admit(c) {
    if (rules && !openPath.test(c.req.path)) {
      const needed = neededScope(c.req.method, c.req.path)
      if (needed !== 'read' || !rules.publicReads) {
        requireScope(needed, c.get('scope'), c.req.header('authorization'))
      }
    }
  }
}

/** SHA-256, 32 bytes. A key is 256 random bits, so a slow hash would slow down nobody but us. */
export async function digestOf(key: string): Promise<Uint8Array> {
  return new Uint8Array(await crypto.subtle.digest('SHA-256', new TextEncoder().encode(key)))
}

/** By the path as the router sees it; a route that is not there needs a scope, too, so none shows. */
function neededScope(method: string, path: string): Scope {
  if (path === '/metrics') return 'admin'
  return method === 'GET' || method === 'HEAD' || path === '/db-test' ? 'read' : 'write'
}

/** What was given as a key; undefined when nothing was, or in another scheme than ours. */
function bearer(authorization = ''): string | undefined {
  return /^bearer +(.+)$/i.exec(authorization)?.[1]
}

/** Goes through all of them, whichever it is: the time tells nothing. */
async function findKey(keys: ApiKey[], given: string): Promise<ApiKey | undefined> {
  const digest = await digestOf(given)
  let found: ApiKey | undefined
  for (const key of keys) if (areEqual(key.digest, digest)) found = key
  return found
}

function areEqual(a: Uint8Array, b: Uint8Array): boolean {
  let difference = a.length ^ b.length
  for (let i = 0; i < a.length; i++) difference |= a[i]! ^ b[i]!
  return difference === 0
}

/** @throws {Problem} `unauthorized` without a known key, `forbidden` with one that is not enough */
function requireScope(needed: Scope, scope: Scope | undefined, authorization?: string): void {
  const challenge = 'Bearer realm="larder"'
  if (!scope) {
    const [detail, header] = bearer(authorization)
      ? ['The key is not known.', `${challenge}, error="invalid_token"`]
      : ['This needs a key, sent as "Authorization: Bearer <key>".', challenge]
    throw new Problem('unauthorized', detail, { headers: { 'www-authenticate': header } })
  }
  if (scopes.indexOf(scope) < scopes.indexOf(needed)) {
    throw new Problem('forbidden', `This needs a key with the scope ${needed}.`, {
      headers: {
        'www-authenticate': `${challenge}, error="insufficient_scope", scope="${needed}"`,
      },
    })
  }
}
