// The floor of HTTP on Node: node:http with one answer for everything, that of /health.
import { createServer } from 'node:http'

const body = JSON.stringify({ status: 'ok' })
const headers = { 'content-type': 'application/json', 'content-length': body.length }

createServer((_, response) => {
  response.writeHead(200, headers)
  response.end(body)
}).listen(Number(process.env['PORT']), '127.0.0.1')
