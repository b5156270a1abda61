// `npm run openapi`: writes what the routes say of themselves into src/documentation/page/openapi.json.
import { writeFileSync } from 'node:fs'
import { writeOpenApiDocument } from '../documentation/document.ts'

const file = new URL('../documentation/page/openapi.json', import.meta.url)
writeFileSync(file, writeOpenApiDocument())
