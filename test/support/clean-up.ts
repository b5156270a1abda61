// What a test starts ends with the test, also when it fails; what a file starts, with the file.
import { onTestFinished, TestRunner } from 'vitest'

type Ending = () => Promise<unknown>

const endings: Ending[] = []

/** Runs the ending after the current test, or after the file when no test is running yet. */
export function atTheEnd(ending: Ending): void {
  if (TestRunner.getCurrentTest()) onTestFinished(async () => void (await ending()))
  else endings.push(ending)
}

/** Runs the endings of the file, the last one first, each one whatever the others do. */
export async function cleanUp(): Promise<void> {
  const errors: unknown[] = []
  for (const ending of endings.splice(0).reverse()) {
    await ending().catch((error: unknown) => errors.push(error))
  }
  if (errors.length > 0) throw new AggregateError(errors, 'not everything could be cleaned up')
}
