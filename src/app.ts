// The map: everything that is mounted, in the order in which a request meets it.
import { Hono } from 'hono'
import type { AppSettings, HousekeepingSettings } from './config.ts'
import { documentation } from './documentation/routes.ts'
import { admit, identify } from './http/access.ts'
import { crossOrigin } from './http/cross-origin.ts'
import type { Environment } from './http/environment.ts'
import { exactPaths, noRoute } from './http/methods.ts'
import { onlyErrors, renderProblems } from './http/problem.ts'
import { rateLimit } from './http/rate-limit.ts'
import { whenThereIsRoom } from './http/memory.ts'
import { inOrder, type Step } from './http/steps.ts'
import { wellFormedUrl } from './http/well-formed.ts'
import { health } from './operations/health.ts'
import { removeExpired } from './idempotency/repository.ts'
import type { Chore } from './operations/housekeeping.ts'
import { metrics } from './operations/metrics.ts'
import { observe } from './operations/observe.ts'
import { tidyChanges } from './products/changes.ts'
import { products } from './products/routes.ts'

/** Its type is what a typed client is made from. */
export type App = ReturnType<typeof createApp>

export function createApp(settings: AppSettings) {
  const app = new Hono<Environment>()
  app.onError(renderProblems)
  app.notFound(noRoute(app))

  app.use(observe)
  app.use(onlyErrors)
  if (settings.corsOrigins) app.use(crossOrigin(settings.corsOrigins))
  app.use(
    inOrder(
      identify(settings.access),
      rateLimit, // before anybody is refused, or keys could be tried out as fast as one likes
      admit(settings.access),
      wellFormedUrl,
      exactPaths(app),
      lendDatabase,
    ),
  )
  app.use('/products/*', whenThereIsRoom)

  return app
    .route('/', health)
    .route('/', metrics)
    .route('/', documentation)
    .route('/products', products)
}

const lendDatabase: Step = (c) =>
  c.set(
    'database',
    c.env.database.forBorrower(() => c.req.raw.signal),
  )

/** What the doors have done now and then. */
export function createChores(settings: HousekeepingSettings): Record<string, Chore> {
  return {
    idempotency_keys: (database) => database.write(removeExpired),
    changes: (database) => tidyChanges(database, settings.changesRetentionMs),
  }
}
