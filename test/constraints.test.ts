// Holds that the table keeps the rules of a product for whoever writes SQL, and that the API knows each of them.
import postgres from 'postgres'
import { beforeAll, describe, expect, test } from 'vitest'
import { NewProduct, productConstraints } from '../src/products/schema.ts'
import { createDatabase, type TestDatabase } from './support/database.ts'

let sql: TestDatabase['sql']

beforeAll(async () => {
  ;({ sql } = await createDatabase())
})

/** Inserts a product with one column set to an SQL expression; returns its id. */
async function insert(column?: string, expression?: string): Promise<string> {
  const columns = new Map([
    ['name', `'Name'`],
    ['price', '1'],
  ])
  if (column && expression) columns.set(column, expression)
  const [row] = await sql.unsafe<{ id: string }[]>(
    `insert into products (${[...columns.keys()].join()}) overriding system value
     values (${[...columns.values()].join()}) returning id`,
  )
  return row!.id
}

async function update(id: string, assignments: string) {
  await sql.unsafe(`update products set ${assignments} where id = ${id}`)
}

interface Stored {
  version: string
  updated_at: string
}

async function read(id: string): Promise<Stored> {
  const [row] = await sql<Stored[]>`
    select version::text, updated_at::text from products where id = ${id}`
  return row!
}

/** How the database refuses a statement, or that it does not. */
async function refusal(statement: Promise<unknown>) {
  const error = await statement.then(
    () => undefined,
    (reason: unknown) => reason,
  )
  if (!(error instanceof postgres.PostgresError)) return error ?? 'accepted'
  const { code, constraint_name: constraint, column_name: column } = error
  return { code, constraint, column }
}

const checkViolation = (constraint: string) => ({ code: '23514', constraint, column: undefined })

const quote = (text: string) => `'${text.replaceAll("'", "''")}'`
const emoji = (count: number) => quote('😀'.repeat(count))
const xs = (count: number) => quote('x'.repeat(count))

/** What JavaScript's trim() takes away. U+0000 and surrogates are in no text of PostgreSQL's. */
const characters = Array.from({ length: 0xffff }, (_, n) => n + 1).filter(
  (code) => code < 0xd800 || code > 0xdfff,
)
const whiteSpace = characters.filter((code) => String.fromCharCode(code).trim() === '')

describe('the API knows', () => {
  test('every constraint and unique index on products, and no other', async () => {
    const found = await sql<{ name: string }[]>`
      select conname as name from pg_constraint
      where 'products'::regclass in (conrelid, confrelid) and contype <> 'n'
      union
      select relname from pg_index join pg_class on oid = indexrelid
      where indrelid = 'products'::regclass and indisunique`
    expect(found.map(({ name }) => name).toSorted()).toEqual(
      Object.keys(productConstraints).toSorted(),
    )
  })

  test('the field that each constraint speaks of', async () => {
    const found = await sql<{ name: string; columns: string[] }[]>`
      select conname as name, array_agg(attname::text) as columns
      from pg_constraint join pg_attribute on attrelid = conrelid and attnum = any(conkey)
      where conrelid = 'products'::regclass and contype <> 'n'
      group by conname`
    for (const { name, columns } of found)
      expect([productConstraints[name]!.field]).toEqual(columns)
  })

  test('every column: what must not be null is refused by its name, which is a field', async () => {
    const columns = await sql<{ name: string; required: boolean }[]>`
      select attname as name, attnotnull as required from pg_attribute
      where attrelid = 'products'::regclass and attnum > 0 and not attisdropped`
    const sent = Object.keys(NewProduct.parse({ name: 'X', price: 1 }))
    expect(columns.map(({ name }) => name).toSorted()).toEqual(
      sent.concat('id', 'version', 'created_at', 'updated_at').toSorted(),
    )
    for (const { name, required } of columns) {
      const seen = await refusal(insert(name, 'null'))
      expect(seen, name).toEqual(
        required ? { code: '23502', constraint: undefined, column: name } : 'accepted',
      )
    }
  })

  test('the defaults of the table', async () => {
    const [row] = await sql`
      insert into products (name, price) values ('Bare', 12.5)
      returning sku, name, description, price, currency, stock, attributes`
    const sent = NewProduct.parse({ name: 'Bare', price: 12.5 })
    expect({ ...row, price: Number(row!['price']) }).toEqual({ ...sent, price: Number(sent.price) })
  })
})

test('all but name and price has a default', async () => {
  const [row] = await sql`
    insert into products (name, price) values ('Bare', 1)
    returning *, created_at = now() as now, updated_at = created_at as untouched`
  expect(row).toMatchObject({
    sku: null,
    description: null,
    currency: 'USD',
    stock: 0,
    attributes: {},
    version: '1',
    now: true,
    untouched: true,
  })
  expect(await refusal(sql`insert into products (price) values (1)`)).toMatchObject({
    column: 'name',
  })
  expect(await refusal(sql`insert into products (name) values ('X')`)).toMatchObject({
    column: 'price',
  })
})

interface Rule {
  constraint: string
  column: string
  accepted: string[]
  refused: string[]
  /** For columns that an update cannot set. */
  insertOnly?: boolean
}

const rules: Rule[] = [
  {
    constraint: 'products_sku_length',
    column: 'sku',
    accepted: [quote(' '), quote('y'), xs(64), emoji(64), 'null'],
    refused: [quote(''), xs(65), emoji(65), xs(100_000)],
  },
  {
    constraint: 'products_name_length',
    column: 'name',
    accepted: [quote('y'), xs(200), emoji(200)],
    refused: [quote(''), xs(201), emoji(201), xs(1_000_000)],
  },
  {
    constraint: 'products_name_trimmed',
    column: 'name',
    accepted: [quote('a b'), quote('\u200b'), quote('a\n\u3000b')],
    refused: [
      quote(' '),
      ...whiteSpace.map((code) => quote(`${String.fromCharCode(code)}x`)),
      ...whiteSpace.map((code) => quote(`x${String.fromCharCode(code)}`)),
    ],
  },
  {
    constraint: 'products_description_length',
    column: 'description',
    accepted: [quote(''), xs(5000), emoji(5000), 'null'],
    refused: [xs(5001), emoji(5001)],
  },
  {
    constraint: 'products_price_range',
    column: 'price',
    accepted: ['0', '-0.0', '0.01', '9999999999.99'],
    refused: ['-0.01', '-9999999999.99', `'NaN'`],
  },
  {
    constraint: 'products_currency_format',
    column: 'currency',
    accepted: [`'AAA'`, `'ZZZ'`],
    refused: ['', 'US', 'USDX', 'usd', 'USD\n', '\nUSD', 'ÀAA', 'US1', ' USD', 'USD\nEUR'].map(
      quote,
    ),
  },
  {
    constraint: 'products_stock_range',
    column: 'stock',
    accepted: ['0', '2147483647'],
    refused: ['-1', '-2147483648'],
  },
  {
    constraint: 'products_attributes_object',
    column: 'attributes',
    accepted: [`'{}'`, `'{"a": null}'`],
    refused: [`'[]'`, `'"{}"'`, `'1'`, `'true'`, `'null'`, `'[{}]'`],
  },
  {
    constraint: 'products_attributes_size',
    column: 'attributes',
    accepted: [`jsonb_build_object('a', repeat('x', 16376))`],
    refused: [
      `jsonb_build_object('a', repeat('x', 16377))`,
      `jsonb_build_object('a', repeat('x', 1000000))`,
      `jsonb_build_object('a', repeat('": ', 10000))`,
      `jsonb_build_object('a', array_fill(''::text, array[100000]))`,
    ],
  },
  {
    constraint: 'products_created_at_range',
    column: 'created_at',
    accepted: [`'0001-01-01 00:00:00+00'`, `'9999-12-31 23:59:59.999999+00'`],
    refused: [
      `'infinity'`,
      `'-infinity'`,
      `'10000-01-01 00:00:00+00'`,
      `'0001-01-01 00:00:00+00'::timestamptz - interval '1 microsecond'`,
    ],
  },
  {
    constraint: 'products_updated_at_range',
    column: 'updated_at',
    insertOnly: true,
    accepted: [`'0001-01-01 00:00:00+00'`, `'9999-12-31 23:59:59.999999+00'`],
    refused: [`'infinity'`, `'-infinity'`, `'10000-01-01 00:00:00+00'`, `'0001-12-31 BC'`],
  },
  {
    constraint: 'products_version_range',
    column: 'version',
    insertOnly: true,
    accepted: ['1', '9007199254740991'],
    refused: ['0', '-1', '9007199254740992', '9223372036854775807'],
  },
  {
    constraint: 'products_id_range',
    column: 'id',
    insertOnly: true,
    accepted: ['9007199254740991', '4503599627370496'],
    refused: ['0', '-1', '9007199254740992', '9223372036854775807'],
  },
]

describe('the table refuses what breaks', () => {
  test.each(rules)('$constraint', async ({ constraint, column, accepted, refused, insertOnly }) => {
    const ways = [(expression: string) => insert(column, expression)]
    const id = await insert()
    if (!insertOnly)
      ways.push(async (expression) => (await update(id, `${column} = ${expression}`), id))
    for (const [n, write] of ways.entries()) {
      // A sku is taken but once.
      if (n > 0) await sql`delete from products where sku is not null`
      for (const expression of accepted) {
        expect(await refusal(write(expression)), expression).toBe('accepted')
      }
      for (const expression of refused) {
        const seen = await refusal(write(expression))
        // One that is empty is too short and, in a way, well trimmed.
        expect(seen, expression).toEqual(checkViolation(constraint))
      }
    }
  })

  test('every check, and none is forgotten here', async () => {
    const found = await sql<{ name: string }[]>`
      select conname as name from pg_constraint
      where conrelid = 'products'::regclass and contype = 'c'`
    expect(found.map(({ name }) => name).toSorted()).toEqual(
      rules.map(({ constraint }) => constraint).toSorted(),
    )
  })

  test('the types: numbers too large or endless', async () => {
    for (const [column, expression] of [
      ['price', `'Infinity'`],
      ['price', `'-Infinity'`],
      ['price', '10000000000'],
      ['price', '9999999999.995'],
      ['stock', '2147483648'],
    ] as const) {
      expect(await refusal(insert(column, expression))).toMatchObject({ code: '22003' })
    }
  })

  test('a sku that is taken, by insert and update', async () => {
    const taken = { code: '23505', constraint: 'products_sku_key' }
    const id = await insert('sku', `'TAKEN'`)
    expect(await refusal(insert('sku', `'TAKEN'`))).toMatchObject(taken)
    expect(await refusal(update(await insert(), `sku = 'TAKEN'`))).toMatchObject(taken)
    expect(await refusal(insert('sku', `'taken'`))).toBe('accepted')
    expect(await refusal(update(id, `sku = 'TAKEN'`))).toBe('accepted')
  })

  test('an id that is taken, given by hand or changed', async () => {
    const id = await insert()
    expect(await refusal(insert('id', id))).toMatchObject({
      code: '23505',
      constraint: 'products_pkey',
    })
    expect(
      await refusal(sql`insert into products (id, name, price) values (4000, 'X', 1)`),
    ).toMatchObject({ code: '428C9' })
    expect(await refusal(update(id, 'id = 4001'))).toMatchObject({ code: '428C9' })
  })

  test('white space at the ends of a name as JavaScript’s trim() knows it, and no other', async () => {
    const [check] = await sql<{ expression: string }[]>`
      select pg_get_expr(conbin, conrelid) as expression from pg_constraint
      where conname = 'products_name_trimmed'`
    for (const name of [`'x' || chr(code)`, `chr(code) || 'x'`]) {
      const rows = await sql.unsafe<{ code: number }[]>(
        `select code from (select code, ${name} as name from unnest($1::int[]) as code) as tried
         where not ${check!.expression}`,
        [characters],
      )
      expect(rows.map(({ code }) => code)).toEqual(whiteSpace)
    }
    expect(whiteSpace).toHaveLength(25)
  })
})

describe('the size of attributes is that of compact JSON', () => {
  /** Filled up with a member to so many bytes. */
  function fit(attributes: Record<string, unknown>, bytes: number): string {
    const rest = bytes - Buffer.byteLength(JSON.stringify({ ...attributes, pad: '' }))
    const json = JSON.stringify({ ...attributes, pad: 'x'.repeat(rest) })
    expect(Buffer.byteLength(json)).toBe(bytes)
    return json
  }

  /** Always the same numbers, from 0 to 1. */
  function random(seed: number) {
    let state = seed
    return () => {
      state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
      return state / 2 ** 32
    }
  }

  /** Text that looks like JSON's own punctuation. */
  function trickyText(next: () => number): string {
    const parts = [
      '"',
      '\\',
      ': ',
      ', ',
      '": "',
      '\\"',
      '{',
      '}]',
      '\n',
      '\u0001',
      'é',
      '😀',
      ' ',
      'x',
    ]
    return Array.from({ length: next() * 12 }, () => parts[Math.floor(next() * parts.length)]).join(
      '',
    )
  }

  function tricky(next: () => number, depth: number): unknown {
    const kind = Math.floor(next() * (depth > 0 ? 6 : 4))
    const many = Array.from({ length: next() * 6 })
    if (kind === 0) return Math.floor(next() * 1e6) / 100
    if (kind === 1) return [true, false, null][Math.floor(next() * 3)]
    if (kind <= 3) return trickyText(next)
    if (kind === 4) return many.map(() => tricky(next, depth - 1))
    return Object.fromEntries(many.map(() => [trickyText(next), tricky(next, depth - 1)]))
  }

  const cases: [string, Record<string, unknown>][] = [
    ['nothing else', {}],
    ['many members', Object.fromEntries(Array.from({ length: 1000 }, (_, n) => [`k${n}`, n]))],
    ['a long list', { a: Array(6000).fill(1) }],
    ['lists in lists', { a: Array(2000).fill([1, [2]]) }],
    ['text like punctuation', { a: ', '.repeat(3000), b: '": "'.repeat(1000) }],
    ['text that ends in a backslash', { 'a\\': '\\', b: '\\\\": ', c: '\\"' }],
    ['names like punctuation', { '": ': 1, ', ': 2, '"': { ': ': ', ' } }],
    ['control characters', { a: '\u0001\b\f\n\r\t\u001f\u007f'.repeat(200) }],
    ['emoji', { a: '😀é'.repeat(1000) }],
    ...Array.from({ length: 30 }, (_, n): [string, Record<string, unknown>] => {
      const next = random(n)
      const list = Array.from({ length: 40 }, () => tricky(next, 3))
      return [`what chance made of ${n}`, { list }]
    }),
  ]

  test.each(cases)('with %s', async (_, attributes) => {
    const id = await insert()
    const write = (json: string) => sql`
      update products set attributes = ${json}::text::jsonb where id = ${id}`
    expect(await refusal(write(fit(attributes, 16_384)))).toBe('accepted')
    expect(await refusal(write(fit(attributes, 16_385)))).toEqual(
      checkViolation('products_attributes_size'),
    )
  })
})

describe('attributes as the API measures them are as large as the table finds them', () => {
  const sized = (numbers: unknown, length: number) => ({ numbers, pad: 'x'.repeat(length) })
  const passes = (numbers: unknown, length: number) =>
    NewProduct.safeParse({ name: 'X', price: 1, attributes: sized(numbers, length) }).success

  /** The longest padding that the API lets pass. */
  function longest(numbers: unknown): number {
    let [taken, refused] = [0, 16_384]
    while (refused - taken > 1) {
      const length = Math.floor((taken + refused) / 2)
      if (passes(numbers, length)) taken = length
      else refused = length
    }
    return taken
  }

  test.each<[what: string, numbers: unknown]>([
    ['no exponents', [0, -0, 1, -1.5, 123456789012345680000, 0.000001, 999999999999999900000]],
    ['large numbers', [1e21, 1.5e21, -1e21, 1.2345678901234568e25, -1.7976931348623157e308]],
    ['small numbers', [1e-7, -1.5e-7, 1.2345678901234568e-10, 5e-324, -2.2250738585072014e-308]],
    ['strings like numbers', { a: [1e22], '1e+30': 'e+5 1e+30 "1e-7"', ä: ['😀', 1e100, null] }],
    ['every size', Array.from({ length: 60 }, (_, n) => (n - 20.3) * 10 ** (n * 10 - 300))],
  ])('with %s', async (_, numbers) => {
    const length = longest(numbers)
    expect(length).toBeGreaterThan(0)
    const store = (padding: number) =>
      refusal(sql`
        insert into products (name, price, attributes)
        values ('X', 1, ${JSON.stringify(sized(numbers, padding))}::text::jsonb)`)
    expect(await store(length)).toBe('accepted')
    expect(await store(length + 1)).toEqual(checkViolation('products_attributes_size'))
  })
})

describe('the database itself keeps', () => {
  test('the version: it grows by one with each change', async () => {
    const id = await insert()
    for (const [n, assignments] of [
      'stock = 1',
      `name = 'Other', price = 2`,
      `attributes = '{"a": 1}'`,
      `attributes = '{"a": 1.0}'`,
      `sku = 'GROWS'`,
      'sku = null',
      `created_at = '2020-01-01'`,
    ].entries()) {
      await update(id, assignments)
      expect((await read(id)).version, assignments).toBe(String(n + 2))
    }
  })

  test('the version, whatever is set by hand', async () => {
    const id = await insert()
    for (const [n, by] of ['99', '-5', '1', 'version - 1', 'default'].entries()) {
      await update(id, `version = ${by}, stock = ${n + 1}`)
      expect((await read(id)).version, by).toBe(String(n + 2))
    }
    await update(id, 'version = 99')
    expect(Number((await read(id)).version)).toBeLessThanOrEqual(7)
  })

  test('the version and the time when an update changes nothing', async () => {
    const id = await insert('attributes', `'{"b": [1, {"c": null}], "a": "x"}'`)
    const before = await read(id)
    for (const assignments of [
      'stock = stock',
      'name = name, price = price, sku = sku',
      'price = 1.00',
      'price = 1.001',
      `currency = 'USD', description = null`,
      `attributes = '{"a": "x", "b": [1, {"c": null}]}'`,
      'version = version, updated_at = updated_at',
    ]) {
      await update(id, assignments)
      expect(await read(id), assignments).toEqual(before)
    }
  })

  test('the version of a large value that stays as it is', async () => {
    const id = await insert(
      'attributes',
      `(select jsonb_object_agg(n, md5(n::text)) from generate_series(1, 350) as n)`,
    )
    await update(id, `attributes = attributes || '{}'`)
    await update(id, 'attributes = attributes::text::jsonb')
    expect((await read(id)).version).toBe('1')
  })

  test('the time of the last change, whatever is set by hand', async () => {
    const id = await insert()
    for (const time of [`'2000-01-01'`, `'2200-01-01'`, `'infinity'`, 'null', 'default']) {
      const [{ before } = { before: '' }] = await sql<{ before: string }[]>`
        select clock_timestamp()::text as before`
      await update(id, `updated_at = ${time}, stock = stock + 1`)
      const [row] = await sql<{ right: boolean }[]>`
        select updated_at between ${before}::timestamptz and clock_timestamp() as right
        from products where id = ${id}`
      expect(row!.right, time).toBe(true)
    }
  })

  test('that time does not run backwards, also after a clock that was wrong', async () => {
    const id = await insert('updated_at', `'2100-01-01 00:00:00.123456+00'`)
    const { updated_at: future } = await read(id)
    await update(id, 'stock = 1')
    expect(await read(id)).toEqual({ version: '2', updated_at: future })
  })

  test('each change of a transaction apart', async () => {
    const id = await insert()
    await sql.begin(async (transaction) => {
      for (let n = 1; n <= 3; n++)
        await transaction`update products set stock = ${n} where id = ${id}`
    })
    expect((await read(id)).version).toBe('4')
  })

  test('a version that JavaScript can count: there is no change after the last', async () => {
    const id = await insert('version', '9007199254740991')
    expect(await refusal(update(id, 'stock = 1'))).toEqual(checkViolation('products_version_range'))
  })

  test('the versions of many writers at once', async () => {
    const id = await insert()
    await Promise.all(Array.from({ length: 50 }, (_, n) => update(id, `stock = ${n + 1}`)))
    expect((await read(id)).version).toBe('51')
  })
})
