// The map: everything that is mounted, in the order in which a request meets it.
import { Hono } from 'hono'
import { methodNotAllowed } from 'hono/method-not-allowed'
import { documentation } from './documentation/routes.ts'
import type { Environment } from './http/environment.ts'
import { onlyErrors, Problem, problemResponse, renderProblems } from './http/problem.ts'
import { requestId } from './http/request-id.ts'
import { wellFormedUrl } from './http/well-formed.ts'
import { health } from './operations/health.ts'
import { requestLog } from './operations/request-log.ts'
import { products } from './products/routes.ts'

export function createApp() {
  const app = new Hono<Environment>()
  app.onError(renderProblems())
  app.notFound((c) =>
    problemResponse(new Problem('not_found', 'There is no such route.'), c.var.requestId),
  )

  app.use(requestId)
  app.use(requestLog)
  app.use(
    methodNotAllowed<Environment>({
      app,
      onMethodNotAllowed: (c, methods) =>
        problemResponse(
          new Problem('method_not_allowed', `This resource takes ${methods.join(', ')}.`, {
            headers: { allow: methods.join(', ') },
          }),
          c.var.requestId,
        ),
    }),
  )
  app.use(onlyErrors)
  app.use(wellFormedUrl)
  app.use(async function lendDatabase(c, next) {
    c.set(
      'database',
      c.env.database.forBorrower(() => c.req.raw.signal),
    )
    await next()
  })

  return app.route('/', health).route('/', documentation).route('/products', products)
}
