// The README does not lie: its session answers as it says, its commands, files and settings exist.
import { existsSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { sampleProducts } from '../src/cli/sample-products.ts'
import { createApi } from './support/api.ts'
import { createServer } from './support/database.ts'
import { startService } from './support/service.ts'

const root = join(import.meta.dirname, '..')
const readme = await readFile(join(root, 'README.md'), 'utf8')

/** The commands of its ```console blocks and what it says they print. */
const session = [...readme.matchAll(/```console\n(.*?)```/gs)].flatMap(([, block]) =>
  block!
    .split(/^\$ /m)
    .slice(1)
    .map((part) => {
      const [command, ...printed] = part.trimEnd().split('\n')
      return { command: command!, printed: printed.join('\n') }
    }),
)

/** A curl command as far as the README uses it. */
function parseCurl(command: string) {
  const words = [...command.matchAll(/'([^']*)'|(\S+)/g)].map(
    ([, quoted, plain]) => quoted ?? plain!,
  )
  const valueOf = (flag: string) =>
    words.includes(flag) ? words[words.indexOf(flag) + 1] : undefined
  const body = valueOf('-d')
  const headers = words.flatMap((word, n) => (words[n - 1] === '-H' ? [word.split(': ')] : []))
  const url = new URL(words.find((word) => word.startsWith('http'))!)
  return {
    method: valueOf('-X') ?? (body === undefined ? 'GET' : 'POST'),
    path: url.pathname + url.search,
    headers: Object.fromEntries(headers) as Record<string, string>,
    ...(body === undefined ? {} : { body }),
    withHeaders: words.includes('-i'),
  }
}

/** What is another in each run. */
const masked = (text: string) =>
  text
    .replaceAll(/\d{4}-\d\d-\d\dT[\d:.]+Z/g, '<time>')
    .replaceAll(/"next_cursor":"[\w-]+"}$/g, '"next_cursor":"<position>"}')
    .replaceAll(/[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}/g, '<id>')

test('the session answers as it says', async () => {
  // Its own, for the feed shows a change when nobody else's transaction is open that began before.
  const database = await createServer()
  await database.sql`
    insert into products (sku, name, description, price, currency, stock, attributes)
    select sku, name, description, price, currency, stock, attributes
    from jsonb_populate_recordset(null::products, ${database.sql.json(sampleProducts as never)})`
  const api = createApi((await startService({ DATABASE_URL: database.url })).url)
  expect(session.length).toBeGreaterThan(5)
  for (const { command, printed } of session) {
    const { method, path, withHeaders, ...options } = parseCurl(command)
    const { status, headers, text } = await api.request(method, path, options)
    if (!withHeaders) {
      expect(masked(text), command).toBe(masked(printed))
      continue
    }
    const [head, body] = printed.split('\n\n')
    const [statusLine, ...lines] = head!.split('\n')
    expect(`HTTP/1.1 ${status}`, command).toBe(statusLine!.split(' ').slice(0, 2).join(' '))
    const given = lines.map((line) => line.split(': ', 2) as [string, string])
    for (const [name, value] of given) {
      expect(masked(headers[name] ?? ''), `${command}: ${name}`).toBe(masked(value))
    }
    expect(masked(text), command).toBe(masked(body ?? ''))
  }
})

test('each npm script it names exists', async () => {
  const { scripts } = JSON.parse(await readFile(join(root, 'package.json'), 'utf8'))
  const named = [...readme.matchAll(/npm run ([\w:]+)|npm (start|test)\b/g)].map(
    ([, run, short]) => run ?? short!,
  )
  expect(named).toContain('migrate')
  for (const name of named) expect(scripts).toHaveProperty([name])
})

test('each file it links or draws exists', () => {
  for (const [, link] of readme.matchAll(/\]\((?!http)([^)#]+)\)/g)) {
    expect(existsSync(join(root, link!)), link).toBe(true)
  }
  let folder = ''
  for (const [, indent, path] of readme.matchAll(/^( {0,2})([\w.-]+\/|[\w-]+\.ts)(?=\s|$)/gm)) {
    if (indent === '') folder = path!
    expect(existsSync(join(root, indent === '' ? path! : folder + path!)), path).toBe(true)
  }
})

test('each test that docs/faults.md names exists', async () => {
  const table = await readFile(join(root, 'docs/faults.md'), 'utf8')
  const named = [...table.matchAll(/\| ([\w-]+): ([^|]+?) +\|$/gm)]
  expect(named.length).toBeGreaterThan(40)
  for (const [, file, name] of named) {
    const tests = await readFile(join(root, `test/faults/${file}.test.ts`), 'utf8')
    expect(tests, file).toContain(`'${name}'`)
  }
})

test('its settings, those of .env.example and those of the service are the same', async () => {
  const names = (text: string) => new Set(text.match(/\b[A-Z]+(_[A-Z]+)+\b|\b(HOST|PORT|DEBUG)\b/g))
  const settings = names(await readFile(join(root, 'src/config.ts'), 'utf8'))
  for (const name of ['LONGEST_SECONDS', 'LONGEST_KEPT_SECONDS']) settings.delete(name)
  const section = readme.slice(
    readme.indexOf('## Settings'),
    readme.indexOf('At start the service'),
  )
  const told = names(section)
  told.delete('NODE_EXTRA_CA_CERTS')
  expect([...told].toSorted()).toEqual([...settings].toSorted())
  const example = names(await readFile(join(root, '.env.example'), 'utf8'))
  expect([...settings].filter((name) => !example.has(name))).toEqual([])
})
