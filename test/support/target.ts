// What the contract is tested on: a database of its own, and the service on the project's runtime.
import { inject } from 'vitest'
import { createApi, type Api } from './api.ts'
import { createDatabase, type TestDatabase } from './database.ts'
import type { Settings } from './environment.ts'
import type { Service } from './process.ts'
import { startService } from './service.ts'
import { startWorker } from './worker.ts'

export interface Target extends Service {
  runtime: 'node' | 'workerd'
  database: TestDatabase
  api: Api
}

/**
 * Starts it for the test, or in `beforeAll` for the file; it is stopped by itself. A RATE_LIMIT is a
 * binding in workerd, and of 10 or 60 seconds.
 */
export async function startTarget(settings: Settings = {}, server?: TestDatabase): Promise<Target> {
  const runtime = inject('runtime')
  const { RATE_LIMIT: rateLimit, ...variables } = settings
  const database = server ?? (await createDatabase())
  const service =
    runtime === 'node'
      ? await startService({ DATABASE_URL: database.url, ...settings })
      : await startWorker({ databaseUrl: database.url, settings: variables, rateLimit })
  return { ...service, runtime, database, api: createApi(service.url) }
}
