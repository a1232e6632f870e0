import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdir, mkdtemp, open, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { z } from 'zod';
import { type ArchiveEntry, bootSector, packInitramfs, SECTOR_BYTES } from './disk-image.ts';
import { fetchKernel, type Kernel, readModules } from './kernel.ts';

const run = promisify(execFile);
const here = import.meta.dirname;

/** In this order: virtio needs virtio_ring, virtio_net needs failover. DHCP needs af_packet. */
const MODULES = [
  ...['button', 'evdev', 'virtio_ring', 'virtio', 'virtio_pci_legacy_dev', 'virtio_pci_modern_dev', 'virtio_pci'],
  ...['virtio_blk', 'failover', 'net_failover', 'virtio_net', 'af_packet', 'virtio_console', 'virtio_balloon'],
];
const APPLETS = [
  ...['sh', 'mount', 'umount', 'insmod', 'lsmod', 'dd', 'poweroff', 'reboot', 'setsid', 'cat', 'cut', 'grep', 'sed'],
  ...['awk', 'head', 'tail', 'ls', 'ps', 'top', 'free', 'df', 'dmesg', 'uname', 'uptime', 'date', 'sleep', 'clear'],
  ...['ip', 'udhcpc', 'ping', 'hexdump', 'vi', 'cp', 'mv', 'rm', 'mkdir', 'sync', 'blockdev', 'mke2fs', 'sha256sum'],
];
/** Each option saves boot time under emulation; together they halve it. The keyboard stays, for the screen's shell. */
const COMMAND_LINE = [
  ...['console=tty0', 'console=ttyS0', 'quiet', 'panic=-1', 'nokaslr', 'mitigations=off', 'nopti', 'no_timer_check'],
  ...['tsc=reliable', 'random.trust_cpu=on', 'raid=noautodetect', 'cryptomgr.notests', 'audit=0', 'apparmor=0'],
  ...['rcupdate.rcu_expedited=1', 'i8042.noaux', 'pci=lastbus=0', '8250.nr_uarts=1'],
];
const BOOT_MENU = `DEFAULT linux
PROMPT 0
LABEL linux
KERNEL vmlinuz
INITRD initrd
APPEND ${COMMAND_LINE.join(' ')}
`;
const MASTER_BOOT_CODE = '/usr/lib/syslinux/mbr/mbr.bin';
const FIRST_SECTOR = 2048;
const MIB = 2 ** 20;

const Manifest = z.object({
  kernel: z.string(),
  builder: z.string(),
  fileBytes: z.number(),
  virtualBytes: z.number(),
});

export interface TinyLinux extends z.infer<typeof Manifest> {
  /** Of the qcow2 image. */
  path: string;
}

/**
 * Answers a tiny Linux on a disk that a BIOS boots: made once by this builder and kept in `cacheFolder`, so that every
 * later call only reads its manifest. Processes that build at the same time end with one image.
 *
 * @param building is called before it is made, which takes many seconds
 */
export async function tinyLinuxImage(cacheFolder: string, building?: () => void): Promise<TinyLinux> {
  const builder = await builderHash();
  const folder = join(cacheFolder, `tiny-linux-${builder.slice(0, 12)}`);
  const kept = await readKept(folder, builder);
  if (kept) return kept;
  building?.();
  // A damaged one goes now, seconds before anyone can publish: nobody removes what another process has just built.
  await rm(folder, { recursive: true, force: true });

  await mkdir(cacheFolder, { recursive: true });
  const workFolder = await mkdtemp(join(cacheFolder, 'building-'));
  try {
    await build(workFolder, builder);
    await publish(join(workFolder, 'image'), folder);
  } finally {
    await rm(workFolder, { recursive: true, force: true });
  }
  const built = await readKept(folder, builder);
  if (!built) throw new Error(`the image in ${folder} changed while it was built`);
  return built;
}

/** Changes with every file that decides what the image is. */
async function builderHash(): Promise<string> {
  const hash = createHash('sha256');
  for (const file of ['tiny-linux.ts', 'tiny-linux-init.sh', 'tiny-linux-lease.sh', 'kernel.ts', 'disk-image.ts']) {
    hash.update(await readFile(join(here, file)));
  }
  return hash.digest('hex');
}

/** Null where the folder holds no image, or one that was cut short. */
async function readKept(folder: string, builder: string): Promise<TinyLinux | null> {
  const path = join(folder, 'tiny-linux.qcow2');
  try {
    const manifest = Manifest.parse(JSON.parse(await readFile(join(folder, 'manifest.json'), 'utf8')));
    const { size } = await stat(path);
    return manifest.builder === builder && manifest.fileBytes === size ? { path, ...manifest } : null;
  } catch (error) {
    const broken = error instanceof SyntaxError || error instanceof z.ZodError;
    if (broken || (error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw error;
  }
}

/** Moves the finished folder into place in one step. Another process may have been first: its image is as good. */
async function publish(finished: string, folder: string): Promise<void> {
  try {
    await rename(finished, folder);
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (code !== 'ENOTEMPTY' && code !== 'EEXIST') throw error;
  }
}

async function build(workFolder: string, builder: string): Promise<void> {
  const kernel = await fetchKernel(workFolder);
  const image = join(workFolder, 'image');
  await mkdir(image);
  const raw = join(workFolder, 'disk.raw');
  const virtualBytes = await writeDisk(raw, workFolder, kernel, await initramfs(kernel));
  const path = join(image, 'tiny-linux.qcow2');
  await run('qemu-img', ['convert', '-f', 'raw', '-O', 'qcow2', '-c', raw, path]);
  const { size: fileBytes } = await stat(path);
  const manifest: z.infer<typeof Manifest> = { kernel: kernel.release, builder, fileBytes, virtualBytes };
  await writeFile(join(image, 'manifest.json'), `${JSON.stringify(manifest, null, 2)}\n`);
}

async function initramfs(kernel: Kernel): Promise<Buffer> {
  const modules = await readModules(kernel, MODULES);
  const order = modules.map(({ name }) => `${name}.ko\n`).join('');
  const folders = ['bin', 'dev', 'etc', 'lib', 'lib/modules', 'proc', 'sys', 'tmp'];
  const entries: ArchiveEntry[] = [
    ...folders.map((path) => ({ path, kind: 'folder' as const })),
    { path: 'init', kind: 'file', mode: 0o755, bytes: await readFile(join(here, 'tiny-linux-init.sh')) },
    { path: 'etc/lease', kind: 'file', mode: 0o755, bytes: await readFile(join(here, 'tiny-linux-lease.sh')) },
    { path: 'bin/busybox', kind: 'file', mode: 0o755, bytes: await readFile('/bin/busybox') },
    ...APPLETS.map((name) => ({ path: `bin/${name}`, kind: 'link' as const, target: 'busybox' })),
    { path: 'lib/modules/order', kind: 'file', mode: 0o644, bytes: Buffer.from(order) },
    ...modules.map(({ name, bytes }) => ({
      path: `lib/modules/${name}.ko`,
      kind: 'file' as const,
      mode: 0o644,
      bytes,
    })),
  ];
  return packInitramfs(entries);
}

/** Writes a disk with one bootable FAT partition; no loop device, no mount, no root. Answers its size in bytes. */
async function writeDisk(raw: string, workFolder: string, kernel: Kernel, initrd: Buffer): Promise<number> {
  const content = { vmlinuz: kernel.image, initrd, 'syslinux.cfg': Buffer.from(BOOT_MENU) };
  const contentBytes = kernel.image.byteLength + initrd.byteLength;
  // FAT16 needs its 4,085 clusters of 4 KiB whatever the content; 4 MiB more for tables and the boot loader.
  const diskBytes = Math.ceil(Math.max(contentBytes, 17 * MIB) / MIB + 4) * MIB;
  const sectors = diskBytes / SECTOR_BYTES - FIRST_SECTOR;

  const disk = await open(raw, 'wx');
  await disk.truncate(diskBytes);
  await disk.write(bootSector(await readFile(MASTER_BOOT_CODE), { firstSector: FIRST_SECTOR, sectors }), 0);
  await disk.close();

  const partition = ['-i', `${raw}@@${FIRST_SECTOR * SECTOR_BYTES}`];
  const geometry = ['-h', '16', '-s', '63', '-H', String(FIRST_SECTOR), '-c', '8'];
  await run('mformat', [...partition, '-T', String(sectors), ...geometry, '::']);
  await run('syslinux', ['--install', '--offset', String(FIRST_SECTOR * SECTOR_BYTES), raw]);
  for (const [name, bytes] of Object.entries(content)) {
    await writeFile(join(workFolder, name), bytes);
    await run('mcopy', [...partition, join(workFolder, name), `::${name}`]);
  }
  return diskBytes;
}
