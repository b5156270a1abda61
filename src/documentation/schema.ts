// The parts of the page, by the names that it asks for them.
import { z } from 'zod'

export const PageFile = z.object({ file: z.string().meta({ examples: ['start.js'] }) })
