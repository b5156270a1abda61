// Writes one line for each request, and counts it, when its answer is ready.
import type { MiddlewareHandler } from 'hono'
import { matchedRoutes } from 'hono/route'
import type { Environment } from '../http/environment.ts'
import { requestIdOf } from '../http/request-id.ts'

const methods = new Set(['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS'])

/** A body that is streamed comes after that. */
export const observe: MiddlewareHandler<Environment> = async function observe(c, next) {
  const start = performance.now()
  await next()
  const { method, url } = c.req
  const { status } = c.res
  const ms = performance.now() - start
  c.env.log.info(
    {
      request_id: requestIdOf(c),
      method,
      path: pathAsSent(url),
      caller: c.get('caller') || undefined,
      status,
      duration_ms: Math.round(ms * 10) / 10,
    },
    'request',
  )
  // Clients choose methods and paths, so both go by names of ours: Prometheus keeps each for good.
  c.env.metrics?.count({
    method: methods.has(method) ? method : 'other',
    // As it is mounted, `/products/:id`; what is mounted for every method is no route.
    route: matchedRoutes(c).find((route) => route.method !== 'ALL')?.path ?? 'none',
    status,
    seconds: ms / 1000,
  })
}

/** Decoded, it could hold what some readers take for the end of a line. */
function pathAsSent(url: string): string {
  if (!PLAIN.test(url)) return new URL(url).pathname
  const start = url.indexOf('/', 'https://'.length)
  const end = url.indexOf('?', start)
  return end < 0 ? url.slice(start) : url.slice(start, end)
}

const PLAIN = /^https?:\/\/[!-~]+\/[!-~]*$/
