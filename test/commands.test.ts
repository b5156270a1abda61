// The commands of a developer, run as they are typed: `npm run dev`, `dev:worker`, `deploy -- --dry-run`.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { appendFile, cp, mkdir, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { existsSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseEnv } from 'node:util'
import { expect, test } from 'vitest'
import { freePort } from '../src/cli/embedded-postgres.ts'
import { createApi, product } from './support/api.ts'
import { atTheEnd } from './support/clean-up.ts'
import { createDatabase } from './support/database.ts'
import { makeKey } from './support/keys.ts'
import { bare } from './support/environment.ts'
import { run } from './support/process.ts'
import { startService } from './support/service.ts'

const root = join(import.meta.dirname, '..')

/** A checkout of its own, in a folder with a blank in its name. */
async function checkout(): Promise<string> {
  const home = await mkdtemp(join(tmpdir(), 'larder-checkout-'))
  atTheEnd(() => rm(home, { recursive: true, maxRetries: 5 }))
  const folder = join(home, 'a folder')
  await mkdir(folder)
  for (const name of ['src', 'migrations', 'package.json', 'tsconfig.json', 'wrangler.toml']) {
    await cp(join(root, name), join(folder, name), { recursive: true, verbatimSymlinks: true })
  }
  await symlink(join(root, 'node_modules'), join(folder, 'node_modules'))
  return folder
}

/** Runs npm in a process group of its own, as a terminal does. */
function npm(cwd: string, parameters: string[], settings: Record<string, string> = {}) {
  const child = spawn('npm', parameters, {
    cwd,
    env: { ...bare, ...settings },
    stdio: ['ignore', 'pipe', 'pipe'],
    detached: true,
  })
  let output = ''
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (data: Buffer) => (output += data.toString()))
  }
  let printed = ''
  child.stdout.on('data', (data: Buffer) => (printed += data.toString()))
  const closed = once(child, 'close').then(([code]) => code as number | null)
  const signal = (name: NodeJS.Signals) => process.kill(-child.pid!, name)
  atTheEnd(async () => {
    if (child.exitCode === null && child.signalCode === null) signal('SIGTERM')
    await closed
  })
  return { output: () => output, printed: () => printed, closed, signal }
}

test('npm run dev serves samples, restarts on changes, takes a seed, ends on Ctrl-C and keeps its data', async () => {
  const folder = await checkout()
  const port = await freePort()
  const api = createApi(`http://127.0.0.1:${port}`)
  const dev = () => npm(folder, ['run', 'dev'], { PORT: String(port) })
  const listening = (output: string) => output.split('"listening"').length - 1
  const slow = { timeout: 25_000 }

  const first = dev()
  await expect.poll(first.output, slow).toContain(`curl 'http://127.0.0.1:${port}/products`)
  const page = await api.get('/products?limit=100')
  expect(page.body.items).toHaveLength(100)
  const { id } = (await api.post('/products', product())).body

  await appendFile(join(folder, 'src/app.ts'), '\n// changed\n')
  await expect.poll(() => listening(first.output()), slow).toBe(2)
  expect((await api.get(`/products/${id}`)).status).toBe(200)

  // Into the database that is running, and below into the same one when it is not.
  const seed = async () => {
    const { output, closed } = npm(folder, ['run', 'seed', '--', '50'])
    expect(await closed, output()).toBe(0)
    expect(output()).toMatch(/^added 50 products to larder on 127\.0\.0\.1:\d+ in [\d.]+ s$/m)
  }
  const count = async () => (await api.get('/products?limit=1&count=exact')).body.total
  const before = await count()
  await seed()
  expect(await count()).toBe(before + 50)

  first.signal('SIGINT')
  expect(await first.closed).toBe(0)
  await expect(api.get('/health')).rejects.toThrow('ECONNREFUSED')
  expect(existsSync(join(folder, '.data/postgres-16/postmaster.pid'))).toBe(false)

  await seed()
  expect(existsSync(join(folder, '.data/postgres-16/postmaster.pid'))).toBe(false)

  const second = dev()
  await expect.poll(() => listening(second.output()), slow).toBe(1)
  expect((await api.get(`/products/${id}`)).status).toBe(200)
  expect(await count()).toBe(before + 100)
  second.signal('SIGINT')
  expect(await second.closed).toBe(0)
}, 90_000)

test('npm run dev says what is in its way: a port, a migration, the service itself', async () => {
  const folder = await checkout()
  const dev = async (port: number) => {
    const { output, closed } = npm(folder, ['run', 'dev'], { PORT: String(port) })
    expect(await closed, output()).toBe(1)
    // Nothing is left running in its folder.
    expect(existsSync(join(folder, '.data/postgres-16/postmaster.pid'))).toBe(false)
    return output()
  }
  const { url } = await startService({ DATABASE_URL: (await createDatabase()).url })
  const { port } = new URL(url)
  expect(await dev(Number(port))).toMatch(
    new RegExp(`npm run dev: port ${port} cannot be used .*EADDRINUSE.*: end what listens there`),
  )

  const free = await freePort()
  const door = join(folder, 'src/node.ts')
  const code = await readFile(door, 'utf8')
  await writeFile(door, `throw new Error('broken on purpose')\n${code}`)
  const output = await dev(free)
  expect(output).toContain('broken on purpose')
  expect(output).toContain('npm run dev: the service did not start, for the reason above')

  const broken = '99999999999999999_break-on-purpose.sql'
  await writeFile(join(folder, 'migrations', broken), '-- Up Migration\nselect on purpose;\n')
  expect(await dev(free)).toContain('npm run dev: the migrations failed, for the reason above')
}, 120_000)

test('npm run dev:worker names the settings that it lacks', async () => {
  const { output, closed } = npm(await checkout(), ['run', 'dev:worker'])
  expect(await closed).toBe(1)
  expect(output()).toContain('POSTGRES_USER')
})

test('npm run openapi writes the document that is in the repository', async () => {
  const folder = await checkout()
  const file = 'src/documentation/page/openapi.json'
  await rm(join(folder, file))
  expect(await npm(folder, ['run', 'openapi']).closed).toBe(0)
  expect(await readFile(join(folder, file), 'utf8')).toBe(await readFile(join(root, file), 'utf8'))
})

test('npm run dev:worker serves in workerd, with the settings that a deployed Worker would have', async () => {
  const { entry, headers } = makeKey('ci', 'read')
  const database = await createDatabase()
  const port = await freePort()
  const { output, signal, closed } = npm(await checkout(), ['run', 'dev:worker'], {
    DATABASE_URL: database.url,
    PORT: String(port),
    API_KEYS: entry,
    CORS_ORIGINS: 'https://shop.example.com:8443',
  })
  const api = createApi(`http://127.0.0.1:${port}`)
  await expect
    .poll(() => api.get('/products').then((answer) => answer.status, output), { timeout: 25_000 })
    .toBe(401)
  const answer = await api.get('/products', { ...headers, origin: 'https://shop.example.com:8443' })
  expect(answer.status).toBe(200)
  expect(answer.headers['access-control-allow-origin']).toBe('https://shop.example.com:8443')
  for (const path of ['/openapi.json', '/docs', '/docs/swagger-ui-bundle.js']) {
    expect((await api.get(path)).status, path).toBe(200)
  }
  signal('SIGINT')
  await closed
  await expect(api.get('/health')).rejects.toThrow('ECONNREFUSED')
}, 60_000)

test('npm run keys prints a key that works, and its setting', async () => {
  const keys = async (...parameters: string[]) => {
    const command = npm(root, ['run', '--silent', 'keys', '--', ...parameters])
    return { code: await command.closed, output: command.output(), printed: command.printed() }
  }
  const [ci, shop] = await Promise.all([keys('new', 'ci', 'write'), keys('new', 'shop', 'read')])
  expect([ci.code, shop.code]).toEqual([0, 0])
  const [key, setting, ...more] = ci.printed.trimEnd().split('\n')
  expect(key).toMatch(/^larder_[\w-]{43}$/)
  expect(setting).toMatch(/^API_KEYS=ci:write:[0-9a-f]{64}$/)
  expect(more).toEqual([])
  expect(ci.output).toContain('npx wrangler secret put API_KEYS')
  expect(ci.output.split(key!)).toHaveLength(2)

  const [otherKey, other] = shop.printed.split('\n')
  expect(otherKey).not.toBe(key)
  const [, entry] = other!.split('=')
  const database = await createDatabase()
  const service = await startService({
    DATABASE_URL: database.url,
    ...parseEnv(`${setting},${entry}`),
  })
  const api = createApi(service.url)
  const write = (given: string) =>
    api.post('/products', product(), { authorization: `Bearer ${given}` })
  expect((await write(key!)).status).toBe(201)
  expect((await write(otherKey!)).status).toBe(403)
  expect((await write(`${key}x`)).status).toBe(401)
}, 60_000)

test.each([
  [[]],
  [['new']],
  [['new', 'ci']],
  [['new', 'ci', 'all']],
  [['new', 'c i', 'read']],
  [['new', 'ci:', 'read']],
  [['new', 'x'.repeat(65), 'read']],
  [['new', 'ci', 'read', 'write']],
  [['old', 'ci', 'read']],
])('keys %j is refused with its usage', async (parameters) => {
  const command = run([join(root, 'src/cli/keys.ts'), ...parameters], {}, 'SIGKILL')
  expect(await command.exited).toEqual({ code: 1, signal: null })
  expect(command.output()).toMatch(/^usage: npm run keys -- new NAME SCOPE\n/)
  expect(command.log).toEqual([])
})

test('npm run deploy -- --dry-run bundles offline and prints the size', async () => {
  const { output, closed } = npm(await checkout(), ['run', 'deploy', '--', '--dry-run'])
  expect(await closed).toBe(0)
  const [, size] = /Total Upload: ([\d.]+) KiB \/ gzip: [\d.]+ KiB/.exec(output()) ?? []
  // One `import { z }` in place of `import * as z` brings zod's messages in every language, 364 KiB.
  expect(Number(size)).toBeLessThan(700)
  expect(output()).toContain('env.HYPERDRIVE')
  expect(output()).toContain('Read 5 files from the assets directory')
}, 60_000)
