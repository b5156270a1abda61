// The picture of a soak, as SVG: what the service did in each second, and the faults above it.
import type { FaultRecord, Report, Second } from '../ledger/engine.ts'

const WIDTH = 1200
const LEFT = 64
const RIGHT = 20
const TOP = 92
const PANEL = 120
const GAP = 44
const INNER = WIDTH - LEFT - RIGHT

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
  .edge { stroke: var(--mark); opacity: .55 }
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
      { name: '429, 5xx, broken off', colour: 'two', value: ({ failed }) => failed },
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
    title: 'memory of the instance that lives all the while, MB, and its open files',
    lines: [
      { name: 'MB', colour: 'one', value: ({ memoryMb }) => memoryMb },
      { name: 'files', colour: 'three', value: ({ files }) => files },
    ],
  },
]

/** The names of the faults have a row each, below the panels, with a mark for each time. */
export function draw({ plan, seconds, faults }: Report): string {
  const end = Math.max(plan.seconds, seconds.at(-1)?.at ?? 0)
  const x = (at: number) => LEFT + (Math.min(at, end) / end) * INNER
  const names = [...new Set(faults.map(({ name }) => name))].toSorted()
  const rowsTop = TOP + panels.length * (PANEL + GAP)
  const height = rowsTop + names.length * 20 + 44
  const parts = [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" role="img">`,
    `<title>Larder under fire: ${faults.length} faults in ${clock(plan.seconds)}</title>`,
    `<style>${STYLE}</style>`,
    `<rect class="ground" width="${WIDTH}" height="${height}"/>`,
    text(LEFT, 34, 'Larder under fire', 'title'),
    text(
      LEFT,
      56,
      `${faults.length} faults in ${clock(plan.seconds)}, ${plan.rate} requests a second, seed ${plan.seed}. Shaded: a fault, from its beginning to its end.`,
      'soft',
    ),
    ...panels.flatMap((panel, n) => drawPanel(panel, TOP + n * (PANEL + GAP), seconds, faults, x)),
    ...names.flatMap((name, n) => drawRow(name, rowsTop + n * 20, faults, x)),
    ...marksOf(end).map((at) =>
      text(x(at), height - 16, clock(at), 'soft', at === 0 ? 'start' : 'middle'),
    ),
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
    ...lines.toReversed().flatMap(({ name, colour }, n) => {
      const end = WIDTH - RIGHT - n * 170
      return [
        text(end, top - 10, name, 'soft', 'end'),
        `<path class="key ${colour}" d="M${end - name.length * 6.4 - 24} ${top - 14}h16"/>`,
      ]
    }),
  ]
}

function drawRow(name: string, top: number, faults: FaultRecord[], x: (at: number) => number) {
  const mine = faults.filter((fault) => fault.name === name)
  return [
    `<path class="rule" d="M${LEFT} ${top + 10}H${WIDTH - RIGHT}"/>`,
    ...mine.map(({ from, to }) => {
      const width = Math.max(2, x(to) - x(from))
      return `<rect x="${px(x(from))}" y="${top + 3}" width="${px(width)}" height="14" fill="var(--mark)"/>`
    }),
    text(LEFT + 4, top + 14, name, 'soft'),
  ]
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
  seconds % 60 === 0 ? `${seconds / 60} min` : `${Math.round(seconds)} s`

function text(x: number, y: number, words: string, kind = '', anchor = 'start'): string {
  const safe = words.replaceAll('&', '&amp;').replaceAll('<', '&lt;')
  return `<text x="${px(x)}" y="${px(y)}" class="${kind}" text-anchor="${anchor}">${safe}</text>`
}
