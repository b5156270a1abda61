// A real Chromium, as the machine has it, and a page that tells everything it asked for and complained of.
import { existsSync } from 'node:fs'
import { chromium, type Page } from 'playwright-core'
import { atTheEnd } from './clean-up.ts'

const PLACES = [
  '/usr/bin/chromium',
  '/usr/bin/chromium-browser',
  '/usr/bin/google-chrome',
  '/Applications/Chromium.app/Contents/MacOS/Chromium',
  '/Applications/Google Chrome.app/Contents/MacOS/Google Chrome',
]

/**
 * Where Chromium is. Where CHROMIUM_PATH says, it has to be: a test fails when it is not. Without
 * that and without any, the tests that need one are left out.
 */
export const chromiumPath = process.env['CHROMIUM_PATH'] || PLACES.find((path) => existsSync(path))

if (!chromiumPath) {
  console.warn(
    'LEFT OUT: no Chromium on this machine (CHROMIUM_PATH says where), so nothing tries /docs',
  )
}

export interface Visit {
  page: Page
  /** The address of each request. */
  requested: string[]
  /** What a developer would see in red: errors, failed requests, what the policy kept away. */
  complaints: string[]
}

/** Opens a page in a browser that ends with the test, or with the file. */
export async function visit(url: string): Promise<Visit> {
  const browser = await chromium.launch({
    executablePath: chromiumPath!,
    // Chromium's own sandbox does not run as root.
    args: process.getuid?.() === 0 ? ['--no-sandbox'] : [],
  })
  atTheEnd(() => browser.close())
  const page = await browser.newPage()
  const requested: string[] = []
  const complaints: string[] = []
  page.on('request', (request) => void requested.push(request.url()))
  page.on('pageerror', (error) => void complaints.push(error.message))
  page.on('requestfailed', (request) => void complaints.push(`failed: ${request.url()}`))
  page.on('console', (message) => {
    if (['error', 'warning'].includes(message.type())) complaints.push(message.text())
  })
  await page.goto(url)
  return { page, requested, complaints }
}
