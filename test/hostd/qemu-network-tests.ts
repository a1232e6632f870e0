import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync } from 'node:fs';
import { copyFile, readdir, truncate } from 'node:fs/promises';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { type TestContext, test } from 'node:test';
import type { VmSpec } from '../../hostd/hypervisor.ts';
import { BridgeError, Taps } from '../../hostd/network/taps.ts';
import { defaultQemuUser } from '../../hostd/qemu/confine.ts';
import { identify, untilGone } from '../../hostd/qemu/proc.ts';
import { volumePath } from '../../hostd/storage/paths.ts';
import { tinyLinux } from '../support/guest.ts';
import { aBridge, sendToAll, serveAddresses, tapOf } from './bridge.ts';
import { aCommand } from './commands.ts';
import { openOwnNetwork, run } from './own-network.ts';
import { anId, aRun, hasCode, QemuHost } from './qemu-host.ts';
import { JOIN_SECRET, TestControlPlane } from './test-control-plane.ts';

const MAIN = new URL('../../hostd/main.ts', import.meta.url).pathname;
const QEMU_UID = String(defaultQemuUser()!.uid);

openOwnNetwork();

type Where = Pick<TestControlPlane, 'url' | 'joinToken'>;
/** Where nobody answers. */
const NOWHERE: Where = { url: 'https://127.0.0.1:1', joinToken: `${JOIN_SECRET}.${'A'.repeat(43)}` };

/** The daemon itself, in a process of its own. */
function aDaemon(t: TestContext, host: QemuHost, plane: Where, ...args: string[]): ChildProcess {
  const folders = ['--data', host.dataPath, '--images', host.imagePath];
  const common = ['--url', plane.url, '--token', plane.joinToken, '--name', 'alpha', '--hypervisor', 'tcg', ...folders];
  const daemon = spawn(process.execPath, [MAIN, ...common, ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
  t.after(() => killed(daemon));
  return daemon;
}

async function killed(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  child.kill('SIGKILL');
  await once(child, 'exit');
}

/** A VM with a tiny Linux, which isn't started. */
async function aLinux(host: QemuHost): Promise<VmSpec> {
  const maker = await host.start();
  await copyFile(await tinyLinux(), join(host.imagePath, 'linux.qcow2'));
  const image = { fileName: 'linux.qcow2', format: 'QCOW2' } as const;
  const { sha256 } = await maker.inspectImage({ ...image, maxVirtualBytes: 2 ** 30 }, aRun());
  const templateId = anId('template');
  await maker.prepareTemplate({ ...image, templateId, sha256, storagePath: host.storagePath }, aRun());
  const volume = host.aVolume({ sizeBytes: null });
  await maker.createVolume(volume, templateId, aRun());
  await maker.close();
  return { vmId: anId('vm'), vcpus: 1, memoryMib: 192, volumes: [volume] };
}

test('A guest has an address from its bridge, and its bytes are told, by whichever daemon watches', {
  timeout: 120_000,
}, async (t) => {
  const bridge = aBridge(t, 'vgt0');
  await serveAddresses(t, bridge);
  const host = await QemuHost.make(t);
  const vm = await aLinux(host);
  const { vmId } = vm;
  const plane = await TestControlPlane.start();
  t.after(() => plane.stop());
  plane.heartbeatMs = 100;
  const told = (session: string) => {
    const beat = plane.all('heartbeat').findLast(({ input }) => input.sessionId === session && input.vms.length > 0);
    const { networkReceiveBytes, networkTransmitBytes } = beat?.input.vms[0] ?? {};
    return { received: Number(networkReceiveBytes ?? 0), sent: Number(networkTransmitBytes ?? 0) };
  };

  const first = aDaemon(t, host, plane, '--bridge', bridge);
  const { input } = await plane.hears('openSession');
  assert.ok(input.capabilities.includes('vm.network'), input.capabilities.join(' '));
  const volumes = vm.volumes.map((volume) => ({ ...volume, sizeBytes: null }));
  plane.command(aCommand('StartVmCommand', 'start', { vm: { ...vm, volumes } }));
  assert.equal((await plane.answer('start')).error, undefined);
  const tap = tapOf(vmId);
  assert.deepEqual(tap, { index: tap?.index, owner: QEMU_UID, alias: `virtgraph:${vmId}`, mtu: '1450', bridge });

  plane.command(aCommand('WatchSerialRequest', 'watch', { vmId }));
  const said = () => plane.all('sendSerial').reduce((all, piece) => all + piece.text, '');
  await plane.until(() => said().includes('network eth0, 192.0.2.10/24'));
  await plane.until(() => told('session-1').received > 0 && told('session-1').sent > 0);
  const before = told('session-1');
  await sendToAll(100);
  await plane.until(() => told('session-1').received > before.received + 100_000);
  assert.ok(told('session-1').sent < before.sent + 50_000, `${told('session-1').sent} bytes are said to be sent`);

  const last = told('session-1');
  await killed(first);
  // It isn't told of the bridge any more, which is for VMs that start.
  aDaemon(t, host, plane);
  const { input: next } = await plane.hears('openSession', 2);
  assert.ok(!next.capabilities.includes('vm.network'), next.capabilities.join(' '));
  await plane.until(() => told('session-2').received >= last.received && told('session-2').sent >= last.sent);
  await sendToAll(100);
  await plane.until(() => told('session-2').received > last.received + 100_000);
  assert.deepEqual(tapOf(vmId), tap);

  plane.command(aCommand('StopVmCommand', 'stop', { vmId, mode: 'FORCE' }));
  assert.equal((await plane.answer('stop')).error, undefined);
  assert.equal(tapOf(vmId), null);
});

test('A tap goes with its QEMU, whether that is stopped or killed, and comes with the next', async (t) => {
  const bridge = aBridge(t, 'vgt1');
  const host = await QemuHost.make(t);
  const hypervisor = await host.start({ bridge });
  const vm = await host.aVm(hypervisor);
  await hypervisor.startVm(vm, 1, aRun());
  assert.equal(tapOf(vm.vmId)?.bridge, bridge);
  const { vms } = await hypervisor.usage();
  assert.deepEqual([typeof vms[0]?.networkReceiveBytes, vms[0]?.networkTransmitBytes], ['bigint', 0n]);
  await hypervisor.stopVm(vm.vmId, 'FORCE', 0, aRun());
  assert.equal(tapOf(vm.vmId), null);

  await hypervisor.startVm(vm, 2, aRun());
  assert.equal(tapOf(vm.vmId)?.bridge, bridge);
  process.kill((await host.pids())[0]!, 'SIGKILL');
  await host.until(({ state }) => state === 'CRASHED');
  // Waits until what QEMU left is seen to.
  await hypervisor.removeVm(vm.vmId);
  assert.equal(tapOf(vm.vmId), null);
});

test('A start that fails leaves no tap', async (t) => {
  const bridge = aBridge(t, 'vgt2');
  const host = await QemuHost.make(t);
  const hypervisor = await host.start({ bridge });
  const broken = await host.aVm(hypervisor);
  await truncate(volumePath(broken.volumes[0]!), 100);
  await assert.rejects(hypervisor.startVm(broken, 1, aRun()), hasCode('QEMU_FAILED', /header too short/));
  assert.equal(tapOf(broken.vmId), null);

  const vm = await host.aVm(hypervisor);
  run('ip', 'link', 'delete', bridge);
  const gone = /network interface could not be made: the bridge vgt2 is gone/;
  await assert.rejects(hypervisor.startVm(vm, 1, aRun()), hasCode('QEMU_FAILED', gone));
  // A name that no bridge has any more, but something else.
  run('ip', 'link', 'add', bridge, 'type', 'veth', 'peer', 'name', 'vgt2peer');
  await assert.rejects(hypervisor.startVm(vm, 1, aRun()), hasCode('QEMU_FAILED', /could not be made: \S+/));
  assert.equal(tapOf(vm.vmId), null);
  assert.deepEqual(await readdir(join(host.dataPath, 'vms')), []);
});

test('A tap whose QEMU ended while no daemon looked is gone once one does, and those of VMs that run are not', async (t) => {
  const bridge = aBridge(t, 'vgt3');
  const host = await QemuHost.make(t);
  const before = await host.start({ bridge });
  const [dead, living] = [await host.aVm(before), await host.aVm(before)];
  for (const vm of [dead, living]) await before.startVm(vm, 1, aRun());
  await before.close();
  const [pid] = await host.pids(dead.vmId);
  const identity = (await identify(pid!))!;
  process.kill(pid!, 'SIGKILL');
  assert.ok(await untilGone(identity, 10_000));
  const tap = tapOf(living.vmId);
  assert.ok(tapOf(dead.vmId) && tap);

  const hypervisor = await host.start({ bridge });
  assert.equal(tapOf(dead.vmId), null);
  assert.deepEqual(tapOf(living.vmId), tap);
  await hypervisor.stopVm(living.vmId, 'FORCE', 0, aRun());
  assert.equal(tapOf(living.vmId), null);
});

test('A tap that is left in the way of a start is made anew', async (t) => {
  const bridge = aBridge(t, 'vgt4');
  const taps = new Taps(bridge, null);
  const vmId = anId('vm');
  await taps.attach(vmId);
  const left = tapOf(vmId)?.index;
  const nic = await taps.attach(vmId);
  assert.equal(nic?.mtuBytes, 1_450);
  assert.notEqual(tapOf(vmId)?.index, left);
  assert.deepEqual(await taps.traffic(vmId), { receiveBytes: 0n, transmitBytes: 0n });
  await taps.remove(vmId);
  await taps.remove(vmId);
  assert.equal(await taps.traffic(vmId), null);
});

test('A tap that can not be removed is an error to whoever wants it gone, or another in its place', async (t) => {
  const taps = new Taps(aBridge(t, 'vgt5'), null);
  const vmId = anId('vm');
  await taps.attach(vmId);
  const withoutIp = new Taps('vgt5', null, 'ip-of-nowhere');
  await assert.rejects(withoutIp.remove(vmId), /program ip is missing/);
  await assert.rejects(withoutIp.attach(vmId), hasCode('QEMU_FAILED', /program ip is missing/));
  await taps.remove(vmId);
});

test('A VM whose tap can not be removed is seen ended all the same, and starts once it can', async (t) => {
  const bridge = aBridge(t, 'vgt6');
  const host = await QemuHost.make(t);
  const hypervisor = await host.start({ bridge });
  const vm = await host.aVm(hypervisor);
  await hypervisor.startVm(vm, 1, aRun());
  const remove = t.mock.method(Taps.prototype, 'remove', () => Promise.reject(new Error('stuck')));
  await hypervisor.stopVm(vm.vmId, 'FORCE', 0, aRun());
  assert.equal(hypervisor.observe()[0]?.state, 'STOPPED');
  const left = tapOf(vm.vmId);
  assert.ok(left);
  remove.mock.restore();
  await hypervisor.startVm(vm, 2, aRun());
  assert.notEqual(tapOf(vm.vmId)?.index, left.index);
});

test('A daemon that can not attach VMs to its bridge says why and does not come up', async (t) => {
  const bridge = aBridge(t, 'vgt7');
  const host = await QemuHost.make(t);
  const refusal = async (daemon: ChildProcess): Promise<string> => {
    const [said, [code]] = await Promise.all([text(daemon.stderr!), once(daemon, 'exit')]);
    assert.equal(code, 2, said);
    return said;
  };
  const daemon = (...args: string[]) => aDaemon(t, host, NOWHERE, ...args);
  assert.match(
    await refusal(daemon('--bridge', 'vgt-none')),
    /^hostd: --bridge: this machine has no bridge vgt-none$/m,
  );
  assert.match(await refusal(daemon('--bridge', 'lo')), /^hostd: --bridge: this machine has no bridge lo$/m);

  chmodSync('/dev/net/tun', 0o600);
  t.after(() => chmodSync('/dev/net/tun', 0o666));
  const closed = new RegExp(`^hostd: --bridge: user ${QEMU_UID}, .* can't read and write /dev/net/tun`, 'm');
  assert.match(await refusal(daemon('--bridge', bridge)), closed);
  chmodSync('/dev/net/tun', 0o666);

  const rightless = ['--bounding-set=-net_admin', '--inh-caps=-all', process.execPath, MAIN, '--url', NOWHERE.url];
  const options = ['--token', NOWHERE.joinToken, '--hypervisor', 'tcg', '--bridge', bridge, '--data', host.dataPath];
  const child = spawn('setpriv', [...rightless, ...options], { stdio: ['ignore', 'ignore', 'pipe'] });
  const denied = /^hostd: --bridge: no VM can be attached to vgt7: .*not permitted$/m;
  assert.match(await refusal(child), denied);
  assert.deepEqual(
    (await readdir('/sys/class/net')).filter((name) => name.startsWith('vgprobe')),
    [],
  );
  await assert.rejects(new Taps(bridge, null, 'ip-of-nowhere').check(), BridgeError);
});
