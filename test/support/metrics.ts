// Reads what /metrics says, and holds each line of it against the text format of Prometheus.
import { expect } from 'vitest'
import type { Api, Headers } from './api.ts'

export interface Sample {
  name: string
  labels: Record<string, string>
  value: number
}

export type Metrics = Awaited<ReturnType<typeof scrape>>

const SAMPLE = /^([a-zA-Z_:][\w:]*)(?:\{((?:[a-z_]\w*="(?:[^"\\]|\\.)*",?)+)\})? (\S+)$/
const COMMENT = /^# (HELP [\w:]+ .+|TYPE [\w:]+ (counter|gauge|histogram|summary))$/

export async function scrape(api: Api, headers: Headers = {}) {
  const answer = await api.get('/metrics', headers)
  expect(answer.status).toBe(200)
  expect(answer.headers['content-type']).toBe('text/plain; version=0.0.4; charset=utf-8')
  expect(answer.text.endsWith('\n')).toBe(true)
  const samples = answer.text.split('\n').flatMap((line): Sample[] => {
    if (line === '' || COMMENT.test(line)) return []
    const [, name, labels = '', value] = SAMPLE.exec(line) ?? []
    expect(name, line).toBeDefined()
    const pairs = [...labels.matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)]
    return [
      {
        name: name!,
        labels: Object.fromEntries(pairs.map(([, label, text]) => [label, text])),
        value: Number(value),
      },
    ]
  })

  /** The samples of this name that have these labels, and perhaps others. */
  const all = (name: string, labels: Record<string, string> = {}) =>
    samples.filter(
      (sample) =>
        sample.name === name &&
        Object.entries(labels).every(([label, text]) => sample.labels[label] === text),
    )
  /** The sum of them; undefined when there is none. */
  const value = (name: string, labels?: Record<string, string>) => {
    const found = all(name, labels)
    return found.length === 0 ? undefined : found.reduce((sum, sample) => sum + sample.value, 0)
  }
  return { samples, all, value }
}
