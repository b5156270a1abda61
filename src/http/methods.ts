// Which methods a path takes, and what a client is told that tries another one.
import type { Hono, MiddlewareHandler } from 'hono'
import type { Environment } from './environment.ts'
import { Problem } from './problem.ts'

export function wrongMethod(methods: string[]): Problem {
  const allow = methods.join(', ')
  return new Problem('method_not_allowed', `This resource takes ${allow}.`, { headers: { allow } })
}

/**
 * A path that is spelled out is no parameter of another: GET /products/bulk does not ask for the
 * product "bulk". Hono would give it to `/products/:id`, which takes this method.
 */
export function exactPaths(app: Hono<Environment>): MiddlewareHandler<Environment> {
  let methods: Map<string, Set<string>> | undefined
  return async function exactPaths(c, next) {
    methods ??= methodsByPath(app)
    const allowed = methods.get(c.req.path)
    if (allowed && !allowed.has(c.req.method)) throw wrongMethod([...allowed])
    await next()
  }
}

function methodsByPath({ routes }: Hono<Environment>): Map<string, Set<string>> {
  const methods = new Map<string, Set<string>>()
  for (const { path, method } of routes) {
    if (method === 'ALL' || /[:*]/.test(path)) continue
    const allowed = methods.get(path) ?? new Set()
    allowed.add(method)
    if (method === 'GET') allowed.add('HEAD')
    methods.set(path, allowed)
  }
  return methods
}
