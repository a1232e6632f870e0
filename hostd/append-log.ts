import { open, readFile, rename } from 'node:fs/promises';
import { dirname } from 'node:path';
import { crc32 } from 'node:zlib';
import type { Logger } from 'pino';

const FORMAT = 1;

/** The part of `FileHandle` that a log needs; tests count and cut its calls. */
export interface AppendFile {
  write(bytes: Buffer, offset: number, length: number, position: number): Promise<{ bytesWritten: number }>;
  datasync(): Promise<void>;
  truncate(length: number): Promise<void>;
  close(): Promise<void>;
}

/** The journal can't be read, or not be written any more. `cause` says what the system said. */
export class JournalError extends Error {
  override readonly name = 'JournalError';
}

export interface AppendLogOptions<Entry> {
  path: string;
  log: Logger;
  openFile: (path: string, flags: string) => Promise<AppendFile>;
  compactBytes: number;
  /** Called with each entry found in the file and with each that has become durable, in order. */
  apply: (entry: Entry) => void;
  /** All that is to be kept when the file is rewritten. */
  snapshot: () => Iterable<Entry>;
}

interface Waiting<Entry> {
  entry: Entry;
  resolve: () => void;
  reject: (error: JournalError) => void;
}

/**
 * A file of checksummed lines of JSON, appended in groups: what arrives during one fsync shares the next, without a
 * timer. A crash leaves at worst a torn end, which nobody was promised, and which the next opening cuts off.
 */
export class AppendLog<Entry> {
  readonly #options: AppendLogOptions<Entry>;
  #file: AppendFile;
  #size: number;
  #compactAt: number;
  #waiting: Waiting<Entry>[] = [];
  #pumping: Promise<void> | null = null;
  #broken: JournalError | null = null;

  private constructor(options: AppendLogOptions<Entry>, file: AppendFile, size: number) {
    this.#options = options;
    this.#file = file;
    this.#size = size;
    this.#compactAt = Math.max(options.compactBytes, 2 * size);
  }

  static async open<Entry>(options: AppendLogOptions<Entry>): Promise<AppendLog<Entry>> {
    const { path, openFile, log } = options;
    const bytes = await readFile(path).catch((error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT') return Buffer.alloc(0);
      throw error;
    });
    const { length, unreadable } = replay(bytes, options);
    if (unreadable > 0) log.error({ path, unreadable }, 'journal has unreadable lines; the others are kept');
    const file = await openFile(path, bytes.length === 0 ? 'w' : 'r+');
    if (length < bytes.length) {
      log.warn({ path, bytes: bytes.length - length }, 'journal ends in a torn line, which is cut off');
      await file.truncate(length);
    }
    const opened = new AppendLog(options, file, length);
    if (length === 0) {
      await opened.#write(encode({ journal: FORMAT }));
      await syncFolder(path);
    }
    return opened;
  }

  /** Returns once the entry is durable and applied. Throws `JournalError`, and the entry is then not in the file. */
  append(entry: Entry): Promise<void> {
    return new Promise((resolve, reject) => {
      if (this.#broken) return reject(this.#broken);
      this.#waiting.push({ entry, resolve, reject });
      this.#pumping ??= this.#pump();
    });
  }

  async close(): Promise<void> {
    await this.#pumping;
    if (this.#broken?.message === CLOSED) return;
    this.#broken = new JournalError(CLOSED);
    await this.#file.close();
  }

  async #pump(): Promise<void> {
    // All that is appended in this turn of the loop goes into the first write.
    await null;
    while (this.#waiting.length > 0) {
      const batch = this.#waiting;
      this.#waiting = [];
      try {
        if (this.#broken) throw this.#broken;
        await this.#write(Buffer.concat(batch.map(({ entry }) => encode(entry))));
      } catch (error) {
        for (const { reject } of batch) reject(toJournalError(error));
        continue;
      }
      for (const { entry, resolve } of batch) {
        this.#options.apply(entry);
        resolve();
      }
      if (this.#size >= this.#compactAt) await this.#compact();
    }
    this.#pumping = null;
  }

  async #write(bytes: Buffer): Promise<void> {
    try {
      await writeAll(this.#file, bytes, this.#size);
    } catch (error) {
      await this.#undoWrite();
      throw error;
    }
    try {
      await this.#file.datasync();
    } catch (error) {
      // After a failed fsync nobody knows what is on the disk, and a second one may lie: no promise can be kept.
      this.#broken = new JournalError('the journal could not be made durable', { cause: error });
      this.#options.log.fatal({ err: error, path: this.#options.path }, 'journal is broken, no command is accepted');
      throw this.#broken;
    }
    this.#size += bytes.length;
  }

  async #undoWrite(): Promise<void> {
    try {
      await this.#file.truncate(this.#size);
    } catch (error) {
      this.#broken = new JournalError('the journal could not be cut back to its last whole line', { cause: error });
      this.#options.log.fatal({ err: error, path: this.#options.path }, 'journal is broken, no command is accepted');
    }
  }

  /** Rewrites the file with what is kept. A failure leaves the old file in use. */
  async #compact(): Promise<void> {
    const { path, openFile, snapshot, compactBytes, log } = this.#options;
    const fresh = `${path}.new`;
    const bytes = Buffer.concat([encode({ journal: FORMAT }), ...Array.from(snapshot(), encode)]);
    let file: AppendFile | undefined;
    try {
      file = await openFile(fresh, 'w');
      await writeAll(file, bytes, 0);
      await file.datasync();
      await rename(fresh, path);
    } catch (error) {
      log.warn({ err: error, path }, 'journal could not be compacted and grows on');
      this.#compactAt = this.#size + compactBytes;
      await file?.close();
      return;
    }
    const old = this.#file;
    this.#file = file;
    this.#size = bytes.length;
    this.#compactAt = Math.max(compactBytes, 2 * bytes.length);
    await old.close();
    // Until the folder is durable a crash may bring the old file back, which lacks what is appended from here on.
    await syncFolder(path).catch((error: unknown) => {
      this.#broken = new JournalError('the compacted journal could not be made durable', { cause: error });
      log.fatal({ err: error, path }, 'journal is broken, no command is accepted');
    });
  }
}

const CLOSED = 'the journal is closed';

/** `<crc32 of the JSON, 8 hexadecimal digits> <JSON>\n` */
function encode(entry: unknown): Buffer {
  const json = JSON.stringify(entry);
  return Buffer.from(`${crc32(json).toString(16).padStart(8, '0')} ${json}\n`);
}

function decode(line: string): unknown {
  const json = line.slice(9);
  if (line[8] !== ' ' || line.slice(0, 8) !== crc32(json).toString(16).padStart(8, '0')) return undefined;
  return JSON.parse(json);
}

/**
 * Applies every readable line. Answers up to where the file is whole, and how many unreadable lines stand before that:
 * they are passed over, since what follows them is true all the same, and to lose an epoch would be worse.
 */
function replay<Entry>(
  bytes: Buffer,
  { path, apply }: AppendLogOptions<Entry>,
): { length: number; unreadable: number } {
  let length = 0;
  let unreadable = 0;
  let pending = 0;
  for (let start = 0; ; ) {
    const end = bytes.indexOf(0x0a, start);
    if (end < 0) break;
    const entry = decode(bytes.toString('utf8', start, end)) as (Entry & { journal?: number }) | undefined;
    if (start === 0 && entry?.journal !== FORMAT && entry !== undefined) {
      throw new JournalError(`${path} is of a format that this version doesn't know`);
    }
    start = end + 1;
    if (entry === undefined) {
      pending++;
      continue;
    }
    unreadable += pending;
    pending = 0;
    length = start;
    if (entry.journal === undefined) apply(entry);
  }
  return { length, unreadable };
}

async function writeAll(file: AppendFile, bytes: Buffer, position: number): Promise<void> {
  for (let done = 0; done < bytes.length; ) {
    const { bytesWritten } = await file.write(bytes, done, bytes.length - done, position + done);
    done += bytesWritten;
  }
}

async function syncFolder(path: string): Promise<void> {
  const folder = await open(dirname(path), 'r');
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}

function toJournalError(error: unknown): JournalError {
  return error instanceof JournalError ? error : new JournalError('the journal could not be written', { cause: error });
}
