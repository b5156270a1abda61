// A body that is written while the client reads it, no faster than that.
import type { Context } from 'hono'
import { requestIdOf } from './request-id.ts'
import type { Environment } from './environment.ts'
import { PATIENCE_MS, withPatience } from './patience.ts'

/**
 * Runs `work` as long as the client reads. `write` returns when the client has taken the text, and
 * `signal` aborts when it takes no more. What fails before the first text is thrown, so that it can
 * be answered; what fails later breaks the transfer off, so that it is not taken for complete.
 */
export function streamText(
  c: Context<Environment>,
  work: (write: (text: string) => Promise<void>, signal: AbortSignal) => Promise<void>,
): Promise<ReadableStream<Uint8Array>> {
  const gone = new AbortController()
  const signal = AbortSignal.any([c.req.raw.signal, gone.signal])
  const encoder = new TextEncoder()
  const late = () => new Error(`the client has taken nothing for ${PATIENCE_MS / 1000} s`)
  // Nothing is kept ready: what nobody has asked for is not taken from the writer. A failure, too,
  // waits to be asked for: Node's adapter would end the answer, rather than break it off, when the
  // stream failed while it had asked for nothing.
  const { readable, writable } = new TransformStream<Uint8Array | Error, Uint8Array>(
    {
      transform(chunk, controller) {
        if (chunk instanceof Error) throw chunk
        controller.enqueue(chunk)
      },
    },
    { highWaterMark: 1 },
    { highWaterMark: 0 },
  )
  const writer = writable.getWriter()
  writer.closed.catch((reason) => gone.abort(reason))

  return new Promise((resolve, reject) => {
    let begun = false
    const write = async (text: string) => {
      if (text === '') return // a chunk of no length would be the end of the transfer
      begun = true
      resolve(readable)
      await withPatience(writer.write(encoder.encode(text)), late)
    }
    const fail = async (error: unknown) => {
      reject(error)
      if (!begun) return
      if (!signal.aborted) {
        c.env.log.error({ request_id: requestIdOf(c), error }, 'answer broken off')
      }
      // Without the reason, which is in the log by now: the adapter says it once more on the console.
      await writer.write(new Error('The answer was broken off.')).catch(() => {})
    }
    const end = async () => {
      resolve(readable)
      await writer.close()
    }
    work(write, signal).then(end).catch(fail)
  })
}
