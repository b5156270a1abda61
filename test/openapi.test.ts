// The OpenAPI document says what the routes say: the same paths, the same schemas, nothing forgotten.
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { Validator } from '@seriousme/openapi-schema-validator'
import { findTargetHandler } from 'hono/utils/handler'
import { describe, expect, test } from 'vitest'
import type { z } from 'zod'
import { createDocument } from 'zod-openapi'
import { createApp } from '../src/app.ts'
import { writeOpenApiDocument } from '../src/documentation/document.ts'
import { NewProduct, ProductPatch } from '../src/products/schema.ts'
import { faultsOf, unpromised } from './support/openapi.ts'

interface Media {
  schema?: object
  example?: unknown
  examples?: Record<string, { value: unknown }>
}
interface Operation {
  operationId?: string
  summary?: string
  tags?: string[]
  security?: object[]
  parameters?: { in: string; name: string }[]
  requestBody?: { content: Record<string, Media> }
  responses: Record<string, { content?: Record<string, Media> }>
}
interface Document {
  tags: { name: string }[]
  paths: Record<string, Record<string, Operation>>
  components: Record<string, Record<string, object>>
}

const written = writeOpenApiDocument()
const document = JSON.parse(written) as Document

/** `GET /products/{id}` and so on, with what stands there. */
const operations = new Map(
  Object.entries(document.paths).flatMap(([path, item]) =>
    Object.entries(item)
      .filter(([method]) => method !== 'parameters')
      .map(([method, operation]): [string, Operation] => [
        `${method.toUpperCase()} ${path}`,
        operation,
      ]),
  ),
)

/** What a mounted route checks with, found by what its middlewares carry. */
interface Mounted {
  json?: z.ZodType
  query?: z.ZodObject
  param?: z.ZodObject
  header?: z.ZodObject
  mediaTypes?: string[]
}

/** The routes of the app; what is mounted for every method is no route but a middleware. */
const mounted = new Map<string, Mounted>()
for (const { method, path, handler } of createApp({ access: undefined, corsOrigins: undefined })
  .routes) {
  if (method === 'ALL') continue
  const name = `${method} ${path.replaceAll(/:(\w+)/g, '{$1}')}`
  const carried = findTargetHandler(handler) as {
    target?: keyof Mounted
    schema?: z.ZodType
    mediaTypes?: string[]
  }
  const { target, schema, mediaTypes } = carried
  mounted.set(name, {
    ...mounted.get(name),
    ...(target ? { [target]: schema } : {}),
    ...(mediaTypes ? { mediaTypes } : {}),
  })
}

const refs = (value: unknown): string[] =>
  JSON.stringify(value)
    .match(/(?<="\$ref":")[^"]+/g)
    ?.map(String) ?? []

test('what is kept in the repository is what the schemas say: `npm run openapi` writes it', async () => {
  const file = join(import.meta.dirname, '../src/documentation/page/openapi.json')
  expect(await readFile(file, 'utf8')).toBe(written)
})

test('every mounted route is in the document, and nothing else is', () => {
  expect(mounted.size).toBeGreaterThan(8)
  expect([...operations.keys()].toSorted()).toEqual([...mounted.keys()].toSorted())
})

describe.each([...mounted])('%s', (name, route) => {
  const { query, param, header, json, mediaTypes } = route
  const operation = operations.get(name)!

  /** What the document would say of this route if it were made of its validators alone. */
  const expected = createDocument(
    {
      openapi: '3.1.1',
      info: { title: '', version: '' },
      paths: {
        '/': {
          post: {
            requestParams: {
              ...(param ? { path: param } : {}),
              ...(query ? { query } : {}),
              ...(header ? { header } : {}),
            },
            ...(json ? { requestBody: { content: { json: { schema: json } } } } : {}),
            responses: {},
          },
        },
      },
    },
    { allowEmptySchema: { custom: true } },
  ) as unknown as Document
  const checked = expected.paths['/']!['post']!

  test('takes the parameters that it checks', () => {
    // A header may be read by what is no validator, such as the one for a precondition.
    const strict = (parameters: Operation['parameters'] = []) =>
      parameters.filter((parameter) => parameter.in !== 'header')
    expect(strict(operation.parameters)).toEqual(strict(checked.parameters))
    for (const parameter of checked.parameters ?? []) {
      expect(operation.parameters).toContainEqual(parameter)
    }
    const inPath = [...name.matchAll(/\{(\w+)\}/g)].map(([, parameter]) => parameter)
    const described = operation.parameters?.filter((parameter) => parameter.in === 'path') ?? []
    expect(described.map((parameter) => parameter.name)).toEqual(inPath)
  })

  test('takes the body that it checks', () => {
    const content = operation.requestBody?.content ?? {}
    expect(Object.keys(content).toSorted()).toEqual((mediaTypes ?? []).toSorted())
    if (!json) return
    const { schema } = checked.requestBody!.content['json']!
    for (const media of Object.values(content)) expect(media.schema).toEqual(schema)
    for (const [id, component] of Object.entries(expected.components['schemas'] ?? {})) {
      expect(document.components['schemas']![id], id).toEqual(component)
    }
  })

  test('says what it is, and what may go wrong', () => {
    expect(operation.operationId).toMatch(/^[a-z][A-Za-z]+$/)
    expect(operation.summary).toMatch(/\S/)
    expect(document.tags.map((tag) => tag.name)).toEqual(expect.arrayContaining(operation.tags!))
    expect(operation.security).toBeDefined()
    const statuses = Object.keys(operation.responses)
    expect(statuses).toEqual(expect.arrayContaining(['400', '500']))
    if (operation.security!.length > 0) {
      expect(statuses).toEqual(expect.arrayContaining(['401', '403']))
    }
    if (route.query) expect(statuses).toContain('422')
    if (mediaTypes) expect(statuses).toEqual(expect.arrayContaining(['413', '415', '422']))
    expect(statuses.some((status) => /^[23]/.test(status))).toBe(true)
  })
})

test('it is valid OpenAPI 3.1', async () => {
  const { valid, errors } = await new Validator().validate(JSON.parse(written))
  expect(errors).toBeUndefined()
  expect(valid).toBe(true)
})

test('each reference leads somewhere, and each component is used', () => {
  const used = new Set(refs(document))
  for (const ref of used) {
    const [, , kind, name] = ref.split('/')
    expect(document.components[kind!], ref).toHaveProperty([name!])
  }
  for (const [kind, components] of Object.entries(document.components)) {
    if (kind === 'securitySchemes') continue
    for (const name of Object.keys(components)) {
      expect(used).toContain(`#/components/${kind}/${name}`)
    }
  }
})

test('each operation has a name of its own', () => {
  const names = [...operations.values()].map((operation) => operation.operationId)
  expect(new Set(names).size).toBe(names.length)
})

test('each example is an example of its schema', () => {
  const media = [
    ...[...operations.values()].flatMap((operation) => [
      ...Object.values(operation.requestBody?.content ?? {}),
      ...Object.values(operation.responses).flatMap((answer) =>
        Object.values(answer.content ?? {}),
      ),
    ]),
    ...Object.values(document.components['responses']!).flatMap((answer) =>
      Object.values((answer as { content: Record<string, Media> }).content),
    ),
  ]
  let count = 0
  for (const { schema, example, examples } of media) {
    const values = Object.values(examples ?? {}).map(({ value }) => value)
    for (const value of example === undefined ? values : [example, ...values]) {
      expect(faultsOf(schema!, value), JSON.stringify(value)).toEqual([])
      count++
    }
  }
  expect(count).toBeGreaterThan(10)

  // And the small ones, in the schemas themselves.
  JSON.stringify(document, (_, value: { examples?: unknown } | null) => {
    if (value && typeof value === 'object' && Array.isArray(value.examples)) {
      for (const one of value.examples) expect(faultsOf(value, one), String(one)).toEqual([])
    }
    return value
  })
})

test('no field is without a form, but the ones that are not looked at', () => {
  const forms = ['type', 'anyOf', 'oneOf', 'allOf', '$ref', 'enum', 'const']
  const formless: string[] = []
  for (const [name, schema] of Object.entries(document.components['schemas']!)) {
    const { properties = {} } = schema as { properties?: Record<string, object> }
    for (const [field, form] of Object.entries(properties)) {
      if (!forms.some((key) => key in form) && !('readOnly' in form)) {
        formless.push(`${name}.${field}`)
      }
    }
  }
  expect(formless).toEqual([])
})

const whole = { name: 'Mug', price: 1 }

test.for<[valid: boolean, fields: Record<string, unknown>]>([
  [true, {}],
  [true, { name: ' Mug ' }],
  [true, { name: '😀'.repeat(200) }],
  [false, { name: 'x'.repeat(201) }],
  [false, { name: ' \n' }],
  [false, { name: undefined }],
  [false, { name: null }],
  [true, { sku: null }],
  [true, { sku: '😀'.repeat(64) }],
  [false, { sku: '' }],
  [false, { sku: 'x'.repeat(65) }],
  [true, { description: '' }],
  [true, { description: 'x'.repeat(5000) }],
  [false, { description: 'x'.repeat(5001) }],
  [true, { price: 9_999_999_999.99 }],
  [true, { price: '9999999999.99' }],
  [true, { price: '0' }],
  [false, { price: 10_000_000_000 }],
  [false, { price: '10000000000' }],
  [false, { price: -1 }],
  [false, { price: '-1' }],
  [false, { price: '1.234' }],
  [false, { price: '01' }],
  [false, { price: '1e3' }],
  [false, { price: '' }],
  [false, { price: true }],
  [true, { currency: 'EUR' }],
  [false, { currency: 'eur' }],
  [false, { currency: 'EURO' }],
  [true, { stock: 2_147_483_647 }],
  [false, { stock: 2_147_483_648 }],
  [false, { stock: -1 }],
  [false, { stock: 1.5 }],
  [false, { stock: '1' }],
  [true, { attributes: { a: [1, { b: null }] } }],
  [false, { attributes: [] }],
  [false, { attributes: 'a' }],
  [true, { id: 'anything', version: {}, created_at: 1, updated_at: null }],
  [false, { colour: 'blue' }],
])('the document and the validator think alike: %j', ([valid, fields]) => {
  const body = JSON.parse(JSON.stringify({ ...whole, ...fields })) as object
  const { NewProduct: described, ProductPatch: describedPatch } = document.components['schemas']!
  expect(NewProduct.safeParse(body).success).toBe(valid)
  expect(faultsOf(described!, body).length === 0).toBe(valid)
  if (fields['name'] === undefined && 'name' in fields) return // a patch may leave it out
  expect(ProductPatch.safeParse(fields).success).toBe(valid)
  expect(faultsOf(describedPatch!, fields).length === 0).toBe(valid)
})

describe('an answer that was not promised is found', () => {
  const product = document.paths['/products/{id}']!['get']!.responses['200']!.content![
    'application/json'
  ]!.example as object
  const answer = {
    status: 200,
    headers: { 'content-type': 'application/json', 'x-request-id': 'a', etag: '"1"' },
    text: JSON.stringify(product),
  }

  test('but not one that was', () => {
    expect(unpromised('GET', '/products/1?a=b', answer)).toEqual([])
    expect(unpromised('HEAD', '/products/1', { ...answer, text: '' })).toEqual([])
  })

  test.for<[string, Partial<typeof answer>, string]>([
    ['another status', { status: 202 }, 'the status 202 is not in the document'],
    ['a header short', { headers: { ...answer.headers, etag: undefined! } }, 'ETag is missing'],
    ['a wrong header', { headers: { ...answer.headers, etag: 'W/1' } }, 'the header ETag'],
    [
      'another type',
      { headers: { ...answer.headers, 'content-type': 'text/html' } },
      'the type text/html is not in the document',
    ],
    ['no JSON', { text: '{' }, 'the body is no JSON'],
    ['a field short', { text: JSON.stringify({ ...product, sku: undefined }) }, "'sku'"],
    ['a field too many', { text: JSON.stringify({ ...product, secret: 1 }) }, 'additional'],
    ['a field of another type', { text: JSON.stringify({ ...product, price: '1' }) }, '/price'],
  ])('%s', ([, change, complaint]) => {
    const complaints = unpromised('GET', '/products/1', { ...answer, ...change })
    expect(complaints.join()).toContain(complaint)
  })

  test('a body after 204', () => {
    const complaints = unpromised('DELETE', '/products/1', { ...answer, status: 204 })
    expect(complaints).toEqual(['there is a body'])
  })

  test('anything but a problem where nothing is described', () => {
    expect(unpromised('GET', '/nowhere', answer)).not.toEqual([])
    expect(unpromised('POST', '/health', answer)).not.toEqual([])
  })
})
