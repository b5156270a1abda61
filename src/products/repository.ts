// Every statement on the table `products`. PostgreSQL writes the JSON, so no decimal and no microsecond is lost.
import type { Sql } from '../database/connection.ts'
import type { NewProduct, ProductPatch } from './schema.ts'

/** A product with its JSON as the API shows it. */
export interface StoredProduct {
  id: number
  version: number
  json: string
}

/** What the API shows of a product, in its order. */
export const fields = [
  ...['id', 'sku', 'name', 'description', 'price', 'currency', 'stock', 'attributes', 'version'],
  ...['created_at', 'updated_at'],
]

/** The columns of the API, in its order; the times in RFC 3339 whatever the session's time zone. */
const columns = (sql: Sql) => sql`
  id, sku, name, description, price, currency, stock, attributes, version,
  to_char(created_at at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') as created_at,
  to_char(updated_at at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') as updated_at`

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

export async function find(sql: Sql, id: number): Promise<StoredProduct | undefined> {
  const rows = await sql<StoredProduct[]>`
    with product as (
      select ${columns(sql)} from products where id = ${id}
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
): Promise<StoredProduct | undefined> {
  const { sku, name, description, price, currency, stock, attributes } = product
  const rows = await sql<StoredProduct[]>`
    with product as (
      update products
      set sku = ${sku}, name = ${name}, description = ${description}, price = ${price},
          currency = ${currency}, stock = ${stock}, attributes = ${sql.json(attributes)}
      where id = ${id}
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
): Promise<StoredProduct | undefined> {
  if (Object.keys(patch).length === 0) return find(sql, id)
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
      where id = ${id}
      returning ${columns(sql)}
    )
    select id, version, row_to_json(product)::text as json from product`
  return rows[0]
}

/** Whether there was one to remove. */
export async function remove(sql: Sql, id: number): Promise<boolean> {
  const rows = await sql<{ id: number }[]>`delete from products where id = ${id} returning id`
  return rows.length > 0
}

export interface ImportedRows {
  inserted: number
  updated: number
  /** Those that were not written; `own` tells that it was this transaction which took the sku. */
  refused: { sku: string; own: boolean }[]
}

/**
 * Writes a batch of an import, no sku twice in it. A row whose sku is taken is not written, or
 * replaces the other with `replace`, unless that one was written by this very transaction.
 * @param rows a JSON array of {@link NewProduct}
 */
export async function importRows(sql: Sql, rows: string, replace: boolean): Promise<ImportedRows> {
  const own = sql`products.xmin = pg_current_xact_id()::xid`
  const action = replace
    ? sql`
        update set
          name = excluded.name, description = excluded.description, price = excluded.price,
          currency = excluded.currency, stock = excluded.stock, attributes = excluded.attributes
        where not ${own}`
    : sql`nothing`
  // A row that was there before has been locked by this transaction, which is then its xmax.
  const [result] = await sql<[ImportedRows]>`
    with row as materialized (
      select * from jsonb_to_recordset((${rows}::text)::jsonb) as row (
        sku text collate "C", name text, description text, price numeric, currency text,
        stock integer, attributes jsonb)
    ), written as (
      insert into products (sku, name, description, price, currency, stock, attributes)
      select sku, name, description, price, currency, stock, attributes from row
      on conflict (sku) do ${action}
      returning sku, xmax = 0 as inserted
    )
    select
      (select count(*) from written where inserted)::integer as inserted,
      (select count(*) from written where not inserted)::integer as updated,
      (select coalesce(json_agg(json_build_object('sku', sku, 'own', exists (
                select from products where products.sku = row.sku and ${own}))), '[]')
       from row
       where sku is not null and sku not in (select sku from written where sku is not null)
      ) as refused`
  return result
}

/** All that a transaction reads is from one moment. To be called before it reads anything. */
export async function keepSnapshot(sql: Sql): Promise<void> {
  await sql`set transaction isolation level repeatable read, read only`
}

/** Of an export: so many products are in memory at once, of some 50 kB each at most. */
const EXPORT_BATCH = 500

/**
 * The next products of an export in the order of their ids, each on a line of its own: as JSON, or as
 * CSV with every text in quotes, so that an empty field is a null.
 * @returns the id of the last one; null, and no text, when there are no more
 */
export async function exportBatch(
  sql: Sql,
  format: 'ndjson' | 'csv',
  after: number,
): Promise<{ text: string; last: number } | { last: null }> {
  const quoted = (text: ReturnType<Sql>) => sql`'"' || replace(${text}, '"', '""') || '"'`
  const line =
    format === 'ndjson'
      ? sql`row_to_json(product)::text`
      : sql`concat_ws(',', id, coalesce(${quoted(sql`sku`)}, ''), ${quoted(sql`name`)},
                coalesce(${quoted(sql`description`)}, ''), price, currency, stock,
                ${quoted(sql`attributes::text`)}, version, created_at, updated_at)`
  const [batch] = await sql<[{ text: string; last: number } | { last: null }]>`
    with product as (
      select ${columns(sql)} from products where id > ${after} order by id limit ${EXPORT_BATCH}
    )
    select string_agg(${line} || E'\n', '' order by id) as text, max(id) as last from product`
  return batch
}
