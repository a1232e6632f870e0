/** A file of an initramfs: a folder, a program or plain data. */
export type ArchiveEntry =
  | { path: string; kind: 'folder' }
  | { path: string; kind: 'file'; mode: number; bytes: Uint8Array }
  | { path: string; kind: 'link'; target: string };

const FOLDER = 0o040755;
const FILE = 0o100000;
const LINK = 0o120777;

/**
 * Packs `entries` as the kernel wants an initramfs: cpio in its "newc" form, every time stamp 0, so that the same
 * input gives the same bytes.
 *
 * @see Linux, Documentation/driver-api/early-userspace/buffer-format.rst
 */
export function packInitramfs(entries: readonly ArchiveEntry[]): Buffer {
  const parts: Uint8Array[] = [];
  let inode = 1;
  for (const entry of entries) parts.push(record(inode++, entry.path, modeOf(entry), contentOf(entry)));
  parts.push(record(0, 'TRAILER!!!', 0, new Uint8Array()));
  return Buffer.concat(parts);
}

function modeOf(entry: ArchiveEntry): number {
  if (entry.kind === 'folder') return FOLDER;
  return entry.kind === 'link' ? LINK : FILE | entry.mode;
}

function contentOf(entry: ArchiveEntry): Uint8Array {
  if (entry.kind === 'folder') return new Uint8Array();
  return entry.kind === 'link' ? Buffer.from(entry.target) : entry.bytes;
}

function record(inode: number, path: string, mode: number, content: Uint8Array): Buffer {
  const name = Buffer.from(`${path}\0`);
  // inode, mode, uid, gid, links, mtime, size, device ×2, special device ×2, length of the name, checksum
  const fields = [inode, mode, 0, 0, 1, 0, content.byteLength, 0, 0, 0, 0, name.byteLength, 0];
  const header = `070701${fields.map((field) => field.toString(16).padStart(8, '0')).join('')}`;
  return Buffer.concat([padded(Buffer.concat([Buffer.from(header), name])), padded(content)]);
}

function padded(bytes: Uint8Array): Buffer {
  return Buffer.concat([bytes, Buffer.alloc(-bytes.byteLength & 3)]);
}

export const SECTOR_BYTES = 512;
const PARTITION_TABLE = 446;
const ACTIVE = 0x80;
const FAT16_LBA = 0x0e;
/** Cylinder 1023, head 254, sector 63: "too large for this field", so that firmware uses the sector numbers. */
const BEYOND_CHS = [0xfe, 0xff, 0xff];

/** The first sector of a disk with one active FAT16 partition. `bootCode` is at most 440 bytes; sizes in sectors. */
export function bootSector(bootCode: Uint8Array, partition: { firstSector: number; sectors: number }): Buffer {
  if (bootCode.byteLength > 440) throw new RangeError(`boot code of ${bootCode.byteLength} bytes, at most 440 fit`);
  const sector = Buffer.alloc(SECTOR_BYTES);
  sector.set(bootCode);
  sector.set([ACTIVE, ...BEYOND_CHS, FAT16_LBA, ...BEYOND_CHS], PARTITION_TABLE);
  sector.writeUInt32LE(partition.firstSector, PARTITION_TABLE + 8);
  sector.writeUInt32LE(partition.sectors, PARTITION_TABLE + 12);
  sector.writeUInt16BE(0x55aa, SECTOR_BYTES - 2);
  return sector;
}
