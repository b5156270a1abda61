// Everything that breaks around the service, and the service itself: each fault for real, and then its end.
import { setTimeout as sleep } from 'node:timers/promises'
import type postgres from 'postgres'
import { connect } from '../support/database.ts'
import type { Crowd } from './crowd.ts'
import type { Dice } from './dice.ts'
import type { Stage } from './stage.ts'

export interface World extends Stage {
  crowd: Crowd
}

/** Returns when the fault is over. */
export type Fault = (world: World, dice: Dice) => Promise<void>

/** Waits for its turn where another fault has stopped the server, or has taken all connections. */
async function asAdministrator<T>(
  { address }: Stage,
  work: (sql: postgres.Sql) => Promise<T>,
): Promise<T> {
  for (;;) {
    const sql = connect(address, 1, false)
    try {
      const isIn = await sql`select`.catch(() => undefined)
      if (isIn) return await work(sql)
    } finally {
      await sql.end({ timeout: 1 })
    }
    await sleep(100)
  }
}

/** A fraction of the service's connections. */
const kill = (fraction: number): Fault =>
  async function killBackends(world) {
    const killing = asAdministrator(
      world,
      (sql) => sql`
        select pg_terminate_backend(pid) from pg_stat_activity
        where application_name = 'larder' and random() < ${fraction}`,
    )
    await killing.catch(() => {}) // a server that stops in this moment has ended them itself
  }

/** What waits for the lock gets it in its turn, or runs into its limit. */
const lock = (statement: string): Fault =>
  async function lockIt(world, dice) {
    await asAdministrator(world, async (sql) => {
      await sql`begin`
      await sql.unsafe(statement)
      await sleep(dice.whole(500, 3500))
      await sql`rollback`
    })
  }

/** Until both sides have noticed: the service by its deadline, the server by its keep-alive. */
const NOTICED_MS = 3500

/** Faults of the network and of connections. */
export const networkFaults: Record<string, Fault> = {
  'some backends killed': kill(0.5),
  'all backends killed': kill(1),
  'connections reset': async ({ proxy }) => proxy.reset(),
  'connections closed': async ({ proxy }) => proxy.cut(),
  async 'PostgreSQL refuses'({ proxy }, dice) {
    proxy.refuse()
    proxy.reset()
    await sleep(dice.whole(300, 2500))
    await proxy.pass()
  },
  async 'the network is silent'({ proxy }, dice) {
    proxy.silence()
    await sleep(dice.whole(500, 4500))
    await proxy.pass()
  },
  async 'connections forgotten'({ proxy }) {
    proxy.lose()
    await sleep(NOTICED_MS)
    proxy.bury()
  },
  /** What was written is committed, and then the connection is found to be broken. */
  async 'answers to writes lost'({ proxy }, dice) {
    proxy.loseAnswerTo('"write":')
    await sleep(dice.whole(200, 800))
    proxy.reset()
    await proxy.pass()
  },
  /** Likewise; or nobody is told, and the service waits until its deadline. */
  async 'answers to commits lost'({ proxy }, dice) {
    proxy.loseAnswerTo('commit\0')
    await sleep(dice.whole(200, 800))
    const areTold = dice.happens(0.7)
    if (areTold) proxy.reset()
    await proxy.pass()
    if (!areTold) await sleep(NOTICED_MS)
  },
}

/** Faults of PostgreSQL, of the service's processes and of its clients. */
export const processFaults: Record<string, Fault> = {
  'PostgreSQL crashes': (world, dice) => world.restartPostgres('SIGQUIT', dice.whole(0, 1000)),
  'PostgreSQL restarts': (world, dice) => world.restartPostgres('SIGINT', dice.whole(0, 1000)),
  'an instance killed': (world, dice) => world.restartService('SIGKILL', dice.whole(0, 500)),
  'an instance stopped': (world, dice) => world.restartService('SIGTERM', dice.whole(0, 500)),
  'an instance frozen': (world, dice) => world.freezeService(dice.whole(300, 2500)),
  'the table locked': lock('lock table products in access exclusive mode'),
  'products locked': lock('select from products order by id limit 50 for update'),
  /** The server's last connection is taken, and those of the service are ended. */
  async 'no connection left'(world, dice) {
    const taken: postgres.Sql[] = []
    const take = async () => {
      for (;;) {
        const sql = connect(world.address, 1, false)
        taken.push(sql)
        if ((await sql`select`.catch(() => undefined)) === undefined) return
      }
    }
    await asAdministrator(world, async (sql) => {
      await take()
      await sql`
        select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'larder'`
      await take()
      await sleep(dice.whole(500, 2500))
      await Promise.all(taken.map((one) => one.end({ timeout: 1 })))
    })
  },
  async 'a burst of clients'({ crowd }, dice) {
    crowd.arrive(dice.whole(200, 400))
  },
  async 'slow clients'({ crowd }, dice) {
    crowd.dawdle(dice, dice.whole(20, 60))
  },
}
