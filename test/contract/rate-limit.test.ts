// How often a client may ask: who is counted, what is counted, and that nobody gets round it.
import { beforeAll, describe, expect, inject, test } from 'vitest'
import { type Api, expectProblem, type Headers, product, type Response } from '../support/api.ts'
import { makeKey } from '../support/keys.ts'
import { startTarget, type Target } from '../support/target.ts'

const runtime = inject('runtime')
const REQUESTS = 5

const reader = makeKey('reader', 'read')
const writer = makeKey('writer', 'write')

/**
 * Asks until it is refused, which must not take more than two quotas: in workerd a window may end on
 * the way, for there they begin with the clock's.
 */
async function exhaust(ask: (n: number) => Promise<Response>): Promise<[Response[], Response]> {
  const answered: Response[] = []
  for (let n = 0; n <= 2 * REQUESTS; n++) {
    const answer = await ask(n)
    if (answer.status === 429) return [answered, answer]
    answered.push(answer)
  }
  throw new Error(`nothing was refused: ${answered.map(({ status }) => status).join()}`)
}

describe('a service that is open', () => {
  let target: Target
  let api: Api

  beforeAll(async () => {
    target = await startTarget({
      RATE_LIMIT: `${REQUESTS}/60`,
      CORS_ORIGINS: 'https://shop.example.com',
    })
    api = target.api
  })

  test('answers as often as it says, and then tells when to come again', async () => {
    const paths = ['/products', '/nowhere', '/db-test', '/products?limit=x', '/docs']
    const [answered, refused] = await exhaust((n) => api.get(paths[n % paths.length]!))
    const { detail } = expectProblem(refused, 429, 'rate_limited')
    const wait = refused.headers['retry-after']!
    expect(wait).toMatch(/^[1-9]\d*$/)
    expect(Number(wait)).toBeLessThanOrEqual(60)
    expect(detail).toContain(`Wait ${wait} s.`)
    const counts = [...answered, refused].map(({ headers }) => headers['ratelimit'])
    if (runtime === 'workerd') {
      // The platform tells neither what is left nor when there is more.
      expect(wait).toBe('60')
      expect(new Set(counts)).toEqual(new Set([undefined]))
      return
    }
    expect(answered.map(({ status }) => status)).toEqual([200, 404, 200, 422, 200])
    const remaining = counts.map((value) => /^"default";r=(\d+);t=(\d+)$/.exec(value!)!.slice(1))
    expect(remaining.map(([r]) => r)).toEqual(['4', '3', '2', '1', '0', '0'])
    expect(remaining.at(-1)![1]).toBe(wait)
    for (const { headers } of [...answered, refused]) {
      expect(headers['ratelimit-policy']).toBe('"default";q=5;w=60')
    }
  })

  test('never refuses a probe', async () => {
    await exhaust(() => api.get('/nowhere'))
    for (let n = 0; n < 3 * REQUESTS; n++) {
      for (const path of ['/health', '/ready']) {
        const { status, headers } = await api.get(path)
        expect(status).toBe(200)
        expect(headers).not.toHaveProperty('ratelimit')
      }
    }
    for (const path of ['/healthy', '/health/', '//health', '/ready?x']) {
      await exhaust(() => api.get(path === '/ready?x' ? '/Ready' : path))
    }
  })

  test('does nothing of what it refuses', async () => {
    await exhaust(() => api.post('/products', '{'))
    const [answered] = await exhaust(() => api.post('/products', product()))
    const [row] = await target.database.sql<[{ count: number }]>`
      select count(*)::int from products`
    expect(row.count).toBe(answered.length)
  })

  test('lets a page of another origin read why, and ask before it asks', async () => {
    const origin = 'https://shop.example.com'
    const [, refused] = await exhaust(() => api.get('/nowhere', { origin }))
    expect(refused.headers['access-control-allow-origin']).toBe(origin)
    const exposed = refused.headers['access-control-expose-headers']!.split(',')
    expect(exposed).toEqual(
      expect.arrayContaining(['Retry-After', 'RateLimit', 'RateLimit-Policy']),
    )
    for (let n = 0; n < 3 * REQUESTS; n++) {
      const headers = { origin, 'access-control-request-method': 'PATCH' }
      expect((await api.request('OPTIONS', '/products', { headers })).status).toBe(204)
    }
  })

  test('counts an address, whatever a client says that it is', async () => {
    const made = (n: number) => `203.0.113.${n}`
    for (const forge of [
      (n: number) => ({ 'x-forwarded-for': made(n) }),
      (n: number) => ({ forwarded: `for=${made(n)}` }),
      (n: number) => ({ 'x-real-ip': made(n) }),
      (n: number) => ({ 'x-request-id': `id-${n}` }),
      (n: number) => ({ authorization: `Bearer key-${n}` }),
    ] satisfies ((n: number) => Headers)[]) {
      await exhaust((n) => api.get('/nowhere', forge(n)))
    }
  })
})

test('what was used up comes back', async () => {
  const seconds = runtime === 'node' ? 2 : 10
  const { api } = await startTarget({ RATE_LIMIT: `${REQUESTS}/${seconds}` })
  const [, refused] = await exhaust(() => api.get('/nowhere'))
  const wait = Number(refused.headers['retry-after'])
  const again = async () => (await api.get('/nowhere')).status
  if (runtime === 'workerd') return expect.poll(again, { timeout: 15_000 }).toBe(404)
  expect(wait).toBeLessThanOrEqual(seconds)
  await new Promise((resolve) => setTimeout(resolve, wait * 1000))
  expect(await again()).toBe(404)
})

test('a key is counted by itself, and one that is not known by its address', async () => {
  const { api } = await startTarget({
    RATE_LIMIT: `${REQUESTS}/60`,
    API_KEYS: [reader, writer].map(({ entry }) => entry).join(),
  })
  const get = ({ headers }: { headers: Headers }) => api.get('/products', headers)
  // Keys are tried out, each once.
  const [tried] = await exhaust((n) => get(makeKey(`stranger-${n}`, 'admin')))
  for (const answer of tried) expectProblem(answer, 401, 'unauthorized')
  // Without a key it is the same client.
  const [anonymous] = await exhaust(() => api.get('/products'))
  if (runtime === 'node') expect(anonymous).toEqual([])

  // Who has a key is not hindered by those beside him, and what he may not do counts, too.
  const [refused] = await exhaust(() => api.post('/products', product(), reader.headers))
  expect(refused.length).toBeGreaterThanOrEqual(REQUESTS)
  for (const answer of refused) expectProblem(answer, 403, 'forbidden')
  const [answered] = await exhaust(() => get(writer))
  expect(answered.length).toBeGreaterThanOrEqual(REQUESTS)
  for (const { status } of answered) expect(status).toBe(200)
})
