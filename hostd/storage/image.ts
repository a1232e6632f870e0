import { createHash } from 'node:crypto';
import { constants } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import type { ImageFormat } from '../generated/protocol.ts';
import { CommandError, type Run } from '../hypervisor.ts';
import type { QemuUser } from '../qemu/confine.ts';
import { checkHeader, HEADER_BYTES } from './image-header.ts';
import { inheritedPath, QemuImgError, qemuImg } from './qemu-img.ts';

const MAX_NAME_BYTES = 255;
const HASH_CHUNK_BYTES = 1024 * 1024;
/** An honest image is described in a fraction of these; one made to exhaust the reader fails on them. */
const INFO_LIMITS = { as: 1024 ** 3, cpu: 30 };

const Info = z.looseObject({
  format: z.string(),
  'virtual-size': z.number(),
  encrypted: z.boolean().optional(),
  'backing-filename': z.string().optional(),
  'full-backing-filename': z.string().optional(),
  'format-specific': z
    .looseObject({
      data: z.looseObject({
        'data-file': z.string().optional(),
        corrupt: z.boolean().optional(),
        encrypt: z.unknown().optional(),
      }),
    })
    .optional(),
});

/** An image file that was opened once and is looked at only through this handle. */
export interface OpenImage {
  handle: FileHandle;
  fileName: string;
  fileBytes: number;
  /** Throws IMAGE_REFUSED when the file is no longer what it was when it was opened. */
  assertUnchanged(): Promise<void>;
}

export function refuse(message: string, options?: ErrorOptions): CommandError {
  return new CommandError('IMAGE_REFUSED', message, options);
}

/** Opens a file of the image folder and lets `use` look at it. Throws IMAGE_REFUSED, NOT_FOUND. */
export async function withImage<T>(
  imagePath: string,
  fileName: string,
  use: (image: OpenImage) => Promise<T>,
): Promise<T> {
  checkFileName(fileName);
  const handle = await openImage(imagePath, fileName);
  try {
    const first = await handle.stat({ bigint: true });
    if (!first.isFile()) throw refuse(`${fileName} is not a regular file.`);
    const assertUnchanged = async (): Promise<void> => {
      const now = await handle.stat({ bigint: true });
      // Nobody but the kernel sets the change time, so a file that was written to and set back is seen too.
      if (now.size !== first.size || now.ctimeNs !== first.ctimeNs) {
        throw refuse(`${fileName} changed while it was read. Copy it into the image folder under another name first.`);
      }
    };
    return await use({ handle, fileName, fileBytes: Number(first.size), assertUnchanged });
  } finally {
    await handle.close();
  }
}

/**
 * Answers the virtual size in bytes of an image that holds all it needs in its one file, and refuses any other: its
 * first bytes are judged here, then qemu-img describes it with few rights and little time. Throws IMAGE_REFUSED.
 */
export async function examineImage(
  image: OpenImage,
  format: ImageFormat,
  user: QemuUser | null,
  signal: AbortSignal,
): Promise<number> {
  const { handle, fileName } = image;
  const header = Buffer.alloc(HEADER_BYTES);
  const { bytesRead } = await handle.read(header, 0, HEADER_BYTES, 0);
  const complaint = checkHeader(header.subarray(0, bytesRead), format);
  if (complaint !== null) throw refuse(`${fileName} ${complaint}`);

  const info = await describe(image, format, user, signal);
  const specific = info['format-specific']?.data;
  const reasons: [boolean, string][] = [
    [info.format !== format.toLowerCase(), `is ${info.format}, not ${format.toLowerCase()}.`],
    [isSet(info['backing-filename'] ?? info['full-backing-filename']), 'needs a backing file. Flatten it first.'],
    [isSet(specific?.['data-file']), 'keeps its data in another file. Convert it to a plain qcow2 first.'],
    [info.encrypted === true || isSet(specific?.encrypt), 'is encrypted.'],
    [specific?.corrupt === true, 'is marked as corrupt. Repair it with qemu-img check -r first.'],
  ];
  const reason = reasons.find(([applies]) => applies)?.[1];
  if (reason !== undefined) throw refuse(`${fileName} ${reason}`);
  return info['virtual-size'];
}

/** SHA-256 of the whole file in lower-case hexadecimal. Throws IMAGE_REFUSED when it changes meanwhile. */
export async function hashImage(image: OpenImage, signal: AbortSignal, read: (bytes: number) => void): Promise<string> {
  const hash = createHash('sha256');
  const chunk = Buffer.allocUnsafe(HASH_CHUNK_BYTES);
  let done = 0;
  while (done < image.fileBytes) {
    signal.throwIfAborted();
    const { bytesRead } = await image.handle.read(chunk, 0, HASH_CHUNK_BYTES, done);
    if (bytesRead === 0) break;
    hash.update(chunk.subarray(0, bytesRead));
    done += bytesRead;
    read(done);
  }
  await image.assertUnchanged();
  return hash.digest('hex');
}

/** What a template could be made of. Throws IMAGE_REFUSED, NOT_FOUND, and the reason of the run's signal. */
export async function inspectImage(
  imagePath: string,
  { fileName, format, maxVirtualBytes }: { fileName: string; format: ImageFormat; maxVirtualBytes: number },
  user: QemuUser | null,
  run: Run,
): Promise<{ virtualBytes: number; fileBytes: number; sha256: string }> {
  return withImage(imagePath, fileName, async (image) => {
    const virtualBytes = await examineImage(image, format, user, run.signal);
    if (virtualBytes > maxVirtualBytes) {
      throw refuse(`${fileName} is a disk of ${virtualBytes} bytes; at most ${maxVirtualBytes} are allowed.`);
    }
    const sha256 = await hashImage(image, run.signal, (done) => run.progress(done, image.fileBytes, 'bytes'));
    return { virtualBytes, fileBytes: image.fileBytes, sha256 };
  });
}

function checkFileName(fileName: string): void {
  const isPlain = fileName !== '' && fileName !== '.' && fileName !== '..' && !/[/\\\0]/.test(fileName);
  if (!isPlain || Buffer.byteLength(fileName) > MAX_NAME_BYTES) {
    throw refuse('The name of an image is a plain file name in the image folder, without separators.');
  }
}

async function openImage(imagePath: string, fileName: string): Promise<FileHandle> {
  try {
    // Without O_NONBLOCK, opening a named pipe would wait for a writer.
    return await open(
      join(imagePath, fileName),
      constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK | constants.O_NOCTTY,
    );
  } catch (error) {
    switch ((error as NodeJS.ErrnoException).code) {
      case 'ENOENT':
        throw new CommandError('NOT_FOUND', `There is no ${fileName} in the image folder.`, { cause: error });
      case 'ELOOP':
        throw refuse(`${fileName} is a symbolic link. Copy the image itself into the image folder.`, { cause: error });
      case 'ENXIO':
      case 'EISDIR':
        throw refuse(`${fileName} is not a regular file.`, { cause: error });
      default:
        throw error;
    }
  }
}

async function describe(
  { handle, fileName }: OpenImage,
  format: ImageFormat,
  user: QemuUser | null,
  signal: AbortSignal,
): Promise<z.infer<typeof Info>> {
  try {
    const args = ['info', '-f', format.toLowerCase(), '--output=json', inheritedPath(0)];
    const output = await qemuImg(args, { user, handles: [handle], limits: INFO_LIMITS, signal });
    return Info.parse(JSON.parse(output));
  } catch (error) {
    if (!(error instanceof QemuImgError)) throw error;
    if (error.message.endsWith('Permission denied')) {
      const who = `the unprivileged user that examines images (uid ${user?.uid})`;
      throw refuse(`${fileName} can't be read by ${who}. Make it readable for all.`, { cause: error });
    }
    const words = error.message.replaceAll(inheritedPath(0), fileName);
    throw refuse(`${fileName} can't be read as ${format.toLowerCase()}: ${words}`, { cause: error });
  }
}

function isSet(value: unknown): boolean {
  return value !== undefined && value !== null && value !== '';
}
