// Runs before each test file, so that nothing of a file is left running after it.
import { afterAll } from 'vitest'
import { cleanUp } from './clean-up.ts'

afterAll(cleanUp)
