import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, open, readFile, stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import { untilFolderYields } from './folder-watch.ts';
import { childEnd, type ProcessRecords, stopProcess } from './process-record.ts';

const READY_TIMEOUT_MS = 60_000;
const STOP_TIMEOUT_MS = 15_000;

/** A program of ours that runs beside this one. */
export interface Service {
  name: string;
  /** The line that it printed when it was ready: `{"ready":true,…}`. */
  ready: Readonly<Record<string, unknown>>;
  logPath: string;
  /** Says how. */
  ended: Promise<string>;
  /** SIGTERM, then SIGKILL when it takes too long. May be called twice. */
  stop(): Promise<void>;
}

export interface ServiceOptions {
  /** Also the name of its record. */
  name: string;
  /** For Node: the program's file and its arguments. */
  args: readonly string[];
  cwd: string;
  env: NodeJS.ProcessEnv;
  logPath: string;
  records: ProcessRecords;
  signal: AbortSignal;
}

/**
 * Starts Node with `args`, in a session of its own so that Ctrl-C doesn't reach it, and resolves when it says that it
 * is ready. What it prints goes to its log, which outlives this process. Rejects, with the end of the log, where it
 * ends first, takes too long or `signal` is aborted; then nothing runs any more.
 */
export async function startService(options: ServiceOptions): Promise<Service> {
  const { name, args, cwd, env, logPath, records, signal } = options;
  signal.throwIfAborted();
  await mkdir(dirname(logPath), { recursive: true, mode: 0o700 });
  const log = await open(logPath, 'a', 0o600);
  const { size: logStart } = await log.stat();
  const child = spawn(process.execPath, args, { cwd, env, detached: true, stdio: ['ignore', log.fd, log.fd] });
  const ended = childEnd(child);
  await once(child, 'spawn');
  await log.close();
  const identity = await records.put(name, child.pid!);
  const stop = async () => {
    await stopProcess(identity, STOP_TIMEOUT_MS);
    await records.remove(name);
  };

  const gone = new AbortController();
  ended.then(() => gone.abort(new Error('it ended')));
  const giveUp = AbortSignal.any([signal, gone.signal, AbortSignal.timeout(READY_TIMEOUT_MS)]);
  try {
    const ready = await untilFolderYields(dirname(logPath), giveUp, () => readyLine(logPath, logStart));
    return { name, ready, logPath, ended, stop };
  } catch (error) {
    await stop();
    if (signal.aborted) throw signal.reason;
    throw new Error(`${name} did not start.\n${await lastLines(logPath, logStart)}`, { cause: error });
  }
}

async function readyLine(path: string, start: number): Promise<Record<string, unknown> | null> {
  const lines = (await readFile(path)).subarray(start).toString().split('\n');
  // What follows the last line break isn't a whole line yet.
  for (const line of lines.slice(0, -1)) {
    if (!line.startsWith('{"ready":true')) continue;
    return JSON.parse(line);
  }
  return null;
}

/** The end of a log from `start` on, for a message. */
export async function lastLines(path: string, start = 0): Promise<string> {
  const { size } = await stat(path);
  if (size === 0) return `${path} is empty`;
  const text = (await readFile(path)).subarray(start).toString().trimEnd();
  return `${path} ends with:\n${text.split('\n').slice(-25).join('\n')}`;
}
