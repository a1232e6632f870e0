import { createHash } from 'node:crypto';
import { type Kysely, sql } from 'kysely';
import type { AuditPage, AuditRecord, Database } from './tables.ts';

/** Records of a page at most: what is read at once to seal or to verify one. */
export const PAGE_RECORDS = 1_000;
const PAGES_AT_ONCE = 100;
const BEFORE_ALL = { page: 0, last_seq: 0, hash: Buffer.alloc(32) };

/** The columns that are hashed, in this order for ever: another would be another chain. */
const HASHED = [
  'seq',
  'recorded_at',
  'action',
  'outcome',
  'code',
  'actor',
  'user_id',
  'credential',
  'address',
  'account_id',
  'subject_kind',
  'subject_id',
  'asked_id',
  'job_id',
  'reason',
  'changes',
  'request_id',
] as const satisfies (keyof AuditRecord)[];

/** One line of JSON per record, as the database gives its columns. */
export const recordsHash = (records: readonly AuditRecord[]): Buffer => {
  const hash = createHash('sha256');
  for (const record of records) hash.update(`${JSON.stringify(HASHED.map((column) => record[column]))}\n`);
  return hash.digest();
};

type PageContent = Pick<AuditPage, 'page' | 'first_seq' | 'last_seq' | 'last_at' | 'records_hash'>;

/** Over what a page says of itself too, so that a page whose records went by age is still verified. */
export const pageHash = (previous: Buffer, page: PageContent): Buffer =>
  createHash('sha256')
    .update(previous)
    .update(JSON.stringify([page.page, page.first_seq, page.last_seq, page.last_at]))
    .update(page.records_hash)
    .digest();

type Head = Pick<AuditPage, 'page' | 'last_seq' | 'hash'>;

/** The newest page; before the first, one that is none. */
export async function headOf(db: Kysely<Database>): Promise<Head> {
  const head = await db
    .selectFrom('audit_page')
    .select(['page', 'last_seq', 'hash'])
    .orderBy('page', 'desc')
    .limit(1)
    .executeTakeFirst();
  return head ?? BEFORE_ALL;
}

/**
 * The page that comes next, where there is one to be sealed: it is full, or its first record has waited long enough.
 *
 * Numbers are handed out in the order of commits, so nothing can still appear among what is read here. A number that is
 * missing was removed before it was sealed: the page claims it all the same, and is found to be broken.
 */
export async function nextPage(
  db: Kysely<Database>,
  maxWaitMs: number,
): Promise<(PageContent & { hash: Buffer }) | null> {
  const head = await headOf(db);
  const records = await db
    .selectFrom('audit')
    .selectAll()
    .select(sql<number>`recorded_at <= NOW(6) - INTERVAL ${maxWaitMs * 1000} MICROSECOND`.as('hasWaited'))
    .where('seq', '>', head.last_seq)
    .orderBy('seq')
    .limit(PAGE_RECORDS)
    .execute();
  const last = records.at(-1);
  if (!last || (records.length < PAGE_RECORDS && !records[0]!.hasWaited)) return null;
  const page = {
    page: head.page + 1,
    first_seq: head.last_seq + 1,
    last_seq: last.seq,
    last_at: last.recorded_at,
    records_hash: recordsHash(records),
  };
  return { ...page, hash: pageHash(head.hash, page) };
}

/** What was found; `records` are those that were read and are as they were sealed. */
export interface Verification {
  pages: number;
  /** Of those, how many have no records any more by age. */
  trimmed: number;
  /** Of the newest record that went so. */
  trimmedUntil: string | null;
  records: number;
  broken: { page: number; what: string } | null;
  /** The last page that is as it was sealed; where there is none, that behind which it began. */
  head: Head;
  /** There is no page behind it, so what is not sealed yet was counted too. */
  complete: boolean;
}

export interface VerifyOptions {
  /** Begin behind this page, and take its hash for right. */
  afterPage?: number;
  /** Look at so many pages at most. */
  maxPages?: number;
}

/** Reads the trail and recomputes its hashes, a page at a time. Ends at the first that is not as it was sealed. */
export async function verifyAudit(
  db: Kysely<Database>,
  { afterPage = 0, maxPages = Infinity }: VerifyOptions = {},
): Promise<Verification> {
  const start = afterPage === 0 ? BEFORE_ALL : (await pagesAfter(db, afterPage - 1, 1))[0];
  const isThere = start?.page === afterPage;
  const found: Verification = {
    pages: 0,
    trimmed: 0,
    trimmedUntil: null,
    records: 0,
    broken: isThere ? null : { page: afterPage, what: 'The page is missing.' },
    head: isThere ? start : BEFORE_ALL,
    complete: false,
  };
  if (!isThere) return found;
  let untrimmed = false;
  for (;;) {
    const pages = await pagesAfter(db, found.head.page, Math.min(PAGES_AT_ONCE, maxPages - found.pages));
    for (const page of pages) {
      const { what, records } = await look(db, found.head, page, untrimmed);
      if (what) return { ...found, broken: { page: found.head.page + 1, what } };
      found.pages++;
      if (page.trimmed_at === null) untrimmed = true;
      else {
        found.trimmed++;
        found.trimmedUntil = page.last_at;
      }
      found.records += records;
      found.head = page;
    }
    if (found.pages >= maxPages) return found;
    if (pages.length === 0) break;
  }
  const missing = await missingBehind(db, found.head.last_seq);
  const broken =
    missing === 0
      ? null
      : { page: found.head.page + 1, what: `${missing} records that were not sealed yet are missing.` };
  return { ...found, broken, complete: true };
}

const pagesAfter = (db: Kysely<Database>, page: number, limit: number): Promise<AuditPage[]> =>
  db.selectFrom('audit_page').selectAll().where('page', '>', page).orderBy('page').limit(limit).execute();

interface Look {
  what: string | null;
  records: number;
}

async function look(db: Kysely<Database>, previous: Head, page: AuditPage, untrimmed: boolean): Promise<Look> {
  const broken = (what: string): Look => ({ what, records: 0 });
  if (page.page !== previous.page + 1) return broken('The page is missing.');
  if (page.first_seq !== previous.last_seq + 1) return broken('The page does not begin where the one before it ends.');
  if (!page.hash.equals(pageHash(previous.hash, page))) return broken('The page was changed, or one before it.');
  if (page.trimmed_at !== null)
    return untrimmed ? broken('The page has no records, and is not among the oldest.') : { what: null, records: 0 };
  const records = await db
    .selectFrom('audit')
    .selectAll()
    .where('seq', '>=', page.first_seq)
    .where('seq', '<=', page.last_seq)
    .limit(PAGE_RECORDS + 1)
    .orderBy('seq')
    .execute();
  const missing = page.last_seq - page.first_seq + 1 - records.length;
  if (missing === 0 && recordsHash(records).equals(page.records_hash)) return { what: null, records: records.length };
  // Retention may have come by between the two reads.
  const [now] = await pagesAfter(db, page.page - 1, 1);
  if (now?.page === page.page && now.trimmed_at !== null && !untrimmed) return { what: null, records: 0 };
  return broken(missing > 0 ? `${missing} of its records are missing.` : 'A record was changed.');
}

/** What was counted and is not there, of what no page holds yet: one statement, so that nothing comes in between. */
async function missingBehind(db: Kysely<Database>, lastSeq: number): Promise<number> {
  const { counted, there } = await db
    .selectFrom('feed_head')
    .select((eb) => [
      'audit_seq as counted',
      eb
        .selectFrom('audit')
        .select((inner) => inner.fn.countAll<number>().as('n'))
        .where('seq', '>', lastSeq)
        .as('there'),
    ])
    .executeTakeFirstOrThrow();
  return counted - lastSeq - Number(there);
}
