// The rules of the house hold: what must not be written is refused by the linter, for real.
import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { cp, mkdir, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { glob } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { promisify } from 'node:util'
import { beforeAll, expect, test } from 'vitest'
import { atTheEnd } from './support/clean-up.ts'

const root = join(import.meta.dirname, '..')
let house: string

beforeAll(async () => {
  house = await mkdtemp(join(tmpdir(), 'larder-house-'))
  atTheEnd(() => rm(house, { recursive: true }))
  for (const name of ['src', '.oxlintrc.json', 'tsconfig.json', 'package.json']) {
    await cp(join(root, name), join(house, name), { recursive: true })
  }
  await symlink(join(root, 'node_modules'), join(house, 'node_modules'))
})

/** What the linter says of a file, in the place where it would stand. */
async function lint(file: string, code: string): Promise<string> {
  await mkdir(dirname(join(house, file)), { recursive: true })
  await writeFile(join(house, file), code)
  try {
    const oxlint = join(root, 'node_modules/oxlint/bin/oxlint')
    const options = { cwd: house }
    const { stdout } = await promisify(execFile)(process.execPath, [oxlint, file], options)
    return stdout
  } catch (error) {
    return String((error as { stdout?: unknown }).stdout)
  } finally {
    await rm(join(house, file))
  }
}

const database = `import type { Database } from '../database/pool.ts'\n`

test.for([
  [
    'a statement that nobody awaits',
    'src/products/slip.ts',
    `${database}export const slip = (database: Database) =>
      database.write(async (sql) => { sql\`delete from products\` })\n`,
    'no-floating-promises',
  ],
  [
    'a call of the repository that nobody awaits',
    'src/products/slip.ts',
    `${database}import { remove } from './repository.ts'
      export function slip(database: Database) { remove(database, 1) }\n`,
    'no-floating-promises',
  ],
  [
    'Node below the doors',
    'src/database/slip.ts',
    `import { readFileSync } from 'node:fs'\nexport const slip = readFileSync\n`,
    'Only a door knows the runtime.',
  ],
  [
    'the process below the doors',
    'src/http/slip.ts',
    `export const slip = process.env\n`,
    'no-restricted-globals',
  ],
  [
    'HTTP in the database',
    'src/database/slip.ts',
    `import { Problem } from '../http/problem.ts'\nexport const slip = Problem\n`,
    'The database knows no HTTP.',
  ],
  [
    'a resource in http',
    'src/http/slip.ts',
    `import { products } from '../products/routes.ts'\nexport const slip = products\n`,
    'Imports go down: resources and operations, then http, then database.',
  ],
  [
    'idempotency in http',
    'src/http/slip.ts',
    `import { answeringOnce } from '../idempotency/once.ts'\nexport const slip = answeringOnce\n`,
    'Imports go down: resources and operations, then http, then database.',
  ],
  [
    'a resource in idempotency',
    'src/idempotency/slip.ts',
    `import { create } from '../products/repository.ts'\nexport const slip = create\n`,
    'Idempotency knows no resource.',
  ],
  [
    'HTTP in the repository of idempotency',
    'src/idempotency/repository.ts',
    `import { Problem } from '../http/problem.ts'\nexport const slip = Problem\n`,
    'A repository knows no HTTP.',
  ],
  [
    'HTTP in a repository',
    'src/products/repository.ts',
    `import { Hono } from 'hono'\nexport const slip = Hono\n`,
    'A repository knows no HTTP.',
  ],
  [
    'a door as a library',
    'src/products/slip.ts',
    `import door from '../worker.ts'\nexport const slip = door\n`,
    'Imports go away from the doors.',
  ],
  [
    'Node in the second resource',
    'src/categories/routes.ts',
    `import { readFileSync } from 'node:fs'\nexport const slip = readFileSync\n`,
    'Only a door knows the runtime.',
  ],
  [
    'a door in the second resource',
    'src/categories/schema.ts',
    `import door from '../worker.ts'\nexport const slip = [door, process.env]\n`,
    'Imports go away from the doors.',
  ],
] as const)('the linter refuses %s', async ([, file, code, complaint]) => {
  const original = await readFile(join(house, file), 'utf8').catch(() => undefined)
  const said = await lint(file, code)
  if (original !== undefined) await writeFile(join(house, file), original)
  expect(said).toContain(complaint)
})

test('the first line of each file says why it exists', async () => {
  for await (const file of glob('{src,test}/**/*.ts', { cwd: root })) {
    const [first] = (await readFile(join(root, file), 'utf8')).split('\n')
    expect(first, file).toMatch(/^\/\/ .{20,}/)
  }
})

test('each file that SECURITY.md names exists', async () => {
  const text = await readFile(join(root, 'SECURITY.md'), 'utf8')
  const links = [...text.matchAll(/\]\((?!http)([^)#]+)/g)].map(([, path]) => path!)
  expect(links.length).toBeGreaterThan(10)
  for (const path of links) expect(existsSync(join(root, path)), path).toBe(true)
  const promises = text.split('\n').filter((line) => /^\| [A-Z/]/.test(line))
  for (const line of promises) expect(line, 'a promise without its test').toContain('](test/')
})
