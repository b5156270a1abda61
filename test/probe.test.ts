// Temporary probe; removed before the work is handed back.
import { test } from 'vitest'
import { createDatabase } from './support/database.ts'

test('size check', async () => {
  const { sql } = await createDatabase()
  const shapes: Record<string, unknown> = {
    long: { a: 'x'.repeat(1_000_000) },
    escapes: { a: '"'.repeat(500_000) },
    strings: { a: Array.from({ length: 300_000 }, () => '') },
    numbers: { a: Array.from({ length: 400_000 }, () => 1) },
    keys: Object.fromEntries(Array.from({ length: 100_000 }, (_, n) => [`k${n}`, 1])),
    colons: { a: '": '.repeat(200_000) },
    big: { a: Array.from({ length: 160_000 }, () => 1e308) },
  }
  await sql`insert into products (name, price) values ('a', 1)`
  for (const [name, shape] of Object.entries(shapes)) {
    const start = performance.now()
    const error = await sql`update products set attributes = ${sql.json(shape as never)}`.catch((e: Error) => e)
    console.log(name, Math.round(performance.now() - start), 'ms', (error as any).code, (error as any).constraint_name)
  }
}, 600_000)
