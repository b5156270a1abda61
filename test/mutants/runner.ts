// Stryker's way to the tests: one Vitest, and one PostgreSQL, for all the mutants of a run.
//
// Most of the mutated code runs in processes that the tests start. Which mutant is on, they are told by
// their environment, as Stryker's command runner tells its command; but that one would start Vitest
// and PostgreSQL anew for each.
import { join } from 'node:path'
import { targets } from './targets.ts'
import { createVitest, type TestModule, type Vitest } from 'vitest/node'

/** What of a run Stryker asks for. */
interface MutantRun {
  activeMutant: { id: string; fileName: string }
}

/** A mutant may make a test wait; the one that finds it is not waited for much longer than it takes. */
const TEST_TIMEOUT_MS = 20_000

function createRunner({ mutate }: { mutate: string[] }) {
  let vitest: Vitest | undefined

  async function run(files: string[]) {
    const testFiles = [...new Set(files.flatMap((file) => targets[file]!))]
    const specifications = await vitest!.globTestSpecifications(testFiles)
    const { testModules, unhandledErrors } = await vitest!.runTestSpecifications(specifications)
    const tests = testModules.flatMap((module) => [...module.children.allTests()])
    const failed = tests.find((test) => test.result().state === 'failed')
    const failure =
      failed?.fullName ?? testModules.find(isBroken)?.moduleId ?? unhandledErrors[0]?.toString()
    return { tests, failed, failure }
  }

  return {
    capabilities: () => ({ reloadEnvironment: true }),

    async init() {
      vitest = await createVitest('test', {
        config: join(process.cwd(), 'test/vitest.config.ts'),
        watch: false,
        project: ['node', 'once'],
        reporters: [{}],
        bail: 1,
        testTimeout: TEST_TIMEOUT_MS,
      })
      await vitest.standalone()
    },

    async dryRun() {
      const { tests, failure } = await run(mutate)
      if (failure !== undefined) return { status: 'error', errorMessage: failure }
      const results = tests.map((test) => ({
        id: test.id,
        name: test.fullName,
        timeSpentMs: test.diagnostic()?.duration ?? 0,
        status: 0, // passed
      }))
      return { status: 'complete', tests: results }
    },

    async mutantRun({ activeMutant: { id, fileName } }: MutantRun) {
      process.env['__STRYKER_ACTIVE_MUTANT__'] = id
      const file = fileName.slice(fileName.lastIndexOf('/src/') + 1)
      const { tests, failed, failure } = await run([file])
      const nrOfTests = tests.length
      if (failure === undefined) return { status: 'survived', nrOfTests }
      const killedBy = failed ? [failed.id] : []
      return { status: 'killed', killedBy, failureMessage: failure, nrOfTests }
    },

    dispose: () => vitest?.close(),
  }
}

/** A file that could not be loaded, or whose `beforeAll` failed. */
const isBroken = (module: TestModule) => module.state() === 'failed'

createRunner.inject = ['options']

export const strykerPlugins = [{ kind: 'TestRunner', name: 'larder', factory: createRunner }]
