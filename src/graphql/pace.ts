/** How much of one object a subscriber gets: at once when little happens, in the long run four times a second. */
export const BURST = 4;
export const INTERVAL_MS = 250;

/** A bucket of tokens for each object. An object that has been quiet takes no memory. */
export class Pace {
  /** When the bucket of an object is full again. */
  readonly #fullAt = new Map<number, number>();

  /** Whether one more may go out now; if so it is counted. */
  take(key: number, nowMs: number): boolean {
    const fullAt = Math.max(this.#fullAt.get(key) ?? 0, nowMs);
    if (fullAt + INTERVAL_MS - nowMs > BURST * INTERVAL_MS) return false;
    this.#fullAt.set(key, fullAt + INTERVAL_MS);
    return true;
  }

  /** Forgets objects whose buckets are full. */
  sweep(nowMs: number): void {
    for (const [key, fullAt] of this.#fullAt) if (fullAt <= nowMs) this.#fullAt.delete(key);
  }

  get size(): number {
    return this.#fullAt.size;
  }
}
