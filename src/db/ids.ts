import { randomUUIDv7 } from 'node:crypto';
import type { Pool } from 'mysql2';

const BLOCK = 1000;

/** Row ids by the thousand. A crash loses the rest of a block, which harms nothing: ids are unique, not dense. */
export class Ids {
  readonly #pool: Pool;
  #next = 0;
  #end = 0;
  #refill: Promise<void> | undefined;

  constructor(pool: Pool) {
    this.#pool = pool;
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
    const [result] = await this.#pool
      .promise()
      .query<import('mysql2').ResultSetHeader>('UPDATE id_block SET next_id = LAST_INSERT_ID(next_id) + ?', [BLOCK]);
    this.#next = result.insertId;
    this.#end = this.#next + BLOCK;
  }
}

/** A new public id: 16 bytes, time-ordered, so the unique index on `uid` grows at its end. */
export const newUid = (): Buffer => Buffer.from(randomUUIDv7().replaceAll('-', ''), 'hex');
