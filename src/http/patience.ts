// How long a client is waited for in the middle of a stream, while a transaction is open for it.

/** Less than the 60 s after which PostgreSQL ends a transaction that nobody goes on with. */
const PATIENCE_MS = 50_000

/** What the client does next, or the error for one that has gone to sleep. */
export async function withPatience<T>(
  step: Promise<T>,
  late: (seconds: number) => Error,
): Promise<T> {
  let timer: ReturnType<typeof setTimeout> | undefined
  const sleeping = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(late(PATIENCE_MS / 1000)), PATIENCE_MS)
  })
  try {
    return await Promise.race([step, sleeping])
  } finally {
    clearTimeout(timer)
  }
}
