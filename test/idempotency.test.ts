// What of the keys is not seen over HTTP: whose they are, how they are cleared away, and what a request is recognised by.
import { Hono } from 'hono'
import { beforeEach, describe, expect, test } from 'vitest'
import type { Pool } from '../src/database/pool.ts'
import { startFingerprint } from '../src/http/fingerprint.ts'
import { claim, keep, removeExpired } from '../src/idempotency/repository.ts'
import { atTheEnd } from './support/clean-up.ts'
import { connect, createDatabase, type TestDatabase } from './support/database.ts'
import { openPool } from './support/pool.ts'

const ANSWER = { status: 201, headers: { etag: '"1"' }, body: '{"name":"😀"}' }
const FINGERPRINT = 'a1'.repeat(32)

let database: TestDatabase
let pool: Pool

beforeEach(async () => {
  database = await createDatabase()
  pool = openPool(database.address, { size: 10, queryTimeoutMs: 20_000 })
})

const answerOnce = (caller: string, key: string) =>
  pool.session(async (sql) => {
    const kept = await claim(sql, { caller, key })
    if (!kept) await keep(sql, { caller, key }, FINGERPRINT, ANSWER)
    return kept
  })

/** Keys `old-1` and so on, past their time by seconds, with answers of some size. */
const addExpired = (count: number) => database.sql`
  insert into idempotency_keys (caller, key, fingerprint, status, headers, body, created_at)
  select '', 'old-' || n, ${FINGERPRINT}, 201, '{}', repeat(md5(n::text), 100),
         now() - interval '24 hours' - n * interval '1 second'
  from generate_series(1, ${count}::int) as n`

async function keys() {
  const rows = await database.sql<{ key: string }[]>`
    select key from idempotency_keys where key not like 'old-%' order by key`
  return rows.map(({ key }) => key)
}

const expired = async () => {
  const rows = await database.sql`
    select from idempotency_keys where created_at <= now() - interval '24 hours'`
  return rows.length
}

/** As housekeeping does it. */
async function purge(): Promise<number> {
  for (let removed = 0; ;) {
    const batch = await pool.write(removeExpired)
    if (batch === 0) return removed
    removed += batch
  }
}

test('a key belongs to its caller', async () => {
  for (const caller of ['', 'shop', 'Shop', 'shöp']) {
    expect(await answerOnce(caller, 'k')).toBe(undefined)
  }
  expect(await answerOnce('shop', 'k')).toEqual({ ...ANSWER, fingerprint: FINGERPRINT })
})

describe('the purge', () => {
  test('removes what is past its time, and nothing else', async () => {
    await answerOnce('', 'young')
    await answerOnce('', 'nearly')
    await database.sql`
      update idempotency_keys set created_at = now() - interval '23 hours 59 minutes'
      where key = 'nearly'`
    await addExpired(1050)
    expect(await purge()).toBe(1050)
    expect(await keys()).toEqual(['nearly', 'young'])
    expect(await expired()).toBe(0)
    expect(await purge()).toBe(0)
  })

  test('passes over a key that is being taken anew, and does not wait for it', async () => {
    await addExpired(300)
    const other = connect(database.owner)
    atTheEnd(() => other.end())
    await other`begin`
    await other`select claim_idempotency_key('', 'old-7')`
    const start = performance.now()
    expect(await purge()).toBe(299)
    expect(performance.now() - start).toBeLessThan(3000)
    await other`
      update idempotency_keys
      set fingerprint = ${FINGERPRINT}, status = 201, headers = '{}', body = ''
      where key = 'old-7'`
    await other`commit`
    expect(await purge()).toBe(0)
    expect(await answerOnce('', 'old-7')).toMatchObject({ body: '' })
  })

  test('holds nobody up, and takes nothing away from them', async () => {
    await addExpired(20_000)
    let purging = true
    const purges = [0, 1].map(() => purge())
    const purged = Promise.all(purges).finally(() => (purging = false))
    const waits: number[] = []
    const taken: string[] = []
    // The purge begins with the oldest, so these meet it on its way.
    for (let n = 20_000; purging && n > 0; n -= 37) {
      const start = performance.now()
      expect(await answerOnce('', `old-${n}`)).toBe(undefined)
      waits.push(performance.now() - start)
      taken.push(`old-${n}`)
    }
    const removed = (await purged).reduce((sum, count) => sum + count, 0)
    expect(await expired()).toBe(0)
    expect(taken.length).toBeGreaterThan(10)
    expect(Math.max(...waits)).toBeLessThan(1000)
    const [left] = await database.sql<{ count: number }[]>`
      select count(*)::int from idempotency_keys where status is not null`
    expect(left!.count).toBe(taken.length)
    expect(removed).toBeLessThanOrEqual(20_000)
    for (const key of taken) expect(await answerOnce('', key)).toMatchObject(ANSWER)
  })
})

describe('a claim', () => {
  test('is given back when its transaction is rolled back', async () => {
    const failing = pool.session(async (sql) => {
      await claim(sql, { caller: '', key: 'k' })
      throw new Error('on purpose')
    })
    await expect(failing).rejects.toThrow('on purpose')
    expect(await answerOnce('', 'k')).toBe(undefined)
  })

  test('does not lock what it finds: replays do not wait for each other', async () => {
    await answerOnce('', 'k')
    await pool.session(async (sql) => {
      expect(await claim(sql, { caller: '', key: 'k' })).toBeDefined()
      const start = performance.now()
      expect(await answerOnce('', 'k')).toBeDefined()
      expect(performance.now() - start).toBeLessThan(2000)
    })
  })

  test('holds also where transactions are serializable or read one snapshot', async () => {
    for (const level of ['repeatable read', 'serializable']) {
      const strict = openPool(database.address, {
        size: 10,
        maxOverflow: 10,
        begin: `begin isolation level ${level}`,
      })
      const first = await Promise.all(
        Array.from({ length: 10 }, () =>
          strict.session(async (sql) => {
            const kept = await claim(sql, { caller: level, key: 'k' })
            if (!kept) await keep(sql, { caller: level, key: 'k' }, FINGERPRINT, ANSWER)
            return kept === undefined
          }),
        ),
      )
      expect(first.filter(Boolean)).toHaveLength(1)
    }
  })
})

describe('a fingerprint', () => {
  /** Of a request whose body comes in these parts. */
  async function fingerprint(parts: Uint8Array[], init: RequestInit = {}, path = '/p?q=1') {
    let digest = ''
    const app = new Hono().all('*', (c) => {
      const running = startFingerprint(c)
      for (const part of parts) running.update(part)
      digest = running.digest()
      return c.body(null)
    })
    await app.request(path, { method: 'POST', ...init })
    return digest
  }

  const bytes = Uint8Array.from({ length: 3_000_000 }, (_, n) => (n * 31) % 251)
  const cut = (size: number) =>
    Array.from({ length: Math.ceil(bytes.length / size) }, (_, n) =>
      bytes.subarray(n * size, (n + 1) * size),
    )

  test('does not depend on how the body was cut', async () => {
    const whole = await fingerprint([bytes])
    expect(whole).toMatch(/^[0-9a-f]{64}$/)
    for (const size of [997, 262_144, 262_145, 262_143, 1_048_576, 2_999_999]) {
      expect(await fingerprint(cut(size)), String(size)).toBe(whole)
    }
    const empty = new Uint8Array()
    expect(await fingerprint([empty, bytes, empty])).toBe(whole)
  })

  test('is another for each byte, length, method, path, query, media type and precondition', async () => {
    const parts = [262_143, 262_144, 262_145, 524_288, 1_048_576].map((n) => bytes.subarray(0, n))
    const changed = [0, 262_144, 2_999_999].map((place) => {
      const copy = bytes.slice()
      copy[place]! ^= 1
      return copy
    })
    const all = [
      ...(await Promise.all([...parts, ...changed, bytes].map((body) => fingerprint([body])))),
      await fingerprint([]),
      await fingerprint([], { method: 'PUT' }),
      await fingerprint([], {}, '/p?q=2'),
      await fingerprint([], {}, '/p'),
      await fingerprint([], {}, '/o?q=1'),
      await fingerprint([], { headers: { 'content-type': 'text/csv' } }),
      await fingerprint([], { headers: { 'if-match': '"1"' } }),
      await fingerprint([], { headers: { 'if-none-match': '"1"' } }),
    ]
    expect(new Set(all).size).toBe(all.length)
  })
})
