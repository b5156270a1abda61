// The migrations this code was written for, by name: a deployed Worker has no folder to look into.
// `npm run migrate -- create` adds to it, and a test holds it against the folder `migrations`.
export const migrations: readonly string[] = [
  '20261122160000000_create-products',
  '20261122183000000_index-products',
  '20261122184500000_record-changes',
  '20261122190000000_keep-idempotency-keys',
  '20261122221500000_measure-attributes-in-one-pass',
]
