// Where a request comes from: the address behind proxies, and the network that one client has to itself.

const IPV4 = /^(\d{1,3}\.){3}\d{1,3}$/
/** An address as proxies write it: some add the port, and brackets around IPv6. */
const WRITTEN = /^(?:\[([^\]]*)\]|((?:\d+\.){3}\d+))(?::\d+)?$/

/**
 * The address of who speaks to the outermost of `hops` trusted proxies. Each has added to
 * X-Forwarded-For whom it heard; what stands before that anybody may have made up.
 * @param peer the other end of the connection: the innermost proxy, when there is one
 */
export function clientAddress(peer: string, forwardedFor: string | null, hops: number): string {
  if (hops === 0 || forwardedFor === null) return peer
  const heard = forwardedFor.split(',').slice(-hops)[0]!.trim()
  const [, inBrackets, plain] = WRITTEN.exec(heard) ?? []
  const address = inBrackets ?? plain ?? heard
  return isAddress(address) ? address : peer
}

/**
 * What stands for one client: an IPv4 address, or the /64 of an IPv6 address, of which whoever has one
 * has 2^64. What is no address stands for itself.
 */
export function networkOf(address: string): string {
  const plain = address.replace(/^::ffff:(?=\d+\.)|%.*$/gi, '') // IPv4 on a socket for both; a zone
  const host = canonical(plain)
  if (host === undefined) return plain
  const [head = '', tail] = host.slice(1, -1).split('::')
  const start = head === '' ? [] : head.split(':')
  const end = tail ? tail.split(':') : []
  const zeros = Array<string>(8 - start.length - end.length).fill('0')
  return `${[...start, ...zeros, ...end].slice(0, 4).join(':')}::/64`
}

const isAddress = (text: string) => IPV4.test(text) || canonical(text) !== undefined

/** An IPv6 address as a URL has it, `[2001:db8::1]`; undefined when it is none. */
const canonical = (text: string) =>
  /^[\da-f:.]*:[\da-f:.]*$/i.test(text) ? URL.parse(`http://[${text}]/`)?.hostname : undefined
