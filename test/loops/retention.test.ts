import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { newUid } from '../../src/db/ids.ts';
import { encodeId } from '../../src/domain/ids.ts';
import { Retention } from '../../src/loops/retention.ts';
import { accepted, type Bench, createInput, openBench, vmRow } from '../jobs/cases.ts';
import { ADMIN, assertClean, jobEnded, recordingLog, until } from '../support/core.ts';
import { insertAccount, insertSession, insertUser, ROLE, ROOT_DOMAIN } from '../support/tenants.ts';
import { insertCluster, insertStorage, insertVm, insertVolume } from '../support/world.ts';

const HOUR = 3_600_000;
const DAY = 24 * HOUR;
/** More than two pieces. */
const MANY = 10_001;

describe('what nobody needs any more', () => {
  let bench: Bench;
  let retention: Retention;
  const { log, lines } = recordingLog();
  before(async () => {
    bench = await openBench();
    const { db, opsContext: ops } = bench.core;
    retention = new Retention({ db, ops, log, recoverableMs: DAY, eventDays: 90, auditDays: 365 });
  });
  after(() => bench.close());

  const ago = (ms: number): Date => new Date(Date.now() - ms);
  const each = <T>(count: number, make: (n: number) => T): T[] => Array.from({ length: count }, (_, n) => make(n));

  it('are sessions whose end is as long ago as the oldest event', async () => {
    const { db } = bench.core;
    const user = await insertUser(db, await insertAccount(db, ROOT_DOMAIN), ROLE.user);
    await insertSession(db, user, { expires_at: ago(91 * DAY) });
    const { id } = await insertSession(db, user, { expires_at: ago(89 * DAY) });
    await retention.round();
    assert.deepEqual(await db.selectFrom('session').select('id').execute(), [{ id }]);
  });

  it('goes in one round, however much of it there is; what is younger stays', async () => {
    const { db } = bench.core;
    await db.deleteFrom('change').execute();
    await db.deleteFrom('event').execute();
    const change = (seq: number, committed_at: Date) => ({
      seq,
      kind: 'vm',
      resource_id: 1,
      origin: 'x',
      committed_at,
    });
    const event = (seq: number, occurred_at: Date) => ({
      seq,
      occurred_at,
      type: 'vm.state',
      subject_kind: 'vm' as const,
      subject_id: 1,
      job_id: null,
      actor: 'a',
      reason: null,
      changes: '[]',
    });
    const key = (id: number, created_at: Date) => ({
      id,
      created_at,
      actor: 'a',
      mutation: 'm',
      idempotency_key: String(id),
      args_hash: Buffer.alloc(32),
      resource_id: null,
      job_id: null,
    });
    const from = 2 ** 40;
    const young = from + MANY;
    await db
      .insertInto('change')
      .values(each(MANY, (n) => change(from + n, ago(1.1 * HOUR))))
      .execute();
    await db
      .insertInto('change')
      .values(change(young, ago(0.9 * HOUR)))
      .execute();
    await db
      .insertInto('event')
      .values(each(MANY, (n) => event(from + n, ago(91 * DAY))))
      .execute();
    await db
      .insertInto('event')
      .values(event(young, ago(89 * DAY)))
      .execute();
    await db
      .insertInto('idempotency_key')
      .values(each(MANY, (n) => key(from + n, ago(1.1 * DAY))))
      .execute();
    await db
      .insertInto('idempotency_key')
      .values(key(young, ago(0.9 * DAY)))
      .execute();

    const used = (fill: number, used_at: Date) => ({ id: fill, state_hash: Buffer.alloc(32, fill), used_at });
    await db
      .insertInto('used_sign_in')
      .values([used(1, ago(0.05 * DAY)), used(2, ago(0.03 * DAY))])
      .execute();

    await retention.round();
    const kept = await db.selectFrom('used_sign_in').select('state_hash').execute();
    assert.deepEqual(kept, [{ state_hash: Buffer.alloc(32, 2) }]);
    assert.deepEqual(await db.selectFrom('change').select('seq').execute(), [{ seq: young }]);
    assert.deepEqual(await db.selectFrom('event').select('seq').execute(), [{ seq: young }]);
    assert.deepEqual(await db.selectFrom('idempotency_key').select('id').execute(), [{ id: young }]);
    const head = await db.selectFrom('feed_head').select('event_trimmed_to').executeTakeFirstOrThrow();
    assert.equal(head.event_trimmed_to, young - 1, 'a reader from before is told so');
    await retention.round();
    assert.equal((await db.selectFrom('event').select('seq').execute()).length, 1);
  });

  it('a destroyed VM is expunged once its time is over, also behind many whose volumes no host can reach', async () => {
    const { core, world } = bench;
    const cluster = await insertCluster(core.db, world);
    const apart = { ...world, cluster };
    const storage = await insertStorage(core.db, apart);
    const over = { state: 'DESTROYED' as const, destroyed_at: ago(1.1 * DAY) };
    for (let n = 0; n < 101; n++) {
      const vm = await insertVm(core.db, apart, { ...over, id: n + 1, uid: newUid() });
      await insertVolume(core.db, { ...apart, storage }, vm, { size_bytes: 0 });
    }
    const [old, young] = [await destroyed(1.1), await destroyed(0.9)];

    await retention.round();
    await until(core, 'the VM to be expunged', async () => (await vmRow(core, old)).state === 'EXPUNGED');
    assert.equal((await vmRow(core, young)).state, 'DESTROYED');
    const kept = await core.db
      .selectFrom('vm')
      .select('id')
      .where('cluster_id', '=', cluster.id)
      .where('state', '=', 'DESTROYED')
      .execute();
    assert.equal(kept.length, 101);
    assert.equal(lines.filter((line) => line['msg'] === 'a destroyed VM could not be expunged yet').length, 101);
    await bench.host.settled();
    await assertClean(core);
  });

  async function destroyed(days: number): Promise<number> {
    const { core } = bench;
    const { id, jobId } = accepted(await core.ops.createVm(ADMIN, createInput(bench, { start: false })));
    await jobEnded(core, jobId);
    const { uid } = await vmRow(core, id);
    accepted(await core.ops.destroyVm(ADMIN, { id: encodeId('vm', uid) }));
    await core.db
      .updateTable('vm')
      .set({ destroyed_at: ago(days * DAY) })
      .where('id', '=', id)
      .execute();
    return id;
  }
});
