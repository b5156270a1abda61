// The map: everything that is mounted, in the order in which a request meets it.
import { Hono } from 'hono'
import { methodNotAllowed } from 'hono/method-not-allowed'
import type { AppSettings, HousekeepingSettings } from './config.ts'
import { documentation } from './documentation/routes.ts'
import { admit, identify } from './http/access.ts'
import { crossOrigin } from './http/browsers.ts'
import type { Environment } from './http/environment.ts'
import { exactPaths, wrongMethod } from './http/methods.ts'
import { onlyErrors, Problem, problemResponse, renderProblems } from './http/problem.ts'
import { rateLimit } from './http/rate-limit.ts'
import { requestId } from './http/request-id.ts'
import { whenThereIsRoom } from './http/memory.ts'
import { wellFormedUrl } from './http/well-formed.ts'
import { health } from './operations/health.ts'
import { removeExpired } from './idempotency/repository.ts'
import type { Chore } from './operations/housekeeping.ts'
import { countAnswers, metrics } from './operations/metrics.ts'
import { requestLog } from './operations/request-log.ts'
import { tidyChanges } from './products/changes.ts'
import { products } from './products/routes.ts'

/** Its type is what a typed client is made from. */
export type App = ReturnType<typeof createApp>

export function createApp(settings: AppSettings) {
  const app = new Hono<Environment>()
  app.onError(renderProblems)
  app.notFound((c) => problemResponse(new Problem('not_found', 'There is no such route.'), c))

  app.use(requestId)
  app.use(requestLog)
  app.use(countAnswers)
  if (settings.corsOrigins) app.use(crossOrigin(settings.corsOrigins))
  app.use(identify(settings.access))
  app.use(rateLimit) // before anybody is refused, or keys could be tried out as fast as one likes
  app.use(admit(settings.access))
  app.use(
    methodNotAllowed<Environment>({
      app,
      onMethodNotAllowed: (c, methods) => problemResponse(wrongMethod(methods), c),
    }),
  )
  app.use(onlyErrors)
  app.use(wellFormedUrl)
  app.use(exactPaths(app))
  app.use('/products/*', whenThereIsRoom)
  app.use(async function lendDatabase(c, next) {
    c.set(
      'database',
      c.env.database.forBorrower(() => c.req.raw.signal),
    )
    await next()
  })

  return app
    .route('/', health)
    .route('/', metrics)
    .route('/', documentation)
    .route('/products', products)
}

/** What the doors have done now and then. */
export function createChores(settings: HousekeepingSettings): Record<string, Chore> {
  return {
    idempotency_keys: (database) => database.write(removeExpired),
    changes: (database) => tidyChanges(database, settings.changesRetentionMs),
  }
}
