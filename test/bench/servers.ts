// The servers of the bench: Larder as it is started in production, its peers, and the floors.
import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { freePort } from '../../src/cli/embedded-postgres.ts'
import type { Databases } from './databases.ts'
import { environment } from '../support/environment.ts'
import { firstAnswer, type Process, startProcess } from './processes.ts'
import type { ScenarioName } from './scenarios.ts'
import about from '../../package.json' with { type: 'json' }

export interface Server {
  name: string
  title: string
  /** Which of the scenarios it takes part in. */
  scenarios: readonly ScenarioName[]
  database: 'large' | 'small'
  /** Whether it does all that Larder does, and so takes what Larder takes. */
  isLarder: boolean
  /** Whether it has products at all. */
  isConstant?: boolean
  command: readonly string[]
  settings?: Record<string, string>
  /** Makes ready what is to be started; throws where that cannot be done. */
  prepare?: () => Promise<unknown>
}

export interface Running extends Process {
  server: Server
  url: string
}

/** As many connections for all: Larder's default, 5 that it keeps and 10 that it opens under load. */
const CONNECTIONS = '15'

const root = join(import.meta.dirname, '../..')
const peers = join(import.meta.dirname, 'peers')

const reads = ['get', 'hot', 'health', 'first-page', 'page-of-100', 'cursors'] as const
const others = ['get-16', 'first-page-16', 'get-256', 'first-page-256'] as const
const posts = ['post', 'post-16', 'post-256'] as const
const patches = ['patch', 'mix'] as const
const searches = ['search-rare', 'search-common'] as const

/** Debian's, which has the packages; the first of the PATH may be another. */
const PYTHON = '/usr/bin/python3'
const python = join(peers, 'fastapi')
const pythonSettings = { PYTHONPATH: python, PYTHONDONTWRITEBYTECODE: '1' }

/** In a command: stands for the port. */
const PORT = '{port}'

const uvicornFlags = ['--port', PORT, '--no-access-log', '--log-level', 'warning']

/** `npm start` is `NODE_COMPILE_CACHE=… exec node … src/node.ts`; the cache is given to the peers, too. */
const larder = [process.execPath, ...about.scripts.start.split(' ').slice(3)].map((part) =>
  part.startsWith('src/') ? join(root, part) : part,
)

/** What is built is put into this folder. */
export function listServers(folder: string): Server[] {
  const goProgram = join(folder, 'go-peer')
  return [
    {
      name: 'larder',
      title: 'Larder',
      scenarios: [...reads, ...searches, ...others, ...posts, 'post-once', ...patches],
      database: 'large',
      isLarder: true,
      command: larder,
    },
    {
      name: 'hono',
      title: 'naive Hono + postgres.js',
      scenarios: [...reads, ...others, ...posts, ...patches],
      database: 'large',
      isLarder: false,
      command: [process.execPath, join(peers, 'hono-postgres.ts')],
    },
    {
      name: 'fastify',
      title: 'Fastify + pg',
      scenarios: [...reads, ...others, ...posts],
      database: 'large',
      isLarder: false,
      command: [process.execPath, join(peers, 'fastify-pg.ts')],
    },
    {
      name: 'go',
      title: 'Go + pgx',
      scenarios: [...reads, ...others, ...posts, ...patches],
      database: 'large',
      isLarder: false,
      prepare: () => buildGo(goProgram),
      command: [goProgram],
      settings: { JSON_BY: 'postgresql' },
    },
    {
      name: 'go-structs',
      title: 'Go + pgx, JSON by Go',
      scenarios: ['get', 'first-page', 'page-of-100', 'post'],
      database: 'large',
      isLarder: false,
      prepare: () => buildGo(goProgram),
      command: [goProgram],
    },
    {
      name: 'fastapi',
      title: 'FastAPI',
      scenarios: [...reads, ...others, ...posts, 'patch'],
      database: 'large',
      isLarder: false,
      prepare: importPython,
      command: [PYTHON, '-m', 'uvicorn', 'main:app', '--app-dir', python, ...uvicornFlags],
      settings: pythonSettings,
    },
    {
      name: 'larder-small',
      title: 'Larder, 10,000 products',
      scenarios: ['get'],
      database: 'small',
      isLarder: true,
      command: larder,
    },
    {
      name: 'constant',
      title: 'node:http, a constant answer',
      scenarios: ['health'],
      database: 'large',
      isLarder: false,
      isConstant: true,
      command: [process.execPath, join(peers, 'constant.ts')],
    },
  ]
}

/** Without modules, from where Debian puts Go's packages: nothing is fetched. */
async function buildGo(program: string) {
  const { env } = environment({
    GO111MODULE: 'off',
    GOPATH: process.env['GOPATH'] ?? '/usr/share/gocode',
  })
  await promisify(execFile)('go', ['build', '-o', program, '.'], { env, cwd: join(peers, 'go') })
}

async function importPython() {
  const { env } = environment({
    ...pythonSettings,
    ...peerSettings('postgres://u:p@127.0.0.1/d', 1),
  })
  await promisify(execFile)(PYTHON, ['-c', 'import uvicorn, main'], { env })
}

/** Returns when it answers, from the database if it has one. */
export async function startServer(server: Server, databases: Databases): Promise<Running> {
  const port = await freePort()
  const [program, ...parameters] = server.command.map((part) => part.replace(PORT, String(port)))
  const process = await startProcess(program!, parameters, {
    ...peerSettings(databases[server.database].url, port),
    ...server.settings,
  })
  const url = `http://127.0.0.1:${port}`
  try {
    await firstAnswer(`${url}/products/7`, process)
  } catch (error) {
    await process.stop()
    throw error
  }
  return { ...process, server, url }
}

function peerSettings(url: string, port: number) {
  return {
    HOST: '127.0.0.1',
    PORT: String(port),
    DATABASE_URL: url,
    POOL_MAX: CONNECTIONS,
    NODE_ENV: 'production',
  }
}
