import { randomUUIDv7 } from 'node:crypto';
import { type Kysely, sql } from 'kysely';
import type { Database } from './tables.ts';

const BLOCK = 1000;

/** Row ids by the thousand. A crash loses the rest of a block, which harms nothing: ids are unique, not dense. */
export class Ids {
  readonly #db: Kysely<Database>;
  #next = 0;
  #end = 0;
  #refill: Promise<void> | undefined;

  /** @param db whose limits hold here too: a mutation waits for no id longer than for a row */
  constructor(db: Kysely<Database>) {
    this.#db = db;
  }

  async take(): Promise<number> {
    while (this.#next >= this.#end) {
      this.#refill ??= this.#fetch().finally(() => {
        this.#refill = undefined;
      });
      await this.#refill;
    }
    return this.#next++;
  }

  async #fetch(): Promise<void> {
    const { insertId } = await sql`UPDATE id_block SET next_id = LAST_INSERT_ID(next_id) + ${BLOCK}`.execute(this.#db);
    this.#next = Number(insertId);
    this.#end = this.#next + BLOCK;
  }
}

/** A new public id: 16 bytes, time-ordered, so the unique index on `uid` grows at its end. */
export const newUid = (): Buffer => Buffer.from(randomUUIDv7().replaceAll('-', ''), 'hex');
