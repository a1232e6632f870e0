interface Bucket {
  left: number;
  at: number;
}

export interface BucketsOptions {
  /** As much as gathers at most. */
  limit: number;
  /** How much comes back in a minute. */
  perMinute: number;
  /** A monotonic clock, in milliseconds. */
  now: () => number;
}

export interface Taking {
  taken: boolean;
  left: number;
  /** Until as much is there; 0 when it was taken. */
  waitMs: number;
}

/** Of keys beyond so many, the one that was heard of least recently begins anew. */
const KEPT = 10_000;

/**
 * A token bucket for each key: it fills evenly, so that nobody has to wait for a full minute to begin, and one who asks
 * in bursts gets what one who asks steadily gets.
 */
export class Buckets {
  readonly limit: number;
  readonly perMs: number;
  readonly #now: () => number;
  readonly #buckets = new Map<string, Bucket>();

  constructor({ limit, perMinute, now }: BucketsOptions) {
    this.limit = limit;
    this.perMs = perMinute / 60_000;
    this.#now = now;
  }

  /** Takes all or nothing. */
  take(key: string, amount = 1): Taking {
    const before = this.#left(key);
    const taken = before >= amount;
    const left = taken ? before - amount : before;
    this.#set(key, left);
    return { taken, left, waitMs: taken ? 0 : Math.ceil((amount - before) / this.perMs) };
  }

  giveBack(key: string, amount = 1): void {
    this.#set(key, Math.min(this.limit, this.#left(key) + amount));
  }

  #left(key: string): number {
    const bucket = this.#buckets.get(key);
    return bucket ? Math.min(this.limit, bucket.left + (this.#now() - bucket.at) * this.perMs) : this.limit;
  }

  #set(key: string, left: number): void {
    this.#buckets.delete(key);
    this.#buckets.set(key, { left, at: this.#now() });
    if (this.#buckets.size > KEPT) this.#buckets.delete(this.#buckets.keys().next().value!);
  }
}
