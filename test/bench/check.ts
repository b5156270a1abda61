// That a peer does the work before it is measured: its answers are held against Larder's.
import assert from 'node:assert/strict'
import { encodeCursor } from '../../src/http/page.ts'
import { binding } from './scenarios.ts'
import type { Running } from './servers.ts'

interface Answer {
  status: number
  body: unknown
}

type Product = Record<string, unknown> & { id: number; version: number }

const minimal = { name: 'Checked', price: 3 }
const whole = {
  sku: 'CHECK',
  name: 'Checked, café 😀',
  description: 'Says "so", and\nmore.',
  price: 1234567890.12,
  currency: 'EUR',
  stock: 7,
  attributes: { colour: 'blue', list: [1, 'two', null], deep: { er: true } },
}
const wrong = [
  {},
  { name: 'No price' },
  { price: 1 },
  { name: '', price: 1 },
  { name: 'x'.repeat(201), price: 1 },
  { name: 'Cheap', price: -1 },
  { name: 'Dear', price: 10_000_000_000 },
  { name: 'Sold twice', price: 1, stock: -1 },
  { name: 'Half', price: 1, stock: 0.5 },
  { name: 'Coin', price: 1, currency: 'usd' },
  { name: 'List', price: 1, attributes: [] },
  { name: 'Code', price: 1, sku: 'x'.repeat(65) },
]

let checks = 0

/** @throws {AssertionError} */
export async function check(peer: Running, larder: Running): Promise<void> {
  const name = peer.server.title
  const same = async (path: string, atPeer = path) => {
    const [given, expected] = [await ask(peer, 'GET', atPeer), await ask(larder, 'GET', path)]
    assert.equal(given.status, expected.status, `${name}: ${atPeer}`)
    if (expected.status === 200) isSame(given.body, expected.body, `${name}: ${atPeer}`)
  }

  await same('/health')
  if (peer.server.isConstant) return
  // Some have no sku, some no description.
  for (let id = 1; id <= 30; id++) await same(`/products/${id}`)
  await same('/products/999999999999')
  for (const limit of [1, 20, 100]) {
    await same(`/products?limit=${limit}`)
    const cursor = encodeCursor({ way: 'after', key: ['500'] }, binding)
    await same(`/products?limit=${limit}&cursor=${cursor}`, `/products?limit=${limit}&cursor=500`)
  }

  const sku = `CHECK-${++checks}`
  for (const body of [minimal, { ...whole, sku }]) {
    const { status, body: created } = await ask(peer, 'POST', '/products', body)
    assert.equal(status, 201, `${name}: POST`)
    const { id } = created as Product
    const stored = await ask(larder, 'GET', `/products/${id}`)
    isSame(created, stored.body, `${name}: POST`)
    for (const [field, value] of Object.entries(body)) {
      assert.deepEqual((created as Product)[field], value, `${name}: POST, ${field}`)
    }
  }
  for (const body of wrong) {
    const { status } = await ask(peer, 'POST', '/products', body)
    assert.ok(status === 400 || status === 422, `${name}: ${status} to ${JSON.stringify(body)}`)
  }
  if (peer.server.scenarios.includes('patch')) await checkPatch(peer, larder, name)
}

async function checkPatch(peer: Running, larder: Running, name: string): Promise<void> {
  const created = (await ask(peer, 'POST', '/products', whole)).body as Product
  const path = `/products/${created.id}`
  const patch = { stock: 8, price: 9.75, name: 'Changed' }
  const changed = await ask(peer, 'PATCH', path, patch, { 'if-match': '"1"' })
  assert.equal(changed.status, 200, `${name}: PATCH`)
  isSame(changed.body, (await ask(larder, 'GET', path)).body, `${name}: PATCH`)
  const { version, updated_at: _, ...rest } = changed.body as Product
  const { version: __, updated_at: ___, ...before } = created
  assert.equal(version, 2, `${name}: PATCH`)
  assert.deepEqual(rest, { ...before, ...patch }, `${name}: PATCH`)
  const late = await ask(peer, 'PATCH', path, patch, { 'if-match': '"1"' })
  assert.equal(late.status, 412, `${name}: PATCH of a former version`)
  const unknown = await ask(peer, 'PATCH', '/products/999999999999', patch, { 'if-match': '"1"' })
  assert.equal(unknown.status, 404, `${name}: PATCH of no product`)
  await ask(larder, 'DELETE', path) // its sku is for the next peer
}

async function ask(
  { url }: Running,
  method: string,
  path: string,
  body?: object,
  headers: Record<string, string> = {},
): Promise<Answer> {
  const answer = await fetch(url + path, {
    method,
    headers: body ? { 'content-type': 'application/json', ...headers } : headers,
    ...(body && { body: JSON.stringify(body) }),
  })
  const text = await answer.text()
  return { status: answer.status, body: text === '' ? undefined : JSON.parse(text) }
}

/** A peer's page has its items alone. */
function isSame(given: unknown, expected: unknown, where: string): void {
  const page = expected as { items?: Product[] }
  if (page.items) {
    const { items, ...others } = given as { items: Product[] }
    assert.deepEqual(others, {}, where)
    assert.equal(items.length, page.items.length, where)
    page.items.forEach((item, n) => isSame(items[n], item, where))
    return
  }
  assert.deepEqual(Object.keys(given as object), Object.keys(expected as object), where)
  assert.deepEqual(withInstants(given), withInstants(expected), where)
}

/** With its times in whole microseconds, however they are written. */
function withInstants(body: unknown): unknown {
  return Object.fromEntries(
    Object.entries(body as object).map(([field, value]: [string, unknown]) => [
      field,
      field.endsWith('_at') ? toMicroseconds(String(value)) : value,
    ]),
  )
}

function toMicroseconds(text: string): number {
  const [, fraction = ''] = /\.(\d+)/.exec(text) ?? []
  const seconds = Date.parse(text.replace(/\.\d+/, '')) / 1000
  return seconds * 1e6 + Number(fraction.slice(0, 6).padEnd(6, '0'))
}
