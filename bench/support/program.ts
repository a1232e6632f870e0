import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { open, readFile } from 'node:fs/promises';
import { resolve } from 'node:path';
import { createInterface } from 'node:readline';

const root = resolve(import.meta.dirname, '../..');
const STOP_TIMEOUT_MS = 20_000;
const LOG_END_BYTES = 3_000;
/** The unit of /proc/<pid>/stat, which the kernel keeps at 100 per second for programs. */
const TICK_MS = 10;

export interface ProgramOptions {
  name: string;
  /** For Node: options of its own, the program's file, its arguments. */
  args: readonly string[];
  env: Record<string, string>;
  logPath: string;
}

/** One of the processes that a benchmark starts, and what the kernel knows of it. */
export class Program {
  readonly name: string;
  readonly pid: number;
  /** The line that it printed when it was ready: `{"ready":true,…}`. */
  readonly ready: Readonly<Record<string, unknown>>;
  /** Rejects when it ends without having been asked to; never resolves. */
  readonly broken: Promise<never>;
  readonly #child: ChildProcess;
  readonly #exited: Promise<unknown>;
  #isWanted = true;

  private constructor(options: ProgramOptions, child: ChildProcess, ready: Record<string, unknown>) {
    this.name = options.name;
    this.pid = child.pid!;
    this.ready = ready;
    this.#child = child;
    this.#exited = exitOf(child);
    this.broken = this.#exited.then(async () => {
      if (!this.#isWanted) return new Promise<never>(() => undefined);
      throw new Error(`${options.name} ended by itself.\n${await endOf(options.logPath)}`);
    });
    this.broken.catch(() => undefined);
  }

  /** Resolves when it says that it is ready. Rejects with the end of its log when it ends first. */
  static async start(options: ProgramOptions): Promise<Program> {
    const log = await open(options.logPath, 'a');
    const child = spawn(process.execPath, options.args, {
      cwd: root,
      env: { ...process.env, NODE_ENV: 'production', ...options.env },
      stdio: ['ignore', 'pipe', log.fd],
    });
    await once(child, 'spawn');
    await log.close();
    const ready = await Promise.race([readyLine(child), exitOf(child).then(() => null)]);
    if (ready) return new Program(options, child, ready);
    throw new Error(`${options.name} did not start.\n${await endOf(options.logPath)}`);
  }

  /** User and system time of all its threads so far. */
  async cpuMs(): Promise<number> {
    const stat = await readFile(`/proc/${this.pid}/stat`, 'utf8');
    // The name in parentheses may hold anything; utime and stime are fields 14 and 15, and the state after it is 3.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return (Number(fields[11]) + Number(fields[12])) * TICK_MS;
  }

  /** Resident memory now, and the most that it ever was. */
  async memoryMib(): Promise<{ now: number; peak: number }> {
    const status = await readFile(`/proc/${this.pid}/status`, 'utf8');
    const mib = (name: string): number => Number(new RegExp(`^${name}:\\s+(\\d+) kB`, 'm').exec(status)?.[1]) / 1024;
    return { now: mib('VmRSS'), peak: mib('VmHWM') };
  }

  /** Asks it to end, and ends it when it takes too long. May be called twice. */
  async stop(): Promise<void> {
    this.#isWanted = false;
    this.#child.kill('SIGTERM');
    const timer = setTimeout(() => this.#child.kill('SIGKILL'), STOP_TIMEOUT_MS);
    await this.#exited;
    clearTimeout(timer);
  }

  /** As a power cut would. */
  async kill(): Promise<void> {
    this.#isWanted = false;
    this.#child.kill('SIGKILL');
    await this.#exited;
  }
}

async function exitOf(child: ChildProcess): Promise<void> {
  if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
}

async function readyLine(child: ChildProcess): Promise<Record<string, unknown> | null> {
  // What comes after it is read too, so that the program is never stopped by a full pipe.
  const lines = createInterface({ input: child.stdout! });
  return new Promise((found) => {
    lines.on('line', (line) => {
      if (line.startsWith('{"ready":true')) found(JSON.parse(line) as Record<string, unknown>);
    });
    lines.once('close', () => found(null));
  });
}

async function endOf(path: string): Promise<string> {
  const text = await readFile(path, 'utf8');
  return text === '' ? `${path} is empty` : text.slice(-LOG_END_BYTES);
}
