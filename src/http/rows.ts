// Takes a JSON array of many rows apart and checks them a few at a time: between them other requests are answered.
import type { MiddlewareHandler } from 'hono'
import type * as z from 'zod'
import type { Environment } from './environment.ts'
import { endOfString, parseJson } from './parse-json.ts'
import { type Fault, Problem } from './problem.ts'
import { invalid, MOST_FAULTS, toFaults } from './validation.ts'

/** As of a line of an import, and of a body that is one row. */
const LONGEST_ROW = 1024 * 1024
/** After so many characters it is the turn of other requests: 40 ms for JSON that is all small objects. */
const TURN = 256 * 1024

/**
 * Checks a JSON array, as `valid` does, for the body that `readJson` has read. The handler gets it as
 * JSON again, of what the rules make of each row: as objects, 15 MiB of small values took 206 MB.
 * - `documented`: what the whole is, for the document and the typed client
 * - `list`: the rules of the list as such, for what `outline` tells of each row
 * - `most`: of more rows none is parsed beyond the first that is too many
 * @throws {Problem} `validation`; `malformed` for what is no JSON, `too_large` for a row over 1 MiB
 */
export function validRows<List extends z.ZodType>(documented: List, rules: Rules) {
  const validator: MiddlewareHandler = async function validRows(c, next) {
    const json = await check(await c.req.text(), rules)
    c.req.addValidatedData('json', json as unknown as object)
    await next()
  }
  type Rows = MiddlewareHandler<
    Environment,
    string,
    { in: { json: z.input<List> }; out: { json: string } }
  >
  return Object.assign(validator as Rows, { target: 'json' as const, schema: documented })
}

interface Rules {
  list: z.ZodType
  outline: (row: unknown) => unknown
  row: z.ZodType
  most: number
}

async function check(text: string, { list, outline, row, most }: Rules): Promise<string> {
  const texts = divide(text, most)
  const isTooLong = texts !== undefined && texts.length > most
  const rows: string[] = []
  const faults: Fault[] = []
  const take = (text: string, index: number) => {
    const given = parse(text)
    // Of a list that is too long its rows are nobody's concern.
    if (!isTooLong && faults.length < MOST_FAULTS) {
      const { data, error } = row.safeParse(given)
      if (!error) rows.push(JSON.stringify(data))
      for (const issue of error?.issues ?? []) {
        const path = [index, ...issue.path]
        faults.push(...toFaults('json', { ...issue, path }, { [index]: given }))
      }
    }
    return outline(given)
  }
  const whole = texts ? await inTurns(texts, take) : parse(text)
  const { error } = list.safeParse(whole)
  faults.unshift(...(error?.issues ?? []).flatMap((issue) => toFaults('json', issue, whole)))
  if (faults.length > 0) throw invalid(faults)
  return `[${rows.join()}]`
}

function parse(text: string): unknown {
  try {
    return parseJson(text)
  } catch {
    throw malformed()
  }
}

const malformed = () => new Problem('malformed', 'The body is not valid JSON.')

/** Does the work for each text, some at a time. */
async function inTurns<T>(texts: string[], work: (text: string, index: number) => T): Promise<T[]> {
  const results: T[] = []
  let characters = 0
  for (const [index, text] of texts.entries()) {
    results.push(work(text, index))
    characters += text.length
    if (characters < TURN) continue
    characters = 0
    await new Promise((resolve) => setTimeout(resolve))
  }
  return results
}

/**
 * The texts of an array's elements, whatever they are; one more than `most` when there are more.
 * @returns undefined, when the text begins as something else
 */
function divide(text: string, most: number): string[] | undefined {
  const begin = text.search(/[^ \t\n\r]/)
  if (text[begin] !== '[') {
    if (text.length > LONGEST_ROW) throw tooLarge()
    return undefined
  }
  const texts: string[] = []
  let depth = 0
  let start = begin + 1
  for (let at = start; at < text.length; at++) {
    if (at - start > LONGEST_ROW) throw tooLarge()
    switch (text[at]) {
      case '"':
        at = endOfString(text, at)
        if (at === -1) throw malformed()
        break
      case '[':
      case '{':
        depth++
        break
      case ',':
        if (depth > 0) break
        texts.push(text.slice(start, at))
        if (texts.length > most) return texts
        start = at + 1
        break
      case ']':
      case '}':
        if (depth-- > 0) break
        if (text[at] === '}' || !isBlank(text.slice(at + 1))) throw malformed()
        const last = text.slice(start, at)
        return texts.length === 0 && isBlank(last) ? [] : [...texts, last]
    }
  }
  throw malformed()
}

/** Of what JSON takes for white space alone. */
const isBlank = (text: string) => /^[ \t\n\r]*$/.test(text)

function tooLarge() {
  return new Problem('too_large', `One of the list is longer than ${LONGEST_ROW} characters.`)
}
