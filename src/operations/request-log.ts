// Writes one line for each request, when its answer is ready.
import type { MiddlewareHandler } from 'hono'
import { requestIdOf } from '../http/request-id.ts'
import type { Environment } from '../http/environment.ts'

export const requestLog: MiddlewareHandler<Environment> = async function requestLog(c, next) {
  const start = performance.now()
  await next()
  c.env.log.info(
    {
      request_id: requestIdOf(c),
      method: c.req.method,
      // As it was sent: decoded, it could hold what some readers take for the end of a line.
      path: new URL(c.req.url).pathname,
      caller: c.get('caller') || undefined,
      status: c.res.status,
      duration_ms: Math.round((performance.now() - start) * 10) / 10,
    },
    'request',
  )
}
