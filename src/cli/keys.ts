// `npm run keys -- new NAME SCOPE`: a fresh key, and what to tell the service of it.
import { randomBytes } from 'node:crypto'
import { digestOf, keyName, scopes } from '../http/access.ts'

const USAGE = `usage: npm run keys -- new NAME SCOPE

  NAME   whose key it is: 1 to 64 of A-Z a-z 0-9 . _ -
  SCOPE  ${scopes.join(', ')}: each includes the ones before it`

const [command, name = '', scope = '', ...more] = process.argv.slice(2)
const isKnown = scopes.some((known) => known === scope)
if (command !== 'new' || !keyName.test(name) || !isKnown || more.length > 0) {
  console.error(USAGE)
  process.exit(1)
}
// The prefix lets people and secret scanners see what it is; the rest is 256 bits.
const key = `larder_${randomBytes(32).toString('base64url')}`
const digest = Buffer.from(await digestOf(key)).toString('hex')
console.log(`${key}\nAPI_KEYS=${name}:${scope}:${digest}`)
console.error(`
The first line is the key. It is shown this once: give it to ${name}, nothing keeps it.
The second is the setting; where there are keys already, append what follows = with a comma.
On Workers: npx wrangler secret put API_KEYS`)
