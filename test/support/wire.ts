// A connection that sends bytes as they are, and takes the answers apart strictly: what is no HTTP, fails.
import { connect, type Socket } from 'node:net'
import { atTheEnd } from './clean-up.ts'

export interface WireAnswer {
  status: number
  /** The names are in lower case; what was sent more than once is joined by commas. */
  headers: Record<string, string>
  body: Buffer
  ms: number
}

export type Wire = ReturnType<typeof openWire>

/** Longer than any answer may take, also on a busy machine. */
const PATIENCE_MS = 20_000
const END_OF_HEAD = '\r\n\r\n'

/** One request at a time, on a connection that is kept, and made anew when the server has closed it. */
export function openWire(url: string) {
  const { hostname, port } = new URL(url)
  let socket: Socket | undefined
  let received: Buffer = Buffer.alloc(0)
  let closed = true
  let look = () => {}

  function dial() {
    received = Buffer.alloc(0)
    closed = false
    const fresh = connect({ host: hostname, port: Number(port), noDelay: true })
    fresh
      .on('data', (data) => {
        if (fresh !== socket) return
        received = received.length === 0 ? data : Buffer.concat([received, data])
        look()
      })
      .on('error', () => {})
      .on('close', () => {
        if (fresh !== socket) return
        closed = true
        look()
      })
    socket = fresh
  }

  function hangUp() {
    socket?.destroy()
    closed = true
  }

  /**
   * @param isHead whether the answer is one without a body
   * @throws {Error} when there is no answer, or it is no HTTP
   */
  async function send(bytes: Uint8Array, isHead: boolean): Promise<WireAnswer> {
    const used = !closed
    if (closed) dial()
    const start = performance.now()
    socket!.write(bytes)
    const answer = await new Promise<Omit<WireAnswer, 'ms'> | undefined>((resolve, reject) => {
      const end = (settle: () => void) => {
        clearTimeout(timer)
        look = () => {}
        settle()
      }
      const timer = setTimeout(
        () => end(() => reject(new Error(`no answer within ${PATIENCE_MS / 1000} s`))),
        PATIENCE_MS,
      )
      look = () => {
        try {
          const parsed = parseAnswer(received, isHead, closed)
          if (parsed) {
            received = received.subarray(parsed.length)
            end(() => resolve(parsed))
          } else if (closed && used && received.length === 0) end(() => resolve(undefined))
          else if (closed) end(() => reject(new Error(`cut off: ${received.toString('latin1')}`)))
        } catch (error) {
          end(() => reject(error as Error))
        }
      }
      look()
    }).catch((error) => {
      hangUp()
      throw error
    })
    // A kept connection may be closed while the request is on its way: clients send it again.
    if (!answer) return send(bytes, isHead)
    if (/\bclose\b/i.test(answer.headers['connection'] ?? '')) hangUp()
    if (received.length > 0) {
      const more = received.toString('latin1')
      hangUp()
      throw new Error(`after the answer came what nobody asked for: ${more}`)
    }
    return { ...answer, ms: performance.now() - start }
  }

  atTheEnd(async () => hangUp())
  return { send, hangUp }
}

type Parsed = Omit<WireAnswer, 'ms'> & { length: number }

/**
 * The first answer in `bytes`, with its length there; undefined when it is not complete.
 * @throws {Error} when it is not as RFC 9112 says
 */
export function parseAnswer(bytes: Buffer, isHead: boolean, isEnd: boolean): Parsed | undefined {
  const end = bytes.indexOf(END_OF_HEAD)
  if (end === -1) return undefined
  const [first = '', ...lines] = bytes.subarray(0, end).toString('latin1').split('\r\n')
  const status = Number(/^HTTP\/1\.1 ([1-5]\d\d) [\t -~]*$/.exec(first)?.[1])
  if (!status) throw new Error(`no status line: ${JSON.stringify(first)}`)
  const start = end + END_OF_HEAD.length
  const headers: Record<string, string> = {}
  for (const line of lines) {
    const [, name, value] = /^([!#$%&'*+.^_`|~\w-]+): ([\t -~\u0080-\u00ff]*)$/.exec(line) ?? []
    if (name === undefined) throw new Error(`no header: ${JSON.stringify(line)}`)
    const key = name.toLowerCase()
    headers[key] = key in headers ? `${headers[key]}, ${value}` : value!
  }
  const found = (body: Buffer, length: number) => ({ status, headers, body, length })
  if (status < 200) {
    // An interim answer: the one that counts comes behind it.
    const next = parseAnswer(bytes.subarray(start), isHead, isEnd)
    return next && { ...next, length: start + next.length }
  }
  if (isHead || status === 204 || status === 304) return found(Buffer.alloc(0), start)
  if (headers['transfer-encoding'] === 'chunked') {
    const chunked = parseChunks(bytes, start)
    return chunked && found(chunked.body, chunked.end)
  }
  const length = headers['content-length']
  if (length === undefined) return isEnd ? found(bytes.subarray(start), bytes.length) : undefined
  if (!/^\d+$/.test(length)) throw new Error(`no length: ${length}`)
  const whole = start + Number(length)
  return bytes.length < whole ? undefined : found(bytes.subarray(start, whole), whole)
}

function parseChunks(bytes: Buffer, start: number): { body: Buffer; end: number } | undefined {
  const chunks: Buffer[] = []
  for (let at = start; ;) {
    const end = bytes.indexOf('\r\n', at)
    if (end === -1) return undefined
    const size = bytes.subarray(at, end).toString('latin1')
    if (!/^[\da-f]+$/i.test(size)) throw new Error(`no chunk: ${JSON.stringify(size)}`)
    const from = end + 2
    const to = from + parseInt(size, 16)
    if (bytes.length < to + 2) return undefined
    if (bytes.subarray(to, to + 2).toString('latin1') !== '\r\n') throw new Error('no end of chunk')
    if (to === from) return { body: Buffer.concat(chunks), end: to + 2 }
    chunks.push(bytes.subarray(from, to))
    at = to + 2
  }
}
