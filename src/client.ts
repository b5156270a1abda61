// The typed client, `larder/client`: paths, inputs and answers as the app's own types have them.
import { type ApplyGlobalResponse, hc } from 'hono/client'
import type { createApp } from './app.ts'
import type { ProblemDocument } from './http/problem.ts'

type Refusal = { json: ProblemDocument }

/** The app, with what any of its routes may answer besides: `ok` tells the one from the other. */
type Api = ApplyGlobalResponse<
  ReturnType<typeof createApp>,
  {
    400: Refusal
    401: Refusal
    403: Refusal
    404: Refusal
    409: Refusal
    410: Refusal
    412: Refusal
    413: Refusal
    415: Refusal
    422: Refusal
    429: Refusal
    500: Refusal
    503: Refusal
    504: Refusal
  }
>

/**
 * Named, so that an editor works it out once and not at each call: some 900,000 instantiations and two
 * to three seconds from the sources. Compiled to declarations (`tsc --declaration`) it is a sixth of
 * that and one second; what the problems add is a twentieth.
 */
export type Client = ReturnType<typeof hc<Api>>

/** `url` is where the service is; `options` are those of Hono's client, such as `headers` and `fetch`. */
export const createClient = (...options: Parameters<typeof hc>): Client => hc<Api>(...options)
