// How the tests run: one PostgreSQL for all of them, and the contract once on each runtime.
import { join } from 'node:path'
import { defineConfig } from 'vitest/config'

/**
 * A million products keep PostgreSQL busy for minutes: beside that, tests of how soon something is over
 * fail on a machine with two processors, and so do these, of how long a page takes and how much memory an
 * import.
 */
const large = ['test/plans.test.ts', 'test/transfer.test.ts']
/** How soon something is over, refused or told: that is to be measured with little else going on. */
const faults = ['test/faults/**/*.test.ts']
const contract = ['test/contract/**/*.test.ts', 'test/hostile/hostile.test.ts']

export default defineConfig({
  root: join(import.meta.dirname, '..'),
  test: {
    // The code runs as it does in the service: by Node, and not by Vite.
    experimental: { viteModuleRunner: false, nodeLoader: false },
    globalSetup: ['test/support/global-setup.ts'],
    setupFiles: ['test/support/setup.ts'],
    // Most of a test is waiting for the service, which is a process of its own.
    maxWorkers: 3,
    // A start with all its attempts to connect takes 8 s, a walk through pages of one product 10 s in
    // workerd; on a busy machine several times as much.
    testTimeout: 90_000,
    hookTimeout: 60_000,
    expect: { poll: { timeout: 10_000, interval: 20 } },
    projects: [
      { test: { name: 'node', include: contract, provide: { runtime: 'node' } } },
      { test: { name: 'workerd', include: contract, provide: { runtime: 'workerd' } } },
      {
        test: {
          name: 'once',
          include: ['test/**/*.test.ts'],
          exclude: [...contract, ...faults, ...large],
        },
      },
      { test: { name: 'faults', include: faults, maxWorkers: 2, sequence: { groupOrder: 1 } } },
      { test: { name: 'large', include: large, maxWorkers: 1, sequence: { groupOrder: 2 } } },
    ],
  },
})
