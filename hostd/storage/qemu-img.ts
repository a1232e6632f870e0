import { spawn } from 'node:child_process';
import { once } from 'node:events';
import type { FileHandle } from 'node:fs/promises';
import { text } from 'node:stream/consumers';
import { CommandError } from '../hypervisor.ts';
import { CONFINED_ENVIRONMENT, confine, type Limits, type QemuUser } from '../qemu/confine.ts';

const MAX_COMPLAINT_BYTES = 2_000;
const FIRST_INHERITED_FD = 3;

export interface QemuImgRun {
  /** Whom it runs as; null: as ourselves. */
  user: QemuUser | null;
  /** Files and folders that it reaches as `inheritedPath(0)`, … whatever it may see of the folders above them. */
  handles?: readonly FileHandle[];
  limits?: Limits;
  /** Aborting kills it. */
  signal?: AbortSignal;
  /** What it writes, as it comes. */
  onOutput?: (text: string) => void;
}

/** qemu-img said no. The message is its own words. */
export class QemuImgError extends Error {
  override readonly name = 'QemuImgError';
}

/**
 * How qemu-img names what it inherits, by its position in `handles`. It is the very file that was opened, whatever its
 * name means by now, and the path can't be taken for an option or a protocol such as json:.
 */
export function inheritedPath(position: number): string {
  return `/proc/self/fd/${FIRST_INHERITED_FD + position}`;
}

/**
 * Runs qemu-img and answers what it wrote. Returns or throws only when the process has ended. Throws `QemuImgError`,
 * DISK_FULL, or the reason of `signal`.
 */
export async function qemuImg(args: readonly string[], run: QemuImgRun): Promise<string> {
  run.signal?.throwIfAborted();
  const [command, ...rest] = confine(['qemu-img', ...args], run.user, { nofile: 256, ...run.limits });
  const child = spawn(command!, rest, {
    env: CONFINED_ENVIRONMENT,
    stdio: ['ignore', 'pipe', 'pipe', ...(run.handles ?? []).map(({ fd }) => fd)],
  });
  const kill = (): void => void child.kill('SIGKILL');
  run.signal?.addEventListener('abort', kill, { once: true });
  try {
    if (run.onOutput) child.stdout!.setEncoding('utf8').on('data', run.onOutput);
    const [output, complaint, [code, signal]] = await Promise.all([
      text(child.stdout!),
      text(child.stderr!),
      once(child, 'exit') as Promise<[number | null, NodeJS.Signals | null]>,
    ]);
    if (code === 0) return output;
    run.signal?.throwIfAborted();
    throw toError(complaint.trim().slice(-MAX_COMPLAINT_BYTES) || `ended by ${signal ?? `code ${code}`}`);
  } finally {
    run.signal?.removeEventListener('abort', kill);
  }
}

function toError(complaint: string): Error {
  if (/No space left on device|Disk quota exceeded/.test(complaint)) {
    return new CommandError('DISK_FULL', 'the storage is full', { cause: new QemuImgError(complaint) });
  }
  return new QemuImgError(complaint.replace(/^qemu-img: /, ''));
}
