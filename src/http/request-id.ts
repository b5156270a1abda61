// Gives every request an id, the client's own where it is fit to be logged.
import type { MiddlewareHandler } from 'hono'
import type { Environment } from './environment.ts'

const FIT = /^[A-Za-z0-9._-]{1,128}$/

export const newRequestId = (): string => crypto.randomUUID()

export const requestId: MiddlewareHandler<Environment> = async function requestId(c, next) {
  const given = c.req.header('x-request-id')
  c.set('requestId', given !== undefined && FIT.test(given) ? given : newRequestId())
  await next()
}
