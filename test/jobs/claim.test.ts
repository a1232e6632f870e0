import assert from 'node:assert/strict';
import { after, afterEach, before, describe, it } from 'node:test';
import type { Vm } from '../../src/db/tables.ts';
import { encodeId } from '../../src/domain/ids.ts';
import type { PlannedAction } from '../../src/jobs/vm-plan.ts';
import { actOn } from '../../src/ops/vm.ts';
import { createAgain } from '../../src/ops/vm-create.ts';
import { ADMIN, assertClean, jobEnded, jobRow } from '../support/core.ts';
import { fails } from '../support/journal-host.ts';
import { insertOffering } from '../support/world.ts';
import { accepted, assertHostAgrees, type Bench, createInput, idOf, openBench, vmRow } from './cases.ts';

/** What one control plane has planned while another, or the same, was faster. */
describe('a job that was planned for a VM as it was', () => {
  let bench: Bench;
  before(async () => {
    bench = await openBench();
  });
  afterEach(async () => {
    await bench.host.settled();
    await assertClean(bench.core);
    await assertHostAgrees(bench);
  });
  after(() => bench.close());

  const done = async (payload: Parameters<typeof accepted>[0]): Promise<void> => {
    assert.equal((await jobEnded(bench.core, accepted(payload).jobId)).state, 'SUCCEEDED');
  };
  async function newVm(start: boolean): Promise<Vm> {
    const payload = await bench.core.ops.createVm(ADMIN, createInput(bench, { start }));
    await done(payload);
    return vmRow(bench.core, payload.id!);
  }
  /** Stopped and started, or started and stopped: in the same state again, in another life. */
  async function liveOnce(vm: Vm): Promise<void> {
    const { startVm, stopVm } = bench.core.ops;
    for (const ask of vm.state === 'RUNNING' ? [stopVm, startVm] : [startVm, stopVm])
      await done(await ask(ADMIN, idOf(vm)));
    assert.equal((await vmRow(bench.core, vm.id)).state, vm.state);
  }
  async function planned(vm: Vm, action: PlannedAction) {
    const decision = await actOn(bench.core.opsContext, vm, action, {}, { name: 'late', reason: null }, null);
    assert.ok(decision.kind === 'write');
    return decision;
  }

  for (const [action, runs] of [
    ['START', false],
    ['STOP', true],
    ['REBOOT', true],
    ['PAUSE', true],
    ['DESTROY', true],
  ] as const) {
    it(`is refused, to ${action.toLowerCase()} it, when the VM has lived another life since`, async () => {
      const vm = await newVm(runs);
      const { transition, settle } = await planned(vm, action);
      await liveOnce(vm);
      const now = await vmRow(bench.core, vm.id);
      assert.deepEqual(await bench.core.writer.submit(transition), { kind: 'stale' });
      settle?.(false);
      assert.deepEqual(await vmRow(bench.core, vm.id), now, 'nothing was changed: its epoch is of one life alone');
    });
  }

  it('is refused when the VM has another size since, so that what is taken is what is given back', async () => {
    const { core } = bench;
    const vm = await newVm(false);
    const { transition, settle } = await planned(vm, 'START');
    const larger = await insertOffering(core.db, { vcpus: 4, memory_mib: 512 });
    assert.deepEqual(
      (await core.ops.updateVm(ADMIN, { ...idOf(vm), offeringId: encodeId('offering', larger.uid) })).errors,
      [],
    );
    assert.deepEqual(await core.writer.submit(transition), { kind: 'stale' });
    settle?.(false);
    await done(await core.ops.startVm(ADMIN, idOf(vm)));
    await done(await core.ops.stopVm(ADMIN, idOf(vm)));
  });

  it('does not settle a VM that runs again', async () => {
    const { core } = bench;
    const vm = await newVm(true);
    await core.db.updateTable('vm').set({ observed_state: 'CRASHED' }).where('id', '=', vm.id).execute();
    const seen = await vmRow(core, vm.id);
    const { writer } = core;
    const { submit } = writer;
    writer.submit = async (transition) => {
      writer.submit = submit;
      await liveOnce(seen);
      return writer.submit(transition);
    };
    await core.reconciler.settle([vm.id]);
    const row = await vmRow(core, vm.id);
    assert.deepEqual([row.state, row.host_id, row.epoch], ['RUNNING', vm.host_id, vm.epoch + 1]);
  });

  it('creates a failed VM once more only if nobody else has tried', async () => {
    const { core, host } = bench;
    host.script = (command) => (command.__typename === 'StartVmCommand' ? fails('QEMU_FAILED') : 'works');
    const { id, jobId } = accepted(await core.ops.createVm(ADMIN, createInput(bench)));
    await jobEnded(core, jobId);
    const vm = await vmRow(core, id);
    const again = async () =>
      createAgain(core.opsContext, vm, ADMIN, {
        id: jobId,
        actor: 'late',
        reason: null,
        input: (await jobRow(core, jobId)).input,
      });
    const [first, second] = [await again(), await again()];
    assert.ok(first.kind === 'write' && second.kind === 'write');
    assert.deepEqual(await core.writer.submit(first.transition), { kind: 'written' });
    await jobEnded(core, first.jobId!);
    assert.equal((await vmRow(core, id)).state, 'ERROR');
    assert.deepEqual(await core.writer.submit(second.transition), { kind: 'stale' });
    for (const { settle } of [first, second]) settle?.(false);
    host.script = () => 'works';
  });
});
