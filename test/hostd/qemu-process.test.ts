import assert from 'node:assert/strict';
import { mkdir } from 'node:fs/promises';
import { createInterface } from 'node:readline';
import { type Duplex, duplexPair } from 'node:stream';
import { test } from 'node:test';
import { Taps } from '../../hostd/network/taps.ts';
import { Cgroups } from '../../hostd/qemu/cgroup.ts';
import { defaultQemuUser } from '../../hostd/qemu/confine.ts';
import type { Exit } from '../../hostd/qemu/launch.ts';
import { Machine } from '../../hostd/qemu/machine.ts';
import { QemuProcess } from '../../hostd/qemu/qemu-process.ts';
import { runFolder } from '../../hostd/qemu/run-folder.ts';
import { anId, aRun, hasCode, QemuHost, silent } from './qemu-host.ts';
import { temporaryFolder } from './temporary-folder.ts';

/** A QEMU whose monitor the test speaks for; commands are all answered with nothing. */
async function aQemu() {
  const [monitor, far] = duplexPair();
  const exit = Promise.withResolvers<Exit>();
  const seen: string[] = [];
  const options = {
    vmId: anId('vm'),
    process: { pid: 0, startTicks: 0, bootId: '' },
    folder: runFolder(await temporaryFolder(), 'vm'),
    log: silent,
    changed: (state: string, reason: string | null) => void seen.push(`${state} ${reason}`),
  };
  send(far, { QMP: {} });
  createInterface({ input: far }).on('line', (line) => send(far, { return: {}, id: JSON.parse(line).id }));
  const launched = { pid: 0, monitor, exited: exit.promise, kill: () => assert.fail('was killed') };
  const qemu = await QemuProcess.launched(launched, options, new AbortController().signal);
  return { qemu, far, exit, seen };
}

function send(socket: Duplex, message: object): void {
  socket.write(`${JSON.stringify(message)}\n`);
}

test('A guest that stops because its storage is full is paused for that reason, until it resumes', async () => {
  const { qemu, far, seen } = await aQemu();
  send(far, { event: 'BLOCK_IO_ERROR', data: { action: 'report', nospace: false } });
  send(far, { event: 'STOP' });
  send(far, { event: 'RESUME' });
  send(far, { event: 'BLOCK_IO_ERROR', data: { action: 'stop', nospace: true } });
  send(far, { event: 'STOP' });
  send(far, { event: 'RESUME' });
  send(far, { event: 'BLOCK_IO_ERROR', data: { action: 'stop', nospace: false } });
  send(far, { event: 'STOP' });
  await qemu.qmp.execute('query-status');
  assert.deepEqual(seen, [
    'PAUSED null',
    'RUNNING null',
    'PAUSED the storage is full',
    'RUNNING null',
    'PAUSED a disk failed',
  ]);
  qemu.release();
});

test('A guest that powers off is not seen paused on its way, and is over when its process is', async () => {
  const { qemu, far, exit, seen } = await aQemu();
  send(far, { event: 'SHUTDOWN', data: { guest: true, reason: 'guest-shutdown' } });
  send(far, { event: 'STOP' });
  far.end();
  exit.resolve({ code: 0, signal: null });
  assert.deepEqual(await qemu.over, { state: 'STOPPED', reason: 'guest powered off' });
  assert.deepEqual(seen, []);
});

test('A monitor that breaks tells nothing of the guest as long as the process lives', async () => {
  const { qemu, far, exit, seen } = await aQemu();
  far.write('no QMP\n');
  await qemu.qmp.closed;
  // The monitor in its folder, which is tried next, is not there either.
  assert.equal(
    await Promise.race([qemu.over, new Promise((resolve) => setTimeout(resolve, 1_500, 'goes on'))]),
    'goes on',
  );
  assert.throws(() => qemu.qmp, hasCode('QEMU_FAILED', /does not answer/));
  exit.resolve({ code: null, signal: 'SIGABRT' });
  assert.deepEqual(await qemu.over, { state: 'CRASHED', reason: 'QEMU ended by signal 6' });
  assert.deepEqual(seen, []);
});

test('A VM that can not be limited as it should be does not start, and its QEMU is ended', async (t) => {
  const host = await QemuHost.make(t);
  const hypervisor = await host.start();
  const vm = await host.aVm(hypervisor);
  const root = await temporaryFolder();
  await mkdir(`${root}/virtgraph/${vm.vmId}/cgroup.procs`, { recursive: true });
  const mount = (name: string): string => `3${name.length} 23 0:26 / ${root} rw - cgroup cgroup rw,${name}\n`;
  const seen: string[] = [];
  const machine = new Machine(vm.vmId, {
    vmsPath: `${host.dataPath}/vms`,
    qemuBinary: 'qemu-system-x86_64',
    user: defaultQemuUser(),
    accelerator: 'tcg',
    cgroups: await Cgroups.find(mount('cpu') + mount('memory')),
    taps: new Taps(null, null),
    log: silent,
    changed: ({ state, reason }) => void seen.push(`${state} ${reason}`),
  });
  await assert.rejects(machine.start(vm, 1, aRun()), { code: 'EISDIR' });
  assert.deepEqual(seen, ['STARTING null', 'ABSENT did not start']);
  assert.deepEqual(await host.pids(), []);
});
