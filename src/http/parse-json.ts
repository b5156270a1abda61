// Parses the JSON that clients send: V8 may take an escaped key for another, so it gets to see none.
//
// V8 12.8 to 14.6 at least (Node 24 and 26, https://github.com/nodejs/node/issues/63785) compares the key that
// came last time in this place with the source, where the escapes are still there: after {"a":1,"\\":2}
// of one client {"a":1,"\n":2} of another has a key that is a backslash.

/**
 * What `JSON.parse` should return.
 * @throws {SyntaxError}
 */
export function parseJson(text: string): unknown {
  if (!text.includes('\\')) return JSON.parse(text)
  const { safe, standIns } = withoutEscapedKeys(text)
  const value: unknown = JSON.parse(safe)
  if (standIns.size === 0) return value
  return restored(value, new Map(Array.from(standIns, ([key, standIn]) => [standIn, key])))
}

/**
 * The same with keys that need no escapes. Of a key that cannot be written without, such as a line
 * feed, the place is taken by another, of `standIns`.
 */
function withoutEscapedKeys(text: string): { safe: string; standIns: Map<string, string> } {
  const standIns = new Map<string, string>()
  let mark: string | undefined
  let safe = ''
  let copied = 0
  for (let start = text.indexOf('"'); start !== -1;) {
    const end = endOfString(text, start)
    if (end === -1) break // JSON.parse says what is wrong with it
    const written = text.slice(start, end + 1)
    if (written.includes('\\') && isKey(text, end + 1)) {
      const key = JSON.parse(written) as string
      let plain = JSON.stringify(key)
      if (plain.includes('\\')) {
        mark ??= crypto.randomUUID()
        const standIn = standIns.get(key) ?? `${mark} ${standIns.size}`
        standIns.set(key, standIn)
        plain = `"${standIn}"`
      }
      safe += text.slice(copied, start) + plain
      copied = end + 1
    }
    start = text.indexOf('"', end + 1)
  }
  return { safe: safe + text.slice(copied), standIns }
}

/** Where the string that begins here is closed; -1 when it is not. */
export function endOfString(text: string, start: number): number {
  for (let at = text.indexOf('"', start + 1); at !== -1; at = text.indexOf('"', at + 1)) {
    let backslashes = 0
    while (text[at - 1 - backslashes] === '\\') backslashes++
    if (backslashes % 2 === 0) return at
  }
  return -1
}

function isKey(text: string, at: number): boolean {
  while (' \t\n\r'.includes(text[at] ?? 'none')) at++
  return text[at] === ':'
}

/** With the keys that others stand for; from object to object, for they may be deeper than calls. */
function restored(value: unknown, keys: Map<string, string>): unknown {
  const root = [value]
  const rest: object[] = [root]
  for (let parent = rest.pop(); parent; parent = rest.pop()) {
    for (const [name, child] of Object.entries(parent) as [string, unknown][]) {
      if (typeof child !== 'object' || child === null) continue
      if (Array.isArray(child) || !Object.keys(child).some((key) => keys.has(key))) {
        rest.push(child)
        continue
      }
      const entries = Object.entries(child) as [string, unknown][]
      const renamed = Object.fromEntries(entries.map(([key, of]) => [keys.get(key) ?? key, of]))
      // The name may be __proto__, of which an assignment would make something else.
      Object.defineProperty(parent, name, { ...asParsed, value: renamed })
      rest.push(renamed)
    }
  }
  return root[0]
}

const asParsed = { configurable: true, enumerable: true, writable: true }
