import assert from 'node:assert/strict';
import { after, before, beforeEach, describe, it } from 'node:test';
import { sql } from 'kysely';
import type { Core } from '../../src/core.ts';
import { PAGE_RECORDS, verifyAudit } from '../../src/db/audit-chain.ts';
import { sealAudit } from '../../src/loops/audit-seal.ts';
import { Retention } from '../../src/loops/retention.ts';
import { ADMIN, openCore, recordingLog } from '../support/core.ts';
import { freshDatabase, type TestDatabase } from '../support/database.ts';

const DAY = 86_400_000;

describe('the chain of audit pages', () => {
  let database: TestDatabase;
  let core: Core;
  let other: Core;
  before(async () => {
    database = await freshDatabase();
    core = await openCore(database.url);
    other = await openCore(database.url);
  });
  after(async () => {
    await other.close();
    await core.close();
    await database.close();
  });
  beforeEach(async () => {
    const { db } = database;
    for (const table of ['audit', 'audit_page'] as const) await db.deleteFrom(table).execute();
    await db.updateTable('feed_head').set({ audit_seq: 0 }).execute();
  });

  /** So many refused mutations: each is a record. */
  const write = async (count: number): Promise<void> => {
    await Promise.all(Array.from({ length: count }, () => core.ops.createZone(ADMIN, { reason: 'Ünïcode "quoted"' })));
  };
  const { log, lines } = recordingLog();
  const seal = (of = core) => sealAudit({ db: of.db, writer: of.writer, log }, 0);
  const verify = (options = {}) => verifyAudit(database.db, options);
  /** Three pages of four records, and three records without a page. */
  async function threePages(): Promise<void> {
    for (let page = 0; page < 3; page++) {
      await write(4);
      await seal();
    }
    await write(3);
  }
  const brokenBy = async (tamper: Promise<unknown>) => {
    await tamper;
    return (await verify()).broken;
  };
  const { deleteFrom, updateTable } = {
    deleteFrom: (table: 'audit' | 'audit_page', column: 'seq' | 'page', is: number) =>
      database.db
        .deleteFrom(table)
        .where(column as 'seq', '=', is)
        .execute(),
    updateTable: (table: 'audit' | 'audit_page', column: 'seq' | 'page', is: number, set: object) =>
      database.db
        .updateTable(table as 'audit')
        .set(set)
        .where(column as 'seq', '=', is)
        .execute(),
  };

  it('is intact as it was written, with what is not sealed yet', async () => {
    await threePages();
    const { head, ...found } = await verify();
    assert.deepEqual(found, { pages: 3, trimmed: 0, trimmedUntil: null, records: 12, broken: null, complete: true });
    assert.equal(head.page, 3);
    assert.equal(lines.at(-1)!['hash'], head.hash.toString('hex'), 'the log has the hash of the newest page');
  });

  it('is intact while it is empty', async () => {
    const { pages, broken, complete } = await verify();
    assert.deepEqual({ pages, broken, complete }, { pages: 0, broken: null, complete: true });
  });

  it('waits for a page to fill, or for its first record to have waited', async () => {
    await write(2);
    await sealAudit({ db: core.db, writer: core.writer, log }, DAY);
    assert.equal((await verify()).pages, 0);
    await database.db
      .updateTable('audit')
      .set({ recorded_at: sql<string>`NOW(6) - INTERVAL 2 DAY` })
      .where('seq', '=', 1)
      .execute();
    await sealAudit({ db: core.db, writer: core.writer, log }, DAY);
    assert.equal((await verify()).pages, 1);
  });

  it('has no page of more records than are read at once, and seals a full one at once', async () => {
    await write(PAGE_RECORDS + 5);
    await sealAudit({ db: core.db, writer: core.writer, log }, DAY);
    const { pages, records, broken } = await verify();
    assert.deepEqual({ pages, records, broken }, { pages: 1, records: PAGE_RECORDS, broken: null });
  });

  it('is one chain however many seal it at once', async () => {
    for (let round = 0; round < 5; round++) {
      await write(6);
      await Promise.all([seal(), seal(other), seal(), seal(other)]);
    }
    const { records, broken } = await verify();
    assert.deepEqual({ records, broken }, { records: 30, broken: null });
  });

  it('shows a record that was removed, from the first of a page to the last', async () => {
    for (const seq of [5, 6, 8]) {
      await threePages();
      assert.deepEqual(await brokenBy(deleteFrom('audit', 'seq', seq)), {
        page: 2,
        what: '1 of its records are missing.',
      });
      for (const table of ['audit', 'audit_page'] as const) await database.db.deleteFrom(table).execute();
      await database.db.updateTable('feed_head').set({ audit_seq: 0 }).execute();
    }
  });

  it('shows a change of any column of a record', async () => {
    await threePages();
    const row = await database.db.selectFrom('audit').selectAll().where('seq', '=', 6).executeTakeFirstOrThrow();
    const changed: Partial<Record<keyof typeof row, unknown>> = {
      recorded_at: '2020-01-01 00:00:00.000000',
      action: 'x',
      outcome: 'ALLOWED',
      code: null,
      actor: 'someone else',
      user_id: 7,
      credential: null,
      address: '192.0.2.1',
      account_id: 7,
      subject_kind: 'vm',
      subject_id: 7,
      asked_id: 'x',
      job_id: 7,
      reason: null,
      changes: '[{}]',
      request_id: 'x',
    };
    assert.deepEqual(Object.keys({ seq: 6, ...changed }).sort(), Object.keys(row).sort());
    for (const [column, value] of Object.entries(changed)) {
      const broken = await brokenBy(updateTable('audit', 'seq', 6, { [column]: value }));
      assert.deepEqual(broken, { page: 2, what: 'A record was changed.' }, column);
      await updateTable('audit', 'seq', 6, { [column]: row[column as keyof typeof row] });
    }
    assert.equal((await verify()).broken, null);
  });

  it('shows a page that was removed, or changed, or whose number of records was made to fit', async () => {
    await threePages();
    const page = await database.db.selectFrom('audit_page').selectAll().where('page', '=', 2).executeTakeFirstOrThrow();
    const changes = [
      { hash: Buffer.alloc(32) },
      { records_hash: Buffer.alloc(32) },
      { last_at: '2020-01-01 00:00:00' },
      { last_seq: 7 },
    ];
    for (const change of changes) {
      const broken = await brokenBy(updateTable('audit_page', 'page', 2, change));
      assert.deepEqual(broken, { page: 2, what: 'The page was changed, or one before it.' }, JSON.stringify(change));
      await updateTable('audit_page', 'page', 2, page);
    }
    assert.deepEqual(await brokenBy(updateTable('audit_page', 'page', 2, { first_seq: 6 })), {
      page: 2,
      what: 'The page does not begin where the one before it ends.',
    });
    await updateTable('audit_page', 'page', 2, page);
    assert.equal((await verify()).broken, null);
    assert.deepEqual(await brokenBy(deleteFrom('audit_page', 'page', 2)), { page: 2, what: 'The page is missing.' });
  });

  it('shows records that went before they were sealed, and the end that was cut off with its page', async () => {
    await threePages();
    assert.deepEqual(await brokenBy(deleteFrom('audit', 'seq', 15)), {
      page: 4,
      what: '1 records that were not sealed yet are missing.',
    });
    await deleteFrom('audit_page', 'page', 3);
    await database.db.deleteFrom('audit').where('seq', '>', 8).execute();
    assert.deepEqual((await verify()).broken, { page: 3, what: '7 records that were not sealed yet are missing.' });
  });

  it('shows a record that went before it was sealed, once it is', async () => {
    await write(4);
    await deleteFrom('audit', 'seq', 2);
    await seal();
    assert.deepEqual((await verify()).broken, { page: 1, what: '1 of its records are missing.' });
  });

  it('has another head where the end was cut off and the count with it: whoever kept the last one sees it', async () => {
    await threePages();
    const { head } = await verify();
    await deleteFrom('audit_page', 'page', 3);
    await database.db.deleteFrom('audit').where('seq', '>', 8).execute();
    await database.db.updateTable('feed_head').set({ audit_seq: 8 }).execute();
    await write(4);
    await seal();
    const now = await verify();
    assert.equal(now.broken, null);
    assert.equal(now.head.page, head.page);
    assert.notDeepEqual(now.head.hash, head.hash);
  });

  it('is verified in pieces, each from where the one before it ended', async () => {
    await threePages();
    const first = await verify({ maxPages: 2 });
    assert.deepEqual([first.pages, first.complete, first.head.page], [2, false, 2]);
    const second = await verify({ afterPage: first.head.page, maxPages: 2 });
    assert.deepEqual([second.pages, second.complete, second.records], [1, true, 4]);
    // Where nothing follows, the page behind which it began stays the newest that is known.
    const third = await verify({ afterPage: second.head.page });
    assert.deepEqual([third.pages, third.complete, third.head.page], [0, true, second.head.page]);
    assert.deepEqual((await verify({ afterPage: 9 })).broken, { page: 9, what: 'The page is missing.' });
  });

  describe('and retention', () => {
    const retention = () =>
      new Retention({ db: core.db, ops: core.opsContext, log, recoverableMs: DAY, eventDays: 90, auditDays: 365 });
    /** Two pages whose time is over, and one that is not. */
    async function aged(): Promise<void> {
      for (const days of [400, 366, 0]) {
        await write(4);
        await database.db
          .updateTable('audit')
          .set({ recorded_at: sql<string>`NOW(6) - INTERVAL ${sql.lit(days)} DAY` })
          .where('seq', '>', sql<number>`(select coalesce(max(last_seq), 0) from audit_page)`)
          .execute();
        await seal();
      }
    }

    it('loses its oldest records by whole pages, and is verified back to its beginning', async () => {
      await aged();
      await retention().round();
      const { records, pages, trimmed, broken, trimmedUntil } = await verify();
      assert.deepEqual({ records, pages, trimmed, broken }, { records: 4, pages: 3, trimmed: 2, broken: null });
      assert.ok(Date.parse(`${trimmedUntil}Z`) < Date.now() - 365 * DAY);
      const { n } = await database.db
        .selectFrom('audit')
        .select((eb) => eb.fn.countAll().as('n'))
        .executeTakeFirstOrThrow();
      assert.equal(Number(n), 4);
    });

    it('is broken where a page without records was changed, or stands after one that has some', async () => {
      await aged();
      await retention().round();
      assert.deepEqual(await brokenBy(updateTable('audit_page', 'page', 1, { last_at: '2020-01-01 00:00:00' })), {
        page: 1,
        what: 'The page was changed, or one before it.',
      });
      for (const table of ['audit', 'audit_page'] as const) await database.db.deleteFrom(table).execute();
      await database.db.updateTable('feed_head').set({ audit_seq: 0 }).execute();
      await threePages();
      await deleteFrom('audit', 'seq', 6);
      assert.deepEqual(await brokenBy(updateTable('audit_page', 'page', 2, { trimmed_at: '2026-01-01 00:00:00' })), {
        page: 2,
        what: 'The page has no records, and is not among the oldest.',
      });
    });
  });
});
