// A peer: Hono and postgres.js as their own pages show them; rows are objects, and answers made of them.
import { serve } from '@hono/node-server'
import { zValidator } from '@hono/zod-validator'
import { Hono } from 'hono'
import postgres, { type JSONValue } from 'postgres'
import { z } from 'zod'

const { PORT, DATABASE_URL, POOL_MAX } = process.env as Record<string, string>

const sql = postgres(DATABASE_URL!, {
  max: Number(POOL_MAX),
  types: { bigint: { to: 20, from: [20], parse: Number, serialize: String } },
})

const columns = sql`
  id, sku, name, description, price::float8 as price, currency, stock, attributes, version,
  to_char(created_at at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') as created_at,
  to_char(updated_at at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') as updated_at`

const fields = z.object({
  sku: z.string().min(1).max(64).nullable(),
  name: z.string().trim().min(1).max(200),
  description: z.string().max(5000).nullable(),
  price: z.number().min(0).max(9_999_999_999.99),
  currency: z.string().regex(/^[A-Z]{3}$/),
  stock: z.int().min(0).max(2_147_483_647),
  attributes: z.record(z.string(), z.json()),
})
const NewProduct = fields.extend({
  sku: fields.shape.sku.default(null),
  description: fields.shape.description.default(null),
  currency: fields.shape.currency.default('USD'),
  stock: fields.shape.stock.default(0),
  attributes: fields.shape.attributes.default({}),
})
const Id = z.object({ id: z.coerce.number().int().positive() })
const Page = z.object({
  limit: z.coerce.number().int().min(1).max(100).default(20),
  cursor: z.coerce.number().int().positive().optional(),
})
const Version = z.object({ 'if-match': z.string().regex(/^"\d+"$/) })

const app = new Hono()

app.get('/health', (c) => c.json({ status: 'ok' }))

app.get('/products', zValidator('query', Page), async (c) => {
  const { limit, cursor } = c.req.valid('query')
  const items = await sql`
    select ${columns} from products
    ${cursor === undefined ? sql`` : sql`where id < ${cursor}`}
    order by id desc limit ${limit}`
  return c.json({ items })
})

app.get('/products/:id', zValidator('param', Id), async (c) => {
  const { id } = c.req.valid('param')
  const [product] = await sql`select ${columns} from products where id = ${id}`
  return product ? c.json(product) : c.json({ error: 'not found' }, 404)
})

app.post('/products', zValidator('json', NewProduct), async (c) => {
  const { sku, name, description, price, currency, stock, attributes } = c.req.valid('json')
  const [product] = await sql`
    insert into products (sku, name, description, price, currency, stock, attributes)
    values (${sku}, ${name}, ${description}, ${price}, ${currency}, ${stock}, ${sql.json(attributes)})
    returning ${columns}`
  return c.json(product, 201)
})

app.patch(
  '/products/:id',
  zValidator('param', Id),
  zValidator('header', Version),
  zValidator('json', fields.partial()),
  async (c) => {
    const { id } = c.req.valid('param')
    const version = Number(c.req.valid('header')['if-match'].slice(1, -1))
    const { attributes, ...plain } = c.req.valid('json')
    const patch = attributes ? { ...plain, attributes: sql.json(attributes as JSONValue) } : plain
    const [product] = await sql`
      update products set ${sql(patch)} where id = ${id} and version = ${version}
      returning ${columns}`
    if (product) return c.json(product)
    const found = await sql`select from products where id = ${id}`
    return found.length > 0
      ? c.json({ error: 'another version' }, 412)
      : c.json({ error: 'not found' }, 404)
  },
)

serve({ fetch: app.fetch, hostname: '127.0.0.1', port: Number(PORT) })
