// The files of the page: those that the door lends, and the names that a browser asks for.
import * as z from 'zod'

/** The parts that the page loads, and their types. */
export const parts: Record<string, string> = {
  'start.js': 'text/javascript; charset=utf-8',
  'swagger-ui-bundle.js': 'text/javascript; charset=utf-8',
  'swagger-ui.css': 'text/css; charset=utf-8',
}

export const PartPath = z.object({
  part: z.string().meta({ examples: Object.keys(parts) }),
})
