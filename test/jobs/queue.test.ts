import assert from 'node:assert/strict';
import { after, afterEach, before, describe, it } from 'node:test';
import { encodeId } from '../../src/domain/ids.ts';
import { ADMIN, assertClean, jobEnded, jobRow, makeDue, openCore, publicJobId } from '../support/core.ts';
import { fails, type Verdict } from '../support/journal-host.ts';
import { insertOffering } from '../support/world.ts';
import { accepted, assertHostAgrees, type Bench, createInput, openBench, vmRow } from './cases.ts';

describe('the queue of a VM', () => {
  let bench: Bench;
  before(async () => {
    bench = await openBench();
  });
  afterEach(async () => {
    bench.host.script = () => 'works';
    await assertClean(bench.core);
    await assertHostAgrees(bench);
  });
  after(() => bench.close());

  async function newVm(more: Record<string, unknown> = {}): Promise<{ number: number; id: string }> {
    const { id, jobId } = accepted(await bench.core.ops.createVm(ADMIN, createInput(bench, more)));
    assert.equal((await jobEnded(bench.core, jobId)).state, 'SUCCEEDED');
    return { number: id, id: encodeId('vm', (await vmRow(bench.core, id)).uid) };
  }

  /** The host holds the first command that it gets from now on, until it is let go. */
  function holdFirst(): { held: Promise<void>; letGo: () => void } {
    const held = Promise.withResolvers<void>();
    const gate = Promise.withResolvers<void>();
    bench.host.script = async (): Promise<Verdict> => {
      held.resolve();
      await gate.promise;
      return 'works';
    };
    return { held: held.promise, letGo: () => gate.resolve() };
  }

  it('start, stop and reboot run one after the other, in the order in which they were asked for', async () => {
    const { core, host } = bench;
    const vm = await newVm({ start: false });
    const gate = holdFirst();
    const from = host.deliveries.length;
    const jobIds: number[] = [];
    for (const ask of [core.ops.startVm, core.ops.stopVm, core.ops.startVm, core.ops.rebootVm, core.ops.pauseVm])
      jobIds.push(accepted(await ask(ADMIN, { id: vm.id })).jobId);
    await gate.held;
    const states = await Promise.all(jobIds.map(async (id) => (await jobRow(core, id)).state));
    assert.deepEqual(states, ['RUNNING', 'QUEUED', 'QUEUED', 'QUEUED', 'QUEUED'], 'those that wait can be seen');
    assert.equal((await vmRow(core, vm.number)).active_job_id, jobIds[0]);
    gate.letGo();
    const jobs = await Promise.all(jobIds.map((id) => jobEnded(core, id)));
    assert.deepEqual(
      jobs.map((j) => j.state),
      Array(5).fill('SUCCEEDED'),
    );
    await host.settled();
    assert.deepEqual(
      host.deliveries.slice(from).map((d) => d.__typename),
      ['StartVmCommand', 'StopVmCommand', 'StartVmCommand', 'StopVmCommand', 'StartVmCommand', 'ControlVmCommand'],
    );
    for (let i = 1; i < jobs.length; i++) assert.ok(jobs[i]!.started_at! >= jobs[i - 1]!.finished_at!);
    assert.equal((await vmRow(core, vm.number)).state, 'PAUSED');
  });

  it('run in that order also when control planes whose ids are far apart took them', async () => {
    const { core, database } = bench;
    const vm = await newVm();
    const other = await openCore(database.url);
    try {
      const gate = holdFirst();
      const reboot = accepted(await core.ops.rebootVm(ADMIN, { id: vm.id })).jobId;
      await gate.held;
      const stop = accepted(await other.ops.stopVm(ADMIN, { id: vm.id })).jobId;
      const start = accepted(await core.ops.startVm(ADMIN, { id: vm.id })).jobId;
      assert.ok(start < stop, 'the later one has the smaller id');
      gate.letGo();
      const ends = await Promise.all([reboot, stop, start].map((id) => jobEnded(core, id)));
      assert.deepEqual(
        ends.map((job) => job.state),
        Array(3).fill('SUCCEEDED'),
      );
      assert.ok(ends[2]!.started_at! >= ends[1]!.finished_at!);
      assert.equal((await vmRow(core, vm.number)).state, 'RUNNING');
    } finally {
      await other.close();
    }
  });

  it('a reboot ends the life that is and begins the next: only the start has the new epoch', async () => {
    const { core, host } = bench;
    const vm = await newVm();
    const { epoch } = await vmRow(core, vm.number);
    const { jobId } = accepted(await core.ops.rebootVm(ADMIN, { id: vm.id }));
    assert.equal((await jobEnded(core, jobId)).state, 'SUCCEEDED');
    await host.settled();
    assert.deepEqual(
      host.deliveries.slice(-2).map((d) => [d.__typename, d.epoch]),
      [
        ['StopVmCommand', epoch],
        ['StartVmCommand', epoch + 1],
      ],
    );
    assert.equal((await vmRow(core, vm.number)).epoch, epoch + 1);
  });

  it('a job that waits is cancelled at once, and never begins', async () => {
    const { core, host } = bench;
    const vm = await newVm();
    const gate = holdFirst();
    const stop = accepted(await core.ops.stopVm(ADMIN, { id: vm.id })).jobId;
    const reboot = accepted(await core.ops.rebootVm(ADMIN, { id: vm.id })).jobId;
    await gate.held;
    accepted(await core.ops.cancelJob(ADMIN, { id: await publicJobId(core, reboot) }));
    assert.equal((await jobRow(core, reboot)).state, 'CANCELLED');
    gate.letGo();
    assert.equal((await jobEnded(core, stop)).state, 'SUCCEEDED');
    await host.settled();
    assert.equal((await jobRow(core, reboot)).started_at, null);
  });

  it('a job whose wish is fulfilled when its turn comes succeeds without a command', async () => {
    const { core } = bench;
    const vm = await newVm();
    const gate = holdFirst();
    const stops = [await core.ops.stopVm(ADMIN, { id: vm.id }), await core.ops.stopVm(ADMIN, { id: vm.id })];
    gate.letGo();
    const [, second] = await Promise.all(stops.map((p) => jobEnded(core, accepted(p).jobId)));
    assert.equal(second!.state, 'SUCCEEDED');
    const steps = await core.db.selectFrom('job_step').selectAll().where('job_id', '=', second!.id).execute();
    assert.deepEqual(steps, []);
  });

  it('a job that its VM cannot do when its turn comes fails and says why; those behind it go on', async () => {
    const { core } = bench;
    const vm = await newVm();
    const gate = holdFirst();
    const ids = [
      accepted(await core.ops.stopVm(ADMIN, { id: vm.id })).jobId,
      accepted(await core.ops.pauseVm(ADMIN, { id: vm.id })).jobId,
      accepted(await core.ops.destroyVm(ADMIN, { id: vm.id })).jobId,
    ];
    gate.letGo();
    const [stop, pause, destroy] = await Promise.all(ids.map((id) => jobEnded(core, id)));
    assert.deepEqual([stop!.state, pause!.state, destroy!.state], ['SUCCEEDED', 'FAILED', 'SUCCEEDED']);
    assert.equal(pause!.error_code, 'INVALID_STATE');
    assert.match(pause!.error_message!, /STOPPED.*It can: start/);
  });

  it('what waits behind a job that fails gets its turn', async () => {
    const { core, host } = bench;
    const vm = await newVm();
    const first = Promise.withResolvers<void>();
    host.script = async (command) => {
      if (command.__typename !== 'ControlVmCommand') return 'works';
      await first.promise;
      return fails('QEMU_FAILED');
    };
    const pause = accepted(await core.ops.pauseVm(ADMIN, { id: vm.id })).jobId;
    const stop = accepted(await core.ops.stopVm(ADMIN, { id: vm.id })).jobId;
    first.resolve();
    assert.equal((await jobEnded(core, pause)).state, 'FAILED');
    assert.equal((await jobEnded(core, stop)).state, 'SUCCEEDED');
  });

  it('a start that waits fails with the numbers when the room is gone by then', async () => {
    const { core, world, host } = bench;
    const vm = await newVm();
    const { vcpus_cap: cap } = core.inventory.get('host', host.id)!;
    const used = Number(
      (await core.db.selectFrom('host').select('vcpus_used').where('id', '=', host.id).executeTakeFirstOrThrow())
        .vcpus_used,
    );
    const rest = cap - used + 1;
    const greedy = await insertOffering(core.db, { vcpus: rest, memory_mib: 128 });
    core.inventory.changed([{ kind: 'offering', id: greedy.id }]);
    await core.inventory.refresh();
    const gate = holdFirst();
    const stop = accepted(await core.ops.stopVm(ADMIN, { id: vm.id })).jobId;
    const start = accepted(await core.ops.startVm(ADMIN, { id: vm.id })).jobId;
    // Takes the room that the stop gives back, before the start's turn comes: all at the moment of the stop's end.
    await gate.held;
    await core.db
      .updateTable('host')
      .set({ vcpus_cap: used - 1 })
      .where('id', '=', host.id)
      .execute();
    core.inventory.changed([{ kind: 'host', id: host.id }]);
    await core.inventory.refresh();
    gate.letGo();
    assert.equal((await jobEnded(core, stop)).state, 'SUCCEEDED');
    // One vCPU came free and none is left of the cap.
    const job = await jobEnded(core, start);
    assert.deepEqual([job.state, job.error_code], ['FAILED', 'INSUFFICIENT_CAPACITY']);
    assert.match(job.error_message!, new RegExp(`Not enough vCPUs: 1 needed, 0 of ${used - 1} free, 1 missing`));
    await core.db.updateTable('host').set({ vcpus_cap: cap }).where('id', '=', host.id).execute();
    core.inventory.changed([{ kind: 'host', id: host.id }]);
    await core.inventory.refresh();
    void world;
  });

  it('a seventeenth job that would wait is refused', async () => {
    const { core } = bench;
    const vm = await newVm();
    const gate = holdFirst();
    const payloads = [await core.ops.rebootVm(ADMIN, { id: vm.id })];
    await gate.held;
    for (let i = 0; i < 16; i++) payloads.push(await core.ops.stopVm(ADMIN, { id: vm.id }));
    const refused = await core.ops.stopVm(ADMIN, { id: vm.id });
    assert.deepEqual([refused.id, refused.jobId, refused.errors[0]?.code], [null, null, 'QUEUE_FULL']);
    assert.match(refused.errors[0]!.message, /16 jobs/);
    gate.letGo();
    await Promise.all(payloads.map((p) => jobEnded(core, accepted(p).jobId)));
  });

  it('a job whose turn nobody saw is taken up when its time has run out', async () => {
    const { core } = bench;
    const vm = await newVm();
    const gate = holdFirst();
    const stop = accepted(await core.ops.stopVm(ADMIN, { id: vm.id })).jobId;
    const { promote } = core.engine;
    core.engine.promote = async () => undefined;
    const start = accepted(await core.ops.startVm(ADMIN, { id: vm.id })).jobId;
    gate.letGo();
    await jobEnded(core, stop);
    core.engine.promote = promote;
    assert.equal((await jobRow(core, start)).state, 'QUEUED');
    await makeDue(core, start);
    await core.engine.claimDue();
    assert.equal((await jobEnded(core, start)).state, 'SUCCEEDED');
  });
});

describe('a job once more', () => {
  let bench: Bench;
  before(async () => {
    bench = await openBench();
  });
  after(() => bench.close());

  it('a failed create is retried on the row that is there, on the host that was asked for', async () => {
    const { core, host, world } = bench;
    host.script = (command) => (command.__typename === 'StartVmCommand' ? fails('QEMU_FAILED') : 'works');
    const input = createInput(bench, { hostId: encodeId('host', world.hosts[0]!.uid) });
    const { id, jobId } = accepted(await core.ops.createVm(ADMIN, input));
    assert.equal((await jobEnded(core, jobId)).state, 'FAILED');
    const before = await vmRow(core, id);
    assert.deepEqual([before.state, before.host_id], ['ERROR', null]);
    await host.settled();
    host.script = () => 'works';

    const again = await core.ops.retryJob(ADMIN, { id: await publicJobId(core, jobId) });
    assert.deepEqual(again.errors, []);
    assert.equal(again.id, again.jobId, 'it is about the new job');
    const job = await jobEnded(core, again.jobId!);
    assert.deepEqual([job.state, job.kind, job.parent_id, job.target_id], ['SUCCEEDED', 'CREATE_VM', jobId, id]);
    const after = await vmRow(core, id);
    assert.deepEqual([after.state, after.host_id, after.epoch, after.state_reason], ['RUNNING', host.id, 2, null]);
    const volumes = await core.db.selectFrom('volume').select('state').where('vm_id', '=', id).orderBy('id').execute();
    assert.deepEqual(
      volumes.map((v) => v.state),
      ['DELETED', 'READY'],
    );
    await host.settled();
    await assertClean(core);
    await assertHostAgrees(bench);

    const thrice = await core.ops.retryJob(ADMIN, { id: await publicJobId(core, jobId) });
    assert.equal(thrice.errors[0]?.code, 'INVALID_STATE');
  });

  it('a retried create still wants the host that the first one wanted', async () => {
    const { core, host, world } = bench;
    host.script = (command) => (command.__typename === 'CreateVolumeCommand' ? fails('DISK_FULL') : 'works');
    const hostId = encodeId('host', world.hosts[0]!.uid);
    const { jobId } = accepted(await core.ops.createVm(ADMIN, createInput(bench, { hostId })));
    assert.equal((await jobEnded(core, jobId)).state, 'FAILED');
    host.script = () => 'works';
    accepted(await core.ops.disableHost(ADMIN, { id: hostId }));
    await core.inventory.refresh();
    const refused = await core.ops.retryJob(ADMIN, { id: await publicJobId(core, jobId) });
    assert.equal(refused.errors[0]?.code, 'INSUFFICIENT_CAPACITY');
    assert.equal(refused.errors[0]?.rejections?.find((r) => r.hostId === host.id)?.rule, 'ENABLED');
    const context = JSON.parse((await jobRow(core, jobId)).input) as { hostId: string };
    assert.equal(context.hostId, hostId);
    accepted(await core.ops.enableHost(ADMIN, { id: hostId }));
    await core.inventory.refresh();
  });

  it('a failed start is retried as a job of its own', async () => {
    const { core, host } = bench;
    const { id, jobId: created } = accepted(await core.ops.createVm(ADMIN, createInput(bench, { start: false })));
    await jobEnded(core, created);
    const publicId = encodeId('vm', (await vmRow(core, id)).uid);
    host.script = (command) => (command.__typename === 'StartVmCommand' ? fails('QEMU_FAILED') : 'works');
    const { jobId } = accepted(await core.ops.startVm(ADMIN, { id: publicId }));
    assert.equal((await jobEnded(core, jobId)).state, 'FAILED');
    await host.settled();
    host.script = () => 'works';
    const again = await core.ops.retryJob(ADMIN, { id: await publicJobId(core, jobId) });
    const job = await jobEnded(core, again.jobId!);
    assert.deepEqual([job.state, job.kind, job.parent_id], ['SUCCEEDED', 'START_VM', jobId]);
    assert.equal((await vmRow(core, id)).state, 'RUNNING');
    const done = await core.ops.retryJob(ADMIN, { id: await publicJobId(core, again.jobId!) });
    assert.equal(done.errors[0]?.code, 'INVALID_STATE');
    await host.settled();
    await assertClean(core);
    await assertHostAgrees(bench);
  });

  it('a VM whose create failed can be destroyed and expunged, but there is nothing to recover', async () => {
    const { core, host } = bench;
    host.script = (command) => (command.__typename === 'CreateVolumeCommand' ? fails('DISK_FULL') : 'works');
    const { id, jobId } = accepted(await core.ops.createVm(ADMIN, createInput(bench)));
    assert.equal((await jobEnded(core, jobId)).state, 'FAILED');
    await host.settled();
    host.script = () => 'works';
    const vm = { id: encodeId('vm', (await vmRow(core, id)).uid) };
    accepted(await core.ops.destroyVm(ADMIN, vm));
    const refused = await core.ops.recoverVm(ADMIN, vm);
    assert.deepEqual([refused.errors[0]?.code, refused.errors[0]?.allowedActions], ['INVALID_STATE', ['EXPUNGE']]);
    const expunge = accepted(await core.ops.expungeVm(ADMIN, vm)).jobId;
    assert.equal((await jobEnded(core, expunge)).state, 'SUCCEEDED');
    assert.equal((await vmRow(core, id)).state, 'EXPUNGED');
    await host.settled();
    await assertClean(core);
  });
});
