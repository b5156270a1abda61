// What an operator's Prometheus reads: the door collects, this counts the answers and hands it out.
import { Hono, type MiddlewareHandler } from 'hono'
import { matchedRoutes } from 'hono/route'
import { answer } from '../http/answer.ts'
import type { Environment } from '../http/environment.ts'
import { Problem } from '../http/problem.ts'

const methods = new Set(['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS'])

/**
 * Times each request until its answer is ready; a body that is streamed comes after that. Clients
 * choose methods and paths, so both are counted under names of ours: Prometheus keeps each for good.
 */
export const countAnswers: MiddlewareHandler<Environment> = async function countAnswers(c, next) {
  const { metrics } = c.env
  if (!metrics) return next()
  const start = performance.now()
  await next()
  metrics.count({
    method: methods.has(c.req.method) ? c.req.method : 'other',
    // As it is mounted, `/products/:id`; what is mounted for every method is no route.
    route: matchedRoutes(c).find(({ method }) => method !== 'ALL')?.path ?? 'none',
    status: c.res.status,
    seconds: (performance.now() - start) / 1000,
  })
}

export const metrics = new Hono<Environment>().get('/metrics', async (c) => {
  if (!c.env.metrics) throw new Problem('not_found', 'There are no metrics on this platform.')
  const { type, text } = await c.env.metrics.read()
  return answer(c, text, 200, { 'content-type': type })
})
