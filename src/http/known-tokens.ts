import type { Actor } from '../domain/authorize.ts';
import type { Authenticate } from './sessions.ts';

const KEPT = 1_000;

interface Known {
  actor: Promise<Actor>;
  /** On the monotonic clock, in milliseconds. */
  until: number;
}

/**
 * Looks a token up at most once in `ms`, because a client sends the same one with each request. What is not known, or
 * could not be looked up, is not remembered: a token works at once when it is made, and again when an outage ends.
 */
export class KnownTokens {
  readonly #authenticate: Authenticate;
  readonly #ms: number;
  readonly #known = new Map<string, Known>();
  #forgotten = 0;

  constructor(authenticate: Authenticate, ms: number) {
    this.#authenticate = authenticate;
    this.#ms = ms;
  }

  readonly authenticate: Authenticate = (token) => {
    if (token === null) return this.#authenticate(null);
    const before = this.#known.get(token);
    if (before && before.until > performance.now()) return before.actor;
    const entry: Known = { actor: this.#lookUp(token), until: performance.now() + this.#ms };
    this.#known.delete(token);
    this.#known.set(token, entry);
    if (this.#known.size > KEPT) this.#known.delete(this.#known.keys().next().value!);
    const forget = (): void => {
      if (this.#known.get(token) === entry) this.#known.delete(token);
    };
    entry.actor.then((actor) => actor.kind === 'anonymous' && forget(), forget);
    return entry.actor;
  };

  /** What anybody may do has changed: every token is looked up anew, those too that are being looked up. */
  forget(): void {
    this.#forgotten++;
    this.#known.clear();
  }

  async #lookUp(token: string): Promise<Actor> {
    for (;;) {
      const before = this.#forgotten;
      const actor = await this.#authenticate(token);
      if (before === this.#forgotten) return actor;
    }
  }
}
