import { type Kysely, sql } from 'kysely';
import type { Logger } from 'pino';
import type { Database } from '../db/tables.ts';
import type { OpsContext } from '../ops/context.ts';
import { actOn } from '../ops/vm.ts';

const ROWS_AT_ONCE = 5_000;

export interface RetentionOptions {
  db: Kysely<Database>;
  ops: OpsContext;
  log: Logger;
  /** A destroyed VM can be recovered for so long. */
  recoverableMs: number;
  eventDays: number;
}

/** Lets go of what nobody needs any more, a bounded piece at a time. */
export class Retention {
  readonly #o: RetentionOptions;

  constructor(options: RetentionOptions) {
    this.#o = options;
  }

  async round(): Promise<void> {
    await this.#expungeDestroyed();
    await this.#trimFeed();
    await this.#trimEvents();
  }

  /** Files jobs, like everyone else. */
  async #expungeDestroyed(): Promise<void> {
    const { db, ops, log, recoverableMs } = this.#o;
    const vms = await db
      .selectFrom('vm')
      .selectAll()
      .where('state', '=', 'DESTROYED')
      .where('deleted_at', 'is', null)
      .where('active_job_id', 'is', null)
      .where('destroyed_at', '<', sql<string>`NOW(6) - INTERVAL ${sql.lit(Math.round(recoverableMs / 1000))} SECOND`)
      .limit(100)
      .execute();
    for (const vm of vms) {
      try {
        const decision = await actOn(
          ops,
          vm,
          'EXPUNGE',
          {},
          { name: 'system', reason: 'its time to be recovered is over' },
          null,
        );
        if (decision.kind === 'write') await ops.writer.submit(decision.transition);
      } catch (error) {
        // One VM whose host is away must not keep the others; it comes up again in the next round.
        log.info({ err: error, vmId: vm.id }, 'a destroyed VM could not be expunged yet');
      }
    }
  }

  /** Subscribers read the feed within seconds; a process that was away for longer reads the state anew. */
  async #trimFeed(): Promise<void> {
    const { db } = this.#o;
    await db
      .deleteFrom('change')
      .where('committed_at', '<', sql<string>`NOW(6) - INTERVAL 1 HOUR`)
      .limit(ROWS_AT_ONCE)
      .execute();
    await db
      .deleteFrom('idempotency_key')
      .where('created_at', '<', sql<string>`NOW(6) - INTERVAL 1 DAY`)
      .limit(ROWS_AT_ONCE)
      .execute();
  }

  async #trimEvents(): Promise<void> {
    const { db, eventDays } = this.#o;
    const last = await db
      .selectFrom('event')
      .select('seq')
      .where('occurred_at', '<', sql<string>`NOW(6) - INTERVAL ${sql.lit(eventDays)} DAY`)
      .orderBy('seq')
      .limit(ROWS_AT_ONCE)
      .execute();
    const seq = last.at(-1)?.seq;
    if (seq === undefined) return;
    // First say so, then do so: a reader never finds a gap that is not announced.
    await db
      .updateTable('feed_head')
      .set({ event_trimmed_to: sql`GREATEST(event_trimmed_to, ${seq})` })
      .execute();
    await db.deleteFrom('event').where('seq', '<=', seq).execute();
  }
}
