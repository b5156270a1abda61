// What the limit is on Node: the address behind proxies, networks, and memory that has a bound.
import { once } from 'node:events'
import { connect } from 'node:net'
import { expect, test } from 'vitest'
import { clientAddress, networkOf } from '../src/http/address.ts'
import { createApi, type Headers } from './support/api.ts'
import { createDatabase } from './support/database.ts'
import { scrape } from './support/metrics.ts'
import { startService } from './support/service.ts'

async function start(settings: Record<string, string>) {
  const database = await createDatabase()
  const { url } = await startService({ DATABASE_URL: database.url, ...settings })
  return { url, api: createApi(url) }
}

const from = (address: string): Headers => ({ 'x-forwarded-for': address })

test('behind a proxy it is counted whom the proxy heard, whatever was there before', async () => {
  const { api } = await start({ RATE_LIMIT: '2/3600', TRUSTED_PROXIES: '1' })
  const ask = async (header: string) => (await api.get('/nowhere', from(header))).status
  expect(await ask('203.0.113.1')).toBe(404)
  expect(await ask('198.51.100.7, 203.0.113.1')).toBe(404)
  for (let n = 0; n < 20; n++) expect(await ask(`198.51.100.${n}, 203.0.113.1`)).toBe(429)
  expect(await ask('203.0.113.1, 203.0.113.2')).toBe(404)
  // What is no address is counted as the proxy itself, however many there are.
  const made = []
  for (let n = 0; n < 20; n++) made.push(await ask(`unknown-${n}`))
  expect(made).toEqual([404, 404, ...Array<number>(18).fill(429)])
})

test('an IPv6 client has one quota for all of its addresses', async () => {
  const { api } = await start({ RATE_LIMIT: '2/3600', TRUSTED_PROXIES: '1' })
  const ask = async (address: string) => (await api.get('/nowhere', from(address))).status
  const statuses = []
  for (let n = 0; n < 20; n++) statuses.push(await ask(`2001:db8:1:2::${n.toString(16)}`))
  expect(statuses).toEqual([404, 404, ...Array<number>(18).fill(429)])
  expect(await ask('2001:db8:1:3::1')).toBe(404)
})

test.each([
  ['203.0.113.7', '203.0.113.7'],
  ['::ffff:203.0.113.7', '203.0.113.7'],
  ['2001:db8:1:2:3:4:5:6', '2001:db8:1:2::/64'],
  ['2001:DB8:0001:2::', '2001:db8:1:2::/64'],
  ['2001:db8::1', '2001:db8:0:0::/64'],
  ['::1', '0:0:0:0::/64'],
  ['::', '0:0:0:0::/64'],
  ['1:2:3:4:5:6:203.0.113.7', '1:2:3:4::/64'],
  ['fe80::1%eth0', 'fe80:0:0:0::/64'],
  ['', ''],
])('the network of %s is %s', (address, network) => {
  expect(networkOf(address)).toBe(network)
})

test.each([
  [0, '203.0.113.1', 'peer'],
  [1, null, 'peer'],
  [1, '', 'peer'],
  [1, ',', 'peer'],
  [1, 'unknown', 'peer'],
  [1, '203.0.113.1', '203.0.113.1'],
  [1, ' 198.51.100.1 ,203.0.113.1 ', '203.0.113.1'],
  [2, '198.51.100.1, 203.0.113.1, 10.0.0.1', '203.0.113.1'],
  [2, '203.0.113.1', '203.0.113.1'],
  [1, '203.0.113.1:4711', '203.0.113.1'],
  [1, '[2001:db8::1]:4711', '2001:db8::1'],
  [1, '[2001:db8::1]', '2001:db8::1'],
  [1, '2001:db8::1', '2001:db8::1'],
  [1, '203.0.113.1.evil.example', 'peer'],
  [1, 'x]@[2001:db8::1', 'peer'],
  [1, `:${'a'.repeat(10_000)}`, 'peer'],
])('with %d proxies "%s" is from %s', (hops, forwardedFor, address) => {
  expect(clientAddress('peer', forwardedFor, hops)).toBe(address)
})

/** Sends one request after the other without waiting; returns how often each status was answered. */
async function pipeline(url: string, addresses: string[]): Promise<Record<string, number>> {
  const { hostname, port } = new URL(url)
  const socket = connect({ host: hostname, port: Number(port) }).setEncoding('latin1')
  const statuses: Record<string, number> = {}
  let answers = 0
  let rest = ''
  socket.on('data', (text: string) => {
    rest += text
    const end = rest.lastIndexOf('\r\n')
    for (const [, status] of rest.slice(0, end).matchAll(/HTTP\/1\.1 (\d+)/g)) {
      statuses[status!] = (statuses[status!] ?? 0) + 1
      if (++answers === addresses.length) socket.end()
    }
    rest = rest.slice(end)
  })
  const closed = once(socket, 'close')
  for (const address of addresses) {
    const head = `GET /nowhere HTTP/1.1\r\nHost: larder\r\nX-Forwarded-For: ${address}\r\n\r\n`
    if (!socket.write(head)) await once(socket, 'drain')
  }
  await closed
  return statuses
}

test('100,000 addresses neither fill the memory nor keep others out', async () => {
  const { url, api } = await start({ RATE_LIMIT: '2/3600', TRUSTED_PROXIES: '1' })
  const hex = (n: number) => n.toString(16)
  const addresses = Array.from(
    { length: 100_000 },
    (_, n) => `2001:db8:${hex(n >> 16)}:${hex(n & 0xffff)}::1`,
  )
  const loyal = from('203.0.113.1')
  const heap = async () => {
    const { value } = await scrape(api, from('203.0.113.2'))
    return [value('rate_limit_clients')!, value('nodejs_heap_size_used_bytes')!]
  }
  const [, before] = await heap()
  const statuses = await pipeline(url, addresses)
  expect(statuses).toEqual({ 404: 100_000 })
  const [clients, after] = await heap()
  expect(clients).toBe(50_000)
  expect(after! - before!).toBeLessThan(100 * 1024 * 1024)
  // Newcomers have their quota, and not more than that.
  expect((await api.get('/nowhere', loyal)).status).toBe(404)
  expect((await api.get('/nowhere', loyal)).status).toBe(404)
  expect((await api.get('/nowhere', loyal)).status).toBe(429)
})
