-- Up Migration

-- Every rule of the API is a rule of the table, so that it holds for whoever writes SQL, too.
-- The names of the constraints are part of the table's interface: src/products/schema.ts tells
-- which field of a request each of them speaks of.
create table products (
  id          bigint generated always as identity (maxvalue 9007199254740991),
  sku         text collate "C",
  name        text collate "C" not null,
  description text,
  price       numeric(12, 2) not null,
  currency    text collate "C" not null default 'USD',
  stock       integer not null default 0,
  attributes  jsonb not null default '{}',
  version     bigint not null default 1,
  created_at  timestamptz not null default now(),
  updated_at  timestamptz not null default now(),

  constraint products_pkey primary key (id),
  constraint products_sku_key unique (sku),

  -- JavaScript counts integers exactly up to here.
  constraint products_id_range check (id between 1 and 9007199254740991),
  constraint products_sku_length check (char_length(sku) between 1 and 64),
  constraint products_name_length check (char_length(name) between 1 and 200),
  -- What JavaScript's trim() takes away: Unicode's spaces, line ends and the byte order mark.
  constraint products_name_trimmed check (name = btrim(name,
    E'\t\n\u000b\f\r \u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000\ufeff')),
  constraint products_description_length check (char_length(description) <= 5000),
  -- The upper bound is for NaN, which PostgreSQL sorts above every number.
  constraint products_price_range check (price between 0 and 9999999999.99),
  constraint products_currency_format check (currency ~ '^[A-Z]{3}$'),
  constraint products_stock_range check (stock >= 0),
  constraint products_attributes_object check (jsonb_typeof(attributes) = 'object'),
  -- 16 KiB as compact JSON. PostgreSQL writes a space after each colon and comma; the last measure
  -- takes those away, strings left whole. The first two are cheap: what is larger than twice as
  -- much cannot be compact enough, and a megabyte costs the last one some seconds.
  constraint products_attributes_size check (
    octet_length(attributes::text) <= 16384
    or octet_length(attributes::text) <= 32768 and octet_length(regexp_replace(attributes::text, '("(?:[^"\\]|\\.)*")|([:,]) ', '\1\2', 'g')) <= 16384),
  constraint products_version_range check (version between 1 and 9007199254740991),
  -- RFC 3339 has years of four digits, and no infinity.
  constraint products_created_at_range check (created_at >= '0001-01-01Z' and created_at < '10000-01-01Z'),
  constraint products_updated_at_range check (updated_at >= '0001-01-01Z' and updated_at < '10000-01-01Z')
);

-- For every table with `version` and `updated_at`. The row is locked when a trigger runs before an
-- update, so versions grow one by one under any concurrency, and time does not run backwards.
create function keep_version() returns trigger language plpgsql as $$
begin
  new.version := old.version + 1;
  new.updated_at := greatest(clock_timestamp(), old.updated_at);
  return new;
end
$$;

-- `*<>` compares the stored bytes: an update that changes nothing leaves the version alone, while
-- 1 and 1.0 inside `attributes`, equal to `<>`, are a change that a reader can see.
create trigger products_keep_version
  before update on products
  for each row when (old.* *<> new.*)
  execute function keep_version();

-- RFC 7396: objects are merged member by member, null removes one, anything else replaces.
create function jsonb_merge_patch(target jsonb, patch jsonb) returns jsonb
  language plpgsql immutable parallel safe as $$
begin
  if jsonb_typeof(patch) <> 'object' then
    return patch;
  end if;
  return (
    select coalesce(jsonb_object_agg(key, case when p.value is null
                                               then t.value
                                               else jsonb_merge_patch(t.value, p.value) end), '{}')
    from jsonb_each(case when jsonb_typeof(target) = 'object' then target else '{}' end) as t
    full join jsonb_each(patch) as p using (key)
    where p.value is distinct from 'null'
  );
end
$$;

-- Down Migration

drop table products;
drop function keep_version();
drop function jsonb_merge_patch(jsonb, jsonb);
