import { type Backoff, fullJitter, pause } from './backoff.ts';
import { ConnectionLost, RequestFailed } from './connection.ts';

const MAX_BATCH = 200;
const RETRY: Backoff = { minMs: 100, maxMs: 5_000 };

/**
 * What waits to be told, in order, each thing until it is acknowledged. A newer item replaces one with the same key
 * that still waits. What gathers while one batch is under way forms the next.
 */
export class Outbox<Item> {
  readonly #items = new Map<string, Item>();
  readonly #key: (item: Item) => string;
  #filled = Promise.withResolvers<void>();

  constructor(key: (item: Item) => string) {
    this.#key = key;
  }

  get size(): number {
    return this.#items.size;
  }

  put(item: Item): void {
    const key = this.#key(item);
    this.#items.delete(key);
    this.#items.set(key, item);
    this.#filled.resolve();
  }

  clear(): void {
    this.#items.clear();
  }

  /**
   * Sends until the signal is aborted or the connection lost; what isn't acknowledged stays for the next call. A batch
   * that the server refuses is split, and a single refused item goes to the end, or is dropped when it is not ours to say:
   * one bad item can't hold up the rest.
   *
   * @param send answers whether the server took the batch
   */
  async drain(
    send: (batch: Item[]) => Promise<boolean>,
    refused: (error: unknown, batch: Item[]) => void,
    signal: AbortSignal,
  ): Promise<void> {
    let limit = MAX_BATCH;
    let failures = 0;
    const wake = (): void => this.#filled.resolve();
    signal.addEventListener('abort', wake, { once: true });
    while (!signal.aborted) {
      const batch = [...this.#items.values().take(limit)];
      if (batch.length === 0) {
        this.#filled = Promise.withResolvers();
        await this.#filled.promise;
        continue;
      }
      try {
        if (!(await send(batch))) throw new Error('not taken by the server');
        for (const item of batch) this.#drop(item);
        limit = Math.min(MAX_BATCH, limit * 2);
        failures = 0;
      } catch (error) {
        if (error instanceof ConnectionLost || signal.aborted) break;
        refused(error, batch);
        if (batch.length === 1) this.#setAside(batch[0]!, error);
        limit = Math.max(1, Math.floor(batch.length / 2));
        await pause(fullJitter(failures++, RETRY), signal);
      }
    }
    signal.removeEventListener('abort', wake);
  }

  #drop(item: Item): void {
    const key = this.#key(item);
    if (this.#items.get(key) === item) this.#items.delete(key);
  }

  /** What is not ours to say will never be taken; anything else may be, later. */
  #setAside(item: Item, error: unknown): void {
    if (error instanceof RequestFailed && error.codes.includes('FORBIDDEN')) this.#drop(item);
    else this.#moveToEnd(item);
  }

  #moveToEnd(item: Item): void {
    const key = this.#key(item);
    if (this.#items.get(key) !== item) return;
    this.#items.delete(key);
    this.#items.set(key, item);
  }
}
