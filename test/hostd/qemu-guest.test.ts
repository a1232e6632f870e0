import assert from 'node:assert/strict';
import { copyFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import type { VmSpec } from '../../hostd/hypervisor.ts';
import type { QemuHypervisor } from '../../hostd/qemu/hypervisor.ts';
import { connectSocket } from '../../hostd/qemu/qmp.ts';
import { tinyLinux } from '../support/guest.ts';
import { anId, aRun, QemuHost } from './qemu-host.ts';

/** A VM with a tiny Linux of its own, made the way of the product: inspected, prepared, linked. */
async function aLinux(t: TestContext): Promise<{ host: QemuHost; hypervisor: QemuHypervisor; vm: VmSpec }> {
  const host = await QemuHost.make(t);
  const hypervisor = await host.start();
  await copyFile(await tinyLinux(), join(host.imagePath, 'linux.qcow2'));
  const image = { fileName: 'linux.qcow2', format: 'QCOW2' } as const;
  const { sha256 } = await hypervisor.inspectImage({ ...image, maxVirtualBytes: 2 ** 30 }, aRun());
  const templateId = anId('template');
  await hypervisor.prepareTemplate({ ...image, templateId, sha256, storagePath: host.storagePath }, aRun());
  const volume = host.aVolume({ sizeBytes: null });
  await hypervisor.createVolume(volume, templateId, aRun());
  const vm = { vmId: anId('vm'), vcpus: 1, memoryMib: 192, volumes: [volume] };
  await hypervisor.startVm(vm, 1, aRun());
  return { host, hypervisor, vm };
}

/** Resolves when the guest has said that it is ready so many times in its life. */
async function untilReady(hypervisor: QemuHypervisor, vmId: string, times = 1): Promise<void> {
  const enough = new AbortController();
  let text = '';
  const listen = async (_offset: number, bytes: Buffer): Promise<void> => {
    text += bytes;
    if (text.split(/^ready/m).length > times) enough.abort();
  };
  await hypervisor.watchSerial(vmId, 2 ** 20, listen, enough.signal);
}

test('A guest powers off when it is asked to, and its disk was read through its template', {
  timeout: 120_000,
}, async (t) => {
  const { host, hypervisor, vm } = await aLinux(t);
  await untilReady(hypervisor, vm.vmId);
  const { vms } = await hypervisor.usage();
  assert.ok(vms[0]!.diskReadBytes > 1_000_000n, `${vms[0]!.diskReadBytes} bytes read`);
  // Paused it would not hear.
  await hypervisor.controlVm(vm.vmId, 'PAUSE');
  await hypervisor.stopVm(vm.vmId, 'GRACEFUL', 60_000, aRun());
  assert.deepEqual(hypervisor.observe(), [{ vmId: vm.vmId, state: 'STOPPED', epoch: 1, reason: 'guest powered off' }]);
  assert.deepEqual(await host.pids(), []);
});

test('A guest that resets keeps its QEMU; one that powers off by itself is seen stopped', {
  timeout: 120_000,
}, async (t) => {
  const { host, hypervisor, vm } = await aLinux(t);
  await untilReady(hypervisor, vm.vmId);
  const before = await host.pids();
  await hypervisor.controlVm(vm.vmId, 'RESET');
  await untilReady(hypervisor, vm.vmId, 2);
  const serial = await connectSocket(host.runPath(vm.vmId), 'serial');
  t.after(() => serial.destroy());
  serial.write('reboot -f\n');
  await untilReady(hypervisor, vm.vmId, 3);
  assert.deepEqual(await host.pids(), before);
  serial.write('poweroff -f\n');
  assert.equal((await host.until(({ state }) => state === 'STOPPED')).reason, 'guest powered off');
  // The log is kept over the end of QEMU and goes on with the next.
  const { bytes } = await hypervisor.serialLog(vm.vmId, 2 ** 20);
  await hypervisor.startVm(vm, 2, aRun());
  await untilReady(hypervisor, vm.vmId, bytes.toString().split(/^ready/m).length);
});
