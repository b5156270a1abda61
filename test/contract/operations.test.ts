// What an operator and every client see before they get to a product.
import { beforeAll, describe, expect, test } from 'vitest'
import { expectProblem, type Api } from '../support/api.ts'
import { startTarget } from '../support/target.ts'

let api: Api

beforeAll(async () => {
  ;({ api } = await startTarget())
})

test('GET /health says that the process answers', async () => {
  const { status, body, headers } = await api.get('/health')
  expect(status).toBe(200)
  expect(body).toEqual({ status: 'ok' })
  expect(headers['content-type']).toBe('application/json')
})

test('GET /ready says that it can take traffic', async () => {
  const { status, body } = await api.get('/ready')
  expect(status).toBe(200)
  expect(body).toEqual({ status: 'ready' })
})

test('GET /db-test asks the database', async () => {
  const { status, body } = await api.get('/db-test')
  expect(status).toBe(200)
  expect(body).toEqual({
    status: 'ok',
    version: expect.stringMatching(/^PostgreSQL 16/),
    latency_ms: expect.any(Number),
  })
  expect(body.latency_ms).toBeGreaterThanOrEqual(0)
})

test.each(['/health', '/ready', '/db-test'])(
  'HEAD %s answers as GET does, without a body',
  async (path) => {
    const [head, get] = [await api.head(path), await api.get(path)]
    expect(head.status).toBe(200)
    expect(head.text).toBe('')
    expect(head.headers['content-type']).toBe(get.headers['content-type'])
  },
)

describe('X-Request-Id', () => {
  test.each(['a', 'A-Z.a_z-09', 'x'.repeat(128)])('is taken from the request: %s', async (id) => {
    const { headers } = await api.get('/health', { 'X-Request-Id': id })
    expect(headers['x-request-id']).toBe(id)
  })

  test.each(['', 'x'.repeat(129), 'a b', 'a,b', 'ä', '<script>', 'a"b'])(
    'is made anew when it is not fit: %s',
    async (id) => {
      const { headers } = await api.get('/health', { 'X-Request-Id': id })
      expect(headers['x-request-id']).toMatch(/^[A-Za-z0-9._-]{1,128}$/)
      expect(headers['x-request-id']).not.toBe(id)
    },
  )

  test('is another one for each request', async () => {
    const answers = await Promise.all(Array.from({ length: 20 }, () => api.get('/health')))
    expect(new Set(answers.map(({ headers }) => headers['x-request-id'])).size).toBe(20)
  })

  test('is in the problem and its header', async () => {
    const answer = await api.get('/nowhere', { 'X-Request-Id': 'mine' })
    expect(expectProblem(answer, 404, 'not_found').request_id).toBe('mine')
  })
})

test.each(['/', '/nowhere', '/health/', '/products/1/nothing', '//health', '/Health'])(
  'GET %s is not found',
  async (path) => {
    expectProblem(await api.get(path), 404, 'not_found')
  },
)

test.each([
  ['POST', '/health', 'GET, HEAD'],
  ['DELETE', '/ready', 'GET, HEAD'],
  ['PUT', '/db-test', 'GET, HEAD'],
])('%s %s is refused and the methods there are named', async (method, path, allowed) => {
  const answer = await api.request(method, path)
  expectProblem(answer, 405, 'method_not_allowed')
  expect(answer.headers['allow']!.split(/, */).toSorted().join(', ')).toBe(allowed)
})
