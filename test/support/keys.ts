// API keys for a test: the key, and its entry for API_KEYS.
import { createHash, randomBytes } from 'node:crypto'

export interface Key {
  key: string
  hash: string
  /** `name:scope:sha256hex` */
  entry: string
  headers: { authorization: string }
}

export function makeKey(name: string, scope: string): Key {
  const key = `test_${randomBytes(32).toString('base64url')}`
  const hash = createHash('sha256').update(key).digest('hex')
  const headers = { authorization: `Bearer ${key}` }
  return { key, hash, entry: `${name}:${scope}:${hash}`, headers }
}
