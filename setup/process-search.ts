import { readdir, readFile, readlink } from 'node:fs/promises';
import { basename, resolve, sep } from 'node:path';
import { identifyProcess, type ProcessIdentity } from './process-record.ts';

/** What /proc tells of a process; what may not be read is empty. */
interface ProcessFacts {
  program: string;
  /** Its working folder. */
  folder: string;
  command: string;
  environment: string;
}

/** The QEMUs that a hostd of this data folder started: each works in a folder of its VM below it. */
export function findVmProcesses(dataFolder: string): Promise<ProcessIdentity[]> {
  const below = resolve(dataFolder) + sep;
  return findProcesses(({ program, folder }) => program.startsWith('qemu-system-') && folder.startsWith(below));
}

/** The processes that work in `folder`, or were told of it by their command line or environment. */
export function findProcessesOf(folder: string): Promise<ProcessIdentity[]> {
  return findProcesses((facts) =>
    [facts.folder, facts.command, facts.environment].some((text) => text.includes(resolve(folder))),
  );
}

async function findProcesses(matches: (facts: ProcessFacts) => boolean): Promise<ProcessIdentity[]> {
  const found: ProcessIdentity[] = [];
  for (const pid of (await readdir('/proc')).filter((name) => /^\d+$/.test(name)).map(Number)) {
    // The identity first: what the facts say is then about this process or one that has ended since.
    const identity = await identifyProcess(pid);
    if (identity && matches(await factsOf(pid))) found.push(identity);
  }
  return found;
}

async function factsOf(pid: number): Promise<ProcessFacts> {
  const [program, folder, command, environment] = await Promise.all([
    readable(readlink(`/proc/${pid}/exe`)),
    readable(readlink(`/proc/${pid}/cwd`)),
    readable(readFile(`/proc/${pid}/cmdline`, 'utf8')),
    readable(readFile(`/proc/${pid}/environ`, 'utf8')),
  ]);
  return { program: basename(program), folder: folder + sep, command, environment };
}

/** Empty for a process that has ended meanwhile, that is the kernel's or another user's. */
export async function readable(reading: Promise<string>): Promise<string> {
  try {
    return await reading;
  } catch (error) {
    if (['ENOENT', 'ESRCH', 'EACCES', 'EPERM'].includes((error as NodeJS.ErrnoException).code ?? '')) return '';
    throw error;
  }
}
