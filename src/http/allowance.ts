import { GraphQLError } from 'graphql';
import { type Actor, actorKey } from '../domain/authorize.ts';

/** What an actor may still spend, in the units of `extensions.cost`. */
export interface RateLimit {
  /** As much as gathers at most. */
  limit: number;
  remaining: number;
  /** Until all of it is there again, in milliseconds. */
  resetMs: number;
}

interface Bucket {
  left: number;
  /** On the monotonic clock, in milliseconds. */
  at: number;
}

/** Of actors beyond so many, the one that was heard of least recently begins anew. */
const KEPT = 10_000;

/**
 * A token bucket for each user: it fills evenly, so that nobody has to wait for a full minute to begin, and one who asks
 * in bursts gets what one who asks steadily gets. Operators' own tokens are not limited: they are who protects the rest.
 */
export class Allowance {
  readonly #limit: number;
  readonly #perMs: number;
  readonly #now: () => number;
  readonly #buckets = new Map<string, Bucket>();

  /** @param perMinute how much comes back in a minute, and gathers at most */
  constructor(perMinute: number, now: () => number = () => performance.now()) {
    this.#limit = perMinute;
    this.#perMs = perMinute / 60_000;
    this.#now = now;
  }

  /** @returns what is left after it, or RATE_LIMITED, which takes nothing; null: the actor is not limited */
  spend(actor: Actor, cost: number): RateLimit | GraphQLError | null {
    if (actor.kind !== 'user') return null;
    const key = actorKey(actor);
    const now = this.#now();
    const before = this.#buckets.get(key);
    const left = before ? Math.min(this.#limit, before.left + (now - before.at) * this.#perMs) : this.#limit;
    const taken = left >= cost;
    this.#buckets.delete(key);
    this.#buckets.set(key, { left: taken ? left - cost : left, at: now });
    if (this.#buckets.size > KEPT) this.#buckets.delete(this.#buckets.keys().next().value!);
    if (taken) return this.#told(left - cost);
    const retryAfterMs = Math.ceil((cost - left) / this.#perMs);
    return new GraphQLError(
      `You ask for more than ${this.#limit} a minute. Wait ${Math.ceil(retryAfterMs / 1000)} s.`,
      {
        extensions: { code: 'RATE_LIMITED', retryAfterMs, rateLimit: this.#told(left) },
      },
    );
  }

  #told(left: number): RateLimit {
    return {
      limit: this.#limit,
      remaining: Math.floor(left),
      resetMs: Math.ceil((this.#limit - left) / this.#perMs),
    };
  }
}
