import type { ImageFormat } from '../generated/protocol.ts';

/** As much of an image's beginning as `checkHeader` looks at. */
export const HEADER_BYTES = 4096;

const QCOW2_MAGIC = 0x51_46_49_fb;
const QCOW2_V2_HEADER_BYTES = 72;
const QCOW2_V3_HEADER_BYTES = 104;
const EXTERNAL_DATA_FILE = 1n << 2n;
const EXTENSION_END = 0;
const EXTENSION_DATA_FILE = 0x44_41_54_41;

/** Beginnings of what isn't a raw disk. A file can be told from a disk since no boot sector begins like one of these. */
const OTHER_FORMATS: [name: string, offset: number, magic: Buffer][] = [
  ['a qcow2 image', 0, Buffer.from('QFI\xfb', 'latin1')],
  ['a VMDK image', 0, Buffer.from('KDMV')],
  ['a VMDK image', 0, Buffer.from('COWD')],
  ['a VMDK descriptor', 0, Buffer.from('# Disk DescriptorFile')],
  ['a VHDX image', 0, Buffer.from('vhdxfile')],
  ['a VHD image', 0, Buffer.from('conectix')],
  ['a VDI image', 0x40, Buffer.from([0x7f, 0x10, 0xda, 0xbe])],
  ['a QED image', 0, Buffer.from('QED\0')],
  ['a Parallels image', 0, Buffer.from('WithoutFreeSpace')],
  ['a Parallels image', 0, Buffer.from('WithouFreSpacExt')],
  ['an encrypted LUKS volume', 0, Buffer.from('LUKS\xba\xbe', 'latin1')],
  ['compressed with gzip', 0, Buffer.from([0x1f, 0x8b, 0x08])],
  ['compressed with xz', 0, Buffer.from('\xfd7zXZ\0', 'latin1')],
  ['compressed with zstd', 0, Buffer.from([0x28, 0xb5, 0x2f, 0xfd])],
  ['compressed with bzip2', 0, Buffer.from('BZh')],
  ['a ZIP archive', 0, Buffer.from('PK\x03\x04')],
  ['an archive (OVA?)', 257, Buffer.from('ustar')],
];

/**
 * What is wrong with an image of the declared format, as the rest of a sentence that begins with its name, or null.
 *
 * @see QEMU, docs/interop/qcow2
 */
export function checkHeader(header: Buffer, format: ImageFormat): string | null {
  if (header.length === 0) return 'is empty.';
  return format === 'RAW' ? checkRaw(header) : checkQcow2(header);
}

/** Virtual size in bytes that a qcow2 header tells. */
export function qcow2VirtualBytes(header: Buffer): number {
  return Number(header.readBigUInt64BE(24));
}

function checkRaw(header: Buffer): string | null {
  const other = otherFormat(header);
  return other ? `is declared as raw, but is ${other}.` : null;
}

function checkQcow2(header: Buffer): string | null {
  if (header.length < QCOW2_V2_HEADER_BYTES || header.readUInt32BE(0) !== QCOW2_MAGIC) {
    const other = otherFormat(header);
    return `is declared as qcow2, but is ${other ?? 'something else'}.`;
  }
  const version = header.readUInt32BE(4);
  if (version !== 2 && version !== 3) return `is qcow2 of version ${version}; 2 and 3 are known.`;
  if (header.readBigUInt64BE(8) !== 0n) return 'needs a backing file. Flatten it first.';
  if (header.readUInt32BE(32) !== 0) return 'is encrypted.';
  if (version === 2) return null;
  if (header.length < QCOW2_V3_HEADER_BYTES) return 'ends in its header.';
  const usesDataFile = (header.readBigUInt64BE(72) & EXTERNAL_DATA_FILE) !== 0n;
  if (usesDataFile || hasExtension(header, EXTENSION_DATA_FILE)) {
    return 'keeps its data in another file. Convert it to a plain qcow2 first.';
  }
  return null;
}

function hasExtension(header: Buffer, wanted: number): boolean {
  let offset = header.readUInt32BE(100);
  while (offset + 8 <= header.length) {
    const type = header.readUInt32BE(offset);
    if (type === wanted) return true;
    if (type === EXTENSION_END) return false;
    offset += 8 + Math.ceil(header.readUInt32BE(offset + 4) / 8) * 8;
  }
  return false;
}

function otherFormat(header: Buffer): string | null {
  const found = OTHER_FORMATS.find(([, offset, magic]) => header.subarray(offset, offset + magic.length).equals(magic));
  return found?.[0] ?? null;
}
