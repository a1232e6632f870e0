import type { Kysely } from 'kysely';
import type { Database } from './tables.ts';
import type { Change } from './transition.ts';

export type FeedListener = (changes: Change[], from: 'self' | 'others') => void;

const READ_AT_ONCE = 5_000;

/**
 * The change feed: this process's own commits are told at once, those of others by reading the table behind a cursor.
 * `seq` is dense and in commit order, so the cursor alone is enough.
 */
export class Feed {
  readonly #db: Kysely<Database>;
  readonly #origin: string;
  readonly #listeners = new Set<FeedListener>();
  #cursor = 0;
  #tailing: Promise<void> | undefined;

  constructor(db: Kysely<Database>, origin: string) {
    this.#db = db;
    this.#origin = origin;
  }

  /** @returns a function that ends the listening */
  listen(listener: FeedListener): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  publish(changes: Change[], from: 'self' | 'others'): void {
    if (changes.length === 0) return;
    for (const listener of this.#listeners) listener(changes, from);
  }

  /** Begins now: what was committed before is read by whoever needs it. */
  async start(): Promise<void> {
    this.#cursor = await headSeq(this.#db);
  }

  /** Tells what other processes have committed since the last call. One read at a time: two would tell it twice. */
  tail(): Promise<void> {
    this.#tailing ??= this.#tail().finally(() => {
      this.#tailing = undefined;
    });
    return this.#tailing;
  }

  /** Everything that was committed before the call, wherever, has been told when it resolves. */
  async catchUp(): Promise<void> {
    // A read that is under way may have been sent before.
    await this.#tailing;
    await this.tail();
  }

  async #tail(): Promise<void> {
    for (;;) {
      const rows = await this.#db
        .selectFrom('change')
        .select(['seq', 'kind', 'resource_id', 'origin'])
        .where('seq', '>', this.#cursor)
        .orderBy('seq')
        .limit(READ_AT_ONCE)
        .execute();
      if (rows.length === 0) return;
      this.#cursor = rows.at(-1)!.seq;
      const others = rows.filter((row) => row.origin !== this.#origin);
      this.publish(
        others.map((row) => ({ kind: row.kind as Change['kind'], id: row.resource_id })),
        'others',
      );
      if (rows.length < READ_AT_ONCE) return;
    }
  }
}

/** The highest number that is committed. */
export async function headSeq(db: Kysely<Database>): Promise<number> {
  return (await db.selectFrom('feed_head').select('seq').executeTakeFirstOrThrow()).seq;
}
