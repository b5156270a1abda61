// How long a client is waited for in the middle of a stream, while a transaction is open for it.

/** Less than the 60 s after which PostgreSQL ends a transaction that nobody goes on with. */
export const PATIENCE_MS = 50_000

/** What the client does next, or the error for one that takes longer than it may. */
export async function withPatience<T>(
  step: Promise<T>,
  late: () => Error,
  ms = PATIENCE_MS,
): Promise<T> {
  let timer: ReturnType<typeof setTimeout> | undefined
  const sleeping = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(late()), ms)
  })
  try {
    return await Promise.race([step, sleeping])
  } finally {
    clearTimeout(timer)
  }
}
