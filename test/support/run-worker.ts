// Runs the Worker, as it will be deployed, until SIGTERM; its log is this process's standard output.
//
// A process of its own, because wrangler brings handlers for signals and a second of loading.
import { once } from 'node:events'
import { join } from 'node:path'
import { unstable_DevEnv, unstable_readConfig } from 'wrangler'
import type { WorkerOptions } from './worker.ts'

const { databaseUrl, settings, rateLimit } = JSON.parse(process.argv[2]!) as WorkerOptions
const config = unstable_readConfig({ config: join(import.meta.dirname, '../../wrangler.toml') })
const bindings = config.hyperdrive as object[]
const [limit, period] = rateLimit?.split('/').map(Number) ?? []

// What wrangler's `unstable_startWorker` does, which does not tell when the code is loaded.
const environment = new unstable_DevEnv()
const loaded = once(environment, 'reloadComplete')
environment.once('buildFailed', () => process.exit(1))
const worker = await environment.startWorker({
  config: {
    ...config,
    vars: { ...config.vars, ...settings },
    hyperdrive: databaseUrl
      ? bindings.map((binding) => ({ ...binding, localConnectionString: databaseUrl }))
      : [],
    ratelimits: rateLimit
      ? [{ name: 'RATE_LIMITER', namespace_id: '1', simple: { limit, period } }]
      : [],
  },
  dev: {
    server: { hostname: '127.0.0.1', port: 0 },
    inspector: false,
    logLevel: 'error',
    watch: false,
    persist: false,
    structuredLogsHandler: (line: { message: string }) => console.log(line.message),
  },
})
const { port } = await worker.url
await loaded
console.log(JSON.stringify({ msg: 'listening', port: Number(port) }))
