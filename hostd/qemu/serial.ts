import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { watch } from 'node:fs';
import { stat } from 'node:fs/promises';
import { CommandError } from '../hypervisor.ts';
import { CONFINED_ENVIRONMENT, confine, type QemuUser } from './confine.ts';
import { openQemuFile, readEnd, readFrom } from './run-folder.ts';

const MAX_END_BYTES = 1024 * 1024;
const PIECE_BYTES = 64 * 1024;
/** What a log may take on the disk before its beginning is given back, and what is left then. */
const MAX_LOG_BYTES = 16 * 1024 * 1024;
const KEPT_LOG_BYTES = 4 * 1024 * 1024;
const DISK_BLOCK_BYTES = 512;

/** The end of a serial log, at most 1 MiB. Throws NOT_FOUND. */
export async function readSerialLog(path: string, lastBytes: number): Promise<{ offset: number; bytes: Buffer }> {
  const end = await readEnd(path, clampEnd(lastBytes));
  if (!end) throw noLog();
  return end;
}

/**
 * Calls `next` with each piece of the log, beginning `lastBytes` before its end, until `signal` is aborted. One piece is
 * read while none is under way, so a slow reader holds up nothing but itself. Throws NOT_FOUND, also when the log goes.
 */
export async function watchSerialLog(
  path: string,
  lastBytes: number,
  next: (offset: number, bytes: Buffer) => Promise<void>,
  signal: AbortSignal,
): Promise<void> {
  const handle = await openQemuFile(path);
  if (!handle) throw noLog();
  let news = Promise.withResolvers<void>();
  const wake = (): void => news.resolve();
  // Watched before it is read: what is written in between is news, not lost.
  const watcher = watch(path, wake);
  watcher.on('error', wake);
  signal.addEventListener('abort', wake, { once: true });
  try {
    let offset = Math.max(0, (await handle.stat()).size - clampEnd(lastBytes));
    while (!signal.aborted) {
      news = Promise.withResolvers();
      for (;;) {
        const bytes = await readFrom(handle, offset, PIECE_BYTES);
        if (bytes.length === 0 || signal.aborted) break;
        await next(offset, bytes);
        offset += bytes.length;
      }
      if ((await handle.stat()).nlink === 0) throw noLog();
      if (!signal.aborted) await news.promise;
    }
  } finally {
    signal.removeEventListener('abort', wake);
    watcher.close();
    await handle.close();
  }
}

/**
 * Gives back the beginning of a log that has grown too large: a hole is punched, so offsets go on and QEMU need not
 * know. It is done as the log's owner, whom a link that was put in the log's place could lead to nothing new.
 */
export async function trimLog(path: string, user: QemuUser | null): Promise<void> {
  const stats = await stat(path).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return null;
    throw error;
  });
  if (!stats || stats.blocks * DISK_BLOCK_BYTES <= MAX_LOG_BYTES) return;
  const handle = await openQemuFile(path);
  if (!handle) return;
  try {
    const length = String(stats.size - KEPT_LOG_BYTES);
    const punch = ['fallocate', '--punch-hole', '--offset', '0', '--length', length, '/proc/self/fd/3'];
    const [program, ...args] = confine(punch, user, {});
    const child = spawn(program!, args, {
      env: CONFINED_ENVIRONMENT,
      stdio: ['ignore', 'ignore', 'ignore', handle.fd],
    });
    const [code] = await once(child, 'exit');
    if (code !== 0) throw new Error(`the log ${path} could not be trimmed: fallocate ended with code ${code}`);
  } finally {
    await handle.close();
  }
}

function clampEnd(lastBytes: number): number {
  return Math.min(Math.max(0, lastBytes), MAX_END_BYTES);
}

function noLog(): CommandError {
  return new CommandError('NOT_FOUND', 'there is no serial log of this VM');
}
