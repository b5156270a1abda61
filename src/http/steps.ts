// What is done with a request before its route is asked, one thing after the other.
import type { Context, MiddlewareHandler } from 'hono'
import type { Environment } from './environment.ts'

/** Keeps something of the request, or refuses it with a {@link Problem}. */
export type Step = (c: Context<Environment>) => void | Promise<void>

/**
 * As one middleware, for a step has nothing to do when the answer is there: as a middleware each, Hono
 * would make a promise for the way in and one for the way out, of all of them 20 µs a request.
 */
export function inOrder(...steps: Step[]): MiddlewareHandler<Environment> {
  return async function inOrder(c, next) {
    for (const step of steps) {
      const pending = step(c)
      if (pending) await pending
    }
    await next()
  }
}
