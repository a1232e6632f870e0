import assert from 'node:assert/strict';
import { after, before, beforeEach, describe, it } from 'node:test';
import type { Core } from '../../src/core.ts';
import { encodeId } from '../../src/domain/ids.ts';
import type { ObservedVmState } from '../../src/domain/vm-state.ts';
import { accepted, createInput, vmRow } from '../jobs/cases.ts';
import { ADMIN, assertClean, jobEnded, makeDue, openCore, publicJobId, recordingLog, until } from '../support/core.ts';
import { freshDatabase, type TestDatabase } from '../support/database.ts';
import { JournalHost } from '../support/journal-host.ts';
import { insertWorld, type World } from '../support/world.ts';

describe('what hosts see of their VMs', () => {
  let database: TestDatabase;
  let world: World;
  let core: Core;
  const { log, lines } = recordingLog();
  const hosts: JournalHost[] = [];
  let vm: { number: number; id: string };
  before(async () => {
    database = await freshDatabase();
    world = await insertWorld(database.db, { hosts: 2 });
    core = await openCore(database.url, log);
    for (const { id } of world.hosts) hosts.push(new JournalHost(id));
    for (const host of hosts) await host.link(core);
  });
  beforeEach(async () => {
    lines.length = 0;
    const input = createInput({ world }, { hostId: encodeId('host', world.hosts[0]!.uid) });
    const { id, jobId } = accepted(await core.ops.createVm(ADMIN, input));
    assert.equal((await jobEnded(core, jobId)).state, 'SUCCEEDED');
    vm = { number: id, id: encodeId('vm', (await vmRow(core, id)).uid) };
  });
  after(async () => {
    for (const host of hosts) await host.close();
    await core.close();
    await database.close();
  });

  const [mine, other] = [0, 1];
  const tell = (host: number, state: ObservedVmState, epoch = 1, reason: string | null = null) =>
    core.observations.some(hosts[host]!.id, hosts[host]!.sessionId, [{ vmId: vm.id, state, epoch, reason }]);
  const used = async () =>
    (
      await database.db
        .selectFrom('host')
        .select('vcpus_used')
        .where('id', '=', hosts[mine]!.id)
        .executeTakeFirstOrThrow()
    ).vcpus_used;
  const stopped = () =>
    until(core, 'the VM to be stopped', async () => ((await vmRow(core, vm.number)).state === 'STOPPED' ? true : null));

  for (const [state, reason, why] of [
    ['CRASHED', 'killed by signal 9', 'killed by signal 9'],
    ['STOPPED', null, 'The guest powered off.'],
    ['ABSENT', null, 'Its host does not know it any more.'],
  ] as const) {
    it(`a VM that is seen ${state} gives its place back, with an event that says why`, async () => {
      const before = await used();
      hosts[mine]!.vms.set(vm.id, { state, epoch: 1 });
      await tell(mine, state, 1, reason);
      await stopped();
      const row = await vmRow(core, vm.number);
      assert.deepEqual(
        [row.host_id, row.last_host_id, row.observed_state, row.state_reason, row.active_job_id],
        [null, hosts[mine]!.id, state, why, null],
      );
      assert.equal(await used(), before - 1);
      const event = await database.db
        .selectFrom('event')
        .selectAll()
        .where('subject_id', '=', vm.number)
        .orderBy('seq', 'desc')
        .executeTakeFirstOrThrow();
      assert.deepEqual([event.type, event.actor, event.reason], ['vm.state', 'system', why]);
      assert.deepEqual(JSON.parse(event.changes), [{ field: 'state', before: 'RUNNING', after: 'STOPPED' }]);
      await assertClean(core);
    });
  }

  it('unknown is not dead: a lost link changes nothing of the VMs', async () => {
    const before = await vmRow(core, vm.number);
    await hosts[mine]!.unlink();
    await until(core, 'the host to be unreachable', async () => {
      await core.inventory.refresh();
      return core.inventory.get('host', hosts[mine]!.id)?.link_state === 'UNREACHABLE';
    });
    assert.equal(await core.reconciler.settle(null), 0);
    assert.deepEqual(await vmRow(core, vm.number), before);
    const refused = await core.ops.stopVm(ADMIN, { id: vm.id });
    assert.equal(refused.errors[0]?.code, 'HOST_UNREACHABLE');
    await hosts[mine]!.link(core);
    assert.deepEqual(await vmRow(core, vm.number), before);
  });

  it('a host that comes back without a VM says that it is absent', async () => {
    await hosts[mine]!.unlink();
    hosts[mine]!.vms.delete(vm.id);
    await hosts[mine]!.link(core);
    await stopped();
    assert.equal((await vmRow(core, vm.number)).observed_state, 'ABSENT');
    await assertClean(core);
  });

  it('a host cannot speak of the VM of another: nothing changes, and it is told in the log', async () => {
    const before = await vmRow(core, vm.number);
    for (const state of ['CRASHED', 'STOPPED', 'RUNNING', 'ABSENT'] as const) await tell(other, state);
    assert.deepEqual(await vmRow(core, vm.number), before);
    const warned = lines.filter((line) => line['vmId'] === vm.id && line['hostId'] === hosts[other]!.id);
    assert.deepEqual(
      warned.map((line) => line['state']),
      ['RUNNING'],
      'a second copy is what a person must see',
    );
  });

  it('a host cannot answer a command of another: nothing changes, and it is told in the log', async () => {
    const held = Promise.withResolvers<string>();
    hosts[mine]!.script = (command) => {
      held.resolve(command.commandId);
      return 'silence';
    };
    const { jobId } = accepted(await core.ops.stopVm(ADMIN, { id: vm.id }));
    const commandId = await held.promise;
    const before = await database.db.selectFrom('job').selectAll().where('id', '=', jobId).executeTakeFirst();
    const seq = Number(commandId.split('.')[1]);
    await core.engine.answer(hosts[other]!.id, jobId, seq, { ok: true, result: {} });
    assert.deepEqual(
      await database.db.selectFrom('job').selectAll().where('id', '=', jobId).executeTakeFirst(),
      before,
    );
    assert.ok(lines.some((line) => line['jobId'] === jobId && line['hostId'] === hosts[other]!.id));
    assert.equal(core.engine.counts.foreign, 1);
    hosts[mine]!.script = () => 'works';
    const command = hosts[mine]!.deliveries.find((d) => d.commandId === commandId)!;
    hosts[mine]!.act(command);
    await hosts[mine]!.report(core, commandId);
    assert.equal((await jobEnded(core, jobId)).state, 'SUCCEEDED');
  });

  it('a late word of an earlier life of the VM is not heard', async () => {
    const { jobId } = accepted(await core.ops.rebootVm(ADMIN, { id: vm.id }));
    assert.equal((await jobEnded(core, jobId)).state, 'SUCCEEDED');
    const before = await vmRow(core, vm.number);
    assert.equal(before.epoch, 2);
    await tell(mine, 'STOPPED', 1);
    await tell(mine, 'CRASHED', 1);
    assert.equal(await core.reconciler.settle(null), 0);
    assert.deepEqual(await vmRow(core, vm.number), before);
  });

  it('a reboot that was rolled back unheard leaves the host its say', async () => {
    const taken = Promise.withResolvers<void>();
    hosts[mine]!.script = () => {
      taken.resolve();
      return 'silence';
    };
    const { jobId } = accepted(await core.ops.rebootVm(ADMIN, { id: vm.id }));
    await taken.promise;
    await makeDue(core, jobId, 24 * 3_600_000);
    await core.engine.claimDue();
    assert.equal((await jobEnded(core, jobId)).state, 'NEEDS_ATTENTION');
    accepted(await core.ops.cancelJob(ADMIN, { id: await publicJobId(core, jobId) }));
    assert.equal((await vmRow(core, vm.number)).state, 'RUNNING');
    hosts[mine]!.script = () => 'works';
    hosts[mine]!.vms.set(vm.id, { state: 'STOPPED', epoch: 1 });
    await tell(mine, 'STOPPED', 1);
    await stopped();
    await assertClean(core);
  });

  it('a word of a session that is over is not heard', async () => {
    const before = await vmRow(core, vm.number);
    const told = [{ vmId: vm.id, state: 'CRASHED' as const, epoch: 1, reason: null }];
    await core.observations.some(hosts[mine]!.id, 'a session that is over', told);
    assert.deepEqual(await vmRow(core, vm.number), before);
  });

  it('a guest that powers off while another job is at work is settled once that has ended', async () => {
    const held = Promise.withResolvers<void>();
    const gate = Promise.withResolvers<void>();
    hosts[mine]!.script = async () => {
      held.resolve();
      await gate.promise;
      return { ok: false, error: { code: 'NOT_FOUND', message: 'it does not run' } };
    };
    const { jobId } = accepted(await core.ops.pauseVm(ADMIN, { id: vm.id }));
    await held.promise;
    hosts[mine]!.vms.set(vm.id, { state: 'STOPPED', epoch: 1 });
    await tell(mine, 'STOPPED');
    assert.equal((await vmRow(core, vm.number)).state, 'RUNNING', 'the job holds it');
    gate.resolve();
    assert.equal((await jobEnded(core, jobId)).state, 'FAILED');
    hosts[mine]!.script = () => 'works';
    assert.equal(await core.reconciler.settle(null), 1);
    await stopped();
    await assertClean(core);
  });

  it('the same word again costs no write', async () => {
    await tell(mine, 'PAUSED');
    const { transactions } = core.writer.counts;
    await tell(mine, 'PAUSED');
    assert.equal(core.writer.counts.transactions, transactions);
    await core.observations.some(hosts[mine]!.id, hosts[mine]!.sessionId, [
      { vmId: 'nonsense', state: 'CRASHED', epoch: 1, reason: null },
    ]);
    assert.equal(core.writer.counts.transactions, transactions);
  });
});
