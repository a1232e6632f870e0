import { type Kysely, sql } from 'kysely';
import type { Credential } from '../domain/authorize.ts';
import type { Database } from './tables.ts';

const ROWS_AT_ONCE = 1_000;
/** A use is news when the last that was written is so old. */
const NEWS_MS = 60_000;
/** Of credentials beyond so many, the one that was used least recently is written anew. */
const KEPT = 10_000;

type Kind = Credential['kind'];

/**
 * When keys and sessions were used last: remembered, and written for all together now and then, for each at most once a
 * minute. Not through the writer: nobody decides by it, nobody has to hear of it, and the newest of several processes
 * stands.
 */
export class CredentialUse {
  readonly #db: Kysely<Database>;
  readonly #now: () => number;
  readonly #unwritten: Record<Kind, Set<number>> = { api_key: new Set(), session: new Set() };
  readonly #written: Record<Kind, Map<number, number>> = { api_key: new Map(), session: new Map() };

  /** @param now a monotonic clock, in milliseconds */
  constructor(db: Kysely<Database>, now: () => number = () => performance.now()) {
    this.#db = db;
    this.#now = now;
  }

  used({ kind, id }: Credential): void {
    const before = this.#written[kind].get(id);
    if (before === undefined || this.#now() - before >= NEWS_MS) this.#unwritten[kind].add(id);
  }

  async flush(): Promise<void> {
    for (const kind of ['api_key', 'session'] as const) {
      const ids = [...this.#unwritten[kind]];
      this.#unwritten[kind].clear();
      for (let from = 0; from < ids.length; from += ROWS_AT_ONCE)
        await this.#write(kind, ids.slice(from, from + ROWS_AT_ONCE));
    }
  }

  async #write(kind: Kind, ids: number[]): Promise<void> {
    await this.#db
      .updateTable(kind as 'session')
      .set({ last_used_at: sql`NOW(6)`, updated_at: sql`updated_at` })
      .where('id', 'in', ids)
      .where('deleted_at', 'is', null)
      .execute();
    const written = this.#written[kind];
    for (const id of ids) {
      written.delete(id);
      written.set(id, this.#now());
      if (written.size > KEPT) written.delete(written.keys().next().value!);
    }
  }
}
