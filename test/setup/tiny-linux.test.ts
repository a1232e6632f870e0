import assert from 'node:assert/strict';
import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process';
import { once } from 'node:events';
import { cp, mkdtemp, readdir, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import { after, before, test } from 'node:test';
import { bootSector, packInitramfs } from '../../setup/disk-image.ts';
import { tinyLinuxImage } from '../../setup/tiny-linux.ts';
import { tinyLinux } from '../support/guest.ts';

let folder: string;
before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'virtgraph-tiny-'));
});
after(() => rm(folder, { recursive: true }));

test('the guest greets on its serial line, shows text on the screen, and powers off when asked', {
  timeout: 120_000,
}, async (t) => {
  const serialPath = join(folder, 'serial.sock');
  const server = createServer().listen(serialPath);
  await once(server, 'listening');
  const disk = JSON.stringify({
    'node-name': 'disk',
    driver: 'qcow2',
    'read-only': true,
    file: { driver: 'file', filename: await tinyLinux() },
  });
  const qemu = spawn('qemu-system-x86_64', [
    ...['-nodefaults', '-no-user-config', '-display', 'none', '-machine', 'q35', '-accel', 'tcg', '-cpu', 'max'],
    ...['-m', '256', '-smp', '2', '-vga', 'std', '-qmp', 'stdio', '-chardev', `socket,id=serial,path=${serialPath}`],
    ...['-serial', 'chardev:serial', '-blockdev', disk, '-device', 'virtio-blk-pci,drive=disk,bootindex=0'],
  ]);
  t.after(() => qemu.kill('SIGKILL'));
  const ended = once(qemu, 'exit');
  const [serial] = await once(server, 'connection');
  server.close();

  const greeting: string[] = [];
  for await (const line of createInterface({ input: serial })) {
    greeting.push(line.trim());
    if (line.trim() === 'ready') break;
  }
  const text = greeting.join('\n');
  assert.match(text, /Virtgraph tiny Linux\nkernel {2}\d+\.\d+\S*\nmemory {2}2\d\d MiB\nCPUs {4}2\n/);
  assert.match(text, /disk {4}vda, \d+ MiB/);

  const screen = join(folder, 'screen.ppm');
  const monitor = await qmp(qemu);
  await monitor('screendump', { filename: screen });
  assert.ok(await hasText(screen), 'the screen is empty');
  await monitor('system_powerdown');
  assert.deepEqual(await ended, [0, null]);
});

/** Speaks QMP over the standard streams of `qemu`; events between the answers are skipped. */
async function qmp(qemu: ChildProcessWithoutNullStreams) {
  const lines = createInterface({ input: qemu.stdout })[Symbol.asyncIterator]();
  const command = async (execute: string, args: object = {}): Promise<void> => {
    qemu.stdin.write(`${JSON.stringify({ execute, arguments: args })}\n`);
    for (;;) {
      const line = await lines.next();
      assert.ok(!line.done, `QEMU ended before it answered ${execute}`);
      const answer = JSON.parse(line.value);
      assert.equal(answer.error, undefined);
      if ('return' in answer) return;
    }
  };
  await command('qmp_capabilities');
  return command;
}

/** Whether at least a hundred pixels of a PPM picture aren't black. */
async function hasText(path: string): Promise<boolean> {
  const pixels = (await readFile(path)).subarray(20);
  return pixels.filter((value) => value > 100).byteLength > 300;
}

test('an image that is in the cache is not built again, and one that was cut short is, after it is said', {
  timeout: 120_000,
}, async () => {
  const shared = dirname(await tinyLinux());
  const cache = join(folder, 'cache');
  const copy = join(cache, shared.slice(shared.lastIndexOf('/') + 1));
  await cp(shared, copy, { recursive: true });

  // Only a manifest that is read, not written anew, keeps this kernel's name.
  const manifestPath = join(copy, 'manifest.json');
  const manifest = JSON.parse(await readFile(manifestPath, 'utf8'));
  await writeFile(manifestPath, JSON.stringify({ ...manifest, kernel: 'kept' }));
  let builds = 0;
  const building = () => {
    builds++;
  };
  const kept = await tinyLinuxImage(cache, building);
  assert.equal(builds, 0);
  assert.deepEqual({ path: kept.path, kernel: kept.kernel }, { path: join(copy, 'tiny-linux.qcow2'), kernel: 'kept' });

  await truncate(kept.path, 1000);
  const [one, other] = await Promise.all([tinyLinuxImage(cache, building), tinyLinuxImage(cache, building)]);
  assert.equal(builds, 2);
  assert.deepEqual(one, other);
  assert.notEqual(one.kernel, 'kept');
  assert.ok(one.fileBytes > 1_000_000);
  assert.deepEqual(await readdir(cache), [copy.slice(cache.length + 1)]);
});

test('an initramfs is a cpio archive with aligned records and a trailer', () => {
  const archive = packInitramfs([
    { path: 'bin', kind: 'folder' },
    { path: 'bin/tool', kind: 'file', mode: 0o755, bytes: Buffer.from('12345') },
    { path: 'bin/alias', kind: 'link', target: 'tool' },
  ]);
  assert.equal(archive.byteLength % 4, 0);
  assert.equal(archive.toString('latin1').split('070701').length - 1, 4);
  const file = archive.indexOf('bin/tool') - 110;
  assert.equal(archive.toString('latin1', file + 14, file + 22), '000081ed');
  assert.equal(archive.toString('latin1', file + 54, file + 62), '00000005');
  assert.ok(archive.includes('TRAILER!!!'));
});

test('a boot sector holds one active partition and refuses boot code that would overwrite the table', () => {
  const sector = bootSector(Buffer.alloc(440, 0x90), { firstSector: 2048, sectors: 40_960 });
  assert.equal(sector[446], 0x80);
  assert.equal(sector.readUInt32LE(454), 2048);
  assert.equal(sector.readUInt32LE(458), 40_960);
  assert.equal(sector.readUInt16BE(510), 0x55aa);
  assert.throws(() => bootSector(Buffer.alloc(441), { firstSector: 1, sectors: 1 }), RangeError);
});
