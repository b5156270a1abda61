// What a door lends the app with each request, and what the app keeps while it answers.
import type { Database, Pool } from '../database/pool.ts'
import type { Log } from '../operations/log.ts'

export interface Environment {
  /** Node lends a pool made at start, the Worker one made for the request, a test its own. */
  Bindings: {
    database: Pool
    log: Log
    /** True from the signal to stop on. */
    draining: boolean
  }
  Variables: {
    requestId: string
    /** The pool as this request sees it: a wait for a connection ends when the client goes away. */
    database: Database
  }
}
