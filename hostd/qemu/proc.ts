import { readdir, readFile, readlink } from 'node:fs/promises';
import { setTimeout as wait } from 'node:timers/promises';

/** One process and no other: its number may be given out again, its number with its start may not. */
export interface ProcessIdentity {
  pid: number;
  /** Clock ticks since boot. */
  startTicks: number;
  /** Of the boot that the ticks count from. */
  bootId: string;
}

export interface ProcessStat {
  state: string;
  startTicks: number;
  cpuNs: bigint;
}

/** Linux tells programs of times in hundredths, whatever its own clock does. */
const NS_PER_TICK = 10_000_000n;
const LOOK_AGAIN_MS = 10;

let boot: Promise<string> | null = null;

/**
 * Null where no such process runs. One that has ended but isn't reaped doesn't run; one of whose threads only the first
 * has ended does, and still holds its files and their locks.
 */
export async function readProcess(pid: number): Promise<ProcessStat | null> {
  const text = await readProc(`${pid}/stat`);
  if (text === null) return null;
  // The name in parentheses may hold anything. What follows it: state (field 3), utime (14), stime (15), start (22).
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
  const state = fields[0]!;
  if ((state === 'Z' || state === 'X') && !(await hasOtherThreads(pid))) return null;
  const cpuTicks = BigInt(fields[11]!) + BigInt(fields[12]!);
  return { state, startTicks: Number(fields[19]), cpuNs: cpuTicks * NS_PER_TICK };
}

export async function identify(pid: number): Promise<ProcessIdentity | null> {
  const stat = await readProcess(pid);
  return stat && { pid, startTicks: stat.startTicks, bootId: await bootId() };
}

export async function isAlive(process: ProcessIdentity): Promise<boolean> {
  if (process.bootId !== (await bootId())) return false;
  return (await readProcess(process.pid))?.startTicks === process.startTicks;
}

/**
 * Resolves when the process has ended: true, or after `timeoutMs`: false. The kernel tells only a parent of a process's
 * end, and after a restart we are none: so we look again, for the short while between its last word and its end.
 */
export async function untilGone(process: ProcessIdentity, timeoutMs: number): Promise<boolean> {
  const deadline = performance.now() + timeoutMs;
  while (await isAlive(process)) {
    if (performance.now() >= deadline) return false;
    await wait(LOOK_AGAIN_MS);
  }
  return true;
}

/** Kills the process and no other that got its number. One that has ended is the wanted result. */
export async function kill(target: ProcessIdentity): Promise<void> {
  if (!(await isAlive(target))) return;
  try {
    process.kill(target.pid, 'SIGKILL');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}

/** Memory that is in the machine's RAM; null when the process has ended. */
export async function residentBytes(pid: number): Promise<bigint | null> {
  const kib = /^VmRSS:\s+(\d+) kB$/m.exec((await readProc(`${pid}/status`)) ?? '')?.[1];
  return kib === undefined ? null : BigInt(kib) * 1024n;
}

/** Processes whose working folder lies in `root`, by that folder. Those of others' that we may not look at are left out. */
export async function processesIn(root: string): Promise<Map<string, number[]>> {
  const found = new Map<string, number[]>();
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name)).map(Number);
  await Promise.all(
    pids.map(async (pid) => {
      const folder = await workingFolder(pid);
      if (folder?.startsWith(`${root}/`)) found.set(folder, [...(found.get(folder) ?? []), pid]);
    }),
  );
  return found;
}

/** Null when the process has ended. */
export async function argumentsOf(pid: number): Promise<string[] | null> {
  return (await readProc(`${pid}/cmdline`))?.split('\0') ?? null;
}

async function hasOtherThreads(pid: number): Promise<boolean> {
  try {
    return (await readdir(`/proc/${pid}/task`)).length > 1;
  } catch (error) {
    if (isGone(error)) return false;
    throw error;
  }
}

async function workingFolder(pid: number): Promise<string | null> {
  try {
    return await readlink(`/proc/${pid}/cwd`);
  } catch (error) {
    if (isGone(error) || ['EACCES', 'EPERM'].includes((error as NodeJS.ErrnoException).code ?? '')) return null;
    throw error;
  }
}

async function readProc(path: string): Promise<string | null> {
  try {
    return await readFile(`/proc/${path}`, 'utf8');
  } catch (error) {
    if (isGone(error)) return null;
    throw error;
  }
}

/** ESRCH: it ended between open and read. */
function isGone(error: unknown): boolean {
  return ['ENOENT', 'ESRCH'].includes((error as NodeJS.ErrnoException).code ?? '');
}

function bootId(): Promise<string> {
  boot ??= readFile('/proc/sys/kernel/random/boot_id', 'utf8').then((text) => text.trim());
  return boot;
}
