// Holds that the worst flood that we know keeps to the bound on memory that the README states.
import { execFileSync } from 'node:child_process'
import { connect } from 'node:net'
import { expect, test } from 'vitest'
import { createApi, type Response } from '../support/api.ts'
import { atTheEnd } from '../support/clean-up.ts'
import { blocked, createDatabase, lockTable } from '../support/database.ts'
import { startService } from '../support/service.ts'

const MIB = 1024 * 1024
/** It was 720; 1,160 while a bulk was kept as objects. */
const MOST_MIB = 1000
const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms))

/** In MiB. */
const residentOf = (pid: number) =>
  Number(execFileSync('ps', ['-o', 'rss=', '-p', String(pid)]).toString()) / 1024

/** A thousand products with as many values in them as there can be. */
function largestBulk(): string {
  const attributes = `{"a":[${Array.from({ length: 5400 }, () => '[]').join()}]}`
  return `[${Array.from({ length: 950 }, () => `{"name":"x","price":1,"attributes":${attributes}}`).join()}]`
}

test(
  'large bodies at once, and answers that are not read, take less than 1 GB',
  { timeout: 200_000 },
  async () => {
    const database = await createDatabase()
    await database.sql`
    insert into products (name, price, description, attributes)
    select 'large', 1, repeat(chr(1), 5000), jsonb_build_object('text', repeat('x', 16000))
    from generate_series(1, 100)`
    const service = await startService({ DATABASE_URL: database.url })
    const { pid } = service.process
    const api = createApi(service.url)
    let most = 0
    const watch = setInterval(() => (most = Math.max(most, residentOf(pid!))), 200)
    atTheEnd(async () => clearInterval(watch))
    // Whatever is written waits here, and what is read does not.
    const lock = await lockTable(database, 'product_words')

    const bulk = largestBulk()
    expect(bulk.length).toBeLessThan(16 * MIB)
    const single = JSON.stringify({ name: 'x', price: 1 }).padEnd(MIB)
    const json = { 'content-type': 'application/json' }
    const answers: Promise<Response | undefined>[] = []
    const send = (path: string, body: string) =>
      answers.push(api.post(path, body, json).catch(() => undefined))
    for (let i = 0; i < 100; i++) send('/products/bulk', bulk)
    for (let i = 0; i < 300; i++) send('/products', single)
    for (let i = 0; i < 50; i++) {
      const socket = connect(Number(new URL(service.url).port), '127.0.0.1')
      atTheEnd(async () => socket.destroy())
      socket.on('error', () => {}).pause()
      // Several behind each other, none of which is read.
      socket.write('GET /products?limit=100 HTTP/1.1\r\nHost: larder\r\n\r\n'.repeat(10))
    }
    await expect.poll(() => blocked(database), { timeout: 60_000 }).toBeGreaterThan(0)
    await pause(10_000)
    expect((await api.get('/health')).status).toBe(200)
    await lock.release()
    const statuses = (await Promise.all(answers)).map((answer) => answer?.status)
    clearInterval(watch)
    expect(most).toBeLessThan(MOST_MIB)
    expect(statuses).toContain(503)
    await expect
      .poll(async () => (await api.get('/products')).status, { timeout: 20_000 })
      .toBe(200)
  },
)
