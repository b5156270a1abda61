// What the settings are read from on Node: the environment, the file `.env`, and files of secrets.
import { existsSync, readFileSync } from 'node:fs'

/** The environment; `.env` in the working directory fills in what it leaves out. */
export function loadEnvironment(): NodeJS.ProcessEnv {
  if (existsSync('.env')) process.loadEnvFile('.env')
  return process.env
}

export function readText(path: string): string {
  return readFileSync(path, 'utf8')
}
