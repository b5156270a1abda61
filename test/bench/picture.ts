// The picture of a bench, as SVG: the CPU time of a request, a bar for each server in each scenario.
import { median } from './median.ts'
import { type Scenario, scenarios } from './scenarios.ts'
import { type Results, roundsOf } from './summary.ts'

const WIDTH = 1200
const TOP = 96
const ROW = 18
const BAR = 12
const GAP = 46
/** Of the two columns of scenarios: its width, the names in it, and what is told behind the bars. */
const COLUMN = 560
const NAMES = 190
const TOLD = 100
const LEFT = 24

/** Colours that can be told apart, also without red or green, on white and on black. */
const STYLE = `
  :root { --ink: #1f2430; --soft: #687085; --rule: #dfe3ea; --ground: #ffffff;
          --ours: #d9480f; --theirs: #1971c2; }
  @media (prefers-color-scheme: dark) {
    :root { --ink: #e8ebf2; --soft: #99a2b5; --rule: #2f3645; --ground: #12161f;
            --ours: #ff8a4c; --theirs: #5aa9f2; }
  }
  text { font: 13px system-ui, sans-serif; fill: var(--ink) }
  .soft { fill: var(--soft); font-size: 12px }
  .title { font-size: 20px; font-weight: 600 }
  .head { font-weight: 600 }
  .ground { fill: var(--ground) }
  .rule { stroke: var(--rule) }
  .ours { fill: var(--ours) } .theirs { fill: var(--theirs) }
  .database { opacity: .4 }
`

interface Bar {
  title: string
  isOurs: boolean
  service: number
  database: number
}

interface Panel {
  title: string
  bars: Bar[]
}

/** A peer that takes many times as long would leave the others no room: its bar is cut off, its figure is not. */
const MOST_TIMES_THE_MEDIAN = 4

export function draw(results: Results): string {
  const panels = scenarios
    .filter(({ clients }) => clients === 64)
    .map((scenario) => ({ title: scenario.title, bars: barsOf(results, scenario) }))
    .filter(({ bars }) => bars.length > 0)
  const columns = inTwo(panels)
  const height = TOP + Math.max(0, ...columns.map(heightOf))
  const parts = [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" role="img">`,
    '<title>CPU time of a request, Larder beside its peers</title>',
    `<style>${STYLE}</style>`,
    `<rect class="ground" width="${WIDTH}" height="${height}"/>`,
    text(LEFT, 34, 'What a request costs', 'title'),
    text(LEFT, 56, captionOf(results), 'soft'),
    ...columns.flatMap((column, n) => {
      let top = TOP
      return column.flatMap((panel) => {
        const drawn = drawPanel(panel, LEFT + n * (COLUMN + 2 * LEFT), top)
        top += heightOf([panel])
        return drawn
      })
    }),
    '</svg>',
  ]
  return `${parts.join('\n')}\n`
}

function barsOf(results: Results, { name }: Scenario): Bar[] {
  return results.contestants.flatMap(({ name: contestant, title }) => {
    const rounds = roundsOf(results, { contestant, scenario: name })
    if (rounds.length === 0) return []
    const service = median(rounds.map(({ serviceCpu }) => serviceCpu))
    const database = median(rounds.map(({ databaseCpu }) => databaseCpu))
    return { title, isOurs: contestant.startsWith('larder'), service, database }
  })
}

function drawPanel({ title, bars }: Panel, left: number, top: number): string[] {
  const sums = bars.map(({ service, database }) => service + database)
  const ours = sums.filter((_, n) => bars[n]!.isOurs)
  const most = Math.max(...ours, Math.min(Math.max(...sums), MOST_TIMES_THE_MEDIAN * median(sums)))
  const start = left + NAMES
  const room = COLUMN - NAMES - TOLD
  const length = (value: number) => (Math.min(value, most) / most) * room
  return [
    text(left, top, title, 'head'),
    `<path class="rule" d="M${start} ${top + 8}V${top + 8 + bars.length * ROW}"/>`,
    ...bars.flatMap(({ title, isOurs, service, database }, n) => {
      const y = top + 10 + n * ROW
      const [first, whole] = [length(service), length(service + database)]
      const kind = isOurs ? 'ours' : 'theirs'
      const isCut = service + database > most
      return [
        text(start - 8, y + 11, title, isOurs ? '' : 'soft', 'end'),
        `<rect class="${kind}" x="${start}" y="${y}" width="${px(first)}" height="${BAR}"/>`,
        `<rect class="${kind} database" x="${px(start + first)}" y="${y}" width="${px(whole - first)}" height="${BAR}"/>`,
        text(
          start + whole + 6,
          y + 11,
          `${isCut ? '… ' : ''}${told(service + database)} µs`,
          'soft',
        ),
      ]
    }),
  ]
}

function captionOf({ plan }: Results): string {
  const parts = [
    `CPU time per request at 64 clients, ${plan.products.toLocaleString('en')} products:`,
    'of the service, and lighter that of PostgreSQL.',
    `Medians of ${plan.rounds} rounds of ${plan.seconds} s.`,
  ]
  return parts.join(' ')
}

/** The second column begins where the first has half of all. */
function inTwo(panels: Panel[]): Panel[][] {
  let first = 0
  while (first < panels.length && heightOf(panels.slice(0, first)) < heightOf(panels) / 2) first++
  return [panels.slice(0, first), panels.slice(first)]
}

const heightOf = (panels: Panel[]) =>
  panels.reduce((sum, { bars }) => sum + bars.length * ROW + GAP, 0)

const told = (value: number) =>
  value.toLocaleString('en', { maximumFractionDigits: value < 10 ? 1 : 0 })

const px = (value: number) => Math.round(value * 10) / 10

function text(x: number, y: number, words: string, kind = '', anchor = 'start'): string {
  const safe = words.replaceAll('&', '&amp;').replaceAll('<', '&lt;')
  return `<text x="${px(x)}" y="${px(y)}" class="${kind}" text-anchor="${anchor}">${safe}</text>`
}
