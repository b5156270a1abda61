// What an operator's Prometheus reads: the door collects, this hands it out.
import { Hono } from 'hono'
import { answer } from '../http/answer.ts'
import type { Environment } from '../http/environment.ts'
import { Problem } from '../http/problem.ts'

export const metrics = new Hono<Environment>().get('/metrics', async (c) => {
  if (!c.env.metrics) throw new Problem('not_found', 'There are no metrics on this platform.')
  const { type, text } = await c.env.metrics.read()
  return answer(c, text, 200, { 'content-type': type })
})
