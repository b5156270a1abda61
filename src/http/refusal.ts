// One answer to every request: what a door serves when it cannot serve the app.
import { Hono } from 'hono'
import type { Environment } from './environment.ts'
import { type Problem, renderProblems } from './problem.ts'

export function refusal(problem: Problem) {
  const app = new Hono<Environment>().onError(renderProblems)
  app.use(() => {
    throw problem
  })
  return app
}
