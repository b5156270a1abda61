// What a running service holds: files, sockets, timers and memory, as its own process counts them.
import { once } from 'node:events'
import { expect } from 'vitest'
import { atTheEnd } from './clean-up.ts'
import type { Settings } from './environment.ts'
import type { Service } from './process.ts'

/** What a service needs to be looked into; nothing listens before it is asked. */
export const INSPECTABLE: Settings = { NODE_OPTIONS: '--inspect-port=127.0.0.1:0' }

export interface Vitals {
  /** File descriptors, sockets among them. */
  files: number
  /** Timers, requests and handles that keep the process alive, by their kinds. */
  resources: Record<string, number>
  /** What is in use after a garbage collection. */
  heapBytes: number
}

/** Evaluated in the service. */
const LOOK = `JSON.stringify({
  files: process.getBuiltinModule('node:fs').readdirSync('/dev/fd').length,
  resources: process.getActiveResourcesInfo(),
  heapBytes: process.memoryUsage().heapUsed,
})`

/** Opens Node's inspector in a service that was started as `INSPECTABLE`; returns a look at it. */
export async function inspect(service: Service): Promise<() => Promise<Vitals>> {
  service.process.kill('SIGUSR1')
  const address = () => /Debugger listening on (ws:\S+)/.exec(service.output())?.[1]
  await expect.poll(address).toBeDefined()
  const socket = new WebSocket(address()!)
  await once(socket, 'open')
  atTheEnd(async () => socket.close())

  let asked = 0
  async function ask(method: string, params: object = {}) {
    const id = ++asked
    const answer = new Promise<{ result: { value: string } }>((resolve) => {
      socket.addEventListener('message', function take({ data }) {
        const { id: of, result } = JSON.parse(String(data))
        if (of !== id) return
        socket.removeEventListener('message', take)
        resolve(result)
      })
    })
    socket.send(JSON.stringify({ id, method, params }))
    return (await answer).result
  }

  return async () => {
    await ask('HeapProfiler.collectGarbage')
    const { value } = await ask('Runtime.evaluate', { expression: LOOK })
    const { resources, ...rest } = JSON.parse(value) as Vitals & { resources: string[] }
    const kinds = Object.groupBy(resources.toSorted(), (kind) => kind)
    const counts = Object.entries(kinds).map(([kind, all]) => [kind, all!.length] as const)
    return { ...rest, resources: Object.fromEntries(counts) }
  }
}

/** What the service has said on standard error; the inspector's own words are not the service's. */
export const complaints = ({ output, log }: Service) =>
  output()
    .split('\n')
    .filter((line) => line !== '' && !line.startsWith('{"level"'))
    .filter((line) => !/^(Debugger |For help, see: https:\/\/nodejs.org)/.test(line))
    .concat(log.filter((line) => line['level'] === 'fatal').map((line) => JSON.stringify(line)))
