// A network between the service and PostgreSQL that can be broken in the ways networks break.
import { randomInt } from 'node:crypto'
import { once } from 'node:events'
import { connect, createServer, type Server, type Socket } from 'node:net'
import type { DatabaseAddress } from '../../src/database/connection.ts'
import { atTheEnd } from './clean-up.ts'

const HOST = '127.0.0.1'

export interface Proxy {
  /** The database as it is reached through here. */
  address: DatabaseAddress
  /** How many connections were taken so far, and how many of them are there. */
  accepted: () => number
  open: () => number
  /** How often a client has spoken anew, or after the server had: the round trips so far. */
  trips: () => number
  /** Everything flows; what was held back arrives late. */
  pass: () => Promise<void>
  /** Connections stay and new ones are taken, but not a byte goes through, nor a FIN. */
  silence: () => void
  /** Nobody listens: new connections are refused, those there are go on. */
  refuse: () => void
  /** Existing connections fall silent for good, as in a firewall that lost its state. */
  lose: () => void
  /** What has fallen silent for good ends with a RST, as keep-alive ends it after a while. */
  bury: () => void
  /**
   * A client that sends these words, before everything flows again: they arrive, but no answer comes
   * back to it any more.
   */
  loseAnswerTo: (words: string) => void
  /** The next time a client sends these words, they and what follows do not arrive; resolves then. */
  holdBack: (words: string) => Promise<void>
  /** Whoever connects is told these bytes and nothing else, until everything flows again. */
  babble: (bytes: Uint8Array) => void
  /** Existing connections end with a RST. */
  reset: () => void
  /** Existing connections end with a FIN. */
  cut: () => void
  stop: () => Promise<void>
}

/** A connection of a client's and the one made for it. */
interface Pair {
  sockets: [client: Socket, server: Socket]
  flowing: boolean
  lost: boolean
  /** Whether the client was the last to speak. */
  asking: boolean
}

/** Starts the proxy before a database; it ends with the test, or with the file. */
export async function startProxy(to: DatabaseAddress): Promise<Proxy> {
  const pairs = new Set<Pair>()
  let accepted = 0
  let trips = 0
  let silent = false
  let fatal: string | undefined
  let heldBack: { words: string; resolve: () => void } | undefined
  let nonsense: Uint8Array | undefined
  const confused = new Set<Socket>()

  function accept(client: Socket) {
    accepted += 1
    if (nonsense) {
      client.on('error', () => {}).on('close', () => confused.delete(client))
      confused.add(client.resume())
      return void client.write(nonsense)
    }
    const server = connect({ host: to.host, port: to.port, allowHalfOpen: true })
    const pair: Pair = { sockets: [client, server], flowing: false, lost: false, asking: false }
    pairs.add(pair)
    for (const socket of pair.sockets) {
      socket.setNoDelay(true)
      socket
        .on('error', () => {})
        .on('close', () => {
          if (pair.flowing) passReset(pair)
          if (client.closed && server.closed) pairs.delete(pair)
        })
    }
    // Not `on`, which would start the flow.
    server.prependListener('data', () => (pair.asking = false))
    client.prependListener('data', (bytes: Buffer) => {
      if (!pair.asking) trips += 1
      pair.asking = true
      if (fatal !== undefined && bytes.includes(fatal)) server.unpipe(client)
      if (!heldBack || !bytes.includes(heldBack.words)) return
      server.cork() // before the pipe, whose listener comes later, writes to it
      heldBack.resolve()
      heldBack = undefined
    })
    if (!silent) flow(pair)
  }

  const { listener, port } = await listenSomewhere(accept)
  let current: Server = listener
  const close = async () => {
    const closed = current.listening ? once(current, 'close') : undefined
    current.close()
    for (const socket of [...sockets(pairs), ...confused]) socket.destroy()
    await closed
  }
  atTheEnd(close)

  return {
    address: { ...to, host: HOST, port },
    accepted: () => accepted,
    open: () => pairs.size,
    trips: () => trips,
    async pass() {
      silent = false
      fatal = undefined
      nonsense = undefined
      for (const socket of confused) socket.destroy()
      for (const pair of pairs) if (!pair.lost) flow(pair)
      if (!current.listening) current = await listen(port, accept)
    },
    silence() {
      silent = true
      for (const pair of pairs) hold(pair)
    },
    refuse: () => current.close(),
    lose() {
      for (const pair of pairs) hold(pair).lost = true
    },
    bury() {
      for (const { lost, sockets } of pairs) {
        if (lost) for (const socket of sockets) socket.resetAndDestroy()
      }
    },
    loseAnswerTo: (words) => (fatal = words),
    holdBack: (words) => new Promise((resolve) => (heldBack = { words, resolve })),
    babble: (bytes) => (nonsense = bytes),
    reset() {
      for (const socket of sockets(pairs)) socket.resetAndDestroy()
    },
    cut() {
      for (const pair of pairs) hold(pair).lost = true
      for (const socket of sockets(pairs)) socket.resume().end()
    },
    stop: close,
  }
}

const sockets = (pairs: Set<Pair>) => [...pairs].flatMap((pair) => pair.sockets)

function flow(pair: Pair) {
  if (pair.flowing) return
  pair.flowing = true
  const [client, server] = pair.sockets
  client.pipe(server).pipe(client)
  passReset(pair)
}

/** A FIN goes through as the end of a stream; a connection that breaks off breaks the other one. */
function passReset({ sockets: [client, server] }: Pair) {
  if (client.errored) server.resetAndDestroy()
  if (server.errored) client.resetAndDestroy()
}

function hold(pair: Pair): Pair {
  pair.flowing = false
  const [client, server] = pair.sockets
  client.unpipe(server)
  server.unpipe(client)
  return pair
}

/** Below the ports that outgoing connections get: none of those is to take it while it refuses. */
async function listenSomewhere(accept: (client: Socket) => void) {
  for (;;) {
    const port = randomInt(20_000, 30_000)
    try {
      return { port, listener: await listen(port, accept) }
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EADDRINUSE') throw error
    }
  }
}

async function listen(port: number, accept: (client: Socket) => void): Promise<Server> {
  const listener = createServer({ allowHalfOpen: true }, accept).listen(port, HOST)
  await once(listener, 'listening')
  return listener
}
