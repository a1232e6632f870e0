import { type Kysely, sql } from 'kysely';
import type { Logger } from 'pino';
import type { Database } from '../db/tables.ts';
import type { Writer } from '../db/writer.ts';
import { unreachableTransition } from '../hosts/sessions.ts';

/** How long a control plane may be silent before its host links count as nobody's. */
const LEASE_S = 15;

export interface LivenessOptions {
  db: Kysely<Database>;
  writer: Writer;
  processId: string;
  url: string;
  /** What other control planes show this one. */
  peerSecret: string;
  log: Logger;
  monotonicMs?: () => number;
}

/** This process's own lease, and the links that dead processes have left behind. */
export class Liveness {
  readonly #o: LivenessOptions;
  readonly #now: () => number;
  #healthySince: number | null = null;

  constructor(options: LivenessOptions) {
    this.#o = options;
    this.#now = options.monotonicMs ?? (() => performance.now());
  }

  async renew(): Promise<void> {
    const { db, processId, url, peerSecret } = this.#o;
    try {
      const row = { id: processId, url, peer_secret: peerSecret, seen_at: sql<string>`NOW(6)` };
      await db.insertInto('control_process').values(row).onDuplicateKeyUpdate({ seen_at: sql`NOW(6)` }).execute();
    } catch (error) {
      this.#healthySince = null;
      throw error;
    }
    this.#healthySince ??= this.#now();
  }

  /**
   * Marks hosts whose link was held by a process that has died and who have not come back elsewhere. Frozen while the
   * database is ill and for one lease after: nobody could renew, so nobody can be judged.
   */
  async sweep(): Promise<void> {
    if (this.#healthySince === null || this.#now() - this.#healthySince < LEASE_S * 1_000) return;
    const { db, writer } = this.#o;
    const living = db
      .selectFrom('control_process')
      .select('id')
      .where('seen_at', '>', sql<string>`NOW(6) - INTERVAL ${sql.lit(LEASE_S)} SECOND`);
    const lost = await db
      .selectFrom('host')
      .select(['id', 'link_process'])
      .where('link_state', '=', 'UP')
      .where('deleted_at', 'is', null)
      .where((eb) => eb.or([eb('link_process', 'is', null), eb('link_process', 'not in', living)]))
      .execute();
    await Promise.all(
      lost.map((host) => writer.submit(unreachableTransition(host.id, { link_process: host.link_process }))),
    );
    await db.deleteFrom('control_process').where('seen_at', '<', sql<string>`NOW(6) - INTERVAL 1 DAY`).execute();
  }
}
