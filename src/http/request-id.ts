// Gives every request an id, the client's own where it is fit to be logged.
import type { Context } from 'hono'
import type { Environment } from './environment.ts'

const FIT = /^[A-Za-z0-9._-]{1,128}$/

export function requestIdOf(c: Context<Environment>): string {
  const known = c.get('requestId')
  if (known !== undefined) return known
  const given = c.req.header('x-request-id')
  const id = given !== undefined && FIT.test(given) ? given : crypto.randomUUID()
  c.set('requestId', id)
  return id
}
