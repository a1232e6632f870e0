import { lstat, mkdir, open, unlink } from 'node:fs/promises';
import { isAbsolute, join, normalize } from 'node:path';
import { CommandError, type Volume } from '../hypervisor.ts';
import { checkId } from '../qemu/ids.ts';

const VOLUMES = 'volumes';
const TEMPLATES = 'templates';

export function volumeFileName(volume: Pick<Volume, 'volumeId' | 'format'>): string {
  return `${checkId('vol', volume.volumeId)}.${volume.format === 'QCOW2' ? 'qcow2' : 'raw'}`;
}

export function volumesFolder(storagePath: string): string {
  return join(checkStoragePath(storagePath), VOLUMES);
}

export function volumePath(volume: Volume): string {
  return join(volumesFolder(volume.storagePath), volumeFileName(volume));
}

export function templatesFolder(storagePath: string): string {
  return join(checkStoragePath(storagePath), TEMPLATES);
}

export function templateFileName(templateId: string): string {
  return `${checkId('tpl', templateId)}.qcow2`;
}

/** From a volume's folder. A storage may be mounted elsewhere on another host, so what is in it finds itself. */
export function templateFromVolumes(templateId: string): string {
  return join('..', TEMPLATES, templateFileName(templateId));
}

/** Makes a folder of a storage that is there. Throws NOT_FOUND without the storage, INTERNAL for a symbolic link. */
export async function makeStorageFolder(folder: string): Promise<void> {
  try {
    // Not with its parents: a storage that isn't mounted must not be made anew on the disk below it.
    await mkdir(folder, { mode: 0o755 });
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (code === 'ENOENT') throw new CommandError('NOT_FOUND', `there is no storage at ${join(folder, '..')}`);
    if (code !== 'EEXIST') throw toStorageError(error);
  }
  if (!(await lstat(folder)).isDirectory()) throw new CommandError('INTERNAL', `${folder} is not a folder`);
}

/** Size of a regular file, null where there is none. Throws INTERNAL for anything else, such as a symbolic link. */
export async function regularFileSize(path: string): Promise<number | null> {
  try {
    const stats = await lstat(path);
    if (!stats.isFile()) throw new CommandError('INTERNAL', `${path} is not a regular file`);
    return stats.size;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw error;
  }
}

/** Answers whether there was one. A symbolic link goes itself, never what it points to. */
export async function removeFile(path: string): Promise<boolean> {
  try {
    await unlink(path);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false;
    throw error;
  }
}

/** Makes what is in a file or folder durable; of a folder, its names. */
export async function sync(path: string): Promise<void> {
  const handle = await open(path, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** DISK_FULL where the system says so. */
export function toStorageError(error: unknown): unknown {
  const { code } = error as NodeJS.ErrnoException;
  if (code !== 'ENOSPC' && code !== 'EDQUOT') return error;
  return new CommandError('DISK_FULL', 'the storage is full', { cause: error });
}

function checkStoragePath(storagePath: string): string {
  if (isAbsolute(storagePath) && !storagePath.includes('\0')) return normalize(storagePath);
  throw new CommandError('INTERNAL', `${JSON.stringify(storagePath)} is not the absolute path of a storage`);
}
