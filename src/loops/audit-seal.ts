import type { Kysely } from 'kysely';
import type { Logger } from 'pino';
import { nextPage } from '../db/audit-chain.ts';
import type { Database } from '../db/tables.ts';
import { emptyTransition, insertOnce } from '../db/transition.ts';
import type { Writer } from '../db/writer.ts';

interface Sealing {
  db: Kysely<Database>;
  writer: Writer;
  log: Logger;
}

/**
 * Seals what the audit trail has gathered. Any control plane may: a page's number is its key, so of two that seal at
 * once one page stands, and both go on from there.
 *
 * @param maxWaitMs how long a record may be without a page when there are too few to fill one
 */
export async function sealAudit({ db, writer, log }: Sealing, maxWaitMs: number): Promise<void> {
  for (let page = await nextPage(db, maxWaitMs); page; page = await nextPage(db, maxWaitMs)) {
    const { kind } = await writer.submit({ ...emptyTransition(), writes: [insertOnce('audit_page', page)] });
    if (kind !== 'written') throw new Error(`page ${page.page} of the audit trail could not be sealed: ${kind}`);
    // In the log too, which is kept elsewhere: who cuts off the end of the trail can not cut it off there.
    log.info({ page: page.page, lastSeq: page.last_seq, hash: page.hash.toString('hex') }, 'audit page sealed');
  }
}
