// `npm run coverage`: runs the tests, or those that it is given, and says what of `src` they have run.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { report } from './report.ts'

const folder = await mkdtemp(join(tmpdir(), 'larder-coverage-'))
const record = join(import.meta.dirname, 'record.ts')
const config = join(import.meta.dirname, '../vitest.config.ts')
/** What runs in workerd leaves no trace. */
const projects = ['node', 'once', 'faults', 'large'].flatMap((name) => ['--project', name])
try {
  const parameters = ['run', '--config', config, ...projects, ...process.argv.slice(2)]
  const tests = spawn('vitest', parameters, {
    env: {
      ...process.env,
      NODE_OPTIONS: `--import ${record}`,
      // V8 counts less exactly in code that comes out of its cache.
      NODE_DISABLE_COMPILE_CACHE: '1',
      COVERAGE_FOLDER: folder,
    },
    stdio: 'inherit',
  })
  const [code] = await once(tests, 'close')
  process.stdout.write(`${await report(folder)}\n`)
  process.exitCode = code ?? 1
} finally {
  await rm(folder, { recursive: true })
}
