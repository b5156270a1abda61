// A fault again and again, and the same questions each time: does the process live, does anything
// leak, how soon is service normal. What the client sees is for the fault itself to check.
import { appendFile } from 'node:fs/promises'
import { expect } from 'vitest'
import { type Api, createApi, ownPage, product } from './api.ts'
import { backends, type TestDatabase } from './database.ts'
import type { Service } from './process.ts'
import { complaints, inspect, type Vitals } from './vitals.ts'

export interface Subject {
  service: Service
  database: TestDatabase
}

/**
 * Provokes something with a client of its own, holds what that sees against the contract, and
 * returns when it is over: then the clock starts. What is left to check it returns as a function,
 * which is called when service is normal again.
 */
export type Fault = (api: Api) => Promise<(() => Promise<unknown>) | void>

/** More, for hours if need be, by the environment. */
const ROUNDS_FACTOR = Number(process.env['FAULT_ROUNDS_FACTOR'] ?? 1)
/** The rounds before the first look: what is made once, code and buffers, is there after them. */
const WARM_UP = 2
/** Normal is when so many requests in a row, reads and writes by turns, are answered as they should. */
const IN_A_ROW = 10
/** POOL_SIZE, if the test has not changed it. */
const KEPT_CONNECTIONS = 5
/**
 * What a heap may differ by: code that became warm. It was 0.5 to 1.1 MB after 9, 30, 150 and 450
 * rounds alike, so that more rounds make a leak plain, and nothing else.
 */
const HEAP_NOISE_BYTES = 2_000_000

/**
 * Provokes a fault `rounds` times.
 * @param normalWithinMs how soon after each fault service has to be normal
 */
export async function withstand(
  { service, database }: Subject,
  { rounds, normalWithinMs }: { rounds: number; normalWithinMs: number },
  fault: Fault,
): Promise<void> {
  const { pid } = service.process
  const look = await inspect(service)
  const times: number[] = []
  const go = async () => {
    const api = createApi(service.url)
    await fillPool(api)
    const check = await fault(api)
    times.push(await timeToNormal(service.url))
    await check?.()
    await api.close()
  }
  const total = Math.ceil(rounds * ROUNDS_FACTOR)
  for (let round = 0; round < WARM_UP; round++) await go()
  const before = await settled(look, service, database)
  for (let round = WARM_UP; round < total; round++) await go()

  expect(Math.max(...times), 'ms until normal').toBeLessThan(normalWithinMs)
  expect([service.process.pid, service.process.exitCode]).toEqual([pid, null])
  expect(complaints(service)).toEqual([])
  // What takes its time to go, such as a socket that closes, may take it; what stays, fails.
  let after = before
  await expect
    .poll(async () => {
      after = await settled(look, service, database)
      const grown = Object.entries(after.resources).filter(
        ([kind, count]) => count > (before.resources[kind] ?? 0),
      )
      return { files: Math.max(0, after.files - before.files), grown }
    })
    .toEqual({ files: 0, grown: [] })
  const growth = after.heapBytes - before.heapBytes
  expect(growth, 'bytes of heap').toBeLessThan(HEAP_NOISE_BYTES)
  await report({ rounds: total, times: times.toSorted((a, b) => a - b), growth })
}

/** Milliseconds until the first of the requests that succeed in a row is answered. */
export async function timeToNormal(url: string): Promise<number> {
  const start = performance.now()
  const api = createApi(url)
  const created: number[] = []
  let since: number | undefined
  for (let inARow = 0; inARow < IN_A_ROW;) {
    const answer = await (
      inARow % 2 === 0 ? api.get('/products?limit=1') : api.post('/products', product())
    ).catch(() => ({ status: 0, body: undefined }))
    if (answer.status === 201) created.push(answer.body.id)
    const isNormal = answer.status === 200 || answer.status === 201
    since = isNormal ? (since ?? performance.now()) : undefined
    inARow = isNormal ? inARow + 1 : 0
    expect(performance.now() - start, 'ms without service').toBeLessThan(60_000)
  }
  for (const id of created) await api.delete(`/products/${id}`)
  await api.close()
  return since! - start
}

/** With the pool full: a connection that was to be gone shows beside those that it keeps. */
async function settled(look: () => Promise<Vitals>, service: Service, database: TestDatabase) {
  const api = createApi(service.url)
  await expect
    .poll(() => fillPool(api).then(() => backends(database)))
    .toBeGreaterThanOrEqual(KEPT_CONNECTIONS)
  await api.close()
  await expect.poll(() => backends(database)).toBe(KEPT_CONNECTIONS)
  return look()
}

/** So many at once that they take more connections than are kept. */
const fillPool = (api: Api) => Promise.all(Array.from({ length: 30 }, () => api.get(ownPage())))

/** For docs/faults.md: a line for each fault, in the file that FAULTS_REPORT names. */
async function report(row: { rounds: number; times: number[]; growth: number }) {
  const file = process.env['FAULTS_REPORT']
  if (!file) return
  const { times, ...rest } = row
  const test = expect.getState().currentTestName
  const [median, worst] = [times[times.length >> 1], times.at(-1)].map((ms) => Math.round(ms!))
  await appendFile(file, `${JSON.stringify({ test, ...rest, median, worst })}\n`)
}
