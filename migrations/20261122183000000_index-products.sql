-- Up Migration

-- One index for each sort and filter of the API, `id` breaking its ties. PostgreSQL reads them
-- backwards, too, so each serves both ways.
create index products_name_idx on products (name, id);
create index products_price_idx on products (price, id);
create index products_currency_idx on products (currency, id);
create index products_stock_idx on products (stock, id);
create index products_created_at_idx on products (created_at, id);
create index products_updated_at_idx on products (updated_at, id);
-- A comparison of rows cannot pass over a null. Where it stands, last, is a column of the key, so
-- that a page can begin anywhere. Filters on `sku` are served by its unique index.
create index products_sku_idx on products ((sku is null), coalesce(sku, ''), id);

-- The words of a text, whatever stands between them: PostgreSQL's parser by itself would take
-- "mug-1" for a mug and the number -1, and "a/b" for a file. The class is ASCII's punctuation. With
-- translate() in its place, a text of 100 characters took 37 µs to be cleared of it, for 8 µs: that
-- was a third of the time of an insert.
create function to_words(content text) returns tsvector
  language sql immutable strict parallel safe
  return to_tsvector('simple', regexp_replace(content, '[!-/:-@[-`{-~]+', ' ', 'g'));

-- What `q` looks for: all of its words, each from the start of a word on. Null, which finds nothing,
-- when it has no word.
create function to_search(content text) returns tsquery
  language sql immutable strict parallel safe
  return (select string_agg(format('%L:*', lexeme), ' & ')::tsquery from unnest(to_words(content)));

create index products_words_idx on products
  using gin (to_words(name || ' ' || coalesce(sku, '') || ' ' || coalesce(description, '')));

-- Down Migration

drop index products_words_idx;
drop function to_search(text);
drop function to_words(text);
drop index products_sku_idx;
drop index products_updated_at_idx;
drop index products_created_at_idx;
drop index products_stock_idx;
drop index products_currency_idx;
drop index products_price_idx;
drop index products_name_idx;
