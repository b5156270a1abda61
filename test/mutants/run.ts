// `npm run mutants [-- file…]`: breaks the code in one place after the other, and says what no test notices.
//
// Stryker is no dependency: it brings more packages than all the others, and is run now and then.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { targets } from './targets.ts'

const STRYKER = '@stryker-mutator/core@10.1.1'

const folder = await mkdtemp(join(tmpdir(), 'larder-mutants-'))
const given = process.argv.slice(2)
const mutate = given.length > 0 ? given : Object.keys(targets)
const settings = {
  mutate,
  // A message may be worded in any way.
  mutator: { excludedMutations: ['StringLiteral'] },
  plugins: [join(import.meta.dirname, 'runner.ts')],
  testRunner: 'larder',
  ignorers: ['documentation'],
  coverageAnalysis: 'off',
  concurrency: 2,
  timeoutMS: 60_000,
  dryRunTimeoutMinutes: 15,
  // Node runs the sources as they are, so there is nothing to compile.
  tsconfigFile: 'none',
  reporters: ['clear-text', 'progress-append-only', 'json'],
  jsonReporter: { fileName: join(folder, 'mutants.json') },
  clearTextReporter: { logTests: false },
}
try {
  const file = join(folder, 'stryker.json')
  await writeFile(file, JSON.stringify(settings))
  const stryker = spawn('npx', ['--yes', '--package', STRYKER, 'stryker', 'run', file], {
    stdio: 'inherit',
  })
  const [code] = await once(stryker, 'close')
  process.exitCode = code ?? 1
} finally {
  await rm(folder, { recursive: true })
}
