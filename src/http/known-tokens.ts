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
export function rememberTokens(authenticate: Authenticate, ms: number): Authenticate {
  const known = new Map<string, Known>();
  return (token) => {
    if (token === null) return authenticate(null);
    const before = known.get(token);
    if (before && before.until > performance.now()) return before.actor;
    const entry: Known = { actor: authenticate(token), until: performance.now() + ms };
    known.delete(token);
    known.set(token, entry);
    if (known.size > KEPT) known.delete(known.keys().next().value!);
    const forget = (): void => {
      if (known.get(token) === entry) known.delete(token);
    };
    entry.actor.then((actor) => actor.kind === 'anonymous' && forget(), forget);
    return entry.actor;
  };
}
