// Which methods a path takes, and what a client is told that tries another one.
import type { Hono, NotFoundHandler } from 'hono'
import { methodNotAllowed } from 'hono/method-not-allowed'
import type { Environment } from './environment.ts'
import { Problem, problemResponse } from './problem.ts'
import type { Step } from './steps.ts'

function wrongMethod(methods: string[]): Problem {
  const allow = methods.join(', ')
  return new Problem('method_not_allowed', `This resource takes ${allow}.`, { headers: { allow } })
}

/** For a request that no route takes: 405 where another method would have met one, 404 elsewhere. */
export function noRoute(app: Hono<Environment>): NotFoundHandler<Environment> {
  const tryOthers = methodNotAllowed<Environment>({
    app,
    onMethodNotAllowed: (c, methods) => problemResponse(wrongMethod(methods), c),
  })
  return async (c) => {
    await tryOthers(c, async () => {
      c.res = problemResponse(new Problem('not_found', 'There is no such route.'), c)
    })
    return c.res
  }
}

/**
 * A path that is spelled out is no parameter of another: GET /products/bulk does not ask for the
 * product "bulk". Hono would give it to `/products/:id`, which takes this method.
 */
export function exactPaths(app: Hono<Environment>): Step {
  let methods: Map<string, Set<string>> | undefined
  return function exactPaths(c) {
    methods ??= methodsByPath(app)
    const allowed = methods.get(c.req.path)
    if (allowed && !allowed.has(c.req.method)) throw wrongMethod([...allowed])
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
