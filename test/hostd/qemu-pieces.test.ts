import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, readFile, rmdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { chooseAccelerator, runProbe } from '../../hostd/qemu/accel.ts';
import { Cgroups } from '../../hostd/qemu/cgroup.ts';
import { confine, defaultQemuUser } from '../../hostd/qemu/confine.ts';
import { CpuLoad, readMemory } from '../../hostd/qemu/host-usage.ts';
import { type EndEvidence, judgeEnd, observeRunState } from '../../hostd/qemu/observed-state.ts';
import { identify, isAlive, kill, untilGone } from '../../hostd/qemu/proc.ts';
import { anId } from './qemu-host.ts';
import { temporaryFolder } from './temporary-folder.ts';

const QEMU = 'qemu-system-x86_64';

test("The probe's guest runs to its end where guests run", async () => {
  assert.equal(await runProbe(QEMU, defaultQemuUser(), ['-accel', 'tcg']), null);
});

test('The probe tells of an accelerator that QEMU refuses, and of one on which the guest does not move', async () => {
  assert.match((await runProbe(QEMU, defaultQemuUser(), ['-accel', 'none-such']))!, /^code 1: .*none-such/);
  assert.equal(await runProbe(QEMU, defaultQemuUser(), ['-accel', 'tcg', '-S']), 'not done in 3000 ms');
});

test('The accelerator is chosen once in a process', async () => {
  const choice = chooseAccelerator(QEMU, defaultQemuUser());
  assert.equal(chooseAccelerator(QEMU, defaultQemuUser()), choice);
  const { accelerator, reason } = await choice;
  assert.match(
    `${accelerator}: ${reason}`,
    /^(kvm: a guest ran|tcg: (a guest did not run on KVM: .+|\/dev\/kvm: ENOENT))/,
  );
});

test('A confined command has its limits and can gain no right', async () => {
  const [program, ...args] = confine(['cat', '/proc/self/status', '/proc/self/limits'], defaultQemuUser(), {
    nofile: 77,
  });
  const child = spawn(program!, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  let text = '';
  child.stdout.setEncoding('utf8').on('data', (piece: string) => {
    text += piece;
  });
  assert.deepEqual(await once(child, 'close'), [0, null]);
  assert.match(text, /^NoNewPrivs:\t1$/m);
  assert.match(text, /^Max open files +77 +77 /m);
  assert.match(text, /^Max core file size +0 +0 /m);
  if (process.getuid!() !== 0) return;
  assert.match(text, /^Uid:\t64055\t64055\t64055\t64055$/m);
  assert.match(text, /^Groups:\t ?$/m);
  for (const set of ['CapInh', 'CapPrm', 'CapEff', 'CapBnd', 'CapAmb'])
    assert.match(text, new RegExp(`^${set}:\t0+$`, 'm'));
});

test('A process is known by its number and its start, and only that one is killed', async () => {
  const child = spawn('sleep', ['60']);
  await once(child, 'spawn');
  const identity = (await identify(child.pid!))!;
  const another = { ...identity, startTicks: identity.startTicks - 1 };
  assert.equal(await isAlive(another), false);
  assert.equal(await isAlive({ ...identity, bootId: 'another boot' }), false);
  await kill(another);
  assert.equal(await isAlive(identity), true);
  assert.equal(await untilGone(identity, 1), false);
  const exited = once(child, 'exit');
  await kill(identity);
  assert.equal(await untilGone(identity, 10_000), true);
  assert.deepEqual(await exited, [null, 'SIGKILL']);
  await kill(identity);
});

const EVIDENCE: EndEvidence = { shutdown: null, killed: false, exit: null, orderly: false, lastWords: '' };
const CLEAN = { code: 0, signal: null };
const TOLD = 'qemu-system-x86_64: terminating on signal 15 from pid 1 (init)';
for (const [what, evidence, end] of [
  ['the guest powered off', { shutdown: 'guest-shutdown', exit: CLEAN }, 'STOPPED guest powered off'],
  ['we told QEMU to quit', { shutdown: 'host-qmp-quit', exit: CLEAN }, 'STOPPED ended by force'],
  ['we killed it', { killed: true, exit: { code: null, signal: 'SIGKILL' as const } }, 'STOPPED ended by force'],
  ['the guest panicked', { shutdown: 'guest-panic', exit: CLEAN }, 'CRASHED guest panicked'],
  ['someone sent SIGTERM', { shutdown: 'host-signal', exit: CLEAN }, 'CRASHED QEMU was told to end by a signal'],
  ['someone killed it', { exit: { code: null, signal: 'SIGKILL' as const } }, 'CRASHED QEMU ended by signal 9'],
  [
    'it crashed on its way down',
    { shutdown: 'guest-shutdown', exit: { code: null, signal: 'SIGSEGV' as const } },
    'CRASHED QEMU ended by signal 11',
  ],
  ['it gave up', { exit: { code: 1, signal: null }, lastWords: 'a\nb\n' }, 'CRASHED QEMU ended with code 1: b'],
  ['it died while nobody looked', { lastWords: 'assertion failed' }, 'CRASHED QEMU died: assertion failed'],
  ['it ended in order while nobody looked', { orderly: true }, 'STOPPED guest powered off'],
  [
    'it was told to end while nobody looked',
    { orderly: true, lastWords: TOLD },
    'CRASHED QEMU was told to end by a signal',
  ],
] as const) {
  test(`The end of QEMU is judged rightly when ${what}`, () => {
    const { state, reason } = judgeEnd({ ...EVIDENCE, ...evidence });
    assert.equal(`${state} ${reason}`, end);
  });
}

test("QEMU's run states are observed as what they are to a user", () => {
  assert.deepEqual(observeRunState('running'), { state: 'RUNNING', reason: null });
  assert.deepEqual(observeRunState('prelaunch'), { state: 'STARTING', reason: null });
  assert.deepEqual(observeRunState('io-error'), { state: 'PAUSED', reason: 'a disk failed or is full' });
  assert.deepEqual(observeRunState('of a later QEMU'), { state: 'PAUSED', reason: null });
});

test('On cgroup v2 a VM gets a group below ours, with its quota and its memory', async () => {
  const root = await temporaryFolder();
  await writeFile(join(root, 'cgroup.controllers'), 'cpuset cpu io memory pids\n');
  const cgroups = await Cgroups.find(`30 23 0:26 / ${root} rw,nosuid shared:4 - cgroup2 cgroup2 rw\n`);
  assert.equal(cgroups.description, 'cgroup v2 (cpu, memory)');
  const vmId = anId('vm');
  const joinGroup = await cgroups.create({ vmId, vcpus: 3, memoryMib: 1024, volumes: [] }, 'kvm');
  await joinGroup(4711);
  const read = (name: string): Promise<string> => readFile(join(root, 'virtgraph', vmId, name), 'utf8');
  assert.equal(await read('cpu.max'), '300000 100000');
  assert.equal(await read('memory.max'), String((1024 + 384) * 1024 * 1024));
  assert.equal(await read('cgroup.procs'), '4711');
  assert.equal(await readFile(join(root, 'virtgraph/cgroup.subtree_control'), 'utf8'), '+cpu +memory');
});

test('On cgroup v1 each controller has its own group; one controller alone limits nothing', async () => {
  const root = await temporaryFolder();
  for (const name of ['cpu', 'memory']) await mkdir(join(root, name));
  const mount = (name: string): string => `3${name.length} 23 0:26 / ${root}/${name} rw - cgroup cgroup rw,${name}\n`;
  const cgroups = await Cgroups.find(mount('cpu') + mount('memory'));
  assert.equal(cgroups.description, 'cgroup v1 (cpu, memory)');
  const vmId = anId('vm');
  await cgroups.create({ vmId, vcpus: 2, memoryMib: 512, volumes: [] }, 'tcg');
  assert.equal(await readFile(join(root, 'cpu/virtgraph', vmId, 'cpu.cfs_quota_us'), 'utf8'), '200000');
  assert.equal(
    await readFile(join(root, 'memory/virtgraph', vmId, 'memory.limit_in_bytes'), 'utf8'),
    String((512 + 768) * 1024 * 1024),
  );
  const half = await Cgroups.find(mount('cpu'));
  assert.equal(half.limits, false);
});

test('Without a cgroup that can be written to VMs run without limits, and the operator learns why', async () => {
  const cgroups = await Cgroups.find('30 23 0:26 / /proc/none-such rw - cgroup2 cgroup2 rw\n');
  assert.equal(cgroups.limits, false);
  assert.match(cgroups.description, /^no cgroup that can be written to: ENOENT/);
  const joinGroup = await cgroups.create({ vmId: anId('vm'), vcpus: 1, memoryMib: 1, volumes: [] }, 'tcg');
  await joinGroup(process.pid);
  await cgroups.remove(anId('vm'));
});

test('Cgroups whose mount another one hides limit nothing, and nobody waits for them', async () => {
  const mount = (name: string): string =>
    `3${name.length} 23 0:26 / /proc/none/${name} rw - cgroup cgroup rw,${name}\n`;
  const cgroups = await Cgroups.find(mount('cpu') + mount('memory'));
  assert.match(cgroups.description, /^no cgroup that can be written to: ENOENT/);
});

test("The kernel's own cgroups take a process and are gone with it, where they can be written to", async (t) => {
  const cgroups = await Cgroups.find();
  if (!cgroups.limits) return t.skip(cgroups.description);
  const vmId = anId('vm');
  const joinGroup = await cgroups.create({ vmId, vcpus: 1, memoryMib: 64, volumes: [] }, 'tcg');
  const child = spawn('sleep', ['60']);
  await once(child, 'spawn');
  await joinGroup(child.pid!);
  assert.match(await readFile(`/proc/${child.pid}/cgroup`, 'utf8'), new RegExp(`/virtgraph/${vmId}$`, 'm'));
  const exited = once(child, 'exit');
  child.kill('SIGKILL');
  await exited;
  await cgroups.remove(vmId);
  await assert.rejects(rmdir(`/sys/fs/cgroup/memory/virtgraph/${vmId}`), { code: 'ENOENT' });
  // One that has ended meanwhile is no error: whoever waits for it sees why.
  const late = await cgroups.create({ vmId, vcpus: 1, memoryMib: 64, volumes: [] }, 'tcg');
  await late(child.pid!);
  await cgroups.remove(vmId);
});

test('The load of the host is a share, its memory a part of what it has', async () => {
  const load = new CpuLoad();
  for (const share of [await load.read(), await load.read()]) assert.ok(share >= 0 && share <= 1, String(share));
  const { totalMib, usedMib } = await readMemory();
  assert.ok(usedMib > 0 && usedMib < totalMib, `${usedMib} of ${totalMib}`);
});
