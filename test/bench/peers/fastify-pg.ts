// A peer: Fastify with schemas both ways, and pg with named statements, which is Node without waste.
import fastify from 'fastify'
import pg from 'pg'

const { PORT, DATABASE_URL, POOL_MAX } = process.env

pg.types.setTypeParser(pg.types.builtins.INT8, Number)
pg.types.setTypeParser(pg.types.builtins.NUMERIC, Number)
const pool = new pg.Pool({ connectionString: DATABASE_URL, max: Number(POOL_MAX) })

const columns = `
  id, sku, name, description, price, currency, stock, attributes, version,
  to_char(created_at at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') as created_at,
  to_char(updated_at at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') as updated_at`

function statement(name: string, text: string) {
  return async (...values: unknown[]) => (await pool.query({ name, text, values })).rows
}
const find = statement('find', `select ${columns} from products where id = $1`)
const first = statement('first', `select ${columns} from products order by id desc limit $1`)
const next = statement(
  'next',
  `select ${columns} from products where id < $2 order by id desc limit $1`,
)
const create = statement(
  'create',
  `insert into products (sku, name, description, price, currency, stock, attributes)
   values ($1, $2, $3, $4, $5, $6, $7)
   returning ${columns}`,
)

const id = { type: 'integer', minimum: 1 }
const textOrNull = { type: ['string', 'null'] }
const attributes = { type: 'object', additionalProperties: true }
const product = {
  type: 'object',
  properties: {
    id,
    sku: textOrNull,
    name: { type: 'string' },
    description: textOrNull,
    price: { type: 'number' },
    currency: { type: 'string' },
    stock: { type: 'integer' },
    attributes,
    version: { type: 'integer' },
    created_at: { type: 'string' },
    updated_at: { type: 'string' },
  },
}
const newProduct = {
  type: 'object',
  required: ['name', 'price'],
  properties: {
    sku: { ...textOrNull, minLength: 1, maxLength: 64, default: null },
    name: { type: 'string', minLength: 1, maxLength: 200, pattern: '\\S' },
    description: { ...textOrNull, maxLength: 5000, default: null },
    price: { type: 'number', minimum: 0, maximum: 9_999_999_999.99 },
    currency: { type: 'string', pattern: '^[A-Z]{3}$', default: 'USD' },
    stock: { type: 'integer', minimum: 0, maximum: 2_147_483_647, default: 0 },
    attributes: { ...attributes, default: {} },
  },
}
interface NewProduct {
  sku: string | null
  name: string
  description: string | null
  price: number
  currency: string
  stock: number
  attributes: object
}

const status = { type: 'object', properties: { status: { type: 'string' } } }
const error = { type: 'object', properties: { error: { type: 'string' } } }
const page = { type: 'object', properties: { items: { type: 'array', items: product } } }
const limit = { type: 'integer', minimum: 1, maximum: 100, default: 20 }

const app = fastify()

app.get('/health', { schema: { response: { 200: status } } }, async () => ({ status: 'ok' }))

app.get<{ Querystring: { limit: number; cursor?: number } }>(
  '/products',
  {
    schema: {
      querystring: { type: 'object', properties: { limit, cursor: id } },
      response: { 200: page },
    },
  },
  async ({ query: { limit, cursor } }) => ({
    items: cursor === undefined ? await first(limit) : await next(limit, cursor),
  }),
)

app.get<{ Params: { id: number } }>(
  '/products/:id',
  {
    schema: {
      params: { type: 'object', properties: { id } },
      response: { 200: product, 404: error },
    },
  },
  async ({ params }, reply) => {
    const [found] = await find(params.id)
    return found ?? reply.code(404).send({ error: 'not found' })
  },
)

app.post<{ Body: NewProduct }>(
  '/products',
  { schema: { body: newProduct, response: { 201: product } } },
  async ({ body }, reply) => {
    const { sku, name, description, price, currency, stock, attributes } = body
    const values = [sku, name.trim(), description, price, currency, stock, attributes]
    const [created] = await create(...values)
    return reply.code(201).send(created)
  },
)

await app.listen({ port: Number(PORT), host: '127.0.0.1' })
