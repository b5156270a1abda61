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

/** So many changes are removed by one statement. */
const PURGE_BATCH = 1000

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

/** A place among the changes: those of another era, from before a restore, stand in no order with it. */
export interface Position {
  era: string
  /** As text: it may be beyond what JavaScript counts exactly. */
  xid: string
  seq: number
}

/**
 * The changes after a position, oldest first: every one that is committed, once all the transactions
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
           coalesce(change.seq, place.seq) as seq, change.json::text as json
    from place left join lateral (
      select xid, seq, (
        select row_to_json(item) from (
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
    ) as change on true
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
