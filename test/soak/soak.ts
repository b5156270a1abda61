// `npm run soak -- --minutes 30 --seed N`: the ledger for minutes or hours, and what it was like, with a picture.
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { run, type Second } from '../ledger/engine.ts'
import { cleanUp } from '../support/clean-up.ts'
import { draw } from './picture.ts'
import { summarise, toMarkdown } from './summary.ts'

const { values } = parseArgs({
  options: {
    minutes: { type: 'string', default: '30' },
    seed: { type: 'string', default: String(Math.floor(Math.random() * 2 ** 32)) },
    rate: { type: 'string', default: '150' },
    to: { type: 'string', default: join(import.meta.dirname, '../../docs') },
  },
})
const plan = {
  seed: Number(values.seed),
  seconds: Number(values.minutes) * 60,
  rate: Number(values.rate),
  faults: 'measured' as const,
}

const say = (text: string) => process.stdout.write(`${text}\n`)

function tell({ at, fine, failed, p99, underWay, connections, memoryMb }: Second) {
  if (Math.round(at) % 10 !== 0) return
  const parts = [
    `${Math.round(at)} s`,
    `${fine} answered`,
    `${failed} failed`,
    `p99 ${Math.round(p99 ?? NaN)} ms`,
    `${underWay} under way`,
    `${connections} connections`,
    `${Math.round(memoryMb ?? NaN)} MB`,
  ]
  say(parts.join(', '))
}

process.on('SIGINT', () => void cleanUp().finally(() => process.exit(130)))
say(`npm run soak -- --minutes ${values.minutes} --seed ${plan.seed} --rate ${plan.rate}`)
try {
  const report = await run(plan, tell)
  const summary = summarise(report)
  await mkdir(values.to, { recursive: true })
  await writeFile(join(values.to, 'soak.svg'), draw(report))
  await writeFile(join(values.to, 'soak.md'), toMarkdown(summary))
  await writeFile(join(values.to, 'soak.json'), `${JSON.stringify(summary, undefined, 2)}\n`)
  say(toMarkdown(summary))
  for (const text of [...report.verdict.texts, ...report.bad, ...report.crashes]) say(text)
  for (const text of report.health.failed) say(`/health: ${text}`)
  process.exitCode = summary.good ? 0 : 1
} finally {
  await cleanUp()
}
