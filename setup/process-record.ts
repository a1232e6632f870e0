import type { ChildProcess } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join, resolve } from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';
import { z } from 'zod';

/** How often a process that isn't our child is looked at; nothing tells us of its end. */
const LOOK_EVERY_MS = 50;

const Identity = z.object({ pid: z.number(), startedAt: z.string(), command: z.string() });
/** One process and no other: a number that the system gave out again has another start. */
export type ProcessIdentity = z.infer<typeof Identity>;

/** Null where no such process runs; one that has ended but isn't reaped doesn't run. */
export async function identifyProcess(pid: number): Promise<ProcessIdentity | null> {
  try {
    const [stat, command, boot] = await Promise.all([
      readFile(`/proc/${pid}/stat`, 'utf8'),
      readFile(`/proc/${pid}/cmdline`, 'utf8'),
      readFile('/proc/sys/kernel/random/boot_id', 'utf8'),
    ]);
    // The name in parentheses may hold anything; what follows it is state (field 3) … start time (field 22).
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    if (fields[0] === 'Z' || fields[0] === 'X') return null;
    return { pid, startedAt: `${boot.trim()}:${fields[19]}`, command: command.replaceAll('\0', ' ').trim() };
  } catch (error) {
    // ESRCH: it ended between open and read.
    if (['ENOENT', 'ESRCH'].includes((error as NodeJS.ErrnoException).code ?? '')) return null;
    throw error;
  }
}

export async function isRunning(process: ProcessIdentity): Promise<boolean> {
  const now = await identifyProcess(process.pid);
  return now !== null && now.startedAt === process.startedAt && now.command === process.command;
}

/** Resolves when `process` has ended; rejects when `signal` comes first. `ref: false` keeps no event loop alive. */
export async function untilEnded(
  process: ProcessIdentity,
  options: { signal?: AbortSignal; ref?: boolean } = {},
): Promise<void> {
  while (await isRunning(process)) await wait(LOOK_EVERY_MS, undefined, options);
}

/** Resolves when a child has ended, with how it did: `was killed (SIGKILL)`, `ended with exit code 1`. */
export function childEnd(child: ChildProcess): Promise<string> {
  return new Promise((resolve) => {
    child.once('exit', (code, signal) => resolve(signal ? `was killed (${signal})` : `ended with exit code ${code}`));
  });
}

/** SIGTERM, then SIGKILL after `graceMs`. Answers whether it ended by itself; one that doesn't run has. */
export async function stopProcess(process: ProcessIdentity, graceMs: number): Promise<boolean> {
  if (!(await send(process, 'SIGTERM'))) return true;
  const timeUp = AbortSignal.timeout(graceMs);
  try {
    await untilEnded(process, { signal: timeUp });
    return true;
  } catch (error) {
    if (!timeUp.aborted) throw error;
    await send(process, 'SIGKILL');
    await untilEnded(process);
    return false;
  }
}

async function send(target: ProcessIdentity, signal: NodeJS.Signals): Promise<boolean> {
  if (!(await isRunning(target))) return false;
  try {
    return process.kill(target.pid, signal);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ESRCH') return false;
    throw error;
  }
}

/** Remembers in files which processes were started, for a later run that has to find or stop them. */
export class ProcessRecords {
  readonly #folder: string;

  constructor(folder: string) {
    this.#folder = resolve(folder);
  }

  /** Rejects where `pid` has ended already. */
  async put(name: string, pid: number): Promise<ProcessIdentity> {
    const identity = await identifyProcess(pid);
    if (!identity) throw new Error(`${name} (process ${pid}) ended at once`);
    await mkdir(this.#folder, { recursive: true, mode: 0o700 });
    const path = this.#path(name);
    await writeFile(`${path}.${process.pid}`, JSON.stringify(identity), { mode: 0o600 });
    await rename(`${path}.${process.pid}`, path);
    return identity;
  }

  /**
   * Records this process under `name` and answers true, unless another one that runs has claimed it: false. The kernel
   * keeps the claim, as an abstract socket that ends with its process, so two can't hold it and none can leave it behind.
   */
  async claim(name: string): Promise<boolean> {
    const key = createHash('sha256').update(this.#path(name)).digest('hex');
    const claim = createServer().unref();
    try {
      claim.listen(`\0virtgraph-${key}`);
      await once(claim, 'listening');
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'EADDRINUSE') return false;
      throw error;
    }
    await this.put(name, process.pid);
    return true;
  }

  /** The recorded process where it still runs. */
  async running(name: string): Promise<ProcessIdentity | null> {
    const identity = await this.#read(name);
    return identity && (await isRunning(identity)) ? identity : null;
  }

  async remove(name: string): Promise<void> {
    await rm(this.#path(name), { force: true });
  }

  async #read(name: string): Promise<ProcessIdentity | null> {
    try {
      return Identity.parse(JSON.parse(await readFile(this.#path(name), 'utf8')));
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
      throw new Error(`${this.#path(name)} is damaged; remove it`, { cause: error });
    }
  }

  #path(name: string): string {
    return join(this.#folder, `${name}.json`);
  }
}
