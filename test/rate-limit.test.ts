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
])('with %d proxies "%s" is from %s', (hops, forwardedFor, address) => {
  expect(clientAddress('peer', forwardedFor, hops)).toBe(address)
})

/** Sends a request for each address, a hundred at a time; returns how often each status was answered. */
async function flood(url: string, addresses: string[]): Promise<Record<string, number>> {
  const { hostname, port } = new URL(url)
  const socket = connect({ host: hostname, port: Number(port) }).setEncoding('latin1')
  const statuses: Record<string, number> = {}
  for (let n = 0; n < addresses.length; n += 100) {
    const batch = addresses.slice(n, n + 100)
    const head = (address: string) =>
      `GET /nowhere HTTP/1.1\r\nHost: larder\r\nX-Forwarded-For: ${address}\r\n\r\n`
    socket.write(batch.map(head).join(''))
    for (let received = ''; ;) {
      const [text] = (await once(socket, 'data')) as [string]
      received += text
      const answers = [...received.matchAll(/HTTP\/1\.1 (\d+).*?"request_id":"[^"]+"}/gs)]
      if (answers.length < batch.length) continue
      for (const [, status] of answers) statuses[status!] = (statuses[status!] ?? 0) + 1
      break
    }
  }
  socket.destroy()
  return statuses
}

test(
  '100,000 addresses neither fill the memory nor keep others out',
  { timeout: 300_000 },
  async () => {
    // A process that has started needs 20 MB of heap, and what is remembered 31 MB at most.
    const { url, api } = await start({
      RATE_LIMIT: '2/3600',
      TRUSTED_PROXIES: '1',
      NODE_OPTIONS: '--max-old-space-size=80',
    })
    const hex = (n: number) => n.toString(16)
    const addresses = Array.from(
      { length: 100_000 },
      (_, n) => `2001:db8:${hex(n >> 16)}:${hex(n & 0xffff)}::1`,
    )
    expect(await flood(url, addresses)).toEqual({ 404: 100_000 })
    const { value } = await scrape(api, from('203.0.113.2'))
    expect(value('rate_limit_clients')).toBe(50_000)
    // Newcomers have their quota, and not more than that.
    const statuses = []
    for (let n = 0; n < 3; n++)
      statuses.push((await api.get('/nowhere', from('203.0.113.1'))).status)
    expect(statuses).toEqual([404, 404, 429])
    // Those whose time began first have been forgotten, and nobody else.
    expect(await flood(url, addresses.slice(-200))).toEqual({ 404: 200 })
    expect(await flood(url, addresses.slice(-200))).toEqual({ 429: 200 })
    expect(await flood(url, addresses.slice(0, 100))).toEqual({ 404: 100 })
  },
)
