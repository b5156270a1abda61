// Every statement on the table `idempotency_keys`.
import type { Sql } from '../database/connection.ts'

/** Of an answer what is kept: all of it but the headers of the one request, such as its id. */
export interface Answer {
  status: number
  headers: Record<string, string>
  body: string
}

/** The fingerprint is that of the request it was given to. */
export interface KeptAnswer extends Answer {
  fingerprint: string
}

/** A key belongs to its caller: two callers may use the same one. */
export interface Key {
  caller: string
  key: string
}

/** A request that came with a key. */
export interface KeyedRequest extends Key {
  fingerprint: string
}

/**
 * Takes the key for this transaction, or returns what was answered under it within 24 hours. Waits
 * for another transaction that has it.
 * @throws {DatabaseError} `timeout`, when the other one takes too long
 */
export async function claim(sql: Sql, { caller, key }: Key): Promise<KeptAnswer | undefined> {
  const rows = await sql<KeptAnswer[]>`
    select fingerprint, status, headers, body from claim_idempotency_key(${caller}, ${key})`
  return rows[0]
}

/** Stores the answer under a key that this transaction has claimed. */
export async function keep(
  sql: Sql,
  { caller, key }: Key,
  fingerprint: string,
  { status, headers, body }: Answer,
): Promise<void> {
  await sql`
    update idempotency_keys
    set fingerprint = ${fingerprint}, status = ${status}, headers = ${sql.json(headers)}, body = ${body}
    where caller = ${caller} and key = ${key}`
}

/** Whoever wants one of the keys that are being removed waits that long, a moment. */
const PURGE_BATCH = 100

/**
 * Removes a batch of the keys past their 24 hours, and passes over those that somebody is taking
 * anew. As a CTE, for a subquery with a limit can be run more than once.
 * @returns how many there were
 */
export async function removeExpired(sql: Sql): Promise<number> {
  const removed = await sql`
    with expired as materialized (
      select caller, key from idempotency_keys
      where created_at <= now() - interval '24 hours'
      order by created_at
      limit ${PURGE_BATCH}
      for update skip locked
    )
    delete from idempotency_keys as kept using expired
    where kept.caller = expired.caller and kept.key = expired.key`
  return removed.count
}
