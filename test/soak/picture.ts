// The picture of a soak, as SVG: what the service did in each second, and the faults above it.
import type { FaultRecord, Report, Second } from '../ledger/engine.ts'

const WIDTH = 1200
/** On the left the names of the faults, on the right what became of each kind. */
const LEFT = 176
const RIGHT = 150
const TOP = 92
const PANEL = 120
const GAP = 44
const INNER = WIDTH - LEFT - RIGHT
const ROW = 20
/** More points than this are too many to be seen: seconds are taken together. */
const MOST_POINTS = 450

/** Colours that can be told apart, also without red or green, on white and on black. */
const STYLE = `
  :root { --ink: #1f2430; --soft: #687085; --rule: #dfe3ea; --ground: #ffffff; --mark: #d9480f;
          --one: #1971c2; --two: #d9480f; --three: #7048a8; }
  @media (prefers-color-scheme: dark) {
    :root { --ink: #e8ebf2; --soft: #99a2b5; --rule: #2f3645; --ground: #12161f; --mark: #ff8a4c;
            --one: #5aa9f2; --two: #ff8a4c; --three: #b197e0; }
  }
  text { font: 13px system-ui, sans-serif; fill: var(--ink) }
  .soft { fill: var(--soft); font-size: 12px }
  .title { font-size: 20px; font-weight: 600 }
  .ground { fill: var(--ground) }
  .rule { stroke: var(--rule) }
  .fault { fill: var(--mark); opacity: .13 }
  .mark { fill: var(--mark) }
  .one { stroke: var(--one) } .two { stroke: var(--two) } .three { stroke: var(--three) }
  .line { fill: none; stroke-width: 1.5; stroke-linejoin: round }
  .key { stroke-width: 3 }
`

interface Line {
  name: string
  colour: 'one' | 'two' | 'three'
  value: (second: Second) => number | undefined
}
interface Panel {
  title: string
  lines: Line[]
  /** Powers of ten are as far apart as others. */
  logarithmic?: boolean
}

const panels: Panel[] = [
  {
    title: 'requests a second',
    lines: [
      { name: 'answered', colour: 'one', value: ({ fine }) => fine },
      { name: 'failed', colour: 'two', value: ({ failed }) => failed },
    ],
  },
  {
    title: 'latency, ms',
    logarithmic: true,
    lines: [
      { name: 'p50', colour: 'one', value: ({ p50 }) => p50 },
      { name: 'p99', colour: 'two', value: ({ p99 }) => p99 },
    ],
  },
  {
    title: 'connections to PostgreSQL, and requests under way',
    lines: [
      { name: 'connections', colour: 'one', value: ({ connections }) => connections },
      { name: 'requests', colour: 'three', value: ({ underWay }) => underWay },
    ],
  },
  {
    title: 'memory and open files of the instance that lives all the while',
    lines: [
      { name: 'MB', colour: 'one', value: ({ memoryMb }) => memoryMb },
      { name: 'files', colour: 'three', value: ({ files }) => files },
    ],
  },
]

/** Each kind of fault has a row below the panels, with a mark for each time. */
export function draw(report: Report): string {
  const { plan, faults } = report
  const together = Math.ceil(report.seconds.length / MOST_POINTS)
  const seconds = takeTogether(report.seconds, together)
  const end = Math.max(plan.seconds, seconds.at(-1)?.at ?? 0)
  const x = (at: number) => LEFT + (Math.min(at, end) / end) * INNER
  const names = [...new Set(faults.map(({ name }) => name))].toSorted()
  const rowsTop = TOP + panels.length * (PANEL + GAP)
  const height = rowsTop + names.length * ROW + 48
  const parts = [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" role="img">`,
    `<title>Larder under fire: ${faults.length} faults in ${clock(plan.seconds)}</title>`,
    `<style>${STYLE}</style>`,
    `<rect class="ground" width="${WIDTH}" height="${height}"/>`,
    text(LEFT, 34, 'Larder under fire', 'title'),
    text(LEFT, 56, captionOf(report, together), 'soft'),
    ...panels.flatMap((panel, n) => drawPanel(panel, TOP + n * (PANEL + GAP), seconds, faults, x)),
    ...names.flatMap((name, n) => drawRow(name, rowsTop + n * ROW, faults, x)),
    ...marksOf(end).map((at) => text(x(at), height - 20, clock(at), 'soft', 'middle')),
    '</svg>',
  ]
  return `${parts.join('\n')}\n`
}

function drawPanel(
  { title, lines, logarithmic }: Panel,
  top: number,
  seconds: Second[],
  faults: FaultRecord[],
  x: (at: number) => number,
): string[] {
  const values = lines.flatMap(({ value }) => seconds.map((second) => value(second) ?? 0))
  const most = ceilingOf(Math.max(1, ...values))
  const bottom = top + PANEL
  const share = (value: number) =>
    logarithmic ? Math.log10(Math.max(1, value)) / Math.log10(most) : value / most
  const y = (value: number) => bottom - share(value) * PANEL
  const steps = logarithmic
    ? [1, 10, 100, 1000, 10_000].filter((step) => step <= most)
    : [0, most / 2, most]
  return [
    ...faults.map(({ from, to }) => {
      const width = Math.max(1, x(to) - x(from))
      return `<rect class="fault" x="${px(x(from))}" y="${top}" width="${px(width)}" height="${PANEL}"/>`
    }),
    ...steps.flatMap((step) => [
      `<path class="rule" d="M${LEFT} ${px(y(step))}H${WIDTH - RIGHT}"/>`,
      text(LEFT - 8, y(step) + 4, step.toLocaleString('en'), 'soft', 'end'),
    ]),
    text(LEFT, top - 10, title),
    ...lines.map(({ colour, value }) => {
      const points = seconds.map((second) => [second.at, value(second)] as const)
      return `<path class="line ${colour}" d="${pathOf(points, x, y)}"/>`
    }),
    ...lines.flatMap(({ name, colour }, n) => {
      const at = WIDTH - RIGHT + 16
      return [
        `<path class="key ${colour}" d="M${at} ${top + 10 + n * ROW}h16"/>`,
        text(at + 22, top + 14 + n * ROW, name, 'soft'),
      ]
    }),
  ]
}

function drawRow(name: string, top: number, faults: FaultRecord[], x: (at: number) => number) {
  const mine = faults.filter((fault) => fault.name === name)
  const worst = Math.max(...mine.map(({ normalAfterMs = Infinity }) => normalAfterMs))
  const felt = Number.isFinite(worst) ? `${(worst / 1000).toFixed(1)} s` : 'never'
  return [
    `<path class="rule" d="M${LEFT} ${top + ROW / 2}H${WIDTH - RIGHT}"/>`,
    ...mine.map(({ from, to }) => {
      const width = Math.max(2, x(to) - x(from))
      return `<rect class="mark" x="${px(x(from))}" y="${top + 3}" width="${px(width)}" height="${ROW - 6}"/>`
    }),
    text(LEFT - 8, top + 14, name, 'soft', 'end'),
    text(WIDTH - RIGHT + 16, top + 14, `${mine.length} ×, worst ${felt}`, 'soft'),
  ]
}

function captionOf({ plan, faults }: Report, together: number): string {
  const parts = [
    `${faults.length} faults in ${clock(plan.seconds)}, ${plan.rate} requests a second, seed ${plan.seed}.`,
    'Shaded: a fault. Worst: from its end to normal service.',
  ]
  if (together > 1) parts.push(`A point is ${together} s, of p99 the worst of them.`)
  return parts.join(' ')
}

/** The mean of so many seconds, and the worst for what is about the worst. */
function takeTogether(seconds: Second[], count: number): Second[] {
  const groups: Second[][] = []
  for (let n = 0; n < seconds.length; n += count) groups.push(seconds.slice(n, n + count))
  return groups.map((group) => {
    const known = (value: (second: Second) => number | undefined) =>
      group.map(value).filter((one) => one !== undefined)
    const mean = (value: (second: Second) => number | undefined) => {
      const all = known(value)
      return all.length === 0 ? undefined : all.reduce((sum, one) => sum + one, 0) / all.length
    }
    const worst = known(({ p99 }) => p99)
    return {
      at: group[0]!.at,
      fine: mean(({ fine }) => fine)!,
      failed: mean(({ failed }) => failed)!,
      p50: mean(({ p50 }) => p50),
      p99: worst.length === 0 ? undefined : Math.max(...worst),
      underWay: mean(({ underWay }) => underWay)!,
      connections: mean(({ connections }) => connections)!,
      memoryMb: mean(({ memoryMb }) => memoryMb),
      files: mean(({ files }) => files),
    }
  })
}

/** A gap stays a gap. */
function pathOf(
  points: (readonly [at: number, value: number | undefined])[],
  x: (at: number) => number,
  y: (value: number) => number,
): string {
  let pen = 'M'
  let path = ''
  for (const [at, value] of points) {
    if (value !== undefined) path += `${pen}${px(x(at))} ${px(y(value))}`
    pen = value === undefined ? 'M' : 'L'
  }
  return path
}

/** The next of 1, 2 and 5 times a power of ten. */
function ceilingOf(value: number): number {
  const power = 10 ** Math.floor(Math.log10(value))
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= value)!
}

/** Some eight marks on the axis of time, in seconds. */
function marksOf(end: number): number[] {
  const step = [10, 15, 30, 60, 120, 300, 600, 1800, 3600].find((one) => end / one <= 10) ?? 7200
  return Array.from({ length: Math.floor(end / step) + 1 }, (_, n) => n * step)
}

const px = (value: number) => Math.round(value * 10) / 10

const clock = (seconds: number) =>
  seconds > 0 && seconds % 60 === 0 ? `${seconds / 60} min` : `${Math.round(seconds)} s`

function text(x: number, y: number, words: string, kind = '', anchor = 'start'): string {
  const safe = words.replaceAll('&', '&amp;').replaceAll('<', '&lt;')
  return `<text x="${px(x)}" y="${px(y)}" class="${kind}" text-anchor="${anchor}">${safe}</text>`
}
