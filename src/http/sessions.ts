import type { Logger } from 'pino';
import type { Actor } from '../domain/authorize.ts';
import type { Limits } from './limits.ts';

/** Something that stays open in an actor's name: a WebSocket or an event stream. */
export interface Session {
  token: string;
  actor: Actor;
  /** The token is no longer known or means someone else, or the server goes away. Not called for what closes itself. */
  revoke(): void;
}

export type Authenticate = (token: string | null) => Promise<Actor>;

/** What decides whether two actors see the same: identical subscriptions share an execution within one scope. */
export const scopeOf = (actor: Actor): string => {
  if (actor.kind === 'root-admin') return actor.kind;
  return JSON.stringify(actor, (_key, value: unknown) =>
    value instanceof Set || value instanceof Map ? [...value] : value,
  );
};

/** Looks the tokens of all that is open up again and again, so that a revoked one ends what it opened. */
export class Sessions {
  readonly #authenticate: Authenticate;
  readonly #log: Logger;
  readonly #open = new Set<Session>();
  readonly #timer: NodeJS.Timeout;
  #checking: Promise<void> | undefined;

  constructor(authenticate: Authenticate, limits: Limits, log: Logger) {
    this.#authenticate = authenticate;
    this.#log = log;
    this.#timer = setInterval(() => void this.recheck(), limits.recheckMs);
    this.#timer.unref();
  }

  /** @returns a function that takes the session out */
  add(session: Session): () => void {
    this.#open.add(session);
    return () => this.#open.delete(session);
  }

  /** How many a user has open, with whatever keys; 0 for whom nobody counts. */
  openOf(actor: Actor): number {
    if (actor.kind !== 'user') return 0;
    let open = 0;
    for (const session of this.#open)
      if (session.actor.kind === 'user' && session.actor.userId === actor.userId) open++;
    return open;
  }

  /** Resolves when every token was looked up once more. */
  recheck(): Promise<void> {
    this.#checking ??= this.#recheck().finally(() => {
      this.#checking = undefined;
    });
    return this.#checking;
  }

  revoke(affected: (actor: Actor) => boolean): void {
    for (const session of this.#open) if (affected(session.actor)) session.revoke();
  }

  endAll(): void {
    clearInterval(this.#timer);
    for (const session of this.#open) session.revoke();
  }

  async #recheck(): Promise<void> {
    for (const [token, sessions] of Map.groupBy(this.#open, (session) => session.token)) {
      try {
        const now = scopeOf(await this.#authenticate(token));
        for (const session of sessions) if (scopeOf(session.actor) !== now) session.revoke();
      } catch (error) {
        // An outage revokes nothing: the next round looks again.
        this.#log.warn({ err: error }, 'tokens of open sockets could not be looked up');
        return;
      }
    }
  }
}
