import { setImmediate } from 'node:timers';
import { type Kysely, sql } from 'kysely';
import type { Database } from '../db/tables.ts';
import type { ResourceKind } from '../domain/ids.ts';
import { type Row, selected } from './rows.ts';

interface Waiting {
  ids: readonly number[];
  resolve: (rows: Row<ResourceKind>[]) => void;
  reject: (error: unknown) => void;
}

/**
 * Rows of one kind by id, for all requests of the process: while one read is under way the next gathers. Answers of many
 * mutations that one transaction has committed come from one statement. Nothing joins a read that was sent before it
 * asked, so every answer is at least as new as its question.
 */
class RowReader {
  readonly #db: Kysely<Database>;
  readonly #kind: ResourceKind;
  #waiting: Waiting[] = [];
  #busy = false;

  constructor(db: Kysely<Database>, kind: ResourceKind) {
    this.#db = db;
    this.#kind = kind;
  }

  read(ids: readonly number[]): Promise<Row<ResourceKind>[]> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ ids, resolve, reject });
      if (this.#busy) return;
      this.#busy = true;
      // After this turn of the event loop: what was committed together asks together.
      setImmediate(() => void this.#pump());
    });
  }

  async #pump(): Promise<void> {
    while (this.#waiting.length > 0) {
      const batch = this.#waiting;
      this.#waiting = [];
      try {
        const byId = new Map((await this.#select(batch.flatMap(({ ids }) => ids))).map((row) => [row.id, row]));
        for (const { ids, resolve } of batch) resolve(ids.map((id) => byId.get(id)).filter((row) => row !== undefined));
      } catch (error) {
        for (const { reject } of batch) reject(error);
      }
    }
    this.#busy = false;
  }

  async #select(ids: readonly number[]): Promise<Row<ResourceKind>[]> {
    const { rows } = await sql<Row<ResourceKind>>`
      select ${selected(this.#kind)} from ${sql.table(this.#kind)}
      where id in (${sql.join([...new Set(ids)])})`.execute(this.#db);
    return rows;
  }
}

/** One reader for each kind and pool. */
const READERS = new WeakMap<Kysely<Database>, Map<ResourceKind, RowReader>>();

/** @returns those that there are, deleted or not; rows are shared between requests and never written to */
export function readRows<K extends ResourceKind>(
  db: Kysely<Database>,
  kind: K,
  ids: readonly number[],
): Promise<Row<K>[]> {
  let readers = READERS.get(db);
  if (!readers) {
    readers = new Map();
    READERS.set(db, readers);
  }
  let reader = readers.get(kind);
  if (!reader) {
    reader = new RowReader(db, kind);
    readers.set(kind, reader);
  }
  return reader.read(ids) as Promise<Row<K>[]>;
}
