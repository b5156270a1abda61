// A database that is ahead of the service: what its new rules refuse is told as well as it can be.
import { beforeAll, expect, test } from 'vitest'
import { expectProblem, product, type Api } from '../support/api.ts'
import type { TestDatabase } from '../support/database.ts'
import { startTarget } from '../support/target.ts'

let api: Api
let database: TestDatabase

beforeAll(async () => {
  ;({ api, database } = await startTarget())
})

test('a column that the service does not fill is named', async () => {
  await database.sql`alter table products add brand text not null`
  const { errors } = expectProblem(await api.post('/products', product()), 422, 'validation')
  expect(errors).toEqual([{ pointer: '#/brand', code: 'invalid', detail: 'is not valid' }])
  await database.sql`alter table products drop brand`
  expect((await api.post('/products', product())).status).toBe(201)
})

test('a check that the service does not know is a value that the database refused', async () => {
  await database.sql`alter table products add constraint no_bargains check (price >= 1)`
  const refused = await api.post('/products', product({ price: 0.5 }))
  const problem = expectProblem(refused, 422, 'validation')
  expect(problem.detail).toBe('The database refused a value.')
  expect(problem.errors).toBeUndefined()
  expect(refused.text).not.toContain('no_bargains')
})

test('a unique index that the service does not know is a conflict', async () => {
  await database.sql`create unique index one_name on products (name)`
  const once = product({ name: 'The only one' })
  expect((await api.post('/products', once)).status).toBe(201)
  const problem = expectProblem(await api.post('/products', { ...once, sku: 'B' }), 409, 'conflict')
  expect(problem.detail).toBe('The request conflicts with what is stored.')
  expect(problem.errors).toBeUndefined()
})
