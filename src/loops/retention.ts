import { type Kysely, sql } from 'kysely';
import type { Logger } from 'pino';
import type { Database, Vm } from '../db/tables.ts';
import type { OpsContext } from '../ops/context.ts';
import { actOn } from '../ops/vm.ts';

const ROWS_AT_ONCE = 5_000;
const VMS_AT_ONCE = 100;

export interface RetentionOptions {
  db: Kysely<Database>;
  ops: OpsContext;
  log: Logger;
  /** A destroyed VM can be recovered for so long. */
  recoverableMs: number;
  eventDays: number;
  auditDays: number;
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
    await this.#trimAudit();
    await this.#trimSessions();
  }

  /** Files jobs, like everyone else. Page by page, so that those whose host is away don't keep the others for ever. */
  async #expungeDestroyed(): Promise<void> {
    let after = 0;
    for (let vms = await this.#over(after); vms.length > 0; vms = await this.#over(after)) {
      for (const vm of vms) await this.#expunge(vm);
      after = vms.at(-1)!.id;
    }
  }

  #over(after: number): Promise<Vm[]> {
    const { db, recoverableMs } = this.#o;
    return db
      .selectFrom('vm')
      .selectAll()
      .where('state', '=', 'DESTROYED')
      .where('deleted_at', 'is', null)
      .where('active_job_id', 'is', null)
      .where('destroyed_at', '<', sql<string>`NOW(6) - INTERVAL ${sql.lit(Math.round(recoverableMs / 1000))} SECOND`)
      .where('id', '>', after)
      .orderBy('id')
      .limit(VMS_AT_ONCE)
      .execute();
  }

  async #expunge(vm: Vm): Promise<void> {
    const { ops, log } = this.#o;
    const asker = { name: 'system', reason: 'its time to be recovered is over' };
    try {
      const decision = await actOn(ops, vm, 'EXPUNGE', {}, asker, null);
      if (decision.kind === 'write') await ops.writer.submit(decision.transition);
    } catch (error) {
      // One VM whose host is away must not keep the others; it comes up again in the next round.
      log.info({ err: error, vmId: vm.id }, 'a destroyed VM could not be expunged yet');
    }
  }

  /** Subscribers read the feed within seconds, and what a process holds it reads anew every half minute. */
  async #trimFeed(): Promise<void> {
    const { db } = this.#o;
    await inPieces(() =>
      db
        .deleteFrom('change')
        .where('committed_at', '<', sql<string>`NOW(6) - INTERVAL 1 HOUR`)
        .limit(ROWS_AT_ONCE)
        .executeTakeFirst(),
    );
    await inPieces(() =>
      db
        .deleteFrom('idempotency_key')
        .where('created_at', '<', sql<string>`NOW(6) - INTERVAL 1 DAY`)
        .limit(ROWS_AT_ONCE)
        .executeTakeFirst(),
    );
    // What they answer is refused for its age long before.
    await inPieces(() =>
      db
        .deleteFrom('used_sign_in')
        .where('used_at', '<', sql<string>`NOW(6) - INTERVAL 1 HOUR`)
        .limit(ROWS_AT_ONCE)
        .executeTakeFirst(),
    );
  }

  /** A session ends by itself at the latest when it is old; for a while it tells who was where. */
  async #trimSessions(): Promise<void> {
    const { db, eventDays } = this.#o;
    await inPieces(() =>
      db
        .deleteFrom('session')
        .where('expires_at', '<', sql<string>`NOW(6) - INTERVAL ${sql.lit(eventDays)} DAY`)
        .limit(ROWS_AT_ONCE)
        .executeTakeFirst(),
    );
  }

  async #trimEvents(): Promise<void> {
    const { db, eventDays } = this.#o;
    await inPieces(async () => {
      // Their time has no index, but follows their number: only the oldest are looked at.
      const oldest = db.selectFrom('event').select(['seq', 'occurred_at']).orderBy('seq').limit(ROWS_AT_ONCE).as('e');
      const { seq } = await db
        .selectFrom(oldest)
        .select((eb) => eb.fn.max<number | null>('seq').as('seq'))
        .where('occurred_at', '<', sql<string>`NOW(6) - INTERVAL ${sql.lit(eventDays)} DAY`)
        .executeTakeFirstOrThrow();
      if (seq === null) return { numDeletedRows: 0n };
      // First say so, then do so: a reader never finds a gap that is not announced.
      await db
        .updateTable('feed_head')
        .set({ event_trimmed_to: sql`GREATEST(event_trimmed_to, ${seq})` })
        .execute();
      return db.deleteFrom('event').where('seq', '<=', seq).executeTakeFirst();
    });
  }

  /** Whole pages, the oldest first. The pages stay, so that what is left can still be verified back to the beginning. */
  async #trimAudit(): Promise<void> {
    const { db, auditDays } = this.#o;
    // First say so, then do so, as with events.
    await db
      .updateTable('audit_page')
      .set({ trimmed_at: sql<string>`NOW(6)` })
      .where('trimmed_at', 'is', null)
      .where('last_at', '<', sql<string>`NOW(6) - INTERVAL ${sql.lit(auditDays)} DAY`)
      .execute();
    const { seq } = await db
      .selectFrom('audit_page')
      .select((eb) => eb.fn.max<number | null>('last_seq').as('seq'))
      .where('trimmed_at', 'is not', null)
      .executeTakeFirstOrThrow();
    if (seq === null) return;
    await inPieces(() => db.deleteFrom('audit').where('seq', '<=', seq).limit(ROWS_AT_ONCE).executeTakeFirst());
  }
}

/** A bounded piece at a time, until none is full: what comes in faster than a piece a round would else gather for ever. */
async function inPieces(piece: () => Promise<{ numDeletedRows: bigint }>): Promise<void> {
  while ((await piece()).numDeletedRows >= ROWS_AT_ONCE);
}
