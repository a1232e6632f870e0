import { watch } from 'node:fs/promises';

/**
 * Asks `look` now and after every change in `folder`, until it answers something other than null. Rejects with the
 * reason of `signal`, or with what `look` throws.
 */
export async function untilFolderYields<T>(
  folder: string,
  signal: AbortSignal,
  look: () => Promise<T | null>,
): Promise<T> {
  const done = new AbortController();
  // The watch begins before the first look, so no change falls between the two.
  const changes = watch(folder, { signal: AbortSignal.any([signal, done.signal]) })[Symbol.asyncIterator]();
  try {
    for (let next = changes.next(); ; next = changes.next()) {
      // Handled by the await below; while `look` is under way nobody awaits it yet.
      next.catch(() => undefined);
      const found = await look();
      if (found !== null) return found;
      await next;
    }
  } catch (error) {
    throw signal.aborted ? signal.reason : error;
  } finally {
    done.abort();
  }
}
