// Values in a query: text, checked against the range of what it is compared with.
import * as z from 'zod'
import { atMost, hasAtMost, isStorable, rule, storable } from './validation.ts'

/** A parameter; what is sent twice comes as a list, which is none. */
export const parameter = z.string('must be given once')

export const wholeNumber = (least: number, most: number) =>
  parameter
    .regex(/^(0|-?[1-9]\d*)$/, { error: 'must be a whole number', abort: true })
    .refine((digits) => Number(digits) >= least, rule('too_small', `must be at least ${least}`))
    .refine((digits) => Number(digits) <= most, rule('too_big', `must be at most ${most}`))

/** Text of 1 to so many code points that PostgreSQL can hold. */
export const textUpTo = (most: number) =>
  parameter
    .refine(isStorable, storable)
    .refine((value) => value !== '', rule('too_small', 'must have at least 1 character'))
    .refine(hasAtMost(most), atMost(most))

const RFC_3339 =
  /^(\d{4}-\d\d-\d\d)T(\d\d:\d\d):(\d\d)(?:\.(\d+))?(?:Z|([+-])([01]\d|2[0-3]):([0-5]\d))$/i

/**
 * A time with any offset, as text in UTC with the microseconds that PostgreSQL keeps; what is finer is
 * cut off. PostgreSQL takes no offset beyond 15:59, so it never sees one.
 */
export const time = parameter.transform((text, context) => {
  const fault = (code: string, message: string) => {
    context.addIssue({ code: 'custom', message, params: { code } })
    return z.NEVER
  }
  const parts = RFC_3339.exec(text)
  const [, date, minute, second = '', fraction = '', sign, hours, minutes] = parts ?? []
  const start = Date.parse(`${date}T${minute}:00Z`)
  // JavaScript takes the 30th of February for a day in March.
  const exists = !Number.isNaN(start) && toIso(start).startsWith(`${date}T${minute}`)
  // 23:59:60 is a leap second.
  if (!exists || Number(second) > 60) {
    const example = 'must be a time such as 2026-01-31T09:30:00Z or 2026-01-31T10:30:00.5+01:00'
    return fault('invalid_format', `${example} (a + is sent as %2B)`)
  }
  const offset = sign
    ? (Number(hours) * 60 + Number(minutes)) * (sign === '-' ? -60_000 : 60_000)
    : 0
  const utc = toIso(start + Number(second) * 1000 - offset)
  if (!/^(?!0000)\d{4}-/.test(utc)) return fault('out_of_range', 'must be in the years 1 to 9999')
  return `${utc.slice(0, 19)}.${fraction.slice(0, 6).padEnd(6, '0')}Z`
})

const toIso = (ms: number) => new Date(ms).toISOString()
