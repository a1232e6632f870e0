import { createHash } from 'node:crypto';
import { chmod, chown, link, readdir } from 'node:fs/promises';
import { hostname } from 'node:os';
import { join } from 'node:path';
import type { QemuUser } from '../qemu/confine.ts';
import { removeFile, sync, toStorageError } from './paths.ts';

/**
 * Files become visible under their name only when they are whole: each is written under a temporary name, made durable
 * and then linked. A storage may be shared, so a temporary name carries the mark of its host, and what a host that was
 * killed left behind is what carries its mark and is being written by nobody in its process.
 */
export class Drafts {
  readonly #mark: string;
  readonly #open = new Set<string>();
  readonly #swept = new Map<string, Promise<void>>();

  /** `dataPath` makes the mark of two daemons on one machine differ. */
  constructor(dataPath: string) {
    this.#mark = createHash('sha256').update(`${hostname()}\0${dataPath}`).digest('hex').slice(0, 12);
  }

  /**
   * Lets `write` make the file at a temporary path, then gives it `fileName`. A file that got the name meanwhile stays:
   * links don't replace. Nothing is left behind when it fails. Throws what `write` throws, DISK_FULL.
   */
  async publish(
    folder: string,
    fileName: string,
    file: { mode: number; owner: QemuUser | null },
    write: (draftPath: string) => Promise<void>,
  ): Promise<void> {
    await this.#sweep(folder);
    const path = join(folder, `.${this.#mark}.${fileName}`);
    this.#open.add(path);
    try {
      await removeFile(path);
      await write(path);
      if (file.owner) await chown(path, file.owner.uid, file.owner.gid);
      await chmod(path, file.mode);
      await sync(path);
      await link(path, join(folder, fileName)).catch((error: NodeJS.ErrnoException) => {
        if (error.code !== 'EEXIST') throw error;
      });
      await removeFile(path);
      await sync(folder);
    } catch (error) {
      await removeFile(path);
      throw toStorageError(error);
    } finally {
      this.#open.delete(path);
    }
  }

  /** Once for each folder and process: what the process before left unfinished. */
  #sweep(folder: string): Promise<void> {
    const known = this.#swept.get(folder);
    if (known) return known;
    const sweep = this.#removeStale(folder);
    this.#swept.set(folder, sweep);
    sweep.catch(() => this.#swept.delete(folder));
    return sweep;
  }

  async #removeStale(folder: string): Promise<void> {
    for (const name of await readdir(folder)) {
      const path = join(folder, name);
      if (name.startsWith(`.${this.#mark}.`) && !this.#open.has(path)) await removeFile(path);
    }
  }
}
