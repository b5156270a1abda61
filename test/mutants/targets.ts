// Which code is broken on purpose, and which tests are to notice it.

/** By file of `src`: those tests that speak of it, quick ones first. */
export const targets: Record<string, string[]> = {
  'src/http/preconditions.ts': ['test/contract/preconditions.test.ts'],
  'src/http/page.ts': ['test/contract/pages.test.ts', 'test/app.test.ts'],
  'src/database/keyset.ts': ['test/contract/pages.test.ts', 'test/contract/lists.test.ts'],
  'src/database/filters.ts': ['test/contract/lists.test.ts'],
  'src/database/errors.ts': [
    'test/contract/drift.test.ts',
    'test/database/errors.test.ts',
    'test/database/pool.test.ts',
    'test/faults/start-up.test.ts',
  ],
  'src/database/verification.ts': [
    'test/app.test.ts',
    'test/service-role.test.ts',
    'test/faults/start-up.test.ts',
  ],
  'src/database/connection.ts': ['test/database/pool.test.ts'],
  'src/database/pool.ts': ['test/database/pool.test.ts'],
  'src/database/sharing.ts': ['test/database/sharing.test.ts'],
  'src/idempotency/once.ts': ['test/contract/idempotency.test.ts'],
  'src/idempotency/repository.ts': [
    'test/contract/idempotency.test.ts',
    'test/idempotency.test.ts',
  ],
}
