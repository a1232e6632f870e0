import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { readdir, readFile, stat, symlink, truncate } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { CommandError } from '../../hostd/hypervisor.ts';
import { Cgroups } from '../../hostd/qemu/cgroup.ts';
import { volumePath } from '../../hostd/storage/paths.ts';
import { anId, aRun, hasCode, QemuHost } from './qemu-host.ts';

const PNG = Buffer.from('\x89PNG\r\n\x1a\n', 'latin1');

test('A VM starts, pauses, resumes, resets, ends by force and is removed, and each change is seen', async (t) => {
  const host = await QemuHost.make(t);
  const hypervisor = await host.start();
  const vm = await host.aVm(hypervisor);
  const { vmId } = vm;
  await hypervisor.startVm(vm, 3, aRun());
  assert.deepEqual(hypervisor.observe(), [{ vmId, state: 'RUNNING', epoch: 3, reason: null }]);
  await hypervisor.controlVm(vmId, 'PAUSE');
  await hypervisor.controlVm(vmId, 'PAUSE');
  await hypervisor.controlVm(vmId, 'RESUME');
  await hypervisor.controlVm(vmId, 'RESUME');
  await hypervisor.controlVm(vmId, 'RESET');
  await hypervisor.stopVm(vmId, 'FORCE', 0, aRun());
  await hypervisor.stopVm(vmId, 'FORCE', 0, aRun());
  await hypervisor.removeVm(vmId);
  await hypervisor.removeVm(vmId);
  assert.deepEqual(
    host.seen.map(({ state, reason }) => [state, reason]),
    [
      ['STARTING', null],
      ['RUNNING', null],
      ['PAUSED', null],
      ['RUNNING', null],
      ['STOPPED', 'ended by force'],
      ['ABSENT', 'removed'],
    ],
  );
  assert.deepEqual(hypervisor.observe(), []);
  assert.deepEqual(await host.pids(), []);
  assert.ok(!existsSync(join(host.dataPath, 'vms', vmId)));
});

test('A VM that runs has a screen, usage, no rights, and limits where the host has them', async (t) => {
  const host = await QemuHost.make(t);
  const hypervisor = await host.start();
  const vm = await host.aVm(hypervisor);
  await hypervisor.startVm(vm, 1, aRun());

  const [one, other] = await Promise.all([hypervisor.screenshot(vm.vmId), hypervisor.screenshot(vm.vmId)]);
  for (const picture of [one, other]) assert.deepEqual(picture!.subarray(0, PNG.length), PNG);
  assert.deepEqual(
    (await readdir(host.runPath(vm.vmId))).filter((name) => name.startsWith('screen')),
    [],
  );

  const usage = await hypervisor.usage();
  assert.equal(usage.vms.length, 1);
  const { cpuNs, memoryBytes, ...rest } = usage.vms[0]!;
  assert.ok(cpuNs > 0n && memoryBytes > 10_000_000n, `${cpuNs} ns, ${memoryBytes} bytes`);
  assert.deepEqual(rest, {
    ...{ vmId: vm.vmId, diskReadBytes: rest.diskReadBytes, diskWriteBytes: 0n },
    ...{ networkReceiveBytes: null, networkTransmitBytes: null },
  });

  const [pid] = await host.pids(vm.vmId);
  const status = await readFile(`/proc/${pid}/status`, 'utf8');
  assert.match(status, /^NoNewPrivs:\t1$/m);
  assert.match(status, /^Seccomp:\t2$/m);
  if (process.getuid!() === 0) {
    assert.match(status, /^Uid:\t64055\t/m);
    assert.match(status, /^CapEff:\t0+$/m);
  }
  assert.equal((await stat(host.runPath(vm.vmId))).mode & 0o777, 0o700);
  if ((await Cgroups.find()).limits) {
    assert.match(await readFile(`/proc/${pid}/cgroup`, 'utf8'), new RegExp(`/virtgraph/${vm.vmId}$`, 'm'));
  }
});

test('A start that is asked for again finds the VM running; another epoch does not start a second', async (t) => {
  const host = await QemuHost.make(t);
  const hypervisor = await host.start();
  const vm = await host.aVm(hypervisor);
  await Promise.all([hypervisor.startVm(vm, 5, aRun()), hypervisor.startVm(vm, 5, aRun())]);
  await assert.rejects(hypervisor.startVm(vm, 4, aRun()), hasCode('STALE_EPOCH', /epoch 4 is over: .* 5/));
  await assert.rejects(hypervisor.startVm(vm, 6, aRun()), hasCode('QEMU_FAILED', /runs already, at epoch 5/));
  assert.equal((await host.pids()).length, 1);
  await assert.rejects(hypervisor.removeVm(vm.vmId), hasCode('QEMU_FAILED', /still runs/));
  await hypervisor.stopVm(vm.vmId, 'FORCE', 0, aRun());
  await assert.rejects(hypervisor.startVm(vm, 4, aRun()), hasCode('STALE_EPOCH'));
  await hypervisor.startVm(vm, 6, aRun());
  assert.equal(hypervisor.observe()[0]?.epoch, 6);
});

test('A QEMU that is killed is seen crashed at once, and the VM starts again', async (t) => {
  const host = await QemuHost.make(t);
  const hypervisor = await host.start();
  const vm = await host.aVm(hypervisor);
  await hypervisor.startVm(vm, 1, aRun());
  process.kill((await host.pids())[0]!, 'SIGKILL');
  assert.equal((await host.until(({ state }) => state === 'CRASHED')).reason, 'QEMU ended by signal 9');
  await assert.rejects(hypervisor.controlVm(vm.vmId, 'PAUSE'), hasCode('NOT_FOUND'));
  await assert.rejects(hypervisor.screenshot(vm.vmId), hasCode('NOT_FOUND'));
  assert.deepEqual((await hypervisor.usage()).vms, []);
  await hypervisor.startVm(vm, 1, aRun());
  process.kill((await host.pids())[0]!, 'SIGTERM');
  await host.until(({ reason }) => reason === 'QEMU was told to end by a signal');
});

test('A QEMU that has frozen is killed when it is ended by force', async (t) => {
  const host = await QemuHost.make(t);
  const hypervisor = await host.start();
  const vm = await host.aVm(hypervisor);
  await hypervisor.startVm(vm, 1, aRun());
  process.kill((await host.pids())[0]!, 'SIGSTOP');
  await hypervisor.stopVm(vm.vmId, 'FORCE', 0, aRun());
  assert.deepEqual(await host.pids(), []);
  assert.equal(hypervisor.observe()[0]?.reason, 'ended by force');
});

test('A guest that ignores its power button fails a graceful stop, and is ended where force may follow', async (t) => {
  const host = await QemuHost.make(t);
  const hypervisor = await host.start();
  const vm = await host.aVm(hypervisor);
  await hypervisor.startVm(vm, 1, aRun());
  const graceful = hypervisor.stopVm(vm.vmId, 'GRACEFUL', 50, aRun());
  await assert.rejects(graceful, hasCode('TIMEOUT', /did not power off in 50 ms/));
  assert.equal(hypervisor.observe()[0]?.state, 'RUNNING');

  const abort = new AbortController();
  const cancelled = hypervisor.stopVm(vm.vmId, 'GRACEFUL_THEN_FORCE', 60_000, aRun({ signal: abort.signal }));
  abort.abort(new CommandError('CANCELLED', 'cancelled'));
  await assert.rejects(cancelled, hasCode('CANCELLED'));
  assert.equal(hypervisor.observe()[0]?.state, 'RUNNING');

  await hypervisor.stopVm(vm.vmId, 'GRACEFUL_THEN_FORCE', 50, aRun());
  assert.equal(hypervisor.observe()[0]?.reason, 'ended by force');
});

test('A VM whose QEMU does not start fails in its words and leaves nothing', async (t) => {
  const host = await QemuHost.make(t);
  const hypervisor = await host.start();
  const vm = await host.aVm(hypervisor);
  await truncate(volumePath(vm.volumes[0]!), 100);
  await assert.rejects(
    hypervisor.startVm(vm, 1, aRun()),
    hasCode('QEMU_FAILED', /^QEMU did not start: .*header too short/s),
  );
  assert.deepEqual(
    host.seen.map(({ state, reason }) => `${state} ${reason}`),
    ['STARTING null', 'ABSENT did not start'],
  );
  assert.deepEqual(await readdir(join(host.dataPath, 'vms')), []);
  const cgroups = await Cgroups.find();
  if (cgroups.limits) assert.ok(!existsSync(`/sys/fs/cgroup/memory/virtgraph/${vm.vmId}`));
});

test('A VM without its volume is not tried; one whose volume became a link neither', async (t) => {
  const host = await QemuHost.make(t);
  const hypervisor = await host.start();
  const vm = await host.aVm(hypervisor);
  await hypervisor.deleteVolume(vm.volumes[0]!, aRun());
  await assert.rejects(hypervisor.startVm(vm, 1, aRun()), hasCode('NOT_FOUND', /vol_/));
  await symlink('/etc/passwd', volumePath(vm.volumes[0]!));
  await assert.rejects(hypervisor.startVm(vm, 1, aRun()), hasCode('INTERNAL', /not a regular file/));
  assert.deepEqual(host.seen, []);
});

test('A start that is cancelled ends its QEMU, and the VM is what it was before', async (t) => {
  const host = await QemuHost.make(t);
  const hypervisor = await host.start();
  const vm = await host.aVm(hypervisor);
  await hypervisor.startVm(vm, 1, aRun());
  await hypervisor.stopVm(vm.vmId, 'FORCE', 0, aRun());
  const abort = new AbortController();
  const starting = hypervisor.startVm(vm, 2, aRun({ signal: abort.signal }));
  const before = host.seen.length;
  await host.until(({ state, epoch }) => state === 'STARTING' && epoch === 2);
  abort.abort(new CommandError('CANCELLED', 'cancelled'));
  await assert.rejects(starting, hasCode('CANCELLED'));
  assert.ok(host.seen.length > before);
  assert.deepEqual(await host.pids(), []);
  const { state, reason, epoch } = hypervisor.observe()[0]!;
  assert.deepEqual([state, reason, epoch], ['STOPPED', 'ended by force', 2]);
  await assert.rejects(hypervisor.startVm(vm, 1, aRun()), hasCode('STALE_EPOCH'));
});

test('VMs that this host does not know are stopped and removed already, and can be nothing else', async (t) => {
  const hypervisor = await (await QemuHost.make(t)).start();
  const vmId = anId('vm');
  await hypervisor.stopVm(vmId, 'FORCE', 0, aRun());
  await hypervisor.removeVm(vmId);
  await assert.rejects(hypervisor.controlVm(vmId, 'RESET'), hasCode('NOT_FOUND'));
  await assert.rejects(hypervisor.screenshot(vmId), hasCode('NOT_FOUND'));
  await assert.rejects(hypervisor.serialLog(vmId, 10), hasCode('NOT_FOUND'));
  await assert.rejects(hypervisor.serialLog('../../etc', 10), hasCode('INTERNAL'));
});

test('The host tells what it is', async (t) => {
  const hypervisor = await (await QemuHost.make(t)).start({ accel: 'tcg' });
  const facts = await hypervisor.facts();
  assert.equal(facts.hypervisor, 'TCG');
  assert.match(facts.version, /^\d+\.\d+/);
  assert.deepEqual(facts.capabilities, facts.capabilities.toSorted());
  assert.ok(facts.vcpusTotal >= 1 && facts.memoryTotalMib > 100);
});

test('A host whose QEMU is missing does not come up', async (t) => {
  const host = await QemuHost.make(t);
  await assert.rejects(host.start({ accel: 'tcg', qemuBinary: 'qemu-of-nowhere' }), { code: 'ENOENT' });
});
