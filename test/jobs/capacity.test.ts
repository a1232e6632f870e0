import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import type { Core } from '../../src/core.ts';
import { encodeId } from '../../src/domain/ids.ts';
import { ADMIN, assertClean, follow, jobEnded, jobRow, makeDue, openCore } from '../support/core.ts';
import { freshDatabase, type TestDatabase } from '../support/database.ts';
import { JournalHost } from '../support/journal-host.ts';
import { insertWorld } from '../support/world.ts';
import { accepted, type Bench, createInput, openBench, vmRow } from './cases.ts';

const HOSTS = 3;
const ROOM = 50;
const CREATES = 200;

describe('more creates at once than there is room for', () => {
  let database: TestDatabase;
  let unfollow: () => Promise<void>;
  const cores: Core[] = [];
  const hosts: JournalHost[] = [];
  before(async () => {
    database = await freshDatabase();
  });
  after(async () => {
    for (const host of hosts) await host.close();
    await unfollow();
    for (const core of cores) await core.close();
    await database.close();
  });

  it('exactly as many as fit run, the others are told what each host lacks, and every counter is exact', async () => {
    const world = await insertWorld(database.db, { hosts: HOSTS });
    cores.push(await openCore(database.url), await openCore(database.url));
    unfollow = follow(cores[0]!, cores[1]!);
    for (const [i, { id }] of world.hosts.entries()) {
      const host = new JournalHost(id);
      hosts.push(host);
      await host.link(cores[i % 2]!);
    }
    await database.db.updateTable('host').set({ vcpus_cap: ROOM, vcpus_total: ROOM }).execute();
    for (const core of cores) await core.inventory.load();

    const payloads = await Promise.all(
      Array.from({ length: CREATES }, (_, n) => cores[n % 2]!.ops.createVm(ADMIN, createInput({ world }))),
    );
    const accepted = payloads.filter((p) => p.errors.length === 0);
    const refused = payloads.filter((p) => p.errors.length > 0);
    assert.deepEqual([accepted.length, refused.length], [HOSTS * ROOM, CREATES - HOSTS * ROOM]);
    for (const { id, jobId, errors } of refused) {
      assert.deepEqual([id, jobId, errors.length, errors[0]!.code], [null, null, 1, 'INSUFFICIENT_CAPACITY']);
      assert.deepEqual(
        errors[0]!.rejections!.map((r) => [r.hostId, r.rule, r.required, r.available]),
        world.hosts.map((host) => [host.id, 'VCPUS', 1, 0]),
      );
    }
    const jobs = await Promise.all(accepted.map((p) => jobEnded(cores[0]!, p.jobId!)));
    assert.deepEqual([...new Set(jobs.map((j) => j.state))], ['SUCCEEDED']);
    for (const host of hosts) await host.settled();

    const rows = await database.db.selectFrom('host').select(['vcpus_used', 'memory_used_mib']).execute();
    assert.deepEqual(rows, Array(HOSTS).fill({ vcpus_used: ROOM, memory_used_mib: ROOM * 128 }));
    const vms = await database.db.selectFrom('vm').select(['uid', 'state', 'host_id']).execute();
    assert.equal(vms.length, HOSTS * ROOM);
    for (const vm of vms) {
      const host = hosts.find((h) => h.id === vm.host_id)!;
      assert.deepEqual([vm.state, host.vms.get(encodeId('vm', vm.uid))?.state], ['RUNNING', 'RUNNING']);
    }
    await assertClean(cores[0]!);
  });
});

describe('room that is held for a VM when the database goes away', () => {
  let bench: Bench;
  before(async () => {
    bench = await openBench();
  });
  after(() => bench.close());

  const free = (): number => [...bench.core.inventory.placementHosts()][0]!.vcpusFree;
  const away = (): Promise<never> => Promise.reject(Object.assign(new Error('away'), { code: 'ECONNREFUSED' }));

  it('is free again when a mutation cannot take the id of its key', async () => {
    const { core } = bench;
    const before = free();
    const { ids } = core.opsContext;
    const { take } = ids;
    let taken = 0;
    // Those of the VM, its volume and its job come first.
    ids.take = () => (++taken === 4 ? away() : take.call(ids));
    await assert.rejects(core.ops.createVm(ADMIN, createInput(bench, { idempotencyKey: 'away' })), {
      code: 'UNAVAILABLE',
    });
    ids.take = take;
    assert.equal(free(), before);
  });

  it('is free again when a job that waited cannot begin', async () => {
    const { core } = bench;
    const created = accepted(await core.ops.createVm(ADMIN, createInput(bench, { start: false })));
    await jobEnded(core, created.jobId);
    const vm = { id: encodeId('vm', (await vmRow(core, created.id)).uid) };
    const { promote } = core.engine;
    core.engine.promote = async () => undefined;
    await core.db.updateTable('vm').set({ active_job_id: 1 }).where('id', '=', created.id).execute();
    const { jobId } = accepted(await core.ops.startVm(ADMIN, vm));
    await core.db.updateTable('vm').set({ active_job_id: null }).where('id', '=', created.id).execute();
    core.engine.promote = promote;
    const before = free();
    const { writer } = core;
    const { submit } = writer;
    writer.submit = away;
    await assert.rejects(core.engine.promote({ kind: 'vm', id: created.id, accountId: null }), {
      code: 'ECONNREFUSED',
    });
    writer.submit = submit;
    assert.equal(free(), before);
    assert.equal((await jobRow(core, jobId)).state, 'QUEUED');
    await makeDue(core, jobId);
    await core.engine.claimDue();
    assert.equal((await jobEnded(core, jobId)).state, 'SUCCEEDED');
    await assertClean(core);
  });
});
