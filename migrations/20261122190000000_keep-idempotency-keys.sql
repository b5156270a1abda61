-- Up Migration

-- The answers to requests that came with an Idempotency-Key. A row is written by the transaction
-- that does the request's work and committed with it, so key, work and answer are there together or
-- not at all. It has no answer only as long as that transaction runs, when nobody else sees it.
create table idempotency_keys (
  caller      text collate "C" not null,
  key         text collate "C" not null,
  fingerprint text collate "C",
  status      integer,
  headers     jsonb,
  body        text,
  created_at  timestamptz not null default now(),

  constraint idempotency_keys_pkey primary key (caller, key),
  constraint idempotency_keys_key_format check (key ~ '^[!-~]{1,255}$'),
  constraint idempotency_keys_fingerprint_format check (fingerprint ~ '^[0-9a-f]{64}$'),
  constraint idempotency_keys_status_range check (status between 200 and 499),
  constraint idempotency_keys_headers_object check (jsonb_typeof(headers) = 'object'),
  constraint idempotency_keys_answer_whole check (num_nulls(fingerprint, status, headers, body) in (0, 4))
);

-- For the purge.
create index idempotency_keys_created_at_idx on idempotency_keys (created_at);

-- Takes a key for the transaction that calls it, and returns nothing; or returns the row of the
-- request that had it before. A twin that is still running is waited for, on the unique index: when
-- it commits, its answer is returned, and when it rolls back, the key is free. Fails with
-- lock_not_available when that takes longer than the limit.
--
-- A key older than 24 hours is taken as if it were not there, whether it was purged or not.
--
-- Each statement of a volatile function sees what was committed before it began: the select sees
-- what the insert has met. When it does not, the row was purged in between, or it is too old.
create function claim_idempotency_key(for_caller text, for_key text)
  returns setof idempotency_keys language plpgsql volatile set lock_timeout = '5s' as $$
declare
  -- One moment for all statements, so that a key is either kept or too old.
  too_old constant timestamptz := now() - interval '24 hours';
begin
  loop
    insert into idempotency_keys (caller, key) values (for_caller, for_key)
    on conflict on constraint idempotency_keys_pkey do nothing;
    exit when found;

    return query
      select * from idempotency_keys
      where caller = for_caller and key = for_key and created_at > too_old;
    exit when found;

    update idempotency_keys
    set fingerprint = null, status = null, headers = null, body = null, created_at = default
    where caller = for_caller and key = for_key and created_at <= too_old;
    exit when found;
  end loop;
end
$$;

-- Down Migration

drop function claim_idempotency_key(text, text);
drop table idempotency_keys;
