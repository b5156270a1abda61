// Holds that stock is counted right whoever takes from it at the same time, and never falls below zero.
import { beforeAll, describe, expect, test } from 'vitest'
import { type Api, expectProblem, product } from '../support/api.ts'
import { startTarget } from '../support/target.ts'

const MOST = 2_147_483_647

let api: Api

beforeAll(async () => {
  ;({ api } = await startTarget())
})

async function withStock(stock: number): Promise<string> {
  const { body } = await api.post('/products', product({ stock }))
  return `/products/${body.id}`
}

test('a difference is added, and the product given back', async () => {
  const path = await withStock(10)
  const answer = await api.post(`${path}/stock`, { delta: -3 })
  expect(answer).toMatchObject({ status: 200, body: { stock: 7, version: 2 } })
  expect(answer.headers).toMatchObject({ etag: '"2"', 'content-type': 'application/json' })
  expect((await api.get(path)).text).toBe(answer.text)
  expect((await api.post(`${path}/stock`, { delta: 5.0 })).body).toMatchObject({ stock: 12 })
})

test('a difference of 0 changes nothing, the version neither', async () => {
  const path = await withStock(10)
  const answer = await api.post(`${path}/stock`, { delta: 0 })
  expect(answer).toMatchObject({ status: 200, body: { stock: 10, version: 1 } })
})

describe('at its limits', () => {
  test('stock falls to 0 and no further', async () => {
    const path = await withStock(3)
    expect((await api.post(`${path}/stock`, { delta: -3 })).body).toMatchObject({ stock: 0 })
    for (const delta of [-1, -MOST]) {
      expectProblem(await api.post(`${path}/stock`, { delta }), 409, 'insufficient_stock')
    }
    expect((await api.get(path)).body).toMatchObject({ stock: 0, version: 2 })
  })

  test('stock grows to the largest integer and no further', async () => {
    const path = await withStock(MOST - 1)
    expect((await api.post(`${path}/stock`, { delta: 1 })).body).toMatchObject({ stock: MOST })
    for (const delta of [1, MOST]) {
      const problem = expectProblem(await api.post(`${path}/stock`, { delta }), 409, 'conflict')
      expect(problem.errors).toMatchObject([{ pointer: '#/delta', code: 'too_big' }])
    }
    expect((await api.post(`${path}/stock`, { delta: -MOST })).body).toMatchObject({ stock: 0 })
  })
})

test.each([
  ['nothing', {}, '#/delta', 'required'],
  ['null', { delta: null }, '#/delta', 'invalid_type'],
  ['a string', { delta: '-3' }, '#/delta', 'invalid_type'],
  ['a fraction', { delta: 1.5 }, '#/delta', 'invalid_type'],
  ['too much', { delta: MOST + 1 }, '#/delta', 'too_big'],
  ['too little', { delta: -MOST - 1 }, '#/delta', 'too_small'],
  ['1e400', '{"delta":1e400}', '#/delta', 'invalid_type'],
  ['another field', { delta: 1, stock: 5 }, '#/stock', 'unknown'],
  ['a list', [1], '#', 'invalid_type'],
])('%s is no difference', async (_, body, pointer, code) => {
  const path = await withStock(10)
  const headers = { 'content-type': 'application/json' }
  const answer = await api.request('POST', `${path}/stock`, { body, headers })
  expect(expectProblem(answer, 422, 'validation').errors).toMatchObject([{ pointer, code }])
  expect((await api.get(path)).body).toMatchObject({ stock: 10, version: 1 })
})

test('the address is checked as everywhere', async () => {
  expectProblem(await api.post('/products/999999/stock', { delta: 1 }), 404, 'not_found')
  expectProblem(await api.post('/products/abc/stock', { delta: 1 }), 422, 'validation')
  expectProblem(await api.get('/products/1/stock'), 405, 'method_not_allowed')
})

test('of 200 decrements on a stock of 50, 50 succeed', async () => {
  const path = await withStock(50)
  const answers = await Promise.all(
    Array.from({ length: 200 }, () => api.post(`${path}/stock`, { delta: -1 })),
  )
  const taken = answers.filter((answer) => answer.status === 200)
  expect(taken).toHaveLength(50)
  for (const answer of answers) {
    if (answer.status !== 200) expectProblem(answer, 409, 'insufficient_stock')
  }
  // Each of them saw a state of its own.
  expect(taken.map(({ body }) => body.stock).toSorted((a, b) => a - b)).toEqual(
    Array.from({ length: 50 }, (_, n) => n),
  )
  expect((await api.get(path)).body).toMatchObject({ stock: 0, version: 51 })
})

test('takers and bringers at the same time leave the right sum', async () => {
  const path = await withStock(1000)
  const deltas = Array.from({ length: 100 }, (_, n) => (n % 2 ? -n : n))
  const answers = await Promise.all(deltas.map((delta) => api.post(`${path}/stock`, { delta })))
  expect(new Set(answers.map((answer) => answer.status))).toEqual(new Set([200]))
  const sum = deltas.reduce((a, b) => a + b, 1000)
  expect((await api.get(path)).body).toMatchObject({ stock: sum })
})
