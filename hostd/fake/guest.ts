import { createHash } from 'node:crypto';
import { encodePng } from './png.ts';

const BOOT: readonly [seconds: number, text: string][] = [
  [0, 'Linux version 6.12.0-fake (virtgraph) #1 SMP PREEMPT_DYNAMIC'],
  [0, 'Command line: console=ttyS0 root=/dev/vda1 ro'],
  [0.1, 'smpboot: CPU topology read from the fake'],
  [0.3, 'virtio_blk virtio0: [vda] 4194304 512-byte logical blocks'],
  [0.4, 'EXT4-fs (vda1): mounted filesystem with ordered data mode'],
  [0.7, 'systemd[1]: Detected virtualization kvm.'],
  [0.9, 'systemd[1]: Reached target Multi-User System.'],
  [1, 'fake login: '],
];
const BOOT_LOG = Buffer.from(BOOT.map(([seconds, text]) => line(seconds, text)).join(''));
const BOOT_SECONDS = 1;
const LINE_BYTES = Buffer.byteLength(aliveLine(0));

/** Milliseconds between two lines of a booted guest. */
export const GUEST_LINE_MS = 1_000;

function line(seconds: number, text: string): string {
  return `[${seconds.toFixed(6).padStart(12)}] ${text}\r\n`;
}

/** Of one length whatever the second is, so that offsets into a log of years are arithmetic. */
function aliveLine(second: number): string {
  return line(second % 100_000, `fake guest: alive, load 0.${String((second * 37) % 100).padStart(2, '0')}`);
}

/** Length in bytes of the serial log of a guest that has been up for so long. */
export function serialLength(upMs: number): number {
  const second = Math.floor(upMs / GUEST_LINE_MS);
  if (second < BOOT_SECONDS) return line(...BOOT[0]!).length;
  return BOOT_LOG.length + (second - BOOT_SECONDS) * LINE_BYTES;
}

/** The serial log from `start` on to `end`, both in bytes. */
export function serialBytes(start: number, end: number): Buffer {
  const pieces: Buffer[] = [];
  if (start < BOOT_LOG.length) pieces.push(BOOT_LOG.subarray(start, end));
  if (end > BOOT_LOG.length) {
    const from = Math.max(0, start - BOOT_LOG.length);
    const first = Math.floor(from / LINE_BYTES);
    const last = Math.ceil((end - BOOT_LOG.length) / LINE_BYTES);
    const lines = Array.from({ length: last - first }, (_, i) => aliveLine(first + i + BOOT_SECONDS + 1)).join('');
    const skipped = from - first * LINE_BYTES;
    const wanted = end - Math.max(start, BOOT_LOG.length);
    pieces.push(Buffer.from(lines).subarray(skipped, skipped + wanted));
  }
  return Buffer.concat(pieces);
}

/** A number from 0 to 255 for each VM and purpose. */
function trait(vmId: string, purpose: number): number {
  return createHash('sha256').update(vmId).digest()[purpose]!;
}

/** What a guest has used after so long: a busy share of its own, the same each time it is asked. */
export function guestUsage(vmId: string, vcpus: number, memoryMib: number, upMs: number) {
  const busy = 0.05 + (0.9 * trait(vmId, 0)) / 255;
  const seconds = Math.floor(upMs / 1_000);
  return {
    vmId,
    busy,
    cpuNs: BigInt(Math.floor(upMs * vcpus * busy * 1_000)) * 1_000n,
    memoryBytes: BigInt(Math.floor(memoryMib * (0.3 + (0.6 * trait(vmId, 1)) / 255))) * 1_048_576n,
    diskReadBytes: BigInt(seconds * trait(vmId, 2) * 4_096),
    diskWriteBytes: BigInt(seconds * trait(vmId, 3) * 4_096),
    networkReceiveBytes: BigInt(seconds * trait(vmId, 4) * 1_024),
    networkTransmitBytes: BigInt(seconds * trait(vmId, 5) * 1_024),
  };
}

const WIDTH = 320;
const HEIGHT = 200;
const BAR_HEIGHT = 12;

/** A picture that differs by VM and by second: bars in the VM's colours and a line that moves down. */
export function drawScreen(vmId: string, upMs: number): Buffer {
  const pixels = new Uint8Array(WIDTH * HEIGHT * 3).fill(0x10);
  const cursor = Math.floor(upMs / 1_000) % HEIGHT;
  for (let y = 0; y < HEIGHT; y++) {
    const bar = Math.floor(y / BAR_HEIGHT);
    const end = y === cursor ? WIDTH : y % BAR_HEIGHT < BAR_HEIGHT - 4 ? 8 + trait(vmId, bar) : 0;
    const colour = y === cursor ? [0xff, 0xff, 0xff] : [0x40 + trait(vmId, bar + 1) / 2, 0x90, 0xc0];
    for (let x = 8; x < Math.min(end, WIDTH); x++) pixels.set(colour, (y * WIDTH + x) * 3);
  }
  return encodePng(WIDTH, HEIGHT, pixels);
}
