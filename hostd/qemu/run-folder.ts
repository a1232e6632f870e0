import { constants } from 'node:fs';
import { chmod, chown, type FileHandle, lstat, mkdir, open, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { QemuUser } from './confine.ts';

/**
 * A VM's folder is the daemon's own and holds its record and what QEMU said. Inside is `run`, which belongs to QEMU's
 * user: sockets, serial log, pictures. What lies in there may have been put there by a guest that broke out of QEMU.
 */
export interface RunFolder {
  path: string;
  run: string;
  log: string;
}

export function runFolder(vmsPath: string, vmId: string): RunFolder {
  const path = join(vmsPath, vmId);
  return { path, run: join(path, 'run'), log: join(path, 'qemu.log') };
}

export async function makeRunFolder(folder: RunFolder, user: QemuUser | null): Promise<void> {
  await mkdir(folder.run, { recursive: true, mode: 0o700 });
  await chmod(folder.path, 0o700);
  if (user) await chown(folder.run, user.uid, user.gid);
}

export async function removeRunFolder(folder: RunFolder): Promise<void> {
  await rm(folder.path, { recursive: true, force: true });
}

/** Opens a file that QEMU wrote, and nothing that a link could point to. Null where there is none. */
export async function openQemuFile(path: string): Promise<FileHandle | null> {
  let handle: FileHandle;
  try {
    handle = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw error;
  }
  const stats = await handle.stat();
  if (stats.isFile() && stats.nlink === 1) return handle;
  await handle.close();
  throw new Error(`${path} is not what QEMU writes`);
}

/** The last bytes of a file and their offset; null where there is none. */
export async function readEnd(path: string, lastBytes: number): Promise<{ offset: number; bytes: Buffer } | null> {
  const handle = await openQemuFile(path);
  if (!handle) return null;
  try {
    const { size } = await handle.stat();
    const offset = Math.max(0, size - lastBytes);
    return { offset, bytes: await readFrom(handle, offset, size - offset) };
  } finally {
    await handle.close();
  }
}

/** Up to `length` bytes; fewer at the file's end. */
export async function readFrom(handle: FileHandle, offset: number, length: number): Promise<Buffer> {
  const bytes = Buffer.alloc(length);
  let filled = 0;
  while (filled < length) {
    const { bytesRead } = await handle.read(bytes, filled, length - filled, offset + filled);
    if (bytesRead === 0) break;
    filled += bytesRead;
  }
  return bytes.subarray(0, filled);
}

export async function isPresent(path: string): Promise<boolean> {
  try {
    await lstat(path);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false;
    throw error;
  }
}
