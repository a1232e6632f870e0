import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, before, describe, it } from 'node:test';
import { newUid } from '../../src/db/ids.ts';
import { Inventory } from '../../src/db/inventory.ts';
import { emptyTransition, insert, type NewAudit, patch, type Transition } from '../../src/db/transition.ts';
import { Writer } from '../../src/db/writer.ts';
import { freshDatabase, type TestDatabase } from '../support/database.ts';

const WRITERS = 6;
const WRITES = 20;

const audit = (more: Partial<NewAudit> = {}): NewAudit => ({
  action: 'createZone',
  outcome: 'ALLOWED',
  code: null,
  actor: 'test',
  userId: null,
  credential: null,
  address: '192.0.2.1',
  accountId: null,
  subject: null,
  jobId: null,
  reason: null,
  changes: [],
  requestId: null,
  ...more,
});

describe('records of the audit trail', () => {
  let database: TestDatabase;
  before(async () => {
    database = await freshDatabase();
  });
  after(() => database.close());

  const newWriter = () =>
    new Writer({
      tenancy: new Inventory(database.db),
      pool: database.pool.promise(),
      db: database.db,
      origin: randomUUID(),
      isElsewhere: () => false,
      onCommit: () => undefined,
    });
  const zone = (id: number): Transition => ({
    ...emptyTransition(),
    writes: [insert('zone', { id, uid: newUid(), name: `zone ${id}` })],
    changes: [{ kind: 'zone', id }],
    audits: [audit({ subject: { kind: 'zone', id }, reason: `zone ${id}` })],
  });
  const rows = () => database.db.selectFrom('audit').selectAll().orderBy('seq').execute();

  it('are written with what they tell of or not at all, numbered without gaps whatever is refused between', async () => {
    const writers = Array.from({ length: WRITERS }, newWriter);
    const outcomes = await Promise.all(
      writers.flatMap((writer, w) =>
        Array.from({ length: WRITES }, (_, n) => {
          const id = 10_000 + w * WRITES + n;
          // A third is refused by a guard: nothing of it stands, the record of it neither.
          const guarded = n % 3 === 0 ? [patch('zone', 9, { generation: 5 }, { name: 'never' })] : [];
          const transition = zone(id);
          return writer
            .submit({ ...transition, writes: [...transition.writes, ...guarded] })
            .then((outcome) => ({ id, outcome }));
        }),
      ),
    );
    const written = outcomes.filter(({ outcome }) => outcome.kind === 'written').map(({ id }) => id);
    const found = await rows();
    assert.ok(written.length > 0 && written.length < outcomes.length);
    assert.deepEqual(found.map((row) => row.subject_id!).sort(), written.sort());
    assert.deepEqual(
      found.map((row) => row.seq),
      found.map((_, i) => i + 1),
    );
    const head = await database.db.selectFrom('feed_head').select(['seq', 'audit_seq']).executeTakeFirstOrThrow();
    assert.equal(head.audit_seq, found.length);
    assert.equal(head.seq, written.length, 'the feed counts changes alone');
  });

  it('may stand alone, as of what was refused', async () => {
    const before = (await rows()).length;
    const refused = audit({ outcome: 'REFUSED', code: 'FORBIDDEN', askedId: 'zone_7', changes: [] });
    assert.deepEqual(await newWriter().submit({ ...emptyTransition(), audits: [refused] }), { kind: 'written' });
    const { recorded_at, ...row } = (await rows()).at(-1)!;
    assert.match(recorded_at, /^\d{4}-/);
    assert.deepEqual(row, {
      seq: before + 1,
      action: 'createZone',
      outcome: 'REFUSED',
      code: 'FORBIDDEN',
      actor: 'test',
      user_id: null,
      credential: null,
      address: '192.0.2.1',
      account_id: null,
      subject_kind: null,
      subject_id: null,
      asked_id: 'zone_7',
      job_id: null,
      reason: null,
      changes: '[]',
      request_id: null,
    });
  });
});
