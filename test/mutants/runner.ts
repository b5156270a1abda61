// Stryker's way to the tests: one Vitest, and one PostgreSQL, for all the mutants of a run.
//
// Most of the mutated code runs in processes that the tests start. Which mutant is on, they are told by
// their environment, as Stryker's command runner tells its command; but that one would start Vitest
// and PostgreSQL anew for each.
import { join } from 'node:path'
import { createVitest, type TestCase, type Vitest } from 'vitest/node'
import { targets } from './targets.ts'

/** What of a run Stryker asks for. */
interface MutantRun {
  activeMutant: { id: string; fileName: string }
}

/** A mutant may make a test wait; the one that finds it is not waited for much longer than it takes. */
const TEST_TIMEOUT_MS = 20_000

function createRunner({ mutate }: { mutate: string[] }) {
  let vitest: Vitest | undefined
  /** The tests that pass while no mutant is on. */
  let sound: TestCase[] = []

  async function run(files: string[]) {
    const specifications = await vitest!.globTestSpecifications(files)
    const { testModules } = await vitest!.runTestSpecifications(specifications)
    const tests = testModules.flatMap((module) => [...module.children.allTests('passed')])
    return { tests, ok: testModules.every((module) => module.ok()) }
  }

  return {
    capabilities: () => ({ reloadEnvironment: true }),

    async init() {
      vitest = await createVitest('test', {
        config: join(process.cwd(), 'test/vitest.config.ts'),
        watch: false,
        project: ['node', 'once', 'faults'],
        reporters: [{}],
        bail: 1,
        testTimeout: TEST_TIMEOUT_MS,
      })
      await vitest.standalone()
    },

    async dryRun() {
      const { tests: all, ok } = await run(testsOf(mutate))
      if (!ok) return { status: 'error', errorMessage: 'a test fails without any mutant' }
      sound = all
      const tests = all.map((test) => ({
        id: test.id,
        name: test.fullName,
        timeSpentMs: test.diagnostic()?.duration ?? 0,
        status: 0, // passed
      }))
      return { status: 'complete', tests }
    },

    async mutantRun({ activeMutant: { id, fileName } }: MutantRun) {
      // Stryker has one of its runners do a dry run, and not the others.
      if (sound.length === 0) sound = (await run(testsOf(mutate))).tests
      process.env['__STRYKER_ACTIVE_MUTANT__'] = id
      const files = testsOf([fileName.slice(fileName.lastIndexOf('/src/') + 1)])
      const nrOfTests = sound.length
      const { tests } = await run(files)
      const still = new Set(tests.map((test) => test.id))
      // Whether it failed or was not run any more: at the first failure the others are broken off.
      const lost = sound.filter(
        (test) => files.some((file) => test.module.moduleId.endsWith(file)) && !still.has(test.id),
      )
      if (lost.length === 0) return { status: 'survived', nrOfTests }
      const [{ id: killer, fullName }] = lost as [TestCase]
      return { status: 'killed', killedBy: [killer], failureMessage: fullName, nrOfTests }
    },

    dispose: () => vitest?.close(),
  }
}

const testsOf = (files: string[]) => [...new Set(files.flatMap((file) => targets[file]!))]

createRunner.inject = ['options']

/** What a schema says of itself is in the OpenAPI document, which a test compares as a whole. */
const documentation = {
  shouldIgnore({ node, parent }: { node: Node; parent?: Node }) {
    const isMeta = node.type === 'ObjectExpression' && parent?.callee?.property?.name === 'meta'
    return isMeta ? 'documentation' : undefined
  },
}

/** Of the syntax tree. */
interface Node {
  type: string
  callee?: { property?: { name?: string } }
}

export const strykerPlugins = [
  { kind: 'TestRunner', name: 'larder', factory: createRunner },
  { kind: 'Ignore', name: 'documentation', value: documentation },
]
