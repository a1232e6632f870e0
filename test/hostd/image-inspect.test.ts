import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { appendFileSync } from 'node:fs';
import { chmod, mkdir, open, readFile, symlink, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { before, test } from 'node:test';
import { promisify } from 'node:util';
import type { ImageFormat } from '../../hostd/generated/protocol.ts';
import type { Run } from '../../hostd/hypervisor.ts';
import { defaultQemuUser } from '../../hostd/qemu/confine.ts';
import { inspectImage } from '../../hostd/storage/image.ts';
import { aRun, hasCode } from './qemu-host.ts';
import { temporaryFolder } from './temporary-folder.ts';

const run = promisify(execFile);
const MIB = 2 ** 20;
const user = defaultQemuUser();

let folder: string;
before(async () => {
  folder = await temporaryFolder();
});

async function qemuImg(...args: string[]): Promise<void> {
  await run('qemu-img', args, { cwd: folder });
}

function inspect(fileName: string, format: ImageFormat, overrides: { max?: number; run?: Run } = {}) {
  const image = { fileName, format, maxVirtualBytes: overrides.max ?? 2 ** 40 };
  return inspectImage(folder, image, user, overrides.run ?? aRun());
}

/** Changes bytes of a file in place. */
async function patch(fileName: string, offset: number, bytes: Buffer): Promise<void> {
  const handle = await open(join(folder, fileName), 'r+');
  await handle.write(bytes, 0, bytes.length, offset);
  await handle.close();
}

test('A plain qcow2 and a raw disk are accepted, with size and digest, and the reading is counted', async () => {
  await qemuImg('create', '-q', '-f', 'qcow2', 'plain.qcow2', '10M');
  await writeFile(join(folder, 'disk.raw'), Buffer.alloc(3 * MIB, 7));
  const counted: unknown[] = [];
  const progress = (...args: unknown[]): void => void counted.push(args);
  const raw = await inspect('disk.raw', 'RAW', { run: aRun({ progress }) });
  const sha256 = createHash('sha256')
    .update(await readFile(join(folder, 'disk.raw')))
    .digest('hex');
  assert.deepEqual(raw, { virtualBytes: 3 * MIB, fileBytes: 3 * MIB, sha256 });
  assert.deepEqual(
    counted,
    [1, 2, 3].map((done) => [done * MIB, 3 * MIB, 'bytes']),
  );
  assert.equal((await inspect('plain.qcow2', 'QCOW2')).virtualBytes, 10 * MIB);
});

test('Internal snapshots, older versions, small clusters and odd names do no harm', async () => {
  await qemuImg('create', '-q', '-f', 'qcow2', '-o', 'cluster_size=512,compat=0.10', './-- json:{a}.qcow2', '1M');
  await qemuImg('snapshot', '-c', 'one', './-- json:{a}.qcow2');
  assert.equal((await inspect('-- json:{a}.qcow2', 'QCOW2')).virtualBytes, MIB);
  await writeFile(join(folder, 'json:{"driver":"raw"}'), Buffer.alloc(MIB));
  assert.equal((await inspect('json:{"driver":"raw"}', 'RAW')).virtualBytes, MIB);
});

for (const fileName of ['', '.', '..', '../passwd', '/etc/passwd', 'a/b', 'a\\b', 'a\0b', 'x'.repeat(256)]) {
  test(`The name ${JSON.stringify(fileName.slice(0, 20))} is refused before anything is opened`, async () => {
    await assert.rejects(inspect(fileName, 'RAW'), hasCode('IMAGE_REFUSED', /plain file name/));
  });
}

test('What is no regular file is refused, and what is not there is not found', async () => {
  await symlink('/etc/passwd', join(folder, 'link'));
  await mkdir(join(folder, 'folder'));
  await run('mkfifo', [join(folder, 'pipe')]);
  await assert.rejects(inspect('link', 'RAW'), hasCode('IMAGE_REFUSED', /symbolic link/));
  await assert.rejects(inspect('folder', 'RAW'), hasCode('IMAGE_REFUSED', /regular file/));
  await assert.rejects(inspect('pipe', 'RAW'), hasCode('IMAGE_REFUSED', /regular file/));
  await assert.rejects(inspect('none', 'RAW'), hasCode('NOT_FOUND'));
});

test('A qcow2 that names a backing file is refused, whatever kind of name it is', async () => {
  await qemuImg('create', '-q', '-f', 'qcow2', '-b', '/etc/passwd', '-F', 'raw', 'backed.qcow2');
  await assert.rejects(inspect('backed.qcow2', 'QCOW2'), hasCode('IMAGE_REFUSED', /backing file/));
  const json = 'json:{"driver":"raw","file":{"driver":"file","filename":"/etc/passwd"}}';
  await qemuImg('create', '-q', '-f', 'qcow2', '-u', '-b', json, '-F', 'raw', 'json-backed.qcow2', '1M');
  await assert.rejects(inspect('json-backed.qcow2', 'QCOW2'), hasCode('IMAGE_REFUSED', /backing file/));
});

test('A qcow2 that keeps its data in another file is refused', async () => {
  await qemuImg('create', '-q', '-f', 'qcow2', '-o', 'data_file=data.raw,data_file_raw=on', 'split.qcow2', '1M');
  await assert.rejects(inspect('split.qcow2', 'QCOW2'), hasCode('IMAGE_REFUSED', /another file/));
});

test('An encrypted qcow2 is refused', async () => {
  const secret = ['--object', 'secret,id=s,data=123456'];
  await qemuImg(
    'create',
    '-q',
    '-f',
    'qcow2',
    ...secret,
    '-o',
    // Not LUKS, whose key derivation qemu-img measures by CPU time: it fails on a machine that is too busy to tell.
    'encrypt.format=aes,encrypt.key-secret=s',
    'e.qcow2',
    '1M',
  );
  await assert.rejects(inspect('e.qcow2', 'QCOW2'), hasCode('IMAGE_REFUSED', /encrypted/));
});

test('A qcow2 that is marked corrupt, cut short, or of an unknown version is refused', async () => {
  for (const name of ['corrupt', 'version', 'feature'])
    await qemuImg('create', '-q', '-f', 'qcow2', `${name}.qcow2`, '1M');
  // Incompatible features are 8 bytes at 72; the lowest byte comes last. Bit 1: corrupt. Bit 6: of the future.
  await patch('corrupt.qcow2', 79, Buffer.of(2));
  await assert.rejects(inspect('corrupt.qcow2', 'QCOW2'), hasCode('IMAGE_REFUSED', /corrupt/));
  await patch('feature.qcow2', 79, Buffer.of(64));
  await assert.rejects(inspect('feature.qcow2', 'QCOW2'), hasCode('IMAGE_REFUSED', /can't be read as qcow2/));
  await patch('version.qcow2', 7, Buffer.of(9));
  await assert.rejects(inspect('version.qcow2', 'QCOW2'), hasCode('IMAGE_REFUSED', /version 9/));
  await truncate(join(folder, 'version.qcow2'), 80);
  await patch('version.qcow2', 7, Buffer.of(3));
  await assert.rejects(inspect('version.qcow2', 'QCOW2'), hasCode('IMAGE_REFUSED', /ends in its header/));
});

test('An image is refused under a format that it does not have, in words that say what it is', async () => {
  await qemuImg('create', '-q', '-f', 'qcow2', 'liar.qcow2', '1M');
  await assert.rejects(inspect('liar.qcow2', 'RAW'), hasCode('IMAGE_REFUSED', /declared as raw, but is a qcow2 image/));
  for (const [format, name, words] of [
    ['vmdk', 'a.vmdk', /a VMDK image/],
    ['vdi', 'a.vdi', /a VDI image/],
    ['vhdx', 'a.vhdx', /a VHDX image/],
  ] as const) {
    await qemuImg('create', '-q', '-f', format, name, '1M');
    await assert.rejects(inspect(name, 'RAW'), hasCode('IMAGE_REFUSED', words));
    await assert.rejects(inspect(name, 'QCOW2'), hasCode('IMAGE_REFUSED', words));
  }
  await writeFile(join(folder, 'a.vmdk.txt'), '# Disk DescriptorFile\nRW 2048 FLAT "/etc/passwd" 0\n');
  await assert.rejects(inspect('a.vmdk.txt', 'RAW'), hasCode('IMAGE_REFUSED', /VMDK descriptor/));
  await writeFile(join(folder, 'a.gz'), Buffer.of(0x1f, 0x8b, 0x08, 0));
  await assert.rejects(inspect('a.gz', 'RAW'), hasCode('IMAGE_REFUSED', /compressed with gzip/));
  await writeFile(join(folder, 'noise'), Buffer.alloc(MIB, 5));
  await assert.rejects(inspect('noise', 'QCOW2'), hasCode('IMAGE_REFUSED', /but is something else/));
  await writeFile(join(folder, 'empty'), '');
  for (const format of ['RAW', 'QCOW2'] as const) {
    await assert.rejects(inspect('empty', format), hasCode('IMAGE_REFUSED', /is empty/));
  }
});

test('A disk is accepted at the largest size that is allowed and refused one sector above', async () => {
  await qemuImg('create', '-q', '-f', 'qcow2', 'large.qcow2', '1T');
  assert.equal((await inspect('large.qcow2', 'QCOW2', { max: 2 ** 40 })).virtualBytes, 2 ** 40);
  await assert.rejects(inspect('large.qcow2', 'QCOW2', { max: 2 ** 40 - 512 }), hasCode('IMAGE_REFUSED', /at most/));
});

test('A file that changes while it is read is refused', async () => {
  await writeFile(join(folder, 'moving.raw'), Buffer.alloc(3 * MIB, 1));
  const progress = (): void => appendFileSync(join(folder, 'moving.raw'), 'x');
  await assert.rejects(
    inspect('moving.raw', 'RAW', { run: aRun({ progress }) }),
    hasCode('IMAGE_REFUSED', /changed while/),
  );
});

test('An inspection that is cancelled ends with the reason for that', async () => {
  await writeFile(join(folder, 'long.raw'), Buffer.alloc(3 * MIB, 1));
  const abort = new AbortController();
  const progress = (): void => abort.abort(new Error('cancelled'));
  await assert.rejects(inspect('long.raw', 'RAW', { run: aRun({ signal: abort.signal, progress }) }), /cancelled/);
});

test('A file that the unprivileged user may not read is refused with what to do about it', async (t) => {
  if (!user) return t.skip('needs root');
  await writeFile(join(folder, 'private.raw'), Buffer.alloc(MIB));
  await chmod(join(folder, 'private.raw'), 0o600);
  await assert.rejects(inspect('private.raw', 'RAW'), hasCode('IMAGE_REFUSED', /uid 64055\). Make it readable/));
});
