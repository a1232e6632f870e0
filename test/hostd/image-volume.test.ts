import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { appendFileSync, readdirSync } from 'node:fs';
import { mkdir, readdir, readFile, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { promisify } from 'node:util';
import { CommandError, type Run } from '../../hostd/hypervisor.ts';
import { defaultQemuUser } from '../../hostd/qemu/confine.ts';
import type { QemuHypervisor } from '../../hostd/qemu/hypervisor.ts';
import { templateFileName, templatesFolder, volumePath, volumesFolder } from '../../hostd/storage/paths.ts';
import type { TemplateOrder } from '../../hostd/storage/template.ts';
import { anId, aRun, hasCode, QemuHost } from './qemu-host.ts';

const run = promisify(execFile);
const MIB = 2 ** 20;

async function aHost(t: TestContext): Promise<{ host: QemuHost; hypervisor: QemuHypervisor }> {
  const host = await QemuHost.make(t);
  return { host, hypervisor: await host.start({ accel: 'tcg' }) };
}

/** A raw image with something in it, in the image folder, and the order to prepare it. */
async function anOrder(host: QemuHost, hypervisor: QemuHypervisor): Promise<TemplateOrder> {
  const image = { fileName: 'disk.raw', format: 'RAW' } as const;
  await writeFile(join(host.imagePath, image.fileName), Buffer.alloc(8 * MIB, 'virtgraph'));
  const { sha256 } = await hypervisor.inspectImage({ ...image, maxVirtualBytes: 2 ** 30 }, aRun());
  return { ...image, templateId: anId('template'), sha256, storagePath: host.storagePath };
}

async function info(path: string): Promise<Record<string, unknown>> {
  return JSON.parse((await run('qemu-img', ['info', '-f', 'qcow2', '--output=json', path])).stdout);
}

function templatePath(order: TemplateOrder): string {
  return join(templatesFolder(order.storagePath), templateFileName(order.templateId));
}

test('A template is a fresh qcow2 with the bytes of its image, which nobody may write to', async (t) => {
  const { host, hypervisor } = await aHost(t);
  const order = await anOrder(host, hypervisor);
  const counted: number[] = [];
  const progress: Run['progress'] = (done, total, unit) => {
    assert.deepEqual([total, unit], [16 * MIB, 'bytes']);
    counted.push(done);
  };
  assert.deepEqual(await hypervisor.prepareTemplate(order, aRun({ progress })), { virtualBytes: 8 * MIB });
  assert.deepEqual(
    counted,
    counted.toSorted((a, b) => a - b),
  );
  assert.equal(counted.at(-1), 16 * MIB);
  const path = templatePath(order);
  const { mode, uid } = await stat(path);
  assert.deepEqual([mode & 0o777, uid], [0o444, process.getuid!()]);
  await run('qemu-img', ['compare', '-f', 'raw', '-F', 'qcow2', join(host.imagePath, 'disk.raw'), path]);
  assert.deepEqual(await readdir(templatesFolder(host.storagePath)), [templateFileName(order.templateId)]);
});

test('A template that is there is the result, even when its image is gone', async (t) => {
  const { host, hypervisor } = await aHost(t);
  const order = await anOrder(host, hypervisor);
  await hypervisor.prepareTemplate(order, aRun());
  const { ino } = await stat(templatePath(order));
  await rm(join(host.imagePath, order.fileName));
  assert.deepEqual(await hypervisor.prepareTemplate(order, aRun()), { virtualBytes: 8 * MIB });
  assert.equal((await stat(templatePath(order))).ino, ino);
});

test('Many who ask for one template at once share the work, and who gives up does not end it for the others', async (t) => {
  const { host, hypervisor } = await aHost(t);
  const order = await anOrder(host, hypervisor);
  const abort = new AbortController();
  const heard = [0, 0];
  const impatient = hypervisor.prepareTemplate(
    order,
    aRun({ signal: abort.signal, progress: () => abort.abort(new CommandError('CANCELLED', 'cancelled')) }),
  );
  const patient = [0, 1].map((i) => hypervisor.prepareTemplate(order, aRun({ progress: () => void heard[i]!++ })));
  await assert.rejects(impatient, hasCode('CANCELLED'));
  await Promise.all(patient);
  assert.ok(heard[0]! > 8 && heard[0] === heard[1], String(heard));
});

test('A template that all gave up on leaves nothing, and can be asked for again', async (t) => {
  const { host, hypervisor } = await aHost(t);
  const order = await anOrder(host, hypervisor);
  const abort = new AbortController();
  // Between the check of the image and its conversion, which may be over at its first word.
  const progress: Run['progress'] = (done) => {
    if (done >= 8 * MIB) abort.abort(new CommandError('CANCELLED', 'cancelled'));
  };
  await assert.rejects(
    hypervisor.prepareTemplate(order, aRun({ signal: abort.signal, progress })),
    hasCode('CANCELLED'),
  );
  assert.deepEqual(await readdir(templatesFolder(host.storagePath)), []);
  await hypervisor.prepareTemplate(order, aRun());
});

test('An image that changed since it was registered, or that changes meanwhile, makes no template', async (t) => {
  const { host, hypervisor } = await aHost(t);
  const order = await anOrder(host, hypervisor);
  const other = { ...order, sha256: order.sha256.replace(/./, (digit) => (digit === '0' ? '1' : '0')) };
  await assert.rejects(hypervisor.prepareTemplate(other, aRun()), hasCode('IMAGE_REFUSED', /since it was registered/));
  const progress: Run['progress'] = (done) => {
    if (done === 8 * MIB) appendFileSync(join(host.imagePath, order.fileName), 'x');
  };
  await assert.rejects(
    hypervisor.prepareTemplate(order, aRun({ progress })),
    hasCode('IMAGE_REFUSED', /changed while/),
  );
  assert.deepEqual(await readdir(templatesFolder(host.storagePath)), []);
});

test('What a daemon that was killed left half done is removed by the next, and what is of another host stays', async (t) => {
  const { host, hypervisor } = await aHost(t);
  const order = await anOrder(host, hypervisor);
  const folder = templatesFolder(host.storagePath);
  let draft = '';
  const progress: Run['progress'] = () => {
    draft ||= readdirSync(folder).find((name) => name.startsWith('.')) ?? '';
  };
  await hypervisor.prepareTemplate(order, aRun({ progress }));
  assert.match(draft, /^\.[0-9a-f]{12}\.tpl_/);
  const another = draft.replace(/^\.[0-9a-f]{12}/, '.000000000000');
  for (const name of [draft, another]) await writeFile(join(folder, name), 'half');
  const next = await host.start({ accel: 'tcg' });
  await next.prepareTemplate({ ...order, templateId: anId('template') }, aRun());
  const names = await readdir(folder);
  assert.ok(!names.includes(draft) && names.includes(another), String(names));
});

test('A storage that is full fails the preparation as that and keeps no part of it', async (t) => {
  const { host, hypervisor } = await aHost(t);
  if (process.getuid!() !== 0) return t.skip('needs root, for a small file system');
  await run('mount', ['-t', 'tmpfs', '-o', 'size=4m', 'tmpfs', host.storagePath]);
  t.after(() => run('umount', [host.storagePath]));
  const order = await anOrder(host, hypervisor);
  await assert.rejects(hypervisor.prepareTemplate(order, aRun()), hasCode('DISK_FULL'));
  assert.deepEqual(await readdir(templatesFolder(host.storagePath)), []);
});

test('A storage that is not there is not made', async (t) => {
  const { host, hypervisor } = await aHost(t);
  const order = { ...(await anOrder(host, hypervisor)), storagePath: join(host.path, 'not-mounted') };
  await assert.rejects(hypervisor.prepareTemplate(order, aRun()), hasCode('NOT_FOUND', /no storage at/));
  await assert.rejects(
    hypervisor.createVolume(host.aVolume({ storagePath: order.storagePath }), null, aRun()),
    hasCode('NOT_FOUND'),
  );
  await hypervisor.deleteVolume(host.aVolume({ storagePath: order.storagePath }), aRun());
  for (const storagePath of ['relative', '/a\0b']) {
    await assert.rejects(hypervisor.createVolume(host.aVolume({ storagePath }), null, aRun()), hasCode('INTERNAL'));
  }
});

test('A volume on a template is linked to it by a relative path and belongs to the user that QEMU runs as', async (t) => {
  const { host, hypervisor } = await aHost(t);
  const order = await anOrder(host, hypervisor);
  await hypervisor.prepareTemplate(order, aRun());
  const volume = host.aVolume({ sizeBytes: null });
  await hypervisor.createVolume(volume, order.templateId, aRun());
  const path = volumePath(volume);
  const facts = await info(path);
  assert.equal(facts['virtual-size'], 8 * MIB);
  assert.equal(facts['backing-filename'], `../templates/${order.templateId}.qcow2`);
  assert.equal(facts['backing-filename-format'], 'qcow2');
  const { mode, uid } = await stat(path);
  assert.deepEqual([mode & 0o777, uid], [0o600, defaultQemuUser()?.uid ?? process.getuid!()]);

  const larger = host.aVolume({ sizeBytes: 9 * MIB });
  await hypervisor.createVolume(larger, order.templateId, aRun());
  assert.equal((await info(volumePath(larger)))['virtual-size'], 9 * MIB);
  const smaller = host.aVolume({ sizeBytes: 8 * MIB - 512 });
  await assert.rejects(
    hypervisor.createVolume(smaller, order.templateId, aRun()),
    hasCode('IMAGE_REFUSED', /too small/),
  );
  await assert.rejects(hypervisor.createVolume(host.aVolume(), anId('template'), aRun()), hasCode('NOT_FOUND', /tpl_/));
});

test('Empty volumes are made in either format; a raw one on a template is a full copy', async (t) => {
  const { host, hypervisor } = await aHost(t);
  const order = await anOrder(host, hypervisor);
  await hypervisor.prepareTemplate(order, aRun());
  const empty = host.aVolume({ format: 'RAW', sizeBytes: MIB });
  await hypervisor.createVolume(empty, null, aRun());
  assert.equal((await stat(volumePath(empty))).size, MIB);
  const copy = host.aVolume({ format: 'RAW', sizeBytes: 10 * MIB });
  await hypervisor.createVolume(copy, order.templateId, aRun());
  const bytes = await readFile(volumePath(copy));
  assert.equal(bytes.length, 10 * MIB);
  assert.ok(bytes.subarray(0, 8 * MIB).equals(await readFile(join(host.imagePath, order.fileName))));
  await assert.rejects(hypervisor.createVolume(host.aVolume({ sizeBytes: null }), null, aRun()), hasCode('INTERNAL'));
});

test('A volume that is there keeps what is in it; deleting it twice is deleting it once', async (t) => {
  const { host, hypervisor } = await aHost(t);
  const volume = host.aVolume({ format: 'RAW' });
  await hypervisor.createVolume(volume, null, aRun());
  await writeFile(volumePath(volume), 'precious');
  await hypervisor.createVolume(volume, null, aRun());
  assert.equal(await readFile(volumePath(volume), 'utf8'), 'precious');
  await hypervisor.deleteVolume(volume, aRun());
  await hypervisor.deleteVolume(volume, aRun());
  assert.deepEqual(await readdir(volumesFolder(host.storagePath)), []);
});

test('A volume is not deleted while a QEMU has it, not even one that this daemon does not know', async (t) => {
  const { host, hypervisor } = await aHost(t);
  const vm = await host.aVm(hypervisor);
  await hypervisor.startVm(vm, 1, aRun());
  const volume = vm.volumes[0]!;
  await assert.rejects(hypervisor.deleteVolume(volume, aRun()), hasCode('QEMU_FAILED', /in use by vm_/));
  const stranger = await (await QemuHost.make(t)).start({ accel: 'tcg' });
  await assert.rejects(stranger.deleteVolume(volume, aRun()), hasCode('QEMU_FAILED', /in use by a running VM/));
  await hypervisor.stopVm(vm.vmId, 'FORCE', 0, aRun());
  await hypervisor.deleteVolume(volume, aRun());
});

test('Nothing is made or deleted through a link', async (t) => {
  const { host, hypervisor } = await aHost(t);
  const volume = host.aVolume({ format: 'RAW' });
  const target = join(host.path, 'target');
  await writeFile(target, 'precious');
  await mkdir(volumesFolder(host.storagePath));
  await symlink(target, volumePath(volume));
  await assert.rejects(hypervisor.createVolume(volume, null, aRun()), hasCode('INTERNAL', /not a regular file/));
  await hypervisor.deleteVolume(volume, aRun());
  assert.deepEqual(await readdir(volumesFolder(host.storagePath)), []);
  assert.equal(await readFile(target, 'utf8'), 'precious');

  await rm(volumesFolder(host.storagePath), { recursive: true });
  await mkdir(join(host.path, 'elsewhere'));
  await symlink(join(host.path, 'elsewhere'), volumesFolder(host.storagePath));
  await assert.rejects(hypervisor.createVolume(volume, null, aRun()), hasCode('INTERNAL', /not a folder/));
  await assert.rejects(hypervisor.deleteVolume(volume, aRun()), hasCode('INTERNAL', /not a folder/));
});

test('A volume that is damaged can be deleted', async (t) => {
  const { host, hypervisor } = await aHost(t);
  const volume = host.aVolume();
  await hypervisor.createVolume(volume, null, aRun());
  await writeFile(volumePath(volume), 'rubbish');
  await hypervisor.deleteVolume(volume, aRun());
  assert.deepEqual(await readdir(volumesFolder(host.storagePath)), []);
});

test('A storage that can not be written to fails in the words of qemu-img and keeps nothing', async (t) => {
  const { host, hypervisor } = await aHost(t);
  // More than a qcow2 can be.
  const volume = host.aVolume({ sizeBytes: 2 ** 62 });
  await assert.rejects(hypervisor.createVolume(volume, null, aRun()), hasCode('QEMU_FAILED', /could not be made: /));
  assert.deepEqual(await readdir(volumesFolder(host.storagePath)), []);
});
