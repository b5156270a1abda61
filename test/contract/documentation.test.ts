// What a reader of the API gets: the document, and the page to read and try it, in a real Chromium.
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { beforeAll, describe, expect, test } from 'vitest'
import { expectProblem, type Api } from '../support/api.ts'
import { chromiumPath, visit } from '../support/browser.ts'
import { startTarget } from '../support/target.ts'

const folder = join(import.meta.dirname, '../../src/documentation/page')

let api: Api
let url: string

beforeAll(async () => {
  ;({ api, url } = await startTarget())
})

describe.each([
  ['/openapi.json', 'openapi.json', 'application/json'],
  ['/docs', 'index.html', 'text/html; charset=utf-8'],
  ['/docs/start.js', 'start.js', 'text/javascript; charset=utf-8'],
  ['/docs/swagger-ui-bundle.js', 'swagger-ui-bundle.js', 'text/javascript; charset=utf-8'],
  ['/docs/swagger-ui.css', 'swagger-ui.css', 'text/css; charset=utf-8'],
])('GET %s', (path, name, type) => {
  test('is the file, byte for byte, of its type', async () => {
    const answer = await api.get(path)
    expect(answer.status).toBe(200)
    expect(answer.headers['content-type']).toBe(type)
    expect(answer.text === (await readFile(join(folder, name), 'utf8'))).toBe(true)
  })

  test('is asked for each time, and sent once', async () => {
    const { headers } = await api.get(path)
    expect(headers['cache-control']).toBe('no-cache')
    for (const tag of [headers['etag']!, `W/${headers['etag']}`, `"other", ${headers['etag']}`]) {
      const again = await api.get(path, { 'if-none-match': tag })
      expect([again.status, again.text]).toEqual([304, ''])
      expect(again.headers['etag']).toBe(headers['etag'])
      expect(again.headers).toHaveProperty('x-request-id')
    }
    expect((await api.get(path, { 'if-none-match': '"other"' })).status).toBe(200)
  })

  test('HEAD answers as GET does, without a body', async () => {
    const [head, get] = [await api.head(path), await api.get(path)]
    expect([head.status, head.text]).toEqual([200, ''])
    for (const name of ['content-type', 'etag', 'cache-control']) {
      expect(head.headers[name], name).toBe(get.headers[name])
    }
  })
})

test.each([
  '/docs/',
  '/docs/index.html',
  '/docs/openapi.json',
  '/docs/toString',
  '/docs/__proto__',
  '/docs/..%2fopenapi.json',
  '/docs/..%2f..%2froutes.ts',
  '/index.html',
  '/start.js',
  '/swagger-ui.css',
])('GET %s is not found: a file has one address', async (path) => {
  expectProblem(await api.get(path), 404, 'not_found')
})

describe.skipIf(!chromiumPath)('/docs in Chromium', { timeout: 60_000 }, () => {
  test('lists every operation, and asks nobody else for anything', async () => {
    const { page, requested, complaints } = await visit(`${url}/docs`)
    const operations = page.locator('.opblock')
    await operations.first().waitFor()
    const document = (await api.get('/openapi.json')).body
    const described = Object.values<object>(document.paths).flatMap((item) =>
      Object.keys(item).filter((method) => method !== 'parameters'),
    )
    expect(await operations.count()).toBe(described.length)
    expect(await page.locator('.opblock-summary-path').allInnerTexts()).toContain('/products/{id}')
    expect(new Set(requested.map((address) => new URL(address).origin))).toEqual(new Set([url]))
    expect(complaints).toEqual([])
  })

  test('sends a request that is tried, with the key that was entered', async () => {
    const { page, requested, complaints } = await visit(`${url}/docs`)
    await page.getByRole('button', { name: 'Authorize' }).click()
    await page.locator('.modal-ux input').fill('a-key-of-mine')
    await page.locator('.modal-ux .auth-btn-wrapper button[type=submit]').click()
    await page.locator('.modal-ux .btn-done').click()

    const operation = page.locator('#operations-products-createProduct')
    await operation.locator('.opblock-summary-control').click()
    await operation.getByRole('button', { name: 'Try it out' }).click()
    await operation.locator('textarea').fill('{"name": "Tried on the page", "price": 4.5}')
    const [sent] = await Promise.all([
      page.waitForRequest((request) => request.method() === 'POST'),
      operation.getByRole('button', { name: 'Execute' }).click(),
    ])
    expect(await sent.headerValue('authorization')).toBe('Bearer a-key-of-mine')
    const answer = operation.locator('.live-responses-table .response')
    await answer.waitFor()
    expect(await answer.locator('.response-col_status').innerText()).toMatch(/^201/)
    const { items } = (await api.get('/products')).body
    expect(items[0].name).toBe('Tried on the page')

    expect(new Set(requested.map((address) => new URL(address).origin))).toEqual(new Set([url]))
    expect(complaints).toEqual([])
  })
})
