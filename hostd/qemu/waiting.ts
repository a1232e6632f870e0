/**
 * Whether `promise` settles within `timeoutMs`; it may settle either way. Throws the reason of `signal` when that comes
 * first.
 */
export async function settlesWithin(
  promise: Promise<unknown>,
  timeoutMs: number,
  signal?: AbortSignal,
): Promise<boolean> {
  signal?.throwIfAborted();
  const { promise: other, resolve, reject } = Promise.withResolvers<boolean>();
  const timer = setTimeout(resolve, timeoutMs, false);
  const abort = (): void => reject(signal?.reason);
  signal?.addEventListener('abort', abort, { once: true });
  const settled = (): void => resolve(true);
  promise.then(settled, settled);
  try {
    return await other;
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener('abort', abort);
  }
}
