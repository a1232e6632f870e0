import { GraphQLError } from 'graphql';
import { type Actor, actorKey } from '../domain/authorize.ts';
import { Buckets } from '../domain/buckets.ts';

/** What an actor may still spend, in the units of `extensions.cost`. */
export interface RateLimit {
  /** As much as gathers at most. */
  limit: number;
  remaining: number;
  /** Until all of it is there again, in milliseconds. */
  resetMs: number;
}

/** What each user may ask for. Operators' own tokens are not limited: they are who protects the rest. */
export class Allowance {
  readonly #buckets: Buckets;

  /** @param perMinute how much comes back in a minute, and gathers at most */
  constructor(perMinute: number, now: () => number = () => performance.now()) {
    this.#buckets = new Buckets({ limit: perMinute, perMinute, now });
  }

  /** @returns what is left after it, or RATE_LIMITED, which takes nothing; null: the actor is not limited */
  spend(actor: Actor, cost: number): RateLimit | GraphQLError | null {
    if (actor.kind !== 'user') return null;
    const { taken, left, waitMs } = this.#buckets.take(actorKey(actor), cost);
    if (taken) return this.#told(left);
    return new GraphQLError(
      `You ask for more than ${this.#buckets.limit} a minute. Wait ${Math.ceil(waitMs / 1000)} s.`,
      { extensions: { code: 'RATE_LIMITED', retryAfterMs: waitMs, rateLimit: this.#told(left) } },
    );
  }

  #told(left: number): RateLimit {
    const { limit, perMs } = this.#buckets;
    return { limit, remaining: Math.floor(left), resetMs: Math.ceil((limit - left) / perMs) };
  }
}
