// Every statement on the table `products`. PostgreSQL writes the JSON, so no decimal and no microsecond is lost.
import type { Fragment, Sql } from '../database/connection.ts'
import { type Column, type Columns, matching } from '../database/filters.ts'
import { commaList, keyset, type Place, placesOf } from '../database/keyset.ts'
import type { KeyedRequest } from '../idempotency/repository.ts'
import type { NewProduct, ProductQuery, ProductPatch, ProductSelection } from './schema.ts'

type ListedField = ProductSelection['filters'][number]['field']
type ShownField = NonNullable<ProductQuery['fields']>[number]

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

/** The columns of the API, in its order; with the name of the table, where another has an `id`, too. */
const columns = (sql: Sql, table = sql``) => sql`
  ${table}id, sku, name, description, price, currency, stock, attributes, version,
  ${rfc3339(sql, sql`created_at`)} as created_at,
  ${rfc3339(sql, sql`updated_at`)} as updated_at`

/**
 * For what reads many: the JSON of a row with these columns, as `row_to_json` writes it, which looks up
 * the type of each column for each row again. So does `concat`: 7.1 µs for a product, 5.8 with `||`.
 */
const json = (sql: Sql) => sql`
  '{"id":' || id || ',"sku":' || coalesce(to_json(sku)::text, 'null') || ',"name":' || to_json(name)::text ||
  ',"description":' || coalesce(to_json(description)::text, 'null') || ',"price":' || price ||
  ',"currency":"' || currency || '","stock":' || stock || ',"attributes":' || attributes::text ||
  ',"version":' || version || ',"created_at":"' || created_at || '","updated_at":"' || updated_at || '"}'`

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

/** The versions in which a product is read or changed: among these, and in none of those. */
interface Condition {
  match?: number[] | undefined
  noneMatch?: number[] | '*' | undefined
}

const holds = (sql: Sql, { match, noneMatch }: Condition) => sql`
  ${match ? sql`and version = any (${`{${match.join()}}`}::bigint[])` : sql``}
  ${noneMatch === '*' ? sql`and false` : sql``}
  ${Array.isArray(noneMatch) ? sql`and version <> all (${`{${noneMatch.join()}}`}::bigint[])` : sql``}`

/** An answer has so much of changes, or a single one; a thousand of the largest would be 36 MB. */
const MOST_CHANGES_BYTES = 4 * 1024 * 1024

/** So many changes are removed by one statement. */
const PURGE_BATCH = 1000

/** How long one who writes together with others lets them wait for what a transaction under way has taken. */
const PATIENCE_WITH_OTHERS = '100ms'
/** One who writes alone waits, but for a twin with the same key, which is waited for in another way. */
const patience = ({ length }: unknown[], key?: string) =>
  length > 1 || key ? PATIENCE_WITH_OTHERS : null

/** A product to be, and the key that the request has, if it has one. */
export interface Creation extends Partial<KeyedRequest> {
  product: NewProduct
}

/**
 * Creates a product for each who asks for one, all of them or none; undefined for those whose sku or
 * whose key is taken. An answer goes under its key in the same statement. They are written in the order
 * of their skus, as in {@link createMany}.
 * @throws {DatabaseError} `conflict`, when a twin that was under way has committed the key
 */
export async function create(sql: Sql, asked: Creation[]): Promise<(StoredProduct | undefined)[]> {
  const rows = asked.map(({ product, ...keyed }) => ({ ...product, ...keyed }))
  const created = await sql<(StoredProduct | { id: null })[]>`
    with patience as materialized (
      select set_config('lock_timeout', coalesce(${patience(asked, asked[0]!.key)}, current_setting('lock_timeout')), true)
    ), input as materialized (
      select nextval((select pg_get_serial_sequence('products', 'id')::regclass)) as id, sent.*
      from patience cross join rows from (
        jsonb_to_recordset((${JSON.stringify(rows)}::text)::jsonb) as (
          sku text, name text, description text, price numeric, currency text, stock integer, attributes jsonb,
          caller text, key text, fingerprint text)
      ) with ordinality as sent (
        sku, name, description, price, currency, stock, attributes, caller, key, fingerprint, place)
      order by place
    ), product as (
      insert into products (id, sku, name, description, price, currency, stock, attributes)
      overriding system value
      select id, sku, name, description, price, currency, stock, attributes
      from input
      where not exists (
        select from idempotency_keys as kept where (kept.caller, kept.key) = (input.caller, input.key))
      order by sku collate "C"
      on conflict (sku) do nothing
      returning ${columns(sql)}
    ), answer as (
      select place, caller, key, fingerprint, product.id, product.version, row_to_json(product)::text as json
      from input left join product using (id)
    ), kept as (
      insert into idempotency_keys (caller, key, fingerprint, status, headers, body)
      select caller, key, fingerprint, 201,
             jsonb_build_object(
               'content-type', 'application/json',
               'etag', format('"%s"', version),
               'location', format('/products/%s', id)),
             json
      from answer
      where key is not null and id is not null
      order by caller, key
    )
    select id, version, json from answer order by place`
  return created.map((product) => (product.id === null ? undefined : product))
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
 * @param products a JSON array of {@link NewProduct}
 */
export async function createMany(
  sql: Sql,
  products: string,
  replacing: boolean,
): Promise<Written[]> {
  return sql<Written[]>`
    with input as materialized (
      select nextval((select pg_get_serial_sequence('products', 'id')::regclass)) as id, sent.*
      from rows from (
        jsonb_to_recordset((${products}::text)::jsonb) as (
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

/** The product of each id, undefined where there is none. */
export async function findAll(sql: Sql, ids: number[]): Promise<(StoredProduct | undefined)[]> {
  const rows = await sql<StoredProduct[]>`
    with product as (
      select ${columns(sql)} from products where id = any (${`{${ids.join()}}`}::bigint[])
    )
    select id, version, ${json(sql)} as json from product`
  const byId = new Map(rows.map((product) => [product.id, product]))
  return ids.map((id) => byId.get(id))
}

const hasWords = (sql: Sql, q: string) => sql`
  id in (select product_id from product_words where words @@ to_search(${q}))`

/** The condition of the products that filters and `q` select; for any statement on the table. */
export function selected(sql: Sql, { filters, q }: ProductSelection): Fragment {
  const condition = matching(sql, listed, filters)
  return q === undefined ? condition : sql`${condition} and ${hasWords(sql, q)}`
}

/**
 * How far a search looks in the order of the list, for each row of the page, before it asks the index
 * of words. A word that every hundredth product has is found there, in some milliseconds; of one that
 * fewer have the index gives at most that many to be sorted.
 */
const NEARBY = 100

/**
 * The products that a search is to be sorted from: all that have the words, or only the first `most`
 * where these stand near the beginning.
 *
 * The words are in one index and the order in another. Left to choose between them, PostgreSQL guesses
 * how common the words are; where it guesses too high, because they are rare, seldom stand together, or
 * all stand at the other end, it looks at the words of all products: 5 s for a million. Here what is
 * found near the beginning decides. (`offset 0` keeps the order, and with it that choice, out of the
 * second search, which does not run unless it is needed.)
 */
function searched(
  sql: Sql,
  { filters, q }: { filters: ProductSelection['filters']; q: string },
  { beyond, order, most }: { beyond: Fragment; order: Fragment; most: number },
): Fragment {
  const candidates = sql`select * from products where ${matching(sql, listed, filters)} and ${beyond}`
  // Where the planner thinks that half of all have the words, it would read all products. With nothing
  // else to select them by, each that the index of words gives is looked up.
  const found =
    filters.length > 0
      ? sql`${candidates} and ${hasWords(sql, q)}`
      : sql`
        select product.*
        from (select product_id from product_words where words @@ to_search(${q}) offset 0) as named
        cross join lateral (${candidates} and id = product_id offset 0) as product`
  return sql`
    with near as materialized (
      ${candidates} order by ${order} limit ${NEARBY * most}
    ), hit as materialized (
      select * from near
      where (select words from product_words where product_id = near.id) @@ (select to_search(${q}))
      order by ${order}
      limit ${most}
    )
    select * from hit where (select count(*) from hit) = ${most}
    union all
    select * from (${found} offset 0) as found
    where (select count(*) from hit) < ${most}`
}

/**
 * Whether a page is read off an index: sorted by one field, and filtered by a range of that field
 * alone, or down to the products with some ids or skus. On a million products that takes a
 * millisecond; anything else may take a second.
 */
export function isQuick({ sort, filters, q, count }: ProductQuery): boolean {
  const [first, second] = sort
  const isOneOrder =
    second === undefined || (second.field === 'id' && second.descending === first!.descending)
  const isRange = ({ field, operator }: ProductQuery['filters'][number]) =>
    field === first!.field && operator !== 'in' && operator !== 'ne'
  const isFew = ({ field, operator }: ProductQuery['filters'][number]) =>
    (field === 'id' || field === 'sku') && (operator === 'eq' || operator === 'in')
  const isServed = filters.every(isRange) || filters.some(isFew)
  return q === undefined && count !== 'exact' && isOneOrder && isServed
}

/** What lies beyond a place, in the order of the walk: one more than `limit` when there are more. */
export interface ListedPage {
  rows: ListedProduct[]
  /** How many are selected, if that is asked for. */
  total: number | undefined
}

/**
 * The page beyond each place, all in the same way; without a place there is one page, the first.
 * A page is one row, as the driver takes longer for 21 rows of three columns than PostgreSQL for
 * joining them. JSON as PostgreSQL writes it has no line breaks, so they part the products.
 *
 * The limit is a parameter like any other. PostgreSQL plans a statement for its very values as long as
 * a plan for any values looks dearer to it, and one for any limit does: it reckons with a tenth of the
 * rows. So each filter is planned by how common its value is, the tenth time on a connection, too.
 */
export async function list(
  sql: Sql,
  request: ProductQuery,
  places: Place[],
): Promise<ListedPage[]> {
  const { limit, sort, filters, q, fields, count } = request
  const most = limit + 1
  const { beyond, order, key } = keyset(sql, listed, sort, places[0])
  const whole = sql`select ${columns(sql)}`
  const item = fields
    ? sql`row_to_json(item)::text from (select ${only(sql, fields)} from (${whole}) as whole) as item`
    : sql`${json(sql)} from (${whole}) as item`
  const total = sql`(select count(*) from products where ${selected(sql, request)})`
  const pages = await sql<{ items: string | null; keys: string; total: number | null }[]>`
    select page.items, page.keys, ${count === 'exact' ? total : sql`null::bigint`} as total
    from ${placesOf(sql, listed, sort, places)}
    cross join lateral (
      select string_agg(json, E'\n') as items, string_agg(key, E'\n') as keys
      from (
        select (select ${item}) as json, ${key} as key
        from ${
          q === undefined
            ? sql`products where ${matching(sql, listed, filters)} and ${beyond}`
            : sql`(${searched(sql, { filters, q }, { beyond, order, most })}) as products`
        }
        order by ${order}
        limit ${most}
      ) as listed
    ) as page
    order by place.number`
  const estimated = count === 'estimated' ? await estimate(sql, request) : undefined
  return pages.map(({ items, keys, total }) => ({
    rows: items === null ? [] : toRows(items.split('\n'), keys.split('\n')),
    total: estimated ?? total ?? undefined,
  }))
}

const toRows = (items: string[], keys: string[]) =>
  items.map((json, index) => ({ json, key: keys[index]! }))

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

/** What is to be changed of a product, in the versions that it may have. */
export interface Change {
  id: number
  patch: ProductPatch
  condition: Condition
}

/**
 * What is asked first of each product, as rows for `jsonb_to_recordset`, in the order of the ids: what
 * is asked of the same one after that has to wait for it.
 */
function oncePerProduct<Asked extends { id: number; condition: Condition }>(asked: Asked[]) {
  const first = new Map(asked.toReversed().map((one) => [one.id, one]))
  const rows = [...first.values()]
    .filter(({ condition }) => condition.noneMatch !== '*')
    .toSorted((one, other) => one.id - other.id)
    .map(({ condition: { match, noneMatch }, ...one }) => ({
      ...one,
      match,
      none_match: noneMatch,
    }))
  return { first, rows }
}

/**
 * Changes the fields that each patch names, of all products or of none; null takes a field back to its
 * default. Undefined where there is no such product in such a version, and for a second change of the
 * same product, which has to wait for the first. Rows are locked in the order of their ids, as long as
 * PostgreSQL goes through few of them one by one; two that meet in another order run out of patience.
 * @throws {DatabaseError} `conflict`, when a sku is taken; `invalid`, when attributes get too large
 */
export async function change(sql: Sql, asked: Change[]): Promise<(StoredProduct | undefined)[]> {
  const { first, rows: patches } = oncePerProduct(asked)
  const rows = await sql<StoredProduct[]>`
    with patience as materialized (
      select set_config('lock_timeout', coalesce(${patience(asked)}, current_setting('lock_timeout')), true)
    ), change as materialized (
      select sent.*
      from patience cross join jsonb_to_recordset((${JSON.stringify(patches)}::text)::jsonb) as sent (
        id bigint, patch jsonb, match bigint[], none_match bigint[])
    ), product as (
      update products
      set sku         = case when patch ? 'sku' then patch ->> 'sku' else sku end,
          name        = coalesce(patch ->> 'name', name),
          description = case when patch ? 'description' then patch ->> 'description' else description end,
          price       = coalesce((patch ->> 'price')::numeric, price),
          currency    = case when patch ? 'currency' then coalesce(patch ->> 'currency', 'USD') else currency end,
          stock       = case when patch ? 'stock' then coalesce((patch ->> 'stock')::integer, 0) else stock end,
          attributes  = case
                          when not patch ? 'attributes' then attributes
                          when patch -> 'attributes' = 'null' then '{}'
                          else jsonb_merge_patch(attributes, patch -> 'attributes')
                        end
      from change
      where products.id = change.id
        and (match is null or version = any (match))
        and (none_match is null or version <> all (none_match))
      returning ${columns(sql, sql`products.`)}
    )
    select id, version, row_to_json(product)::text as json from product`
  const changed = new Map(rows.map((product) => [product.id, product]))
  return asked.map((one) => (first.get(one.id) === one ? changed.get(one.id) : undefined))
}

/** What is to be added to the stock of a product, and the key that the request has, if it has one. */
export interface Adjustment extends Partial<KeyedRequest> {
  id: number
  delta: number
  condition: Condition
}

/**
 * Adds to stocks, or takes from them, and puts each answer under its key. Undefined where there is no
 * such product in such a version, where its stock would leave the range, where the key is taken, and for
 * a second one of the same product.
 * @throws {DatabaseError} `conflict`, when a twin that was under way has committed the key
 */
export async function adjustStock(
  sql: Sql,
  asked: Adjustment[],
): Promise<(StoredProduct | undefined)[]> {
  const { first, rows: adjustments } = oncePerProduct(asked)
  const rows = await sql<StoredProduct[]>`
    with patience as materialized (
      select set_config('lock_timeout', coalesce(${patience(asked, asked[0]!.key)}, current_setting('lock_timeout')), true)
    ), adjustment as materialized (
      select sent.*
      from patience cross join jsonb_to_recordset((${JSON.stringify(adjustments)}::text)::jsonb) as sent (
        id bigint, delta integer, match bigint[], none_match bigint[],
        caller text, key text, fingerprint text)
    ), product as (
      update products
      set stock = stock + delta
      from adjustment
      where products.id = adjustment.id
        and stock::bigint + delta between 0 and 2147483647
        and (match is null or version = any (match))
        and (none_match is null or version <> all (none_match))
        and not exists (
          select from idempotency_keys as kept
          where (kept.caller, kept.key) = (adjustment.caller, adjustment.key))
      returning ${columns(sql, sql`products.`)}
    ), answer as (
      select product.id, product.version, row_to_json(product)::text as json from product
    ), kept as (
      insert into idempotency_keys (caller, key, fingerprint, status, headers, body)
      select caller, key, fingerprint, 200,
             jsonb_build_object('content-type', 'application/json', 'etag', format('"%s"', version)),
             json
      from answer join adjustment using (id)
      where key is not null
      order by caller, key
    )
    select id, version, json from answer`
  const adjusted = new Map(rows.map((product) => [product.id, product]))
  return asked.map((one) => (first.get(one.id) === one ? adjusted.get(one.id) : undefined))
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

/** A place among the changes: those of another era, from before a restore, stand in no order with it. */
export interface Position {
  era: string
  /** Numbers as text: they may be beyond what JavaScript counts exactly. */
  xid: string
  seq: string
}

/**
 * The changes after a position, oldest first, as many as an answer holds: every one that is committed, once all the transactions
 * are over that could still write one before it. Without a position they begin with the oldest that
 * is kept; `now` skips what there is. One row comes back also when there is none: its position is
 * the one to go on from, and its `json` is null.
 * @returns undefined, when changes after the position are not kept any more, or it is none of theirs
 */
export async function changes(
  sql: Sql,
  after: Position | 'now' | undefined,
  limit: number,
): Promise<(Position & { json: string | null })[] | undefined> {
  const rows = await sql<(Position & { json: string | null; is_kept: boolean })[]>`
    with kept as (
      select era, xid, seq, pg_snapshot_xmin(pg_current_snapshot()) as horizon
      from product_changes_start
    ), place as (
      ${
        after === undefined
          ? sql`select *, true as is_kept from kept`
          : after === 'now'
            ? // Not the horizon itself: a crash may take back transaction ids that nothing was written with.
              sql`
              select era, coalesce(newest.xid, kept.xid) as xid, coalesce(newest.seq, kept.seq) as seq,
                     horizon, true as is_kept
              from kept left join lateral (
                select xid, seq from product_changes
                where xid < horizon order by xid desc, seq desc limit 1
              ) as newest on true`
            : sql`
              select era, after.xid, after.seq, horizon,
                     era = ${after.era} and (kept.xid, kept.seq) <= (after.xid, after.seq)
                       and after.xid <= horizon as is_kept
              from kept, (select ${after.xid}::xid8 as xid, ${after.seq}::bigint as seq) as after`
      }
    )
    select is_kept, era, coalesce(change.xid, place.xid)::text as xid,
           coalesce(change.seq, place.seq)::text as seq, change.json
    from place left join lateral (
      select *, sum(octet_length(json)) over (order by xid, seq) - octet_length(json) as bytes_before
      from (select xid, seq, (
        select row_to_json(item)::text from (
          select op, product_id as id, version,
                 to_char(at at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') as at,
                 (select row_to_json(stored)
                  from (select ${columns(sql)} from jsonb_populate_record(null::products, product)) as stored
                  where product is not null) as product
        ) as item
      ) as json
      from product_changes
      where is_kept and (xid, seq) > (place.xid, place.seq) and xid < horizon
      order by xid, seq
      limit ${limit}
      ) as next
    ) as change on change.bytes_before < ${MOST_CHANGES_BYTES}
    order by change.xid, change.seq`
  return rows[0]?.is_kept ? rows : undefined
}

/**
 * Removes the oldest changes, as far as they are older than `retentionMs`, and not more than a batch
 * of them. It waits for nobody and nobody waits for it: writers and readers touch no row that it
 * locks, and where two run at once, one leaves the work to the other.
 * @returns how many it removed
 */
export async function purgeChanges(sql: Sql, retentionMs: number): Promise<number> {
  const rows = await sql<{ count: number }[]>`
    with start as (
      select xid, seq from product_changes_start for update skip locked
    ), oldest as materialized (
      select change.* from start cross join lateral (
        select xid, seq, at from product_changes
        where (xid, seq) > (start.xid, start.seq)
          and xid < pg_snapshot_xmin(pg_current_snapshot())
        order by xid, seq
        limit ${PURGE_BATCH}
      ) as change
    ), young as (
      select xid, seq from oldest
      where at >= now() - ${retentionMs}::float8 * interval '1 ms'
      order by xid, seq limit 1
    ), removed as (
      delete from product_changes using oldest
      where (product_changes.xid, product_changes.seq) = (oldest.xid, oldest.seq)
        and not exists (
          select from young where (young.xid, young.seq) <= (oldest.xid, oldest.seq))
      returning oldest.xid, oldest.seq
    ), moved as (
      update product_changes_start
      set (xid, seq) = (select xid, seq from removed order by xid desc, seq desc limit 1)
      where exists (select from removed)
    )
    select count(*)::int as count from removed`
  return rows[0]!.count
}

/**
 * Whether there are changes of another server: those that came with a dump into a new one, where
 * transaction ids begin anew. A change that can be seen was written, and so was the one that it
 * has its `xid` from, by a transaction that began before the end of the snapshot.
 */
export async function hasForeignChanges(sql: Sql): Promise<boolean> {
  const rows = await sql`
    select from product_changes where xid >= pg_snapshot_xmax(pg_current_snapshot())
    union all
    select from product_changes_start where xid > pg_snapshot_xmax(pg_current_snapshot())
    limit 1`
  return rows.length > 0
}

/**
 * Forgets all changes if some are of another server: whoever follows them is told to start over.
 * For a session. No writer may be under way, so it gives up after a while and holds nobody up.
 */
export async function removeForeignChanges(sql: Sql): Promise<void> {
  await sql`set local lock_timeout = '2s'`
  await sql`lock table product_changes in access exclusive mode`
  if (await hasForeignChanges(sql)) await sql`truncate product_changes`
}

export interface ImportedRows {
  inserted: number
  /** Those whose sku is taken, by their lines; `own` tells that it was this import which took it. */
  refused: { line: number; own: boolean }[]
  /** The id of a row that was written, if one was. */
  witness: number | null
}

/**
 * Writes a batch of an import, no sku twice in it, but for the rows whose sku is taken.
 * @param rows a JSON array of {@link NewProduct}, each with its `line`
 * @param witness the id of a row that a batch before this one has written
 */
export async function importRows(
  sql: Sql,
  rows: string,
  witness: number | null,
): Promise<ImportedRows> {
  // What was written by the transaction or, behind a savepoint, by the part of it that this import is.
  const [result] = await sql<[ImportedRows]>`
    with row as materialized (
      select * from jsonb_to_recordset((${rows}::text)::jsonb) as row (
        line bigint, sku text collate "C", name text, description text, price numeric,
        currency text, stock integer, attributes jsonb)
    ), written as (
      insert into products (sku, name, description, price, currency, stock, attributes)
      select sku, name, description, price, currency, stock, attributes from row
      on conflict (sku) do nothing
      returning id, sku
    )
    select
      (select count(*) from written)::integer as inserted,
      (select coalesce(json_agg(json_build_object('line', line, 'own', exists (
                select from products
                where products.sku = row.sku
                  and xmin is not distinct from (select xmin from products where id = ${witness})
              ))), '[]')
       from row
       where sku is not null and sku not in (select sku from written where sku is not null)
      ) as refused,
      (select max(id) from written) as witness`
  return result
}

/**
 * For an import that replaces: its rows wait here until all have come. Then the products of others are
 * locked for as long as writing takes, however slowly the rows came, and in the order of their skus: of
 * two imports that wrote as they read, each soon waited for what the other had.
 */
export async function openStage(sql: Sql): Promise<void> {
  await sql`
    create temporary table staged on commit drop as
    select 0::bigint as line, id, sku collate "C" as sku, name, description, price, currency, stock, attributes
    from products
    with no data`
}

/**
 * Takes a batch in. A row without a sku replaces nothing, so it is written at once.
 * @param rows a JSON array of {@link NewProduct}, each with its `line`
 * @returns how many were written
 */
export async function stageRows(sql: Sql, rows: string): Promise<number> {
  const [row] = await sql<[{ inserted: number }]>`
    with row as materialized (
      select nextval((select pg_get_serial_sequence('products', 'id')::regclass)) as id, sent.*
      from jsonb_to_recordset((${rows}::text)::jsonb) as sent (
        line bigint, sku text, name text, description text, price numeric, currency text,
        stock integer, attributes jsonb)
    ), kept as (
      insert into pg_temp.staged (line, id, sku, name, description, price, currency, stock, attributes)
      select line, id, sku, name, description, price, currency, stock, attributes
      from row
      where sku is not null
    ), written as (
      insert into products (id, name, description, price, currency, stock, attributes)
      overriding system value
      select id, name, description, price, currency, stock, attributes
      from row
      where sku is null
      returning id
    )
    select count(*)::integer as inserted from written`
  return row.inserted
}

/** @returns the first lines, up to `most`, whose sku an earlier one has */
export async function repeatedLines(sql: Sql, most: number): Promise<number[]> {
  const rows = await sql<{ line: number }[]>`
    select line
    from (select line, lag(sku) over (order by sku, line) = sku as repeats from pg_temp.staged) as row
    where repeats
    order by line
    limit ${most}`
  return rows.map(({ line }) => line)
}

/** All rows have come, and none has the sku of another: makes ready for `writeStaged`. */
export async function closeStage(sql: Sql): Promise<void> {
  await sql`create index on pg_temp.staged (sku)`
  await sql`savepoint staged`
}

/** As if nothing had been written of what was staged. */
export async function backToStage(sql: Sql): Promise<void> {
  await sql`rollback to savepoint staged`
}

/** Of rows that may be large, in a statement. */
const STAGE_BATCH = 250

/**
 * Writes the next of the rows that were staged, no sku twice among them: as new products, or in place
 * of the ones that have their skus.
 * @param after the sku to go on after; an empty one at first
 * @returns `last`: the sku to go on after, null when there are no more
 */
export async function writeStaged(
  sql: Sql,
  after: string,
): Promise<{ inserted: number; updated: number; last: string | null }> {
  // A row that was there before has been locked by this transaction, which is then its xmax.
  const [result] = await sql<[{ inserted: number; updated: number; last: string | null }]>`
    with row as materialized (
      select * from pg_temp.staged where sku > ${after} order by sku limit ${STAGE_BATCH}
    ), written as (
      insert into products (id, sku, name, description, price, currency, stock, attributes)
      overriding system value
      select id, sku, name, description, price, currency, stock, attributes
      from row
      order by sku
      on conflict (sku) do update
        set name = excluded.name, description = excluded.description, price = excluded.price,
            currency = excluded.currency, stock = excluded.stock, attributes = excluded.attributes
      returning xmax = 0 as inserted
    )
    select
      count(*) filter (where inserted)::integer as inserted,
      count(*) filter (where not inserted)::integer as updated,
      (select max(sku) from row) as last
    from written`
  return result
}

/** All that a transaction reads is from one moment. To be called before it reads anything. */
export async function keepSnapshot(sql: Sql): Promise<void> {
  await sql`set transaction isolation level repeatable read, read only`
}

/** The first line of an export as CSV. */
export const csvHeader = `${Object.keys(names).join()}\n`

/** Of an export: of two such batches the products are in memory at once, of some 50 kB each at most. */
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
      ? json(sql)
      : sql`id || ',' || coalesce(${quoted(sql`sku`)}, '') || ',' || ${quoted(sql`name`)} || ',' ||
            coalesce(${quoted(sql`description`)}, '') || ',' || price || ',' || currency || ',' || stock || ',' ||
            ${quoted(sql`attributes::text`)} || ',' || version || ',' || created_at || ',' || updated_at`
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
