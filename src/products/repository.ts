// Every statement on the table `products`. PostgreSQL writes the JSON, so no decimal and no microsecond is lost.
import type { Sql } from '../database/connection.ts'
import type { NewProduct, ProductPatch } from './schema.ts'

/** A product with its JSON as the API shows it. */
export interface StoredProduct {
  id: number
  version: number
  json: string
}

/** The columns of the API, in its order; the times in RFC 3339 whatever the session's time zone. */
const columns = (sql: Sql) => sql`
  id, sku, name, description, price, currency, stock, attributes, version,
  to_char(created_at at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') as created_at,
  to_char(updated_at at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') as updated_at`

/** The versions in which a product is read or changed: among these, and in none of those. */
interface Condition {
  match?: number[] | undefined
  noneMatch?: number[] | '*' | undefined
}

const holds = (sql: Sql, { match, noneMatch }: Condition) => sql`
  ${match ? sql`and version = any (${`{${match.join()}}`}::bigint[])` : sql``}
  ${noneMatch === '*' ? sql`and false` : sql``}
  ${Array.isArray(noneMatch) ? sql`and version <> all (${`{${noneMatch.join()}}`}::bigint[])` : sql``}`

/** @throws {DatabaseError} `conflict`, when the sku is taken */
export async function create(sql: Sql, product: NewProduct): Promise<StoredProduct> {
  const { sku, name, description, price, currency, stock, attributes } = product
  const rows = await sql<StoredProduct[]>`
    with product as (
      insert into products (sku, name, description, price, currency, stock, attributes)
      values (${sku}, ${name}, ${description}, ${price}, ${currency}, ${stock}, ${sql.json(attributes)})
      returning ${columns(sql)}
    )
    select id, version, row_to_json(product)::text as json from product`
  return rows[0]!
}

/** One of many, as it was written: `json` is null where another product has its sku. */
interface Written {
  json: string | null
  inserted: boolean
}

/**
 * Writes many products in one statement, and returns them in their order, in which new ones get
 * their ids. A sku that is known is left alone, or its product replaced when `replacing`. No sku may
 * be there twice.
 *
 * The rows are written in the order of their skus, so that two writers who have some in common wait
 * for each other and never both at once.
 */
export async function createMany(
  sql: Sql,
  products: NewProduct[],
  replacing: boolean,
): Promise<Written[]> {
  return sql<Written[]>`
    with input as materialized (
      select nextval((select pg_get_serial_sequence('products', 'id')::regclass)) as id, sent.*
      from rows from (
        jsonb_to_recordset(${sql.json(products)}) as (
          sku text, name text, description text, price numeric, currency text, stock integer, attributes jsonb)
      ) with ordinality as sent (sku, name, description, price, currency, stock, attributes, place)
      order by place
    ), product as (
      insert into products (id, sku, name, description, price, currency, stock, attributes)
      overriding system value
      select id, sku, name, description, price, currency, stock, attributes
      from input
      order by sku collate "C"
      on conflict (sku) ${
        replacing
          ? sql`do update
              set name = excluded.name, description = excluded.description, price = excluded.price,
                  currency = excluded.currency, stock = excluded.stock, attributes = excluded.attributes`
          : sql`do nothing`
      }
      returning ${columns(sql)}
    )
    select created.id is not null as inserted,
           case when created.id is not null then row_to_json(created) else row_to_json(replaced) end::text as json
    from input
    left join product as created on created.id = input.id
    left join product as replaced on replaced.sku = input.sku
    order by place`
}

export async function find(
  sql: Sql,
  id: number,
  condition: Condition = {},
): Promise<StoredProduct | undefined> {
  const rows = await sql<StoredProduct[]>`
    with product as (
      select ${columns(sql)} from products where id = ${id} ${holds(sql, condition)}
    )
    select id, version, row_to_json(product)::text as json from product`
  return rows[0]
}

/**
 * The products on one side of an id, newest first: those below it on the way to the next page,
 * those above it on the way back. One more than `limit` is returned when there are more.
 */
export async function list(
  sql: Sql,
  page: { limit: number; below?: number | undefined; above?: number | undefined },
): Promise<StoredProduct[]> {
  const { limit, below, above } = page
  return sql<StoredProduct[]>`
    with product as (
      select ${columns(sql)}
      from products
      ${below === undefined ? sql`` : sql`where id < ${below}`}
      ${above === undefined ? sql`` : sql`where id > ${above}`}
      order by id ${above === undefined ? sql`desc` : sql`asc`}
      limit ${limit + 1}
    )
    select id, version, row_to_json(product)::text as json from product order by id desc`
}

/** @throws {DatabaseError} `conflict`, when the sku is taken */
export async function replace(
  sql: Sql,
  id: number,
  product: NewProduct,
  condition: Condition,
): Promise<StoredProduct | undefined> {
  const { sku, name, description, price, currency, stock, attributes } = product
  const rows = await sql<StoredProduct[]>`
    with product as (
      update products
      set sku = ${sku}, name = ${name}, description = ${description}, price = ${price},
          currency = ${currency}, stock = ${stock}, attributes = ${sql.json(attributes)}
      where id = ${id} ${holds(sql, condition)}
      returning ${columns(sql)}
    )
    select id, version, row_to_json(product)::text as json from product`
  return rows[0]
}

/**
 * Changes the fields that the patch names; null takes one back to its default.
 * @throws {DatabaseError} `conflict`, when the sku is taken; `invalid`, when the attributes get too large
 */
export async function change(
  sql: Sql,
  id: number,
  patch: ProductPatch,
  condition: Condition,
): Promise<StoredProduct | undefined> {
  if (Object.keys(patch).length === 0) return find(sql, id, condition)
  const rows = await sql<StoredProduct[]>`
    with patch as (
      select ${sql.json(patch)}::jsonb as fields
    ), product as (
      update products
      set sku         = case when fields ? 'sku' then fields ->> 'sku' else sku end,
          name        = coalesce(fields ->> 'name', name),
          description = case when fields ? 'description' then fields ->> 'description' else description end,
          price       = coalesce((fields ->> 'price')::numeric, price),
          currency    = case when fields ? 'currency' then coalesce(fields ->> 'currency', 'USD') else currency end,
          stock       = case when fields ? 'stock' then coalesce((fields ->> 'stock')::integer, 0) else stock end,
          attributes  = case fields -> 'attributes'
                          when 'null' then '{}'
                          else jsonb_merge_patch(attributes, coalesce(fields -> 'attributes', '{}'))
                        end
      from patch
      where id = ${id} ${holds(sql, condition)}
      returning ${columns(sql)}
    )
    select id, version, row_to_json(product)::text as json from product`
  return rows[0]
}

/** Adds to the stock, or takes from it; nothing when that would leave the range of a stock. */
export async function adjustStock(
  sql: Sql,
  id: number,
  delta: number,
  condition: Condition,
): Promise<StoredProduct | undefined> {
  const rows = await sql<StoredProduct[]>`
    with product as (
      update products
      set stock = stock + ${delta}::integer
      where id = ${id} ${holds(sql, condition)}
        and stock::bigint + ${delta}::bigint between 0 and 2147483647
      returning ${columns(sql)}
    )
    select id, version, row_to_json(product)::text as json from product`
  return rows[0]
}

/** The id, when there was one to remove. */
export async function remove(
  sql: Sql,
  id: number,
  condition: Condition,
): Promise<{ id: number } | undefined> {
  const rows = await sql<{ id: number }[]>`
    delete from products where id = ${id} ${holds(sql, condition)} returning id`
  return rows[0]
}
