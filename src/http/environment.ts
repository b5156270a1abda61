// What a door lends the app with each request, and what the app keeps while it answers.
import type { Lanes, Pool } from '../database/pool.ts'
import type { Scope } from './access.ts'
import type { Memory } from './memory.ts'
import type { ConstraintFaults } from './problem.ts'
import type { RateLimiter } from './rate-limit.ts'

export interface Log {
  debug(fields: object, message: string): void
  info(fields: object, message: string): void
  warn(fields: object, message: string): void
  error(fields: object, message: string): void
  fatal(fields: object, message: string): void
}

export interface Metrics {
  /** Counts an answer. There must be few values of each label, whatever clients send. */
  count(answer: { method: string; route: string; status: number; seconds: number }): void
  /** All of them as text, and the media type of that. */
  read(): Promise<{ type: string; text: string }>
}

export interface Environment {
  /** Node lends a pool made at start, the Worker one made for the request, a test its own. */
  Bindings: {
    database: Pool
    log: Log
    memory: Memory
    /** Why no traffic should come here, whatever the database says; undefined when it should. */
    notReady: string | undefined
    /** A file of src/documentation/page, which lie beside the code and not in it. */
    readFile: (
      name: string,
    ) => Promise<{ body: Uint8Array<ArrayBuffer> | ReadableStream; etag: string }>
    /** Undefined on Workers, where each of many isolates would tell of itself alone. */
    metrics: Metrics | undefined
    /** Undefined: everybody may ask as often as they like. */
    limiter: RateLimiter | undefined
    /** Where the request comes from: an IP address, or what the limiter is to take for one. */
    address: string
  }
  Variables: {
    requestId: string | undefined
    /** Of the tables of the resource that is asked for. */
    constraints: ConstraintFaults | undefined
    /** The name of the key that was sent; empty without one, and when the service is open. */
    caller: string
    /** That of the key; undefined without a known one. */
    scope: Scope | undefined
    /** What the limiter says of the caller, for the headers of the answer. */
    rateLimit: Record<string, string> | undefined
    /** The pool as this request sees it: when the client goes away, so does what it waits for. */
    database: Lanes
  }
}
