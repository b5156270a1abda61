// Every statement on the table `products`. PostgreSQL writes the JSON, so no decimal and no microsecond is lost.
import type { Fragment, Sql } from '../database/connection.ts'
import { type Column, type Columns, matching } from '../database/filters.ts'
import { commaList, keyset, type Place } from '../database/keyset.ts'
import type { NewProduct, ProductPage, ProductPatch, ProductSelection } from './schema.ts'

type ListedField = ProductSelection['filters'][number]['field']
type ShownField = NonNullable<ProductPage['fields']>[number]

/** A product with its JSON as the API shows it. */
export interface StoredProduct {
  id: number
  version: number
  json: string
}

/** One of a list, with its sort key as the text of a JSON array. */
export interface ListedProduct {
  json: string
  key: string
}

/** RFC 3339, whatever the session's time zone. */
const rfc3339 = (sql: Sql, time: Fragment) =>
  sql`to_char(${time} at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')`

/** The columns of the API, in its order. */
const columns = (sql: Sql) => sql`
  id, sku, name, description, price, currency, stock, attributes, version,
  ${rfc3339(sql, sql`created_at`)} as created_at,
  ${rfc3339(sql, sql`updated_at`)} as updated_at`

/** What lists may be filtered and sorted by. */
const listed: Columns<ListedField> = {
  id: (sql) => ({ column: sql`id`, type: sql`bigint` }),
  name: (sql) => ({ column: sql`name`, type: sql`text` }),
  sku: (sql) => ({ column: sql`sku`, type: sql`text`, nullable: true }),
  price: (sql) => ({ column: sql`price`, type: sql`numeric` }),
  currency: (sql) => ({ column: sql`currency`, type: sql`text` }),
  stock: (sql) => ({ column: sql`stock`, type: sql`integer` }),
  created_at: (sql) => timeColumn(sql, sql`created_at`),
  updated_at: (sql) => timeColumn(sql, sql`updated_at`),
}

const timeColumn = (sql: Sql, column: Fragment): Column => ({
  column,
  type: sql`timestamptz`,
  text: rfc3339(sql, column),
})

const names: Record<ShownField, (sql: Sql) => Fragment> = {
  id: (sql) => sql`id`,
  sku: (sql) => sql`sku`,
  name: (sql) => sql`name`,
  description: (sql) => sql`description`,
  price: (sql) => sql`price`,
  currency: (sql) => sql`currency`,
  stock: (sql) => sql`stock`,
  attributes: (sql) => sql`attributes`,
  version: (sql) => sql`version`,
  created_at: (sql) => sql`created_at`,
  updated_at: (sql) => sql`updated_at`,
}

/** Some of the columns of the API. */
const only = (sql: Sql, fields: ShownField[]) =>
  commaList(
    sql,
    fields.map((field) => names[field](sql)),
  )

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

/** The condition of the products that filters and `q` select; for any statement on the table. */
export function selected(sql: Sql, { filters, q }: ProductSelection): Fragment {
  const condition = matching(sql, listed, filters)
  if (q === undefined) return condition
  // As it stands in the index.
  return sql`${condition}
    and to_words(name || ' ' || coalesce(sku, '') || ' ' || coalesce(description, '')) @@ to_search(${q})`
}

/**
 * The products beyond a place, in the order of the walk, one more than `limit` when there are more;
 * and how many are selected, if that is asked for.
 *
 * The limit is a parameter like any other. PostgreSQL plans a statement for its very values as long as
 * a plan for any values looks dearer to it, and one for any limit does: it reckons with a tenth of the
 * rows. So each `q` is planned by how common its words are, the tenth time on a connection, too.
 */
export async function list(
  sql: Sql,
  request: ProductPage,
  place: Place | undefined,
): Promise<{ rows: ListedProduct[]; total: number | undefined }> {
  const { limit, sort, fields, count } = request
  const { beyond, order, key } = keyset(sql, listed, sort, place)
  const whole = sql`select ${columns(sql)}`
  const product = fields ? sql`select ${only(sql, fields)} from (${whole}) as whole` : whole
  const total = sql`(select count(*) from products where ${selected(sql, request)})`
  const rows = await sql<(ListedProduct & { total: number | null })[]>`
    select (select row_to_json(product)::text from (${product}) as product) as json,
           ${key} as key,
           ${count === 'exact' ? total : sql`null::bigint`} as total
    from products
    where ${selected(sql, request)} and ${beyond}
    order by ${order}
    limit ${limit + 1}`
  if (count === 'estimated') return { rows, total: await estimate(sql, request) }
  if (count === undefined) return { rows, total: undefined }
  return { rows, total: rows[0]?.total ?? (await countAll(sql, request)) }
}

/** How many are selected, where there is no row to say it: all of them are read. */
async function countAll(sql: Sql, selection: ProductSelection): Promise<number> {
  const rows = await sql<{ count: number }[]>`
    select count(*) from products where ${selected(sql, selection)}`
  return rows[0]!.count
}

/** How many are selected, as the planner thinks: none is read. */
async function estimate(sql: Sql, selection: ProductSelection): Promise<number> {
  const rows = await sql<{ 'QUERY PLAN': [{ Plan: { 'Plan Rows': number } }] }[]>`
    explain (format json) select from products where ${selected(sql, selection)}`
  return rows[0]!['QUERY PLAN'][0].Plan['Plan Rows']
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

/** The first line of an export as CSV. */
export const csvHeader = `${Object.keys(names).join()}\n`

/** Of an export: so many products are in memory at once, of some 50 kB each at most. */
const EXPORT_BATCH = 250

/**
 * The next products of an export in the order of their ids, each on a line of its own: as JSON, or as
 * CSV with every text in quotes, so that an empty field is a null.
 * @returns the id of the last one; null, and no text, when there are no more
 */
export async function exportBatch(
  sql: Sql,
  format: 'ndjson' | 'csv',
  selection: ProductSelection,
  after: number,
): Promise<{ text: string; last: number | null }> {
  const quoted = (text: Fragment) => sql`'"' || replace(${text}, '"', '""') || '"'`
  const line =
    format === 'ndjson'
      ? sql`row_to_json(product)::text`
      : sql`concat_ws(',', id, coalesce(${quoted(sql`sku`)}, ''), ${quoted(sql`name`)},
                coalesce(${quoted(sql`description`)}, ''), price, currency, stock,
                ${quoted(sql`attributes::text`)}, version, created_at, updated_at)`
  const [batch] = await sql<[{ text: string; last: number | null }]>`
    with product as (
      select ${columns(sql)}
      from products
      where ${selected(sql, selection)} and id > ${after}
      order by id
      limit ${EXPORT_BATCH}
    )
    select coalesce(string_agg(${line} || E'\n', '' order by id), '') as text, max(id) as last
    from product`
  return batch
}
