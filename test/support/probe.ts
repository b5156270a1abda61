// Asks a path again and again in a thread of its own, so that what a test does itself is not measured with it.
import { get, Agent } from 'node:http'
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads'
import { setTimeout as sleep } from 'node:timers/promises'
import { atTheEnd } from './clean-up.ts'

/** What came of each question: the status, and how long it took. */
export interface Probe {
  status: number
  ms: number
}

/** Begins at once; `stop` returns all that came of it. */
export async function startProbe(url: string, everyMs = 20) {
  const thread = new Worker(new URL(import.meta.url), { workerData: { url, everyMs } })
  atTheEnd(() => thread.terminate())
  await new Promise((resolve) => thread.once('message', resolve)) // the first has been answered
  return {
    stop(): Promise<Probe[]> {
      const probes = new Promise<Probe[]>((resolve) => thread.once('message', resolve))
      thread.postMessage('stop')
      return probes
    },
  }
}

if (!isMainThread && parentPort && workerData?.url) {
  const { url, everyMs } = workerData as { url: string; everyMs: number }
  const agent = new Agent({ keepAlive: true })
  const probes: Probe[] = []
  let going = true
  parentPort.once('message', () => (going = false))
  while (going) {
    const start = performance.now()
    const status = await new Promise<number>((resolve) => {
      get(url, { agent }, (answer) => {
        answer.resume().on('end', () => resolve(answer.statusCode!))
      }).on('error', () => resolve(0))
    })
    probes.push({ status, ms: performance.now() - start })
    if (probes.length === 1) parentPort.postMessage('ready')
    await sleep(everyMs)
  }
  agent.destroy()
  parentPort.postMessage(probes)
}
