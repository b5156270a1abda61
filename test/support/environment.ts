// What a process of ours runs with: the given settings and nothing of the developer's own.

export type Settings = Record<string, string>

/** The folder is one without an `.env`, which the service would read. */
export function environment(settings: Settings): { env: Settings; cwd: string } {
  const { PATH = '', HOME = '' } = process.env
  return { env: { PATH, HOME, ...settings }, cwd: import.meta.dirname }
}
