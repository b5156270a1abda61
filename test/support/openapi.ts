// Holds every answer that a test gets against the OpenAPI document: what is not promised there, fails.
import { readFileSync } from 'node:fs'
import { Ajv2020, type ValidateFunction } from 'ajv/dist/2020.js'
import addFormats from 'ajv-formats'

export interface Answer {
  status: number
  headers: Record<string, string>
  /** Undefined when the body was not taken in. */
  text: string | undefined
}

interface Media {
  schema?: object
}
interface Header {
  required?: boolean
  schema: object
}
interface Description {
  headers?: Record<string, Header>
  content?: Record<string, Media>
}
interface Operation {
  responses: Record<string, Description>
}

const file = new URL('../../src/documentation/page/openapi.json', import.meta.url)
const document = JSON.parse(readFileSync(file, 'utf8')) as {
  paths: Record<string, Record<string, Operation>>
}

// The document is a schema that holds all others, so that `$ref` leads where it says.
const ajv = new Ajv2020({ strict: false, allErrors: true })
addFormats.default(ajv)
ajv.addSchema({ $id: 'document', ...document }, undefined, undefined, false)

const compiled = new Map<object, ValidateFunction>()

/** The paths of the document; those without a parameter come first, as in the router. */
const paths = Object.keys(document.paths)
  .toSorted((a, b) => Number(a.includes('{')) - Number(b.includes('{')))
  .map((path) => ({ path, pattern: new RegExp(`^${path.replaceAll(/\{\w+\}/g, '[^/]+')}$`) }))

/**
 * The complaints about an answer, none when the document promises it: its status, its type, its
 * headers, and its body when that is JSON. Where the document has no such path or method, the answer
 * must be a problem; a preflight of CORS may be empty.
 */
export function unpromised(method: string, path: string, answer: Answer): string[] {
  const [pathname] = path.split(/[?#]/)
  const known = paths.find(({ pattern }) => pattern.test(pathname!))?.path
  const operation =
    known === undefined
      ? undefined
      : document.paths[known]![method === 'HEAD' ? 'get' : method.toLowerCase()]
  const body = method === 'HEAD' ? undefined : answer.text
  if (operation) return describe(operation, { ...answer, text: body })
  if (method === 'OPTIONS' && answer.status === 204) return []
  const problem = { $ref: 'document#/components/schemas/Problem' }
  const content = { 'application/problem+json': { schema: problem } }
  return describe({ responses: { [answer.status]: { content } } }, { ...answer, text: body })
}

function describe(operation: Operation, answer: Answer): string[] {
  const promised = operation.responses[String(answer.status)]
  if (!promised) return [`the status ${answer.status} is not in the document`]
  const { headers = {}, content } = resolve(promised)
  const complaints = Object.entries(headers).flatMap(([name, header]) =>
    checkHeader(name, resolve(header), answer.headers[name.toLowerCase()]),
  )
  return [...complaints, ...checkContent(content, answer)]
}

function checkHeader(name: string, header: Header, value: string | undefined): string[] {
  if (value === undefined) return header.required ? [`the header ${name} is missing`] : []
  return check(header.schema, value, `the header ${name}`)
}

function checkContent(content: Description['content'], { headers, text }: Answer): string[] {
  if (!content) return text ? ['there is a body'] : []
  const [type = ''] = (headers['content-type'] ?? '').split(';')
  const media = content[type]
  if (!media) return [`the type ${type || '(none)'} is not in the document`]
  if (text === undefined || !media.schema || !/[/+]json$/.test(type)) return []
  try {
    return check(media.schema, JSON.parse(text), 'the body')
  } catch (error) {
    return [`the body is no JSON: ${String(error)}`]
  }
}

function check(schema: object, value: unknown, name: string): string[] {
  return faultsOf(schema, value).map((fault) => name + fault)
}

/** Where a value is not what a schema of the document says, and how; empty when it is. */
export function faultsOf(schema: object, value: unknown): string[] {
  let validate = compiled.get(schema)
  if (!validate) {
    validate = ajv.compile(inDocument(schema))
    compiled.set(schema, validate)
  }
  if (validate(value)) return []
  return validate.errors!.map(({ instancePath, message }) => `${instancePath} ${message}`)
}

/** A schema taken out of the document, whose references lead into it. */
function inDocument(schema: object): object {
  return JSON.parse(JSON.stringify(schema).replaceAll('"$ref":"#/', '"$ref":"document#/')) as object
}

function resolve<T extends object>(value: T | { $ref: string }): T {
  if (!('$ref' in value)) return value
  const steps = value.$ref.split('/').slice(1)
  let found: unknown = document
  for (const step of steps) found = (found as Record<string, unknown>)[step]
  return found as T
}
