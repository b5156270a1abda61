// CSV (RFC 4180) as records of fields: this file finds where records end, csv-parse takes them apart.
import { CsvError, parse } from 'csv-parse/sync'
import { type Line, MOST_LINE_BYTES, tooLong } from './lines.ts'

export interface CsvRecord {
  /** Of its first line. */
  line: number
  /** An empty field is undefined, `""` an empty string. Undefined as a whole, when it is not CSV. */
  fields: (string | undefined)[] | undefined
}

/** So many are looked at anew after each record that is no CSV. */
const MOST_LINES = 500

/** One record's lines, of which there are several when a line feed stands between quotes. */
type Span = Line[]

const options = {
  record_delimiter: ['\r\n', '\n'],
  relax_column_count: true, // the number of fields is the caller's to check
  cast: (value: string, { quoting }: { quoting: boolean }) =>
    value === '' && !quoting ? undefined : value,
}

/**
 * The records of a CSV file, in bunches as their lines come; blank lines between them are passed over.
 *
 * Where each quote is closed or doubled, a record ends at the first line by whose end an even number
 * of quotes has come. So records are known by their lines before they are parsed, and what is wrong
 * with one leaves the next alone: after a record that is no CSV the reading goes on at its second line.
 * @throws {Problem} `too_large` for a record of more than 1 MiB
 */
export async function* readCsv(bunches: AsyncIterable<Line[]>): AsyncGenerator<CsvRecord[]> {
  let open: Span = []
  let openLength = 0

  function close(): Span {
    const span = open
    open = []
    openLength = 0
    return span
  }

  /** The records that are complete; what is left stays open. */
  function divide(lines: Line[]): Span[] {
    const spans: Span[] = []
    for (const line of lines) {
      const { text } = line
      if (open.length === 0 && text.trim() === '') continue
      const closes = hasOddQuotes(text) === open.length > 0
      open.push(line)
      openLength += text.length + 1
      if (openLength > MOST_LINE_BYTES + 1) {
        const { fault } = parseSpans([open])
        const isCsvSoFar = !fault || fault.code === 'CSV_QUOTE_NOT_CLOSED'
        if (isCsvSoFar) throw tooLong(open[0]!.number)
        spans.push(close())
      } else if (closes) spans.push(close())
    }
    return spans
  }

  function* parseLines(lines: Line[], last: boolean): Generator<CsvRecord[]> {
    const unread = inPieces(lines)
    do {
      const spans = divide(unread.pop() ?? [])
      if (last && unread.length === 0 && open.length > 0) spans.push(close())
      const { records, fault } = parseSpans(spans)
      if (!fault) {
        yield records
        continue
      }
      const [bad, ...rest] = spans.slice(records.length)
      yield [...records, { line: bad![0]!.number, fields: undefined }]
      unread.push(...inPieces([...bad!.slice(1), ...rest.flat(), ...close()]))
    } while (unread.length > 0)
  }

  for await (const lines of bunches) yield* parseLines(lines, false)
  yield* parseLines([], true)
}

/** Of so many lines each; the first of them is the last, to be taken off the end. */
function inPieces(lines: Line[]): Line[][] {
  const pieces: Line[][] = []
  for (let at = 0; at < lines.length; at += MOST_LINES) {
    pieces.push(lines.slice(at, at + MOST_LINES))
  }
  return pieces.reverse()
}

/** The records before the first that is not CSV, and what is wrong with that. */
function parseSpans(spans: Span[]): { records: CsvRecord[]; fault?: CsvError } {
  const records: CsvRecord[] = []
  const on_record = (fields: (string | undefined)[]) => {
    records.push({ line: spans[records.length]![0]!.number, fields })
    return null
  }
  const text = spans.flatMap((span) => span.map((line) => `${line.text}\n`)).join('')
  try {
    parse(text, { ...options, on_record })
  } catch (error) {
    if (error instanceof CsvError) return { records, fault: error }
    throw error
  }
  return { records }
}

function hasOddQuotes(text: string): boolean {
  let odd = false
  for (let at = text.indexOf('"'); at !== -1; at = text.indexOf('"', at + 1)) odd = !odd
  return odd
}
