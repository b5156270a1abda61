// The Worker in workerd on a real socket, and its database behind Hyperdrive's local stand-in.
import { join } from 'node:path'
import type { Settings } from './environment.ts'
import { listening, run, type Service } from './process.ts'

const script = join(import.meta.dirname, 'run-worker.ts')

export interface WorkerOptions {
  /** What the binding HYPERDRIVE leads to; without it there is no such binding. */
  databaseUrl?: string
  /** The Worker's variables. */
  settings?: Settings
  /** The binding RATE_LIMITER, as `requests/seconds`; without it there is no such binding. */
  rateLimit?: string | undefined
}

/** Starts the Worker on a free port of 127.0.0.1; it ends with the test, or with the file. */
export function startWorker(options: WorkerOptions): Promise<Service> {
  const environment = {
    // Wrangler looks neither for the developer's settings nor for the network.
    CLOUDFLARE_LOAD_DEV_VARS_FROM_DOT_ENV: 'false',
    CLOUDFLARE_CF_FETCH_ENABLED: 'false',
    WRANGLER_SEND_METRICS: 'false',
  }
  // SIGTERM, because workerd is that process's child: it is not to be left behind.
  const running = run([script, JSON.stringify(options)], environment, 'SIGTERM')
  return listening(running, 'SIGTERM')
}
