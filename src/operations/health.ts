// Says whether the process lives, whether it should get traffic, and whether the database answers.
import { Hono } from 'hono'
import { pendingMigrations, serverVersion } from '../database/verification.ts'
import { answerJson } from '../http/answer.ts'
import type { Environment } from '../http/environment.ts'
import { Problem } from '../http/problem.ts'

/** Probes give up after a second or so; an answer that comes later is none. */
const READY_WITHIN_MS = 2000

export const health = new Hono<Environment>()

  .get('/health', (c) => answerJson<{ status: string }>(c, '{"status":"ok"}'))

  .get('/ready', async (c) => {
    if (c.env.notReady !== undefined) throw new Problem('unavailable', c.env.notReady)
    const pending = await withinReadyTime(pendingMigrations(c.get('database'))).catch((cause) => {
      if (cause instanceof Problem) throw cause
      throw new Problem('unavailable', 'The database cannot tell its migrations.', { cause })
    })
    if (pending.length > 0) {
      throw new Problem('unavailable', `Migrations are pending: ${pending.join(', ')}.`)
    }
    return answerJson<{ status: string }>(c, '{"status":"ready"}')
  })

  .get('/db-test', async (c) => {
    const start = performance.now()
    const text = await serverVersion(c.get('database'))
    const latency = performance.now() - start
    // Without what follows: the system it runs on, and the compiler.
    const version = text.split(' ', 2).join(' ')
    const found = { status: 'ok', version, latency_ms: Math.round(latency * 100) / 100 }
    return answerJson<typeof found>(c, JSON.stringify(found))
  })

async function withinReadyTime<T>(work: Promise<T>): Promise<T> {
  let timer: ReturnType<typeof setTimeout> | undefined
  const late = new Promise<never>((_, reject) => {
    const detail = `The database did not answer within ${READY_WITHIN_MS / 1000} s.`
    timer = setTimeout(() => reject(new Problem('unavailable', detail)), READY_WITHIN_MS)
  })
  try {
    return await Promise.race([work, late])
  } finally {
    clearTimeout(timer)
  }
}
