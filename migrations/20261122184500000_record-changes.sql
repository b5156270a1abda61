-- Up Migration

-- What changed, for clients that follow it: written by the database itself with each statement on
-- `products`, whoever sends it, and read by GET /products/changes in the order of (xid, seq).
--
-- A sequence alone is no order to follow: a transaction may take a low number and commit late, behind
-- a reader. A transaction id alone is none either: one that began early may change a product after a
-- later one did. So `xid` is the writer's own, or that of the product's previous change when it is
-- greater, and a change is shown when every transaction below its `xid` has ended. Then nothing
-- comes late: who is still running, or starts later, writes at its own id or above. And a product's
-- changes stand in order: `xid` never falls, and `seq` was drawn while the row was locked.
create table product_changes (
  xid        xid8 not null,
  -- Its sequence must not hand out numbers in advance (`cache`).
  seq        bigint generated always as identity,
  op         text not null,
  product_id bigint not null,
  -- `seq` of the product's change before this one, as far as it is kept, or 0.
  prev       bigint not null,
  version    bigint not null,
  at         timestamptz not null default clock_timestamp(),
  -- The row as it was; of a deletion there is none. What a later migration adds to the table, it
  -- may add here: otherwise it is null in what was recorded before.
  product    jsonb,

  constraint product_changes_pkey primary key (xid, seq),
  -- Finds a product's latest change. And no two changes follow the same one: where a writer in
  -- REPEATABLE READ cannot see the latest (it adds a product anew that was deleted meanwhile), it
  -- fails here, instead of standing before it.
  constraint product_changes_chain unique (product_id, prev),
  constraint product_changes_op check (op in ('insert', 'update', 'delete'))
);

-- Where the changes that are kept begin: after this position. One row.
create table product_changes_start (
  is_only boolean primary key default true check (is_only),
  -- Positions of another era say nothing: see `truncate product_changes` below.
  era     uuid not null default gen_random_uuid(),
  xid     xid8 not null default '0',
  seq     bigint not null default 0
);
insert into product_changes_start default values;

-- Runs once a statement, so that a bulk of a thousand rows is one insert here, too: one of 100,000
-- costs PostgreSQL 1.2 times the CPU of one without it, a single insert 1.5 times, an update 1.35.
-- Who may write to `products` needs no rights for what happens here.
create function record_product_changes() returns trigger
  language plpgsql security definer set search_path = public, pg_temp as $$
begin
  if tg_op = 'INSERT' then
    insert into product_changes (xid, op, product_id, prev, version, product)
    select greatest(pg_current_xact_id(), latest.xid), 'insert', added.id, coalesce(latest.seq, 0),
           added.version, to_jsonb(added)
    from added left join lateral (
      select xid, seq from product_changes where product_id = added.id order by prev desc limit 1
    ) as latest on true;

  elsif tg_op = 'UPDATE' then
    -- A full join, because `set id = default` takes one product away and adds another. An update
    -- that changes nothing leaves the version, and is no change.
    insert into product_changes (xid, op, product_id, prev, version, product)
    select greatest(pg_current_xact_id(), latest.xid),
           case when removed.id is null then 'insert' when added.id is null then 'delete' else 'update' end,
           id, coalesce(latest.seq, 0), coalesce(added.version, removed.version + 1),
           case when added.id is not null then to_jsonb(added) end
    from removed full join added using (id) left join lateral (
      select xid, seq from product_changes where product_id = id order by prev desc limit 1
    ) as latest on true
    where added.version is distinct from removed.version;

  elsif tg_op = 'DELETE' then
    insert into product_changes (xid, op, product_id, prev, version)
    select greatest(pg_current_xact_id(), latest.xid), 'delete', removed.id, coalesce(latest.seq, 0),
           removed.version + 1
    from removed left join lateral (
      select xid, seq from product_changes where product_id = removed.id order by prev desc limit 1
    ) as latest on true;

  elsif current_setting('transaction_isolation') in ('repeatable read', 'serializable') then
    -- It takes away rows that its snapshot does not see, and nobody could tell which.
    raise exception 'products can be truncated in READ COMMITTED only'
      using errcode = 'invalid_transaction_state', hint = 'Use delete, or another isolation level.';

  else
    insert into product_changes (xid, op, product_id, prev, version)
    select greatest(pg_current_xact_id(), latest.xid), 'delete', id, coalesce(latest.seq, 0),
           version + 1
    from products left join lateral (
      select xid, seq from product_changes where product_id = id order by prev desc limit 1
    ) as latest on true;
  end if;
  return null;
end
$$;

create trigger products_record_insert after insert on products
  referencing new table as added
  for each statement execute function record_product_changes();
create trigger products_record_update after update on products
  referencing old table as removed new table as added
  for each statement execute function record_product_changes();
create trigger products_record_delete after delete on products
  referencing old table as removed
  for each statement execute function record_product_changes();
create trigger products_record_truncate before truncate on products
  for each statement execute function record_product_changes();

-- `truncate product_changes` begins anew: each cursor from before is answered with "gone".
create function restart_product_changes() returns trigger
  language plpgsql security definer set search_path = public, pg_temp as $$
begin
  update product_changes_start set era = default, xid = default, seq = default;
  return null;
end
$$;

create trigger product_changes_restart after truncate on product_changes
  for each statement execute function restart_product_changes();

-- Down Migration

drop trigger products_record_truncate on products;
drop trigger products_record_delete on products;
drop trigger products_record_update on products;
drop trigger products_record_insert on products;
drop function record_product_changes();
drop table product_changes;
drop function restart_product_changes();
drop table product_changes_start;
