// A client as they come: it keeps its connections, may send slowly or leave, and tells what became of a request.
import * as http from 'node:http'
import { setTimeout as sleep } from 'node:timers/promises'
import { unpromised } from '../support/openapi.ts'

export interface Request {
  method: string
  path: string
  headers?: Record<string, string>
  body?: string
  /** The body goes out in so many pieces, with so long between them. */
  pace?: { pieces: number; everyMs: number }
  /** Leaves with half of the body sent, or so long after it has sent all. */
  leave?: 'halfway' | { afterMs: number }
  /** Takes its time over the answer: so long between two reads. */
  readEveryMs?: number
}

export interface Answer {
  outcome: 'answered'
  status: number
  headers: Record<string, string>
  text: string
  // oxlint-disable-next-line typescript/no-explicit-any
  body: any
}

/**
 * - `unsent`: nobody listened, or the client left before it had sent everything: nothing can have happened
 * - `broken`: the connection ended without an answer, or in the middle of one
 * - `left`: the client did not wait for it
 * - `hung`: the deadline passed
 */
export type Outcome = Answer | { outcome: 'unsent' | 'broken' | 'left' | 'hung' }

export interface Client {
  send(request: Request): Promise<Outcome>
  close(): void
}

/** `onUnpromised` hears of each answer that is not in the OpenAPI document. */
export function createClient(
  port: number,
  deadlineMs: number,
  onUnpromised: (complaint: string) => void,
): Client {
  const agent = new http.Agent({ keepAlive: true })

  function send(request: Request): Promise<Outcome> {
    const { method, path, body = '', pace, leave, readEveryMs } = request
    return new Promise((settle) => {
      const length = { 'content-length': String(Buffer.byteLength(body)) }
      const headers = { ...(request.body === undefined ? {} : length), ...request.headers }
      const sent = http.request({ agent, host: '127.0.0.1', port, method, path, headers })
      let leaving: NodeJS.Timeout | undefined
      const deadline = setTimeout(() => end('hung'), deadlineMs)
      const finish = (outcome: Outcome) => {
        clearTimeout(deadline)
        clearTimeout(leaving)
        settle(outcome)
      }
      const end = (outcome: 'unsent' | 'broken' | 'left' | 'hung') => {
        finish({ outcome })
        sent.destroy()
      }
      sent.on('error', (error: NodeJS.ErrnoException) =>
        end(error.code === 'ECONNREFUSED' ? 'unsent' : 'broken'),
      )
      sent.on('response', (message) => {
        message.on('error', () => end('broken'))
        void readAll(message, readEveryMs).then(
          (text) => {
            if (!message.complete) return end('broken')
            const answer = {
              status: message.statusCode!,
              headers: Object.fromEntries(
                Object.entries(message.headers).map(([name, value]) => [name, String(value)]),
              ),
              text,
            }
            for (const complaint of unpromised(method, path, answer)) {
              onUnpromised(`${method} ${path}: ${complaint}: ${text.slice(0, 300)}`)
            }
            finish({ outcome: 'answered', ...answer, body: parse(text) })
          },
          () => end('broken'),
        )
      })

      void (async () => {
        const bytes = Buffer.from(body)
        const halfway = leave === 'halfway' && bytes.length > 1
        const pieces = Math.max(halfway ? 2 : 1, pace?.pieces ?? 1)
        const size = Math.ceil(bytes.length / pieces)
        for (let n = 0; n < pieces && bytes.length > 0; n++) {
          if (sent.destroyed) return
          if (halfway && n === pieces >> 1) {
            await sleep(20) // until it has arrived
            return end('unsent')
          }
          if (n > 0) await sleep(pace?.everyMs ?? 0)
          sent.write(bytes.subarray(n * size, (n + 1) * size))
        }
        sent.end()
        const afterMs = typeof leave === 'object' ? leave.afterMs : 0
        if (leave) leaving = setTimeout(() => end('left'), afterMs)
      })()
    })
  }

  return { send, close: () => agent.destroy() }
}

async function readAll(message: http.IncomingMessage, everyMs = 0): Promise<string> {
  const pieces: Buffer[] = []
  for await (const piece of message) {
    pieces.push(piece as Buffer)
    if (everyMs > 0) await sleep(everyMs)
  }
  return Buffer.concat(pieces).toString()
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}
