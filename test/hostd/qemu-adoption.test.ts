import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { randomInt } from 'node:crypto';
import { once } from 'node:events';
import { readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { type TestContext, test } from 'node:test';
import { setTimeout as wait } from 'node:timers/promises';
import type { VmSpec } from '../../hostd/hypervisor.ts';
import { identify, untilGone } from '../../hostd/qemu/proc.ts';
import { connectSocket, QmpClient } from '../../hostd/qemu/qmp.ts';
import { aRun, hasCode, QemuHost } from './qemu-host.ts';

/** Starts VMs by a daemon of its own process and resolves when it says `line`. */
async function startDaemon(t: TestContext, host: QemuHost, vms: VmSpec[], line: string): Promise<ChildProcess> {
  const program = join(import.meta.dirname, 'qemu-daemon.ts');
  const daemon = spawn(process.execPath, [program, host.dataPath, host.imagePath, JSON.stringify(vms)], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  t.after(() => daemon.kill('SIGKILL'));
  for await (const said of createInterface({ input: daemon.stdout })) if (said === line) return daemon;
  throw new Error(`the daemon ended before it said ${line}`);
}

async function killDaemon(daemon: ChildProcess): Promise<void> {
  const exited = once(daemon, 'exit');
  daemon.kill('SIGKILL');
  await exited;
}

async function someVms(t: TestContext, count: number): Promise<{ host: QemuHost; vms: VmSpec[] }> {
  const host = await QemuHost.make(t);
  const maker = await host.start();
  const vms = await Promise.all(Array.from({ length: count }, () => host.aVm(maker)));
  await maker.close();
  return { host, vms };
}

/** VMs that run while no daemon does. */
async function leftVms(t: TestContext, count = 1): Promise<{ host: QemuHost; vms: VmSpec[] }> {
  const { host, vms } = await someVms(t, count);
  await killDaemon(await startDaemon(t, host, vms, 'all run'));
  return { host, vms };
}

function recordPath(host: QemuHost, vmId: string): string {
  return join(host.dataPath, 'vms', vmId, 'vm.json');
}

async function editRecord(host: QemuHost, vmId: string, change: object): Promise<void> {
  const record = JSON.parse(await readFile(recordPath(host, vmId), 'utf8'));
  await writeFile(recordPath(host, vmId), JSON.stringify({ ...record, ...change }));
}

test('VMs outlive a daemon that is killed, and the next one adopts them as they run', async (t) => {
  const { host, vms } = await leftVms(t, 2);
  const pids = await host.pids();
  assert.equal(pids.length, 2);
  const hypervisor = await host.start();
  assert.deepEqual(host.seen, []);
  assert.deepEqual(
    hypervisor.observe().map(({ state, epoch, reason }) => [state, epoch, reason]),
    [
      ['RUNNING', 7, null],
      ['RUNNING', 7, null],
    ],
  );
  const vm = vms[0]!;
  await hypervisor.startVm(vm, 7, aRun());
  await assert.rejects(hypervisor.startVm(vm, 6, aRun()), hasCode('STALE_EPOCH'));
  assert.deepEqual((await host.pids()).sort(), pids.sort());

  await hypervisor.controlVm(vm.vmId, 'PAUSE');
  assert.ok((await hypervisor.screenshot(vm.vmId)).length > 100);
  await hypervisor.stopVm(vm.vmId, 'FORCE', 0, aRun());
  const [other] = await host.pids();
  process.kill(other!, 'SIGKILL');
  assert.match((await host.until(({ state }) => state === 'CRASHED')).reason!, /^QEMU died/);
});

test('Twenty VMs are adopted in less than ten seconds', { timeout: 120_000 }, async (t) => {
  const { host } = await leftVms(t, 20);
  const began = performance.now();
  const hypervisor = await host.start();
  const took = performance.now() - began;
  t.diagnostic(`${took.toFixed(0)} ms`);
  assert.equal(hypervisor.observe().filter(({ state }) => state === 'RUNNING').length, 20);
  assert.ok(took < 10_000, `${took} ms`);
});

test('A QEMU that was started but not written down is found by its folder', async (t) => {
  const { host, vms } = await leftVms(t);
  await editRecord(host, vms[0]!.vmId, { process: null });
  const hypervisor = await host.start();
  assert.deepEqual(hypervisor.observe(), [{ vmId: vms[0]!.vmId, state: 'RUNNING', epoch: 7, reason: null }]);
});

test('A QEMU whose record is damaged is adopted and can be stopped', async (t) => {
  const { host, vms } = await leftVms(t);
  const { vmId } = vms[0]!;
  await writeFile(recordPath(host, vmId), '{"epoch":');
  const hypervisor = await host.start();
  assert.deepEqual(hypervisor.observe(), [{ vmId, state: 'RUNNING', epoch: 0, reason: null }]);
  await hypervisor.stopVm(vmId, 'FORCE', 0, aRun());
  assert.deepEqual(await host.pids(), []);
});

test('A process that got the number of a QEMU that has ended is not taken for it', async (t) => {
  const { host, vms } = await leftVms(t);
  await host.killAll();
  await editRecord(host, vms[0]!.vmId, { process: await identify(process.pid) });
  const hypervisor = await host.start();
  assert.equal(hypervisor.observe()[0]?.state, 'CRASHED');
});

test('A QEMU that died while no daemon looked has crashed; one that ended in order has not', async (t) => {
  const { host, vms } = await leftVms(t, 2);
  const [killed, powered] = [vms[0]!.vmId, vms[1]!.vmId];
  for (const [vmId, end] of [
    [killed, (pid: number) => process.kill(pid, 'SIGKILL')],
    [powered, () => quitByOperator(host.runPath(powered))],
  ] as const) {
    const [pid] = await host.pids(vmId);
    const identity = (await identify(pid!))!;
    await end(pid!);
    assert.ok(await untilGone(identity, 10_000));
  }
  const ends = (await host.start()).observe().toSorted((a, b) => (a.vmId === killed ? -1 : b.vmId === killed ? 1 : 0));
  assert.deepEqual(
    ends.map(({ state, reason }) => `${state} ${reason}`),
    ['CRASHED QEMU died', 'STOPPED guest powered off'],
  );
  // What was judged once stays so, for every daemon to come.
  assert.deepEqual(
    (await host.start())
      .observe()
      .map(({ state }) => state)
      .sort(),
    ['CRASHED', 'STOPPED'],
  );
});

test('A VM whose start was cut off before there was a QEMU is stopped, and can start', async (t) => {
  const { host, vms } = await leftVms(t);
  await host.killAll();
  await editRecord(host, vms[0]!.vmId, { process: null });
  const hypervisor = await host.start();
  const { state, reason, epoch } = hypervisor.observe()[0]!;
  assert.deepEqual([state, reason, epoch], ['STOPPED', 'its start was cut off', 7]);
  await hypervisor.startVm(vms[0]!, 7, aRun());
});

test('A QEMU that does not answer is adopted all the same, and seen as it is once it answers', async (t) => {
  const { host, vms } = await leftVms(t);
  const [pid] = await host.pids();
  process.kill(pid!, 'SIGSTOP');
  const hypervisor = await host.start();
  assert.equal(hypervisor.observe()[0]?.reason, 'its monitor does not answer');
  await assert.rejects(hypervisor.controlVm(vms[0]!.vmId, 'PAUSE'), hasCode('QEMU_FAILED', /does not answer/));
  assert.deepEqual((await hypervisor.usage()).vms, []);
  process.kill(pid!, 'SIGCONT');
  await hypervisor.startVm(vms[0]!, 7, aRun());
  assert.equal(hypervisor.observe()[0]?.reason, null);
  assert.deepEqual(await host.pids(), [pid]);
});

test('A folder without a record or a QEMU is no VM', async (t) => {
  const { host, vms } = await leftVms(t);
  await host.killAll();
  await rm(recordPath(host, vms[0]!.vmId));
  assert.deepEqual((await host.start()).observe(), []);
});

test('Wherever in a start a daemon is killed, there is one QEMU in the end and never two', {
  timeout: 120_000,
}, async (t) => {
  const rounds = 10;
  const { host, vms } = await someVms(t, rounds);
  for (const vm of vms) {
    const daemon = await startDaemon(t, host, [vm], 'STARTING');
    const afterMs = randomInt(80);
    await wait(afterMs);
    await killDaemon(daemon);
    const hypervisor = await host.start();
    await hypervisor.startVm(vm, 7, aRun());
    const { state } = hypervisor.observe().find(({ vmId }) => vmId === vm.vmId)!;
    assert.equal(state, 'RUNNING', `killed after ${afterMs} ms`);
    assert.equal((await host.pids(vm.vmId)).length, 1, `killed after ${afterMs} ms`);
    await hypervisor.stopVm(vm.vmId, 'FORCE', 0, aRun());
    await hypervisor.close();
  }
});

/** By the second monitor, as an operator would. */
async function quitByOperator(runPath: string): Promise<void> {
  const socket = await connectSocket(runPath, 'qmp-operator');
  const qmp = await QmpClient.open(socket, { greetingTimeoutMs: 10_000 });
  await qmp.execute('quit');
}
