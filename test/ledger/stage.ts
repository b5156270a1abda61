// What the ledger plays on: PostgreSQL, a network that can be broken, and two instances of the service.
import { randomUUID } from 'node:crypto'
import { readdir, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { freePort, startPostgres } from '../../src/cli/embedded-postgres.ts'
import { databaseUrl } from '../../src/config.ts'
import type { DatabaseAddress } from '../../src/database/connection.ts'
import { atTheEnd } from '../support/clean-up.ts'
import { migrate } from '../support/migrate.ts'
import type { Running } from '../support/process.ts'
import { type Proxy, startProxy } from '../support/proxy.ts'
import { spawnService } from '../support/service.ts'
import { type Client, createClient } from './client.ts'

export interface Instance {
  name: string
  client: Client
  /** It was told to end, has not come back yet, or stands still. */
  away: boolean
  /** How often that was so. */
  absences: number
}

export interface Stage {
  /** The superuser's way in, past the network that can be broken. */
  address: DatabaseAddress
  /** The network between the service and PostgreSQL. */
  proxy: Proxy
  /** The first lives all the while; what is done to instances is done to the second. */
  instances: [steady: Instance, restless: Instance]
  /** Stops PostgreSQL by the signal, and starts it again; returns when it takes connections. */
  restartPostgres(signal: 'SIGINT' | 'SIGQUIT', pauseMs: number): Promise<void>
  /** Ends the second instance by the signal, and starts it again on its port; likewise. */
  restartService(signal: 'SIGTERM' | 'SIGKILL', pauseMs: number): Promise<void>
  /** The second instance stands still, as on a machine that is being moved. */
  freezeService(ms: number): Promise<void>
  /** What the first instance holds, and both of PostgreSQL. */
  measure(): Promise<Holdings>
  /** Ends the instances, by SIGTERM. */
  close(): Promise<void>
}

export interface Holdings {
  /** Connections to PostgreSQL, of both instances. */
  connections: number
  /** Of the first instance: resident memory, and open files with its sockets. Linux alone tells. */
  memoryMb: number | undefined
  files: number | undefined
}

/**
 * All else has its default. The short limit is for a network that loses what is under way; and where
 * one fault follows the other, five attempts at a start may each meet one.
 */
export const settings = { STATEMENT_TIMEOUT: '2', LOG_LEVEL: 'warn', CONNECT_MAX_RETRIES: '30' }

/**
 * No request may be without an answer for so long: 30 s for a connection, 3 for each statement of a
 * transaction, and some for clients that dawdle.
 */
const DEADLINE_MS = 60_000

interface Complaints {
  /** A process that ended and was not told to, a fault that nobody handled, an exit other than 0. */
  crash: (text: string) => void
  /** An answer that is not in the OpenAPI document. */
  answer: (text: string) => void
}

/** Ends with the test, or by `cleanUp`. */
export async function setUp(complain: Complaints): Promise<Stage> {
  const folder = join(tmpdir(), `larder-ledger-${randomUUID()}`)
  const start = (port: number) =>
    startPostgres({ folder, port, settings: { max_connections: '60', fsync: 'off' } })
  let server = await start(await freePort())
  atTheEnd(async () => {
    await server.stop()
    await rm(server.folder, { recursive: true, force: true })
  })
  const { address } = server
  await migrate(address, 'upgrade', 'head')
  const proxy = await startProxy(address)
  const toldToEnd = new Set<Running>()

  function spawn(port: number): Running {
    const url = databaseUrl(proxy.address)
    const running = spawnService({ ...settings, DATABASE_URL: url, PORT: String(port) })
    void running.exited.then(({ code, signal }) => {
      const last = running.output().split('\n').slice(-5).join('\n')
      if (!toldToEnd.has(running)) complain.crash(`ended with ${code ?? signal}: ${last}`)
      for (const line of running.log) {
        const isFault = line['level'] === 'fatal' || 'unparsed' in line
        if (isFault) complain.crash(JSON.stringify(line))
      }
    })
    return running
  }

  async function startInstance(name: string) {
    const port = await freePort()
    const client = createClient(port, DEADLINE_MS, complain.answer)
    const instance = { name, client, away: true, absences: 0, port, running: spawn(port) }
    await isUp(instance)
    return instance
  }

  function leave(instance: Instance) {
    instance.away = true
    instance.absences++
  }

  async function end({ running }: { running: Running }, signal: NodeJS.Signals) {
    toldToEnd.add(running)
    const code = await running.stop(signal)
    if (signal === 'SIGTERM' && code !== 0) complain.crash(`SIGTERM was answered with ${code}`)
  }

  const steady = await startInstance('the first instance')
  const restless = await startInstance('the second instance')
  let closed: Promise<unknown> | undefined
  const close = async () => {
    closed ??= Promise.all(
      [steady, restless].map(async (instance) => {
        instance.client.close()
        await end(instance, 'SIGTERM')
      }),
    )
    await closed
  }
  atTheEnd(close)

  return {
    address,
    proxy,
    instances: [steady, restless],
    async restartPostgres(signal, pauseMs) {
      process.kill(server.processId, signal)
      await server.stop()
      await sleep(pauseMs)
      server = await start(address.port)
    },
    async restartService(signal, pauseMs) {
      leave(restless)
      await end(restless, signal)
      await sleep(pauseMs)
      restless.running = spawn(restless.port)
      await isUp(restless)
    },
    async freezeService(ms) {
      const { process: frozen } = restless.running
      leave(restless)
      frozen.kill('SIGSTOP')
      await sleep(ms)
      frozen.kill('SIGCONT')
      restless.away = false
    },
    measure: async () => ({
      connections: proxy.open(),
      ...(await vitals(steady.running.process.pid!)),
    }),
    close,
  }
}

async function isUp(instance: Instance) {
  for (let waits = 0; waits < 3000; waits++) {
    const { outcome } = await instance.client.send({ method: 'GET', path: '/health' })
    if (outcome === 'answered') {
      instance.away = false
      return
    }
    await sleep(20)
  }
  throw new Error(`${instance.name} does not start`)
}

/** As Linux tells of a process; elsewhere nothing is known. */
async function vitals(pid: number) {
  try {
    const status = await readFile(`/proc/${pid}/status`, 'utf8')
    const files = await readdir(`/proc/${pid}/fd`)
    return { memoryMb: Number(/VmRSS:\s+(\d+)/.exec(status)![1]) / 1024, files: files.length }
  } catch {
    return { memoryMb: undefined, files: undefined }
  }
}
