// The floor below all HTTP: Larder's own statements in a bare loop on postgres.js, in a process of its own.
import postgres from 'postgres'
import type { Sql } from '../../src/database/connection.ts'
import { create, findAll, list } from '../../src/products/repository.ts'
import { NewProduct, productList } from '../../src/products/schema.ts'
import { type Costs, observe } from './costs.ts'
import { newProduct, randomId, type ScenarioName, type World } from './scenarios.ts'

export interface StatementOrder {
  url: string
  scenario: ScenarioName
  clients: number
  seconds: number
  /** The process of PostgreSQL. */
  database: number
  world: Omit<World, 'hasOpaqueCursors'>
}

const CONNECTIONS = 15

let sql: Sql | undefined

process.once('disconnect', () => process.exit())
process.on('message', (order: StatementOrder) => {
  void loop(order).then((result) => process.send!(result))
})

async function loop(order: StatementOrder): Promise<Costs> {
  const { url, scenario, clients, seconds, database, world } = order
  const send = statement((sql ??= connect(url)), scenario, world)
  const { answers: _, ...costs } = await observe(
    { service: process.pid, database },
    seconds,
    (seconds) => runLoops(send, clients, seconds),
  )
  return costs
}

async function runLoops(send: () => Promise<unknown>, loops: number, seconds: number) {
  const times: number[] = []
  const end = performance.now() + seconds * 1000
  await Promise.all(
    Array.from({ length: loops }, async () => {
      for (let startedAt = performance.now(); startedAt < end;) {
        await send()
        const now = performance.now()
        times.push(now - startedAt)
        startedAt = now
      }
    }),
  )
  return { requests: times.length, times, bytes: 0 }
}

const page = productList.page.parse({ limit: '20' })

function statement(
  sql: Sql,
  scenario: ScenarioName,
  { number, products }: StatementOrder['world'],
) {
  if (scenario === 'get') return () => findAll(sql, [randomId(products)])
  if (scenario === 'first-page') return () => list(sql, page, [])
  if (scenario !== 'post') throw new Error(`there is no statement for ${scenario}`)
  return () => create(sql, [{ product: NewProduct.parse(newProduct(number)) }])
}

/** As the service opens its connections. */
function connect(url: string): Sql {
  return postgres(url, {
    max: CONNECTIONS,
    fetch_types: false,
    types: { bigint: { to: 20, from: [20], parse: Number, serialize: String } },
  })
}
