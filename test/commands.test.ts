// The commands of a developer, run as they are typed: `npm run dev`, `dev:worker`, `deploy -- --dry-run`.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { appendFile, cp, mkdir, mkdtemp, rm, symlink } from 'node:fs/promises'
import { existsSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { freePort } from '../src/cli/embedded-postgres.ts'
import { createApi, product } from './support/api.ts'
import { atTheEnd } from './support/clean-up.ts'
import { createDatabase } from './support/database.ts'

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
  const { PATH = '', HOME = '' } = process.env
  const child = spawn('npm', parameters, {
    cwd,
    env: { PATH, HOME, ...settings },
    stdio: ['ignore', 'pipe', 'pipe'],
    detached: true,
  })
  let output = ''
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (data: Buffer) => (output += data.toString()))
  }
  const closed = once(child, 'close').then(([code]) => code as number | null)
  const signal = (name: NodeJS.Signals) => process.kill(-child.pid!, name)
  atTheEnd(async () => {
    if (child.exitCode === null && child.signalCode === null) signal('SIGTERM')
    await closed
  })
  return { output: () => output, closed, signal }
}

test('npm run dev serves samples, restarts on changes, ends on Ctrl-C and keeps its data', async () => {
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

  first.signal('SIGINT')
  expect(await first.closed).toBe(0)
  await expect(api.get('/health')).rejects.toThrow('ECONNREFUSED')
  expect(existsSync(join(folder, '.data/postgres-16/postmaster.pid'))).toBe(false)

  const second = dev()
  await expect.poll(() => listening(second.output()), slow).toBe(1)
  expect((await api.get(`/products/${id}`)).status).toBe(200)
  second.signal('SIGINT')
  expect(await second.closed).toBe(0)
}, 90_000)

test('npm run dev:worker serves in workerd', async () => {
  const database = await createDatabase()
  const port = await freePort()
  const { output, signal, closed } = npm(await checkout(), ['run', 'dev:worker'], {
    DATABASE_URL: database.url,
    PORT: String(port),
  })
  const api = createApi(`http://127.0.0.1:${port}`)
  await expect
    .poll(() => api.get('/products').then((answer) => answer.status, output), { timeout: 25_000 })
    .toBe(200)
  for (const path of ['/openapi.json', '/docs', '/docs/swagger-ui-bundle.js']) {
    expect((await api.get(path)).status, path).toBe(200)
  }
  signal('SIGINT')
  await closed
  await expect(api.get('/health')).rejects.toThrow('ECONNREFUSED')
}, 60_000)

test('npm run deploy -- --dry-run bundles offline and prints the size', async () => {
  const { output, closed } = npm(await checkout(), ['run', 'deploy', '--', '--dry-run'])
  expect(await closed).toBe(0)
  expect(output()).toMatch(/Total Upload: [\d.]+ KiB \/ gzip: [\d.]+ KiB/)
  expect(output()).toContain('env.HYPERDRIVE')
  expect(output()).toContain('Read 5 files from the assets directory')
}, 60_000)
