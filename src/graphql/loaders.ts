import DataLoader from 'dataloader';
import { sql } from 'kysely';
import { visible } from '../db/visible.ts';
import { authorize, isOfDomain, mustBeKnown, ownerOf, sees } from '../domain/authorize.ts';
import type { ResourceKind } from '../domain/ids.ts';
import type { GraphContext } from './context.ts';
import { readRows } from './row-reader.ts';
import { type Row, selected } from './rows.ts';

/** A batch that answers for each id, in the order of the ids. */
type Batch<V> = (ids: readonly number[]) => Promise<V[]>;

/**
 * What one request has read. Rows are kept by id, however they were read, so a reference back to an object costs no
 * query and no promise.
 */
export class Loaders {
  readonly #context: GraphContext;
  readonly #rows = new Map<ResourceKind, Map<number, unknown>>();
  readonly #byId = new Map<ResourceKind, DataLoader<number, unknown>>();
  readonly #byUid = new Map<ResourceKind, DataLoader<string, unknown>>();
  readonly #groups = new Map<string, DataLoader<number, unknown>>();

  constructor(context: GraphContext) {
    this.#context = context;
  }

  /** The row, deleted or not; null: there never was one, its time has run out, or it is not for the caller to see. */
  find<K extends ResourceKind>(kind: K, id: number): Row<K> | Promise<Row<K> | null> {
    const known = this.#rowsOf(kind).get(id);
    if (known) return known;
    mustBeKnown(this.#context.actor);
    let loader = this.#byId.get(kind);
    if (!loader) {
      loader = new DataLoader((ids) => this.#read(kind, ids));
      this.#byId.set(kind, loader);
    }
    return loader.load(id) as Promise<Row<K> | null>;
  }

  /**
   * The row that a foreign key names: it is there.
   *
   * @throws VirtgraphError FORBIDDEN where the caller may not look at its kind
   */
  get<K extends ResourceKind>(kind: K, id: number): Row<K> | Promise<Row<K>> {
    authorize(this.#context.actor, 'read', kind);
    const row = this.find(kind, id);
    if (!(row instanceof Promise)) return row;
    return row.then((found) => {
      if (!found) throw new Error(`${kind} ${id} is referred to and not there`);
      return found;
    });
  }

  /** By what the public id is made of; deleted or not. */
  findByUid<K extends ResourceKind>(kind: K, uid: Buffer): Promise<Row<K> | null> {
    mustBeKnown(this.#context.actor);
    let loader = this.#byUid.get(kind);
    if (!loader) {
      loader = new DataLoader((uids) => this.#readByUid(kind, uids));
      this.#byUid.set(kind, loader);
    }
    return loader.load(uid.toString('hex')) as Promise<Row<K> | null>;
  }

  /** Remembers rows that were read some other way, by someone who may see them. */
  keep<K extends ResourceKind>(kind: K, rows: readonly Row<K>[]): void {
    const known = this.#rowsOf(kind);
    for (const row of rows) known.set((row as { id: number }).id, row);
  }

  /** What hangs below an object: one batch for each name, which therefore holds all that the batch depends on. */
  below<V>(name: string, id: number, batch: Batch<V>): Promise<V> {
    let loader = this.#groups.get(name);
    if (!loader) {
      loader = new DataLoader(batch) as DataLoader<number, unknown>;
      this.#groups.set(name, loader);
    }
    return loader.load(id) as Promise<V>;
  }

  async #read(kind: ResourceKind, ids: readonly number[]): Promise<unknown[]> {
    await this.#keepSeen(kind, await readRows(this.#context.db, kind, ids));
    const known = this.#rowsOf(kind);
    return ids.map((id) => known.get(id) ?? null);
  }

  async #readByUid(kind: ResourceKind, uids: readonly string[]): Promise<unknown[]> {
    // What is not seen is not read either: a large row of somebody else's would take longer than one that is not there.
    const { rows } = await sql<Row<ResourceKind>>`
      select ${selected(kind)} from ${sql.table(kind)}
      where ${sql.ref(`${kind}.uid`)} in (${sql.join(uids.map((uid) => Buffer.from(uid, 'hex')))})
        and ${visible(this.#context.actor, kind)}`.execute(this.#context.db);
    const seen = await this.#keepSeen(kind, rows);
    const found = new Map(seen.map((row) => [row.uid.toString('hex'), row]));
    return uids.map((uid) => found.get(uid) ?? null);
  }

  /** The one gate for objects: whatever reads a row by its id comes through here. */
  async #keepSeen<K extends ResourceKind>(kind: K, rows: readonly Row<K>[]): Promise<Row<K>[]> {
    const { actor, inventory } = this.#context;
    if (isOfDomain(actor)) await inventory.know(rows.map((row) => ownerOf(kind, row)));
    const seen = rows.filter((row) => sees(actor, kind, row, inventory));
    this.keep(kind, seen);
    return seen;
  }

  #rowsOf<K extends ResourceKind>(kind: K): Map<number, Row<K>> {
    let rows = this.#rows.get(kind);
    if (!rows) {
      rows = new Map();
      this.#rows.set(kind, rows);
    }
    return rows as Map<number, Row<K>>;
  }
}

const LOADERS = new WeakMap<GraphContext, Loaders>();

export function loadersOf(context: GraphContext): Loaders {
  let loaders = LOADERS.get(context);
  if (!loaders) {
    loaders = new Loaders(context);
    LOADERS.set(context, loaders);
  }
  return loaders;
}

/** Reads everything anew from now on: after a write, and with each message of a subscription. */
export const forgetRead = (context: GraphContext): boolean => LOADERS.delete(context);
