// What a process of ours runs with: the given settings and nothing of the developer's own.
import { join } from 'node:path'

export type Settings = Record<string, string>

/** What it needs at all, and what `npm run coverage` and `npm run mutants` ask of it. */
export const bare: Settings = {
  ...pick(
    'PATH',
    'HOME',
    'NODE_OPTIONS',
    'NODE_DISABLE_COMPILE_CACHE',
    'COVERAGE_FOLDER',
    '__STRYKER_ACTIVE_MUTANT__',
  ),
  // As `npm start` has it.
  NODE_COMPILE_CACHE: join(import.meta.dirname, '../../node_modules/.cache/node'),
}
/** How a process is killed that has done its work: in a coverage run it first says what it has run. */
export const killing = process.env['COVERAGE_FOLDER'] ? 'SIGALRM' : 'SIGKILL'

/** The folder is one without an `.env`, which the service would read. */
export function environment(settings: Settings): { env: Settings; cwd: string } {
  return { env: { ...bare, ...settings }, cwd: import.meta.dirname }
}

function pick(...names: string[]): Settings {
  return Object.fromEntries(
    names.flatMap((name) => {
      const value = process.env[name]
      return value === undefined ? [] : [[name, value]]
    }),
  )
}
