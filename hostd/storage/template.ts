import { chown, open } from 'node:fs/promises';
import { join } from 'node:path';
import type { ImageFormat } from '../generated/protocol.ts';
import { CommandError, type Run } from '../hypervisor.ts';
import type { QemuUser } from '../qemu/confine.ts';
import type { Drafts } from './draft.ts';
import { examineImage, hashImage, type OpenImage, refuse, withImage } from './image.ts';
import { checkHeader, HEADER_BYTES, qcow2VirtualBytes } from './image-header.ts';
import { makeStorageFolder, regularFileSize, templateFileName, templatesFolder } from './paths.ts';
import { inheritedPath, QemuImgError, qemuImg } from './qemu-img.ts';
import { SingleFlight } from './single-flight.ts';

/** Linked volumes lie on top of it: nobody may write to it any more, QEMU's user least of all. */
const TEMPLATE_MODE = 0o444;

export interface TemplateOrder {
  templateId: string;
  fileName: string;
  format: ImageFormat;
  sha256: string;
  storagePath: string;
}

/** Makes templates of images, each once, however many ask for it. */
export class Templates {
  readonly #imagePath: string;
  readonly #user: QemuUser | null;
  readonly #drafts: Drafts;
  readonly #flights = new SingleFlight<{ virtualBytes: number }>();

  constructor(imagePath: string, user: QemuUser | null, drafts: Drafts) {
    this.#imagePath = imagePath;
    this.#user = user;
    this.#drafts = drafts;
  }

  /**
   * Answers the virtual size of the template in bytes. One that is there already is the result: it has its name only
   * since it is whole. Progress counts the bytes that were read and then the bytes of the disk that were converted.
   * Throws IMAGE_REFUSED, NOT_FOUND, DISK_FULL, QEMU_FAILED, and the reason of the run's signal.
   */
  async prepare(order: TemplateOrder, run: Run): Promise<{ virtualBytes: number }> {
    const folder = templatesFolder(order.storagePath);
    const path = join(folder, templateFileName(order.templateId));
    return this.#flights.join(path, run, async (shared) => {
      await makeStorageFolder(folder);
      const present = await templateVirtualBytes(path);
      if (present !== null) return { virtualBytes: present };
      return withImage(this.#imagePath, order.fileName, (image) => this.#make(folder, order, image, shared));
    });
  }

  async #make(folder: string, order: TemplateOrder, image: OpenImage, run: Run): Promise<{ virtualBytes: number }> {
    const virtualBytes = await examineImage(image, order.format, this.#user, run.signal);
    const total = image.fileBytes + virtualBytes;
    const sha256 = await hashImage(image, run.signal, (done) => run.progress(done, total, 'bytes'));
    if (sha256 !== order.sha256) throw refuse(`${order.fileName} has changed since it was registered.`);

    const file = { mode: TEMPLATE_MODE, owner: null };
    await this.#drafts.publish(folder, templateFileName(order.templateId), file, async (draft) => {
      await this.#convert(image, order.format, draft, virtualBytes, {
        signal: run.signal,
        progress: (done) => run.progress(image.fileBytes + done, total, 'bytes'),
      });
      // It was hashed first and converted then: only now is it known that both read the same.
      await image.assertUnchanged();
      if (this.#user) await chown(draft, process.getuid!(), process.getgid!());
    });
    run.progress(total, total, 'bytes');
    return { virtualBytes };
  }

  /** The stranger's file is read by a process that may write to nothing but this one fresh qcow2. */
  async #convert(
    { handle, fileName }: OpenImage,
    format: ImageFormat,
    draft: string,
    virtualBytes: number,
    { signal, progress }: { signal: AbortSignal; progress: (done: number) => void },
  ): Promise<void> {
    try {
      await qemuImg(['create', '-q', '-f', 'qcow2', draft, String(virtualBytes)], { user: null, signal });
      if (this.#user) await chown(draft, this.#user.uid, this.#user.gid);
      const target = await open(draft, 'r+');
      try {
        const formats = ['-f', format.toLowerCase(), '-O', 'qcow2'];
        await qemuImg(['convert', '-p', '-n', '--target-is-zero', ...formats, inheritedPath(0), inheritedPath(1)], {
          user: this.#user,
          handles: [handle, target],
          signal,
          onOutput: (text) => {
            const percent = lastPercent(text);
            if (percent !== null) progress(Math.floor((virtualBytes * percent) / 100));
          },
        });
      } finally {
        await target.close();
      }
    } catch (error) {
      if (!(error instanceof QemuImgError)) throw error;
      throw new CommandError('QEMU_FAILED', `${fileName} could not be converted: ${error.message}`, { cause: error });
    }
  }
}

/** Virtual size in bytes of a template that is there, null of one that isn't. Throws INTERNAL when it is no qcow2. */
export async function templateVirtualBytes(path: string): Promise<number | null> {
  if ((await regularFileSize(path)) === null) return null;
  const handle = await open(path, 'r');
  try {
    const header = Buffer.alloc(HEADER_BYTES);
    const { bytesRead } = await handle.read(header, 0, HEADER_BYTES, 0);
    const complaint = checkHeader(header.subarray(0, bytesRead), 'QCOW2');
    if (complaint !== null) throw new CommandError('INTERNAL', `the template ${path} ${complaint}`);
    return qcow2VirtualBytes(header);
  } finally {
    await handle.close();
  }
}

/** qemu-img writes `    (12.34/100%)` and a carriage return, again and again. */
function lastPercent(text: string): number | null {
  const percent = [...text.matchAll(/\((\d+\.\d+)\/100%\)/g)].at(-1)?.[1];
  return percent === undefined ? null : Number(percent);
}
