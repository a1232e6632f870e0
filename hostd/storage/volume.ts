import { lstat } from 'node:fs/promises';
import { join } from 'node:path';
import { CommandError, type Run, type Volume } from '../hypervisor.ts';
import type { QemuUser } from '../qemu/confine.ts';
import type { Drafts } from './draft.ts';
import { refuse } from './image.ts';
import {
  makeStorageFolder,
  regularFileSize,
  removeFile,
  sync,
  templateFileName,
  templateFromVolumes,
  templatesFolder,
  toStorageError,
  volumeFileName,
  volumePath,
  volumesFolder,
} from './paths.ts';
import { QemuImgError, qemuImg } from './qemu-img.ts';
import { templateVirtualBytes } from './template.ts';

const VOLUME_MODE = 0o600;

/**
 * Makes a volume's file, owned by QEMU's user: empty, or on top of a template. One that is there already is the result,
 * and keeps what is in it. Throws NOT_FOUND, IMAGE_REFUSED, DISK_FULL, QEMU_FAILED, the reason of the run's signal.
 */
export async function createVolume(
  volume: Volume,
  templateId: string | null,
  { drafts, user, run }: { drafts: Drafts; user: QemuUser | null; run: Run },
): Promise<void> {
  const folder = volumesFolder(volume.storagePath);
  const path = volumePath(volume);
  await makeStorageFolder(folder);
  if ((await regularFileSize(path)) !== null) return;
  const sizeBytes = await decideSize(volume, templateId);
  const { signal } = run;
  const file = { mode: VOLUME_MODE, owner: user };
  try {
    await drafts.publish(folder, volumeFileName(volume), file, async (draft) => {
      const size = String(sizeBytes);
      if (templateId === null) {
        await qemuImg(['create', '-q', '-f', volume.format.toLowerCase(), draft, size], { user: null, signal });
      } else if (volume.format === 'QCOW2') {
        const base = ['-b', templateFromVolumes(templateId), '-F', 'qcow2'];
        await qemuImg(['create', '-q', '-f', 'qcow2', ...base, draft, size], { user: null, signal });
      } else {
        const template = join(templatesFolder(volume.storagePath), templateFileName(templateId));
        await qemuImg(['convert', '-f', 'qcow2', '-O', 'raw', template, draft], { user: null, signal });
        await qemuImg(['resize', '-q', '-f', 'raw', draft, size], { user: null, signal });
      }
    });
  } catch (error) {
    if (!(error instanceof QemuImgError)) throw error;
    throw new CommandError('QEMU_FAILED', `the volume could not be made: ${error.message}`, { cause: error });
  }
}

/** Deletes a volume's file. One that isn't there is the wanted result. Throws QEMU_FAILED while a QEMU has it open. */
export async function deleteVolume(volume: Volume, run: Run): Promise<void> {
  const folder = volumesFolder(volume.storagePath);
  const path = volumePath(volume);
  if (!(await isFolder(folder))) return;
  if (!(await isThere(path))) return;
  await assertUnused(volume, path, run.signal);
  try {
    if (await removeFile(path)) await sync(folder);
  } catch (error) {
    throw toStorageError(error);
  }
}

async function decideSize(volume: Volume, templateId: string | null): Promise<number> {
  if (templateId === null) {
    if (volume.sizeBytes !== null) return volume.sizeBytes;
    throw new CommandError('INTERNAL', 'an empty volume needs a size');
  }
  const template = join(templatesFolder(volume.storagePath), templateFileName(templateId));
  const least = await templateVirtualBytes(template);
  if (least === null) throw new CommandError('NOT_FOUND', `the template ${templateId} is not on this storage`);
  if (volume.sizeBytes !== null && volume.sizeBytes < least) {
    throw refuse(`A volume of ${volume.sizeBytes} bytes is too small for its template of ${least} bytes.`);
  }
  return volume.sizeBytes ?? least;
}

/**
 * Removing a file asks nobody who has it open. QEMU locks what it writes to, on a shared storage for all hosts, so a
 * reader that is refused for that lock tells of a VM that runs, whatever anybody believes.
 */
async function assertUnused(volume: Volume, path: string, signal: AbortSignal): Promise<void> {
  if (!(await lstat(path)).isFile()) return;
  try {
    await qemuImg(['info', '-f', volume.format.toLowerCase(), path], { user: null, signal });
  } catch (error) {
    // A volume that is damaged may go.
    if (!(error instanceof QemuImgError) || !/Failed to get .*lock/.test(error.message)) {
      if (error instanceof QemuImgError) return;
      throw error;
    }
    throw new CommandError('QEMU_FAILED', `the volume ${volume.volumeId} is in use by a running VM`, { cause: error });
  }
}

async function isFolder(path: string): Promise<boolean> {
  try {
    if ((await lstat(path)).isDirectory()) return true;
    throw new CommandError('INTERNAL', `${path} is not a folder`);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false;
    throw error;
  }
}

async function isThere(path: string): Promise<boolean> {
  try {
    await lstat(path);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false;
    throw error;
  }
}
