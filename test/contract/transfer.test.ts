// Holds that any number of products goes in and comes out whole, or not at all, however bad the input.
import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterEach, beforeAll, beforeEach, describe, expect, inject, test } from 'vitest'
import { expectProblem, product, raw, type Api, type Response } from '../support/api.ts'
import { blocked, connect as connectTo, killBackends, lockTable } from '../support/database.ts'
import type { TestDatabase } from '../support/database.ts'
import { startTarget, type Target } from '../support/target.ts'

const MIB = 1024 * 1024
const NDJSON = { 'content-type': 'application/x-ndjson' }
const CSV = { 'content-type': 'text/csv' }

let target: Target
let api: Api
let database: TestDatabase
let url: string

beforeAll(async () => {
  target = await startTarget()
  ;({ api, database, url } = target)
})

beforeEach(async () => {
  await database.sql`truncate products`
})

const importNdjson = (body: unknown, query = '') =>
  api.request('POST', `/products/import${query}`, { body, headers: NDJSON })
const importCsv = (body: unknown, query = '') =>
  api.request('POST', `/products/import${query}`, { body, headers: CSV })
const exported = (accept?: string) => api.get('/products/export', accept ? { accept } : {})

const ndjson = (rows: unknown[]) => rows.map((row) => `${JSON.stringify(row)}\n`).join('')

async function count(): Promise<number> {
  const [row] = await database.sql<{ count: number }[]>`select count(*)::int from products`
  return row!.count
}

/** All that a client may set, in the order in which it came in. */
async function rows() {
  return database.sql`
    select sku, name, description, price::text, currency, stock, attributes from products order by id`
}

/** The memory of the service, where it is a process of its own. */
async function residentMegabytes() {
  if (target.runtime !== 'node') return undefined
  const status = await readFile(`/proc/${target.process.pid}/status`, 'utf8')
  return Number(/VmRSS:\s+(\d+)/.exec(status)![1]) / 1024
}

/** How many statements or transactions of the service are open. */
async function active(): Promise<number> {
  const [row] = await database.sql<{ count: number }[]>`
    select count(*)::int from pg_stat_activity
    where datname = ${database.address.database} and application_name = 'larder' and state <> 'idle'`
  return row!.count
}

const faults = (answer: Response, status = 422, code = 'validation') =>
  expectProblem(answer, status, code).errors.map(
    ({ line, pointer, code }: { line: number; pointer?: string; code: string }) =>
      [line, pointer, code].filter((part) => part !== undefined).join(' '),
  )

async function expectNothing() {
  expect(await count()).toBe(0)
  await expect.poll(active).toBe(0)
}

async function* pieces(bytes: Buffer, length: number) {
  for (let at = 0; at < bytes.length; at += length) yield bytes.subarray(at, at + length)
}

const hard = [
  { sku: 'A,1', name: 'Comma, "quotes" and\na line', description: '', price: 0 },
  { sku: 'B\r\n2', name: '😀 é 漢字', description: 'a\r\nb\rc\n', price: 9999999999.99, stock: 5 },
  { name: 'Null', price: '12.50', currency: 'EUR', attributes: { 'a"b': [1e30, null, 'c,"d"\n'] } },
  { sku: ' ', name: "'; drop table products; --", description: '\\N', price: 1e-2 },
]

describe('an import', () => {
  test('writes every row, with the defaults of what is left out', async () => {
    const answer = await importNdjson(ndjson(hard))
    expect(answer.status, answer.text).toBe(200)
    expect(answer.headers['content-type']).toBe('application/json')
    expect(answer.body).toEqual({ inserted: 4, updated: 0 })
    expect(await rows()).toEqual(
      hard.map((row) => ({
        sku: null,
        description: null,
        currency: 'USD',
        stock: 0,
        attributes: {},
        ...row,
        price: Number(row.price).toFixed(2),
      })),
    )
  })

  test('takes CSV: columns in any order, an empty field left out, "" a string, attributes JSON', async () => {
    const csv =
      '\ufeffprice,name,stock,sku,description,attributes\r\n' +
      '1.50,Plain,,,"",\r\n' +
      '\r\n' +
      '"2","Two\nlines, and ""quotes""",7,X-1,,"{""a"": [1, ""b""]}"\r\n' +
      '3,No end,0,,text,{}'
    expect((await importCsv(csv)).body).toEqual({ inserted: 3, updated: 0 })
    const common = { currency: 'USD', sku: null, description: null, attributes: {}, stock: 0 }
    expect(await rows()).toEqual([
      { ...common, name: 'Plain', price: '1.50', description: '' },
      {
        ...common,
        name: 'Two\nlines, and "quotes"',
        price: '2.00',
        sku: 'X-1',
        stock: 7,
        attributes: { a: [1, 'b'] },
      },
      { ...common, name: 'No end', price: '3.00', description: 'text' },
    ])
  })

  test('of nothing is an import of no rows', async () => {
    for (const body of ['', '\n', '\r\n \n\t\n', '\ufeff']) {
      expect((await importNdjson(body)).body).toEqual({ inserted: 0, updated: 0 })
    }
    for (const body of ['', '\n', 'name,price', 'name,price\n\n']) {
      expect((await importCsv(body)).body).toEqual({ inserted: 0, updated: 0 })
    }
    expect((await api.request('POST', '/products/import', { headers: NDJSON })).status).toBe(200)
  })

  test('takes what was read: the fields of the server are ignored', async () => {
    const { body } = await api.post('/products', product({ sku: 'READ' }))
    await database.sql`truncate products`
    const changed = { ...body, id: 900_000, version: 'x', created_at: null }
    expect((await importNdjson(ndjson([changed]))).body).toEqual({ inserted: 1, updated: 0 })
    const { items } = (await api.get('/products')).body
    expect(items[0]).toMatchObject({ sku: 'READ', version: 1, id: expect.any(Number) })
    expect(items[0].id).not.toBe(900_000)
  })

  test('is the same however its bytes arrive', async () => {
    const bytes = Buffer.from(ndjson(hard))
    for (const length of [1, 2, 3, 7]) {
      await database.sql`truncate products`
      expect((await importNdjson(pieces(bytes, length))).body).toEqual({ inserted: 4, updated: 0 })
      expect(await rows()).toMatchObject([{ sku: 'A,1' }, { name: '😀 é 漢字' }, {}, {}])
    }
    const csv = Buffer.from('sku,name,price\r\n"é\r\n""x""",😀,1\r\n,"漢,字",2')
    for (const length of [1, 2, 3, 7]) {
      await database.sql`truncate products`
      expect((await importCsv(pieces(csv, length))).body).toEqual({ inserted: 2, updated: 0 })
      expect(await rows()).toMatchObject([{ sku: 'é\r\n"x"', name: '😀' }, { name: '漢,字' }])
    }
  })

  test('replaces, as PUT does, the products whose sku is known when it is told to', async () => {
    const before = ['KEPT', 'SAME', 'GONE'].map((sku) =>
      product({ sku, description: 'old', stock: 3, attributes: { old: true } }),
    )
    await importNdjson(ndjson(before))
    const { items } = (await api.get('/products')).body
    const answer = await importNdjson(
      ndjson([{ sku: 'GONE', name: 'New', price: 2 }, product(), before[1]]),
      '?on_conflict=sku',
    )
    expect(answer.body).toEqual({ inserted: 1, updated: 2 })
    const [, gone, same, kept] = (await api.get('/products')).body.items
    expect(kept).toEqual(items[2])
    expect(same).toEqual(items[1]) // nothing changed, so the version neither
    expect(gone).toEqual({
      ...items[0],
      name: 'New',
      price: 2,
      description: null,
      stock: 0,
      attributes: {},
      version: 2,
      updated_at: expect.any(String),
    })
  })

  test('replaces whatever others replace meanwhile, each in an order of its own', async () => {
    const skus = Array.from({ length: 600 }, (_, n) => `SHELF-${n}`)
    const rowsBy = (writer: string, from = 0) =>
      skus.toSorted(() => Math.random() - 0.5).map((sku) => ({ sku, name: writer, price: from }))
    const replacing = Array.from({ length: 6 }, (_, n) =>
      importNdjson(ndjson(rowsBy(`import ${n}`)), '?on_conflict=sku'),
    )
    for (let n = 0; n < 12; n++) {
      const some = rowsBy(`bulk ${n}`).slice(0, 100)
      replacing.push(api.post('/products/bulk?on_conflict=sku', some))
    }
    const answers = await Promise.all(replacing)
    expect(answers.map(({ status }) => status)).toEqual(answers.map(() => 200))
    expect(answers.reduce((sum, { body }) => sum + body.inserted, 0)).toBe(600)
    expect(await count()).toBe(600)
  })

  test('that replaces keeps nobody from the products while its rows come', async () => {
    const shelf = Array.from({ length: 600 }, (_, n) => product({ sku: `SHELF-${n}`, stock: 1 }))
    await importNdjson(ndjson(shelf))
    const { id } = (await api.get('/products?sku=SHELF-0')).body.items[0]
    async function* slowly() {
      for (let n = 0; n < shelf.length; n += 300) yield ndjson(shelf.slice(n, n + 300))
      await expect.poll(active).toBe(1)
      expect((await api.post(`/products/${id}/stock`, { delta: 5 })).body.stock).toBe(6)
      expect((await importNdjson(ndjson(shelf), '?on_conflict=sku')).status).toBe(200)
      yield ndjson([{ sku: 'SHELF-0', name: 'Twice', price: 1 }, product({ sku: 'SHELF-600' })])
      yield ndjson([product({ sku: 'SHELF-599' })])
    }
    const problem = await importNdjson(slowly(), '?on_conflict=sku')
    expect(faults(problem)).toEqual(['601 #/sku duplicate', '603 #/sku duplicate'])
    expect((await api.get(`/products/${id}`)).body.stock).toBe(1)
    expect(await count()).toBe(600)
  })

  test('that replaces is not lost to a deadlock: it has all its rows, and writes them again', async () => {
    await importNdjson(ndjson([product({ sku: 'A' }), product({ sku: 'B' })]))
    const sql = connectTo(database.owner)
    await sql`begin`
    await sql`select from products where sku = 'B' for update`
    const rows = [
      { sku: 'B', name: 'New', price: 1 },
      { sku: 'A', name: 'New', price: 1 },
      product(),
    ]
    const importing = importNdjson(ndjson(rows), '?on_conflict=sku')
    // Who has waited for a second looks for a deadlock and gives way: that has to be the import.
    await sql`
      do $$ begin
        while not exists (
          select from pg_locks where not granted and pg_backend_pid() = any (pg_blocking_pids(pid))
        ) loop
          perform pg_sleep(0.01);
        end loop;
        update products set stock = 5 where sku = 'A';
      end $$`
    await sql`commit`
    await sql.end()
    expect((await importing).body).toEqual({ inserted: 1, updated: 2 })
    const [a] = (await api.get('/products?sku=A')).body.items
    expect(a).toMatchObject({ name: 'New', stock: 0, version: 3 })
  })

  test('counts what another wrote meanwhile as updated', async () => {
    const sql = connectTo(database.owner)
    await sql`begin`
    await sql`insert into products (sku, name, price) values ('RACE', 'Theirs', 1)`
    const importing = importNdjson(
      ndjson([{ sku: 'RACE', name: 'Ours', price: 2 }]),
      '?on_conflict=sku',
    )
    const refused = importNdjson(ndjson([product(), { sku: 'RACE', name: 'Ours', price: 2 }]))
    await expect.poll(active).toBe(2)
    await sleep(100)
    await sql`commit`
    await sql.end()
    expect((await importing).body).toEqual({ inserted: 0, updated: 1 })
    expect(faults(await refused, 409, 'conflict')).toEqual(['2 #/sku taken'])
    expect(await rows()).toMatchObject([{ sku: 'RACE', name: 'Ours' }])
  })

  test('is refused for a taken sku, at each line that has one', async () => {
    await importNdjson(ndjson([product({ sku: 'T-1' }), product({ sku: 'T-2' })]))
    const body = ndjson([product({ sku: 'T-2' }), product(), product({ sku: 'T-1' })])
    const problem = expectProblem(await importNdjson(body), 409, 'conflict')
    const taken = { pointer: '#/sku', code: 'taken', detail: 'is taken by another product' }
    expect(problem.errors).toEqual([
      { line: 1, ...taken },
      { line: 3, ...taken },
    ])
    expect(await count()).toBe(2)
  })

  test.each(['', '?on_conflict=sku'])(
    'is refused for the same sku twice, at the later line: %s',
    async (query) => {
      await api.post('/products', product({ sku: 'S-KNOWN' }))
      const many = Array.from({ length: 2500 }, (_, n) => product({ sku: `S-${n}` }))
      many[5]!.sku = 'S-3' // in one batch
      many[2100]!.sku = 'S-1050' // in another
      many[2200]!.sku = 'S-1'
      many[2201]!.sku = 'S-1'
      if (query) {
        many[10]!.sku = 'S-KNOWN'
        many[2300]!.sku = 'S-KNOWN'
      }
      const expected = ['6', '2101', '2201', '2202', ...(query ? ['2301'] : [])]
      expect(faults(await importNdjson(ndjson(many), query))).toEqual(
        expected.map((line) => `${line} #/sku duplicate`),
      )
      expect(await count()).toBe(1)
    },
  )

  test('tells every fault of every line, and of a hundred the first', async () => {
    const lines = Array.from({ length: 5000 }, (_, n) => JSON.stringify(product({ sku: `F-${n}` })))
    lines[0] = '{"name":"","price":-1,"colour":1}'
    lines[1] = ''
    lines[2] = '{"name":"X"'
    lines[3] = '[]'
    lines[4] = 'null'
    lines[2000] = '{"name":"X","price":1,"attributes":{"a":[1e400]}}'
    lines[4500] = '{"price":1}'
    lines[4999] = JSON.stringify(product({ sku: 'F-17' }))
    expect(faults(await importNdjson(lines.join('\n')))).toEqual([
      '1 #/name too_small',
      '1 #/price too_small',
      '1 #/colour unknown',
      '3 malformed',
      '4 # invalid_type',
      '5 # invalid_type',
      '2001 #/attributes/a/0 too_big',
      '4501 #/name required',
      '5000 #/sku duplicate',
    ])
    await expectNothing()

    await api.post('/products', product({ sku: 'F-10' }))
    const many = lines.map((line, n) => (n > 20 && n % 2 ? '{"price":1}' : line))
    const told = faults(await importNdjson(many.join('\n')))
    expect(told).toHaveLength(100)
    expect(told.slice(6, 9)).toEqual(['11 #/sku taken', '22 #/name required', '24 #/name required'])
    expect(told.at(-1)).toBe(`${22 + 2 * 92} #/name required`)
  })
})

describe('an export', () => {
  beforeEach(() => importNdjson(ndjson(hard)))

  test('shows every product as a page does, in the order of their ids', async () => {
    const [changed] = (await api.get('/products?sort=id')).body.items
    const description = '\\ "\u0001\u001f\u007f\u2028'
    await api.request('PATCH', `/products/${changed.id}`, { body: { sku: '"\t\\', description } })
    const answer = await exported()
    expect(answer.status).toBe(200)
    expect(answer.headers).toMatchObject({
      'content-type': 'application/x-ndjson',
      'content-disposition': 'attachment; filename="products.ndjson"',
      'x-request-id': expect.any(String),
    })
    const { text } = await api.get('/products?sort=id')
    const lines = answer.text.split('\n')
    expect(lines.pop()).toBe('')
    expect(`{"items":[${lines.join(',')}],`).toBe(text.slice(0, text.indexOf('"next_cursor"')))
    const [{ created_at, updated_at }] = JSON.parse(text).items
    expect(updated_at > created_at).toBe(true)
    expect((await exported('text/csv')).text).toContain(`,2,${created_at},${updated_at}\n`)
  })

  test('is CSV for who asks for that', async () => {
    await database.sql`truncate products restart identity`
    await api.post('/products', {
      sku: 'A"1',
      name: 'x\r\ny',
      price: '1.5',
      attributes: { a: 'ä' },
    })
    await api.post('/products', { name: ',', description: '', price: 0, stock: 7 })
    const answer = await exported('text/csv')
    expect(answer.headers).toMatchObject({
      'content-type': 'text/csv; charset=utf-8; header=present',
      'content-disposition': 'attachment; filename="products.csv"',
    })
    expect(answer.text.replaceAll(/\d{4}-\d\d-\d\dT[\d:.]+Z/g, 'TIME')).toBe(
      'id,sku,name,description,price,currency,stock,attributes,version,created_at,updated_at\n' +
        '1,"A""1","x\r\ny",,1.50,USD,0,"{""a"": ""ä""}",1,TIME,TIME\n' +
        '2,,",","",0.00,USD,7,"{}",1,TIME,TIME\n',
    )
  })

  test.each(['application/x-ndjson', 'text/csv'])('as %s goes in again as it was', async (type) => {
    const before = await rows()
    const { text } = await exported(type)
    await database.sql`truncate products`
    const again = await api.request('POST', '/products/import', {
      body: text,
      headers: { 'content-type': type },
    })
    expect(again.body).toEqual({ inserted: before.length, updated: 0 })
    expect(await rows()).toEqual(before)
  })

  test('has no rows of an empty table', async () => {
    await database.sql`truncate products`
    expect(await exported()).toMatchObject({ status: 200, text: '' })
    expect((await exported('text/csv')).text).toMatch(/^id,[a-z_,]+\n$/)
  })

  test.each([
    ['text/csv', 'text/csv'],
    ['TEXT/CSV', 'text/csv'],
    ['text/*', 'text/csv'],
    ['text/csv;q=0.5, application/x-ndjson;q=0.4', 'text/csv'],
    ['application/x-ndjson, text/csv;q=0.9', 'application/x-ndjson'],
    ['application/*', 'application/x-ndjson'],
    ['*/*', 'application/x-ndjson'],
    ['text/html,application/xml;q=0.9,*/*;q=0.8', 'application/x-ndjson'],
    ['application/json, text/csv;q=0.1', 'text/csv'],
  ])('for Accept: %s is %s', async (accept, type) => {
    expect((await exported(accept)).headers['content-type']).toContain(type)
  })

  test.each(['application/json', 'text/html', 'text/csv;q=0', 'image/*'])(
    'is not to be had as %s',
    async (accept) => {
      expectProblem(await exported(accept), 406, 'not_acceptable')
    },
  )

  test('is of those that filters and a search select, and takes nothing of a page', async () => {
    const names = async (query: string) =>
      (await api.get(`/products/export?${query}`)).text
        .split('\n')
        .filter((line) => line !== '')
        .map((line) => JSON.parse(line).name)
    expect(await names('price[gte]=1&currency=EUR')).toEqual(['Null'])
    expect(await names('sku[is]=null')).toEqual(['Null'])
    expect(await names('q=comm')).toEqual([hard[0]!.name])
    expect(await names('q=comm&currency=EUR')).toEqual([])
    for (const query of [
      'limit=5',
      'sort=id',
      'cursor=x',
      'fields=id',
      'count=exact',
      'colour=1',
    ]) {
      const problem = expectProblem(await api.get(`/products/export?${query}`), 422, 'validation')
      expect(problem.errors).toMatchObject([{ parameter: query.split('=')[0] }])
    }
    expectProblem(await api.get('/products/export?price=cheap'), 422, 'validation')
  })

  test('by HEAD has the headers alone, and holds no connection', async () => {
    const answer = await api.head('/products/export')
    expect(answer).toMatchObject({ status: 200, text: '' })
    expect(answer.headers['content-type']).toBe('application/x-ndjson')
    await expect.poll(active).toBe(0)
  })
})

/** So many rows that they fit into no buffer on the way. */
async function fill(count = 6000) {
  await database.sql`
    insert into products (sku, name, price, description)
    select 'SKU-' || n, 'Product ' || n, n, repeat('x', 5000) from generate_series(1, ${count}) as n`
}

describe('a transfer of many rows', () => {
  test('goes in and out', async () => {
    const many = Array.from({ length: 20_000 }, (_, n) =>
      product({ sku: n % 3 ? `MANY-${n}` : null, description: `Number ${n}` }),
    )
    expect((await importNdjson(ndjson(many))).body).toEqual({ inserted: 20_000, updated: 0 })
    const before = await rows()
    for (const type of ['text/csv', 'application/x-ndjson']) {
      const { text } = await exported(type)
      await database.sql`truncate products`
      const headers = { 'content-type': type }
      const again = await api.request('POST', '/products/import', { body: text, headers })
      expect(again.body).toEqual({ inserted: 20_000, updated: 0 })
      expect(await rows()).toEqual(before)
    }
  })

  test('shows one moment, whatever is written meanwhile', async () => {
    await fill(3000)
    const answer = await api.open('GET', '/products/export')
    await database.sql`update products set name = 'Later'`
    await database.sql`delete from products where id % 2 = 0`
    await fill(100).catch(() => {}) // its skus are taken
    await api.post('/products', product())
    const names = new Set<string>()
    let count = 0
    let rest = ''
    for await (const chunk of answer.setEncoding('utf8')) {
      const lines = (rest + chunk).split('\n')
      rest = lines.pop()!
      count += lines.length
      for (const line of lines) names.add(JSON.parse(line).name)
    }
    expect(count).toBe(3000)
    expect(names).not.toContain('Later')
  })

  test('waits with the next rows until the client has taken the last', async () => {
    await fill(16_000) // 80 MB: the sockets on the way to workerd took 30
    const answer = await api.open('GET', '/products/export')
    // The state of a transaction whose client is thinking.
    const waiting = async () => {
      const [row] = await database.sql<{ since: string }[]>`
        select state_change::text as since from pg_stat_activity
        where datname = ${database.address.database} and state = 'idle in transaction'`
      return row?.since
    }
    // What lies between takes some, and then no more.
    await expect
      .poll(async () => {
        const since = await waiting()
        await sleep(1500)
        return since !== undefined && since === (await waiting())
      })
      .toBe(true)
    let count = 0
    for await (const chunk of answer) count += chunk.toString('latin1').split('\n').length - 1
    expect(count).toBe(16_000)
    await expect.poll(active).toBe(0)
  })

  test('ends with a client that goes away while it reads', async () => {
    await fill()
    for (const taken of [0, 1, 20]) {
      const answer = await api.open('GET', '/products/export')
      for (let n = 0; n < taken; n++) await once(answer, 'data')
      answer.destroy()
      await expect.poll(active).toBe(0)
    }
    expect((await api.get('/products?limit=1')).status).toBe(200)
    if (target.runtime === 'node') {
      expect(target.log.filter(({ level }) => level === 'error')).toEqual([])
    }
  })

  test('is broken off, and not complete, when the database fails', async () => {
    await fill()
    const answer = await api.open('GET', '/products/export')
    expect(answer.statusCode).toBe(200)
    const received = (async () => {
      let text = ''
      for await (const chunk of answer.setEncoding('utf8')) {
        text += chunk
        if (text.length < 100_000) continue
        await sleep(100)
        await killBackends(database)
      }
      return text
    })()
    await expect(received).rejects.toThrow('aborted')
    expect(answer.complete).toBe(false)
    expect((await api.get('/products?limit=1')).status).toBe(200)
  })

  test('is broken off also when the client asks for more only after the failure', async () => {
    await fill()
    for (let n = 0; n < 10; n++) {
      const answer = await api.open('GET', '/products/export')
      await sleep(n % 2 ? 300 : 20)
      await killBackends(database)
      const received = (async () => {
        for await (const _ of answer);
      })()
      await expect(received).rejects.toThrow('aborted')
    }
  })

  test('is a problem, when the database fails before the first row', async () => {
    const lock = await lockTable(database)
    for (const accept of ['application/x-ndjson', 'text/csv']) {
      const answer = exported(accept)
      await expect.poll(() => blocked(database)).toBe(1)
      await killBackends(database)
      expectProblem(await answer, 503, 'unavailable')
    }
    await lock.release()
  })

  test('in is held up while the database works', async () => {
    const lock = await lockTable(database)
    let sent = 0
    async function* endless() {
      for (;;) {
        const text = ndjson(Array.from({ length: 100 }, () => product()))
        sent += text.length
        yield text
      }
    }
    const controller = new AbortController()
    const importing = api.request('POST', '/products/import', {
      body: endless(),
      headers: NDJSON,
      signal: controller.signal,
    })
    importing.catch(() => {})
    await expect.poll(() => blocked(database)).toBe(1)
    // What lies between takes some, and then no more.
    await expect
      .poll(async () => {
        const before = sent
        await sleep(500)
        return sent === before
      })
      .toBe(true)
    expect(sent).toBeLessThan(32 * MIB)
    controller.abort()
    await lock.release()
    // What had been sent is read first: nobody sees the end of a connection before that.
    await expect.poll(active, { timeout: 60_000 }).toBe(0)
    expect(await count()).toBe(0)
  })

  // Behind wrangler's proxy workerd is not told of a client that leaves while it waits for the answer.
  const toldOfDeparture = inject('runtime') === 'node'
  test.runIf(toldOfDeparture)(
    'in ends with a client that goes away, and its statement at once',
    async () => {
      const lock = await lockTable(database)
      const controller = new AbortController()
      const importing = api.request('POST', '/products/import', {
        body: ndjson([product()]),
        headers: NDJSON,
        signal: controller.signal,
      })
      importing.catch(() => {})
      await expect.poll(() => blocked(database)).toBe(1)
      controller.abort()
      await expect.poll(() => blocked(database)).toBe(0)
      await lock.release()
      await expectNothing()
    },
  )

  test('in ends with a client that goes away between two statements', async () => {
    async function* rows() {
      for (let n = 0; n < 5000; n++) yield ndjson([product()])
      await sleep(60_000)
    }
    const controller = new AbortController()
    const importing = api.request('POST', '/products/import', {
      body: rows(),
      headers: NDJSON,
      signal: controller.signal,
    })
    importing.catch(() => {})
    await expect.poll(active).toBe(1)
    await sleep(500)
    controller.abort()
    await expectNothing()
  })

  test('in whose connection is lost is a 503, and nothing is kept', async () => {
    async function* rows() {
      for (let n = 0; ; n++) {
        if (n === 100) {
          await expect.poll(active).toBe(1)
          await killBackends(database)
        }
        if (n === 200) return
        yield ndjson(Array.from({ length: 100 }, () => product()))
      }
    }
    expectProblem(await importNdjson(rows()), 503, 'unavailable')
    await expectNothing()
  })
})

describe('a bad import is refused, and nothing of it is kept:', () => {
  const good = ndjson([product({ sku: 'GOOD-1' }), product({ sku: 'GOOD-2' })])
  const header = 'sku,name,price\n'

  afterEach(expectNothing)

  test.each<[what: string, csv: string | Buffer, expected: string[]]>([
    ['a column that is unknown', 'name,price,colour\nX,1,red\n', ['1 #/colour unknown']],
    ['a column without a name', 'name,price,\nX,1,\n', ['1 #/ unknown']],
    ['a column that is named twice', 'name,price,name\nX,1,Y\n', ['1 #/name duplicate']],
    ['columns that are missing', '\nsku\nX\n', ['2 #/name required', '2 #/price required']],
    [
      'a header of something else',
      'name;price\nX;1\n',
      ['1 #/name%3Bprice unknown', '1 #/name required', '1 #/price required'],
    ],
    ['a header with spaces', 'name, price\nX,1\n', ['1 #/%20price unknown', '1 #/price required']],
    ['a header that is no CSV', 'na"me,price\nX,1\n', ['1 malformed']],
    ['NULs in the header', 'na\0me,price\n', ['1 #/na%00me unknown', '1 #/name required']],
    ['a bare quote', `${header}A,5" pipe,1\nB,ok,1\nC,6" pipe,1\n`, ['2 malformed', '4 malformed']],
    ['text behind a quote', `${header}A,"x"y,1\nB,,1\n`, ['2 malformed', '3 #/name required']],
    [
      'a quote that is never closed',
      `${header}A,ok,1\nB,"open,1\nC,,1\nD,ok,1\n`,
      ['3 malformed', '4 #/name required'],
    ],
    [
      'quotes that are wrong on several lines',
      `${header}A,"one\ntwo" three,1\nB,,1\n`,
      ['2 malformed', '3 malformed', '4 #/name required'],
    ],
    ['too few and too many fields', `${header}A,B\nA,B,1,2\n`, ['2 malformed', '3 malformed']],
    [
      'values that are none',
      `name,price,stock,sku,attributes\nX,1e3,x,"",[]\n"",,1.5,,"{"\n`,
      [
        '2 #/sku too_small',
        '2 #/price invalid_format',
        '2 #/stock invalid_type',
        '2 #/attributes invalid_type',
        '3 #/attributes malformed',
        '3 #/name too_small',
        '3 #/price required',
        '3 #/stock invalid_type',
      ],
    ],
    [
      'NULs',
      `${header}"A\0",X\0,1\n`,
      ['2 #/sku invalid_characters', '2 #/name invalid_characters'],
    ],
    ['a NUL behind a quote', `${header}A,"X"\0,1\n`, ['2 #/name invalid_characters']],
    ['lines counted to the record', `${header}\n"A","x\ny",1\n\n\nB,,1\n`, ['7 #/name required']],
  ])('CSV with %s', async (_, csv, expected) => {
    const told = faults(await importCsv(csv))
    expect(told.toSorted()).toEqual(expected.toSorted())
    const lines = told.map((fault: string) => Number.parseInt(fault, 10))
    expect(lines).toEqual(lines.toSorted((one: number, other: number) => one - other))
  })

  test.each<[what: string, bytes: number[], line: number]>([
    ['half a character', [0x22, 0xc3], 3],
    ['two halves on two lines', [0x22, 0x0a, 0xc3, 0x0a, 0xa9, 0x0a], 4],
    ['a byte that is none', [0x0a, 0x0a, 0x61, 0xff, 0x0a, 0x61, 0x0a], 5],
    ['half a surrogate pair', [0x0a, 0x22, 0xed, 0xa0, 0x80, 0x22, 0x0a], 4],
    ['a character written too long', [0x22, 0xc0, 0x80, 0x22], 3],
  ])('%s of UTF-8, however its bytes arrive', async (_, bytes, line) => {
    for (const length of [1, 2, 1000]) {
      for (const [send, start] of [
        [importNdjson, good],
        [importCsv, 'name,price\nX,1\n'],
      ] as const) {
        const body = Buffer.concat([Buffer.from(start), Buffer.from(bytes)])
        const problem = expectProblem(await send(pieces(body, length)), 400, 'malformed')
        expect(problem.detail).toContain(`Line ${line} `)
      }
    }
  })

  test('a line of 1 MiB passes, a longer one is too large', async () => {
    const line = (bytes: number) => `{"name":"${'x'.repeat(bytes - 11)}"}`
    const told = expectProblem(await importNdjson(`${line(MIB)}\n`), 422, 'validation')
    expect(told.errors).toHaveLength(2)
    for (const end of ['\n', '\r\n', '']) {
      const body = `${good}${line(MIB + 1)}${end}`
      expect(expectProblem(await importNdjson(body), 413, 'too_large').detail).toContain('Line 3 ')
      const csv = `${header}\n${line(MIB + 1)}${end}`
      expect(expectProblem(await importCsv(csv), 413, 'too_large').detail).toContain('Line 3 ')
    }
    // A record over many lines is bounded, too.
    const record = `${header}A,"${'many\n'.repeat(MIB / 4)}",1\n`
    expect(expectProblem(await importCsv(record), 413, 'too_large').detail).toContain('Line 2 ')
  })

  test('100 MB in one line', { timeout: 180_000 }, async () => {
    async function* endless() {
      yield header
      for (let n = 0; n < 100; n++) yield 'x'.repeat(MIB)
    }
    const before = await residentMegabytes()
    for (const send of [importNdjson, importCsv]) {
      const { detail } = expectProblem(await send(endless()), 413, 'too_large')
      expect(detail).toContain('Line 2 ')
    }
    if (before) expect((await residentMegabytes())! - before).toBeLessThan(100)
  })

  test('10,000 levels', async () => {
    const levels = 10_000
    const body = [
      '['.repeat(levels) + ']'.repeat(levels),
      '['.repeat(levels),
      `{"name":"X","price":1,"attributes":${'{"a":'.repeat(levels)}1${'}'.repeat(levels)}}`,
      `${'{"a":'.repeat(levels)}1${'}'.repeat(levels)}`,
    ].join('\n')
    expect(faults(await importNdjson(body))).toEqual([
      '1 # invalid_type',
      '2 malformed',
      '3 #/attributes too_deep',
      '4 #/name required',
      '4 #/price required',
      '4 #/a unknown',
    ])
  })

  test('a body that stops half way', async () => {
    const head = `POST /products/import HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-ndjson\r\n`
    for (const request of [
      `${head}Content-Length: 10000\r\n\r\n${good}`,
      `${head}Transfer-Encoding: chunked\r\n\r\n${good.length.toString(16)}\r\n${good}\r\n`,
      `${head}Transfer-Encoding: chunked\r\n\r\n${good.length.toString(16)}\r\n${good}\r\nzz\r\n`,
    ]) {
      const { text } = await raw(url, request, { half: true, timeoutMs: 1000 })
      expect(text).not.toContain('inserted')
      await expectNothing()
    }
  })

  test('in another form, or with what is not known', async () => {
    const send = (headers: Record<string, string>, query = '') =>
      api.request('POST', `/products/import${query}`, { body: good, headers })
    for (const type of ['application/json', 'text/plain', 'text/csv; charset=latin1', '']) {
      const answer = await send(type === '' ? {} : { 'content-type': type })
      expectProblem(answer, 415, 'unsupported_media_type')
    }
    const zipped = { ...NDJSON, 'content-encoding': 'gzip' }
    expectProblem(await send(zipped), 415, 'unsupported_media_type')
    for (const query of [
      '?on_conflict=name',
      '?on_conflict=',
      '?on_conflict=sku&on_conflict=sku',
    ]) {
      expectProblem(await send(NDJSON, query), 422, 'validation')
    }
    expectProblem(await send(NDJSON, '?colour=red'), 422, 'validation')
  })
})
