// The part of autocannon that the load uses; the package brings no types.
declare module 'autocannon' {
  import type { EventEmitter } from 'node:events'

  export interface Request {
    method?: string
    path?: string
    headers?: Record<string, string>
    body?: string
    /** Called for each request that is sent; the others are made once. */
    setupRequest?: (request: Request) => Request
  }

  export interface Client extends EventEmitter<{ done: [] }> {
    setRequests(requests: Request[]): void
    /** Requests sent. */
    reqsMade: number
    /** The client ends when it has sent so many, and has the last answer. */
    responseMax: number | undefined
  }

  interface Options {
    url: string
    connections: number
    /** Seconds; also until an answer has come. */
    duration: number
    timeout: number
    setupClient: (client: Client) => void
  }

  interface Events {
    response: [client: Client, status: number, bytes: number, milliseconds: number]
    reqError: [error: Error]
  }

  export default function autocannon(options: Options): EventEmitter<Events>
}
