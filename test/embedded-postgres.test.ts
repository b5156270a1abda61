// The PostgreSQL of `npm run dev`: what becomes of it when it cannot start, or was left behind.
import { existsSync } from 'node:fs'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { createServer, type AddressInfo } from 'node:net'
import { once } from 'node:events'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { findPostgres, startPostgres } from '../src/cli/embedded-postgres.ts'
import { atTheEnd } from './support/clean-up.ts'
import { connect } from './support/database.ts'
import { run } from './support/process.ts'

/** A place for data that is kept. */
async function place(): Promise<string> {
  const parent = await mkdtemp(join(tmpdir(), 'larder-kept-'))
  atTheEnd(() => rm(parent, { recursive: true, force: true }))
  return join(parent, 'data')
}

async function takePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  atTheEnd(async () => server.close())
  return (server.address() as AddressInfo).port
}

test('a server that does not start says why, and leaves no data behind', async () => {
  const refused = startPostgres({ settings: { shared_buffers: 'many' } })
  const { message } = await refused.then(
    () => new Error('it has started'),
    (error: Error) => error,
  )
  const [, folder] = /^PostgreSQL did not start in (\S+):\n.*shared_buffers/s.exec(message)!
  expect(existsSync(folder!)).toBe(false)
  const port = await takePort()
  await expect(startPostgres({ port })).rejects.toThrow('Address already in use')
})

test('data is kept, also when its server was killed, and belongs to one process at a time', async () => {
  const folder = await place()
  const first = await startPostgres({ folder })
  atTheEnd(() => first.stop())
  const sql = connect(first.address)
  await sql`create table kept as select 7 as number`
  await sql.end()
  expect(await findPostgres(folder)).toEqual(first.address)
  await expect(startPostgres({ folder })).rejects.toThrow(
    `PostgreSQL is already running in ${first.folder}, for process ${process.pid}`,
  )

  process.kill(first.processId, 'SIGKILL')
  await expect.poll(() => isThere(first.processId)).toBe(false)
  expect(existsSync(join(first.folder, 'postmaster.pid'))).toBe(true)
  expect(await findPostgres(folder)).toBeUndefined()

  const second = await startPostgres({ folder })
  atTheEnd(() => second.stop())
  const again = connect(second.address)
  expect(await again`select number from kept`).toEqual([{ number: 7 }])
  await again.end()
})

test('a server whose process is gone without a word ends with it, and the next start has its data', async () => {
  const folder = await place()
  const module = new URL('../src/cli/embedded-postgres.ts', import.meta.url).href
  const code = `const { startPostgres } = await import(${JSON.stringify(module)})
    await startPostgres({ folder: ${JSON.stringify(folder)} })
    console.log('{"msg":"started"}')
    setInterval(() => {}, 1000)`
  const owner = run(['--input-type=module', '--eval', code], {}, 'SIGKILL')
  await owner.logged('started')
  await owner.stop('SIGKILL')
  const next = await startPostgres({ folder })
  atTheEnd(() => next.stop())
  const sql = connect(next.address)
  expect(await sql`select 1 as one`).toEqual([{ one: 1 }])
  await sql.end()
  const [pid] = (await readFile(join(next.folder, 'postmaster.pid'), 'utf8')).split('\n')
  expect(Number(pid)).toBe(next.processId)
})

function isThere(pid: number): boolean {
  try {
    return process.kill(pid, 0)
  } catch {
    return false
  }
}
