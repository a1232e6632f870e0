import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chown, mkdtemp, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { CONFINED_ENVIRONMENT, confine, type QemuUser } from './confine.ts';

export type Accelerator = 'kvm' | 'tcg';

export interface AcceleratorChoice {
  accelerator: Accelerator;
  /** Why, for the operator. */
  reason: string;
}

const ROM_BYTES = 65_536;
const GROUP_MAY_USE = 0o060;
const PROBE_TIMEOUT_MS = 3_000;
/** isa-debug-exit ends QEMU with twice the byte that the guest writes, plus one. */
const GUEST_BYTE = 0x21;
const EXIT_OF_GUEST = GUEST_BYTE * 2 + 1;

/**
 * The last 256 bytes of the ROM, 0xFFFFFF00 up. From the reset vector the guest goes to protected mode, adds up 50 million
 * numbers, and writes GUEST_BYTE to port 0xF4 if the sum is right. A processor does this in 0.1 s; a KVM that can only
 * emulate instructions one by one, which some nested ones do, would need minutes: it doesn't count as usable.
 */
const PROBE_CODE = new Map<number, number[]>([
  [0x00, [0xfa]], // cli
  [0x01, [0x2e, 0x66, 0x0f, 0x01, 0x16, 0x50, 0xff]], // lgdtl cs:[0xff50]
  [0x08, [0x0f, 0x20, 0xc0, 0x0c, 0x01, 0x0f, 0x22, 0xc0]], // cr0 |= 1
  [0x10, [0x66, 0xea, 0x18, 0xff, 0xff, 0xff, 0x08, 0x00]], // ljmpl 0x08:0xffffff18
  [0x18, [0x66, 0xb8, 0x10, 0x00, 0x8e, 0xd8, 0x8e, 0xd0]], // ds = ss = 0x10
  [0x20, [0x31, 0xc0, 0xb9, 0x80, 0xf0, 0xfa, 0x02]], // eax = 0, ecx = 50,000,000
  [0x27, [0x01, 0xc8, 0x49, 0x75, 0xfb]], // do eax += ecx while (--ecx)
  [0x2c, [0x3d, 0x40, 0x98, 0x75, 0x4f]], // cmp eax, the sum modulo 2^32
  [0x31, [0x75, 0x04, 0xb0, GUEST_BYTE, 0xe6, 0xf4]], // if equal, out 0xf4
  [0x37, [0xf4, 0xeb, 0xfd]], // hlt for ever
  [0x50, [0x17, 0x00, 0x58, 0xff, 0xff, 0xff]], // GDT: limit 23, at 0xffffff58
  [0x60, [0xff, 0xff, 0x00, 0x00, 0x00, 0x9b, 0xcf, 0x00]], // 0x08: flat code
  [0x68, [0xff, 0xff, 0x00, 0x00, 0x00, 0x93, 0xcf, 0x00]], // 0x10: flat data
  [0xf0, [0xea, 0x00, 0xff, 0x00, 0xf0]], // reset vector: ljmp 0xf000:0xff00
]);

function probeRom(): Buffer {
  const rom = Buffer.alloc(ROM_BYTES);
  for (const [offset, bytes] of PROBE_CODE) rom.set(bytes, ROM_BYTES - 256 + offset);
  return rom;
}

/** Kept for the life of the process: hardware doesn't come and go, and a probe costs up to three seconds. */
const choices = new Map<string, Promise<AcceleratorChoice>>();

/** KVM where a guest really runs on it as `user`, otherwise TCG. */
export function chooseAccelerator(qemuBinary: string, user: QemuUser | null): Promise<AcceleratorChoice> {
  const key = JSON.stringify([qemuBinary, user]);
  const known = choices.get(key) ?? probe(qemuBinary, user);
  choices.set(key, known);
  return known;
}

async function probe(qemuBinary: string, user: QemuUser | null): Promise<AcceleratorChoice> {
  try {
    await stat('/dev/kvm');
  } catch (error) {
    return { accelerator: 'tcg', reason: `/dev/kvm: ${(error as NodeJS.ErrnoException).code}` };
  }
  const failure = await runProbe(qemuBinary, user, ['-accel', 'kvm', '-cpu', 'host']);
  return failure === null
    ? { accelerator: 'kvm', reason: 'a guest ran on KVM' }
    : { accelerator: 'tcg', reason: `a guest did not run on KVM: ${failure}` };
}

/** Answers why the probe's guest did not come to its end, null when it did. */
export async function runProbe(
  qemuBinary: string,
  user: QemuUser | null,
  accelerator: readonly string[],
): Promise<string | null> {
  const folder = await mkdtemp(join(tmpdir(), 'virtgraph-probe-'));
  try {
    // Another user reads it, from this working folder, which needs no right on the folders above.
    await writeFile(join(folder, 'rom'), probeRom(), { mode: 0o644 });
    if (user) await chown(folder, user.uid, user.gid);
    const machine = ['-nodefaults', '-no-user-config', '-display', 'none', '-machine', 'pc', '-m', '16'];
    const guest = ['-bios', 'rom', '-device', 'isa-debug-exit,iobase=0xf4,iosize=1'];
    const [command, ...args] = confine([qemuBinary, ...machine, ...accelerator, ...guest], user, {});
    const child = spawn(command!, args, {
      cwd: folder,
      env: CONFINED_ENVIRONMENT,
      stdio: ['ignore', 'ignore', 'pipe'],
      timeout: PROBE_TIMEOUT_MS,
      killSignal: 'SIGKILL',
    });
    const [complaint, [code, signal]] = await Promise.all([text(child.stderr), once(child, 'exit')]);
    if (code === EXIT_OF_GUEST) return null;
    const end = signal === 'SIGKILL' ? `not done in ${PROBE_TIMEOUT_MS} ms` : (signal ?? `code ${code}`);
    return [end, complaint.trim().split('\n')[0]].filter(Boolean).join(': ');
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** Groups that may use /dev/kvm and that an unprivileged QEMU therefore needs. */
export async function kvmGroups(): Promise<number[]> {
  try {
    const { gid, mode } = await stat('/dev/kvm');
    const groupMayUse = (mode & GROUP_MAY_USE) === GROUP_MAY_USE;
    return groupMayUse && gid !== 0 ? [gid] : [];
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw error;
  }
}
