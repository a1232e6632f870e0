import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { constants } from 'node:os';
import { join } from 'node:path';
import { type MariaDb, startMariaDb } from './mariadb.ts';
import { stopProcess } from './process-record.ts';
import { findProcessesOf } from './process-search.ts';

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

/**
 * Runs Node with `args`, a private MariaDB in `DATABASE_URL` and a temporary folder of its own below `parent`, and
 * answers its exit code. Whatever the end, also after a signal: the database, every process that was started under it
 * and the folder are gone.
 *
 * @param givenUrl of a server that takes the place of the private MariaDB and is left as it is: databases that are made
 *   on it are for their makers to drop
 */
export async function runInSandbox(parent: string, args: readonly string[], givenUrl?: string): Promise<number> {
  // Before anything exists that would have to be removed. A second Ctrl-C changes nothing.
  const interrupted = new AbortController();
  for (const signal of SIGNALS) process.on(signal, () => interrupted.abort(signal));

  await mkdir(parent, { recursive: true });
  // Short, because sockets lie in it.
  const folder = await mkdtemp(join(parent, 'vgt-'));
  try {
    const database = givenUrl ? left(givenUrl) : await startMariaDb(join(folder, 'database'));
    try {
      if (interrupted.signal.aborted) return exitCode(interrupted.signal.reason);
      return await runNode(args, { ...process.env, DATABASE_URL: database.url, TMPDIR: folder }, interrupted.signal);
    } finally {
      await stopLeftOvers(folder, database.pid);
      await database.stop();
    }
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** A server of somebody else's. */
function left(url: string): Pick<MariaDb, 'url' | 'stop'> & { pid: null } {
  return { url, pid: null, stop: async () => undefined };
}

async function runNode(args: readonly string[], env: NodeJS.ProcessEnv, interrupted: AbortSignal): Promise<number> {
  const child = spawn(process.execPath, args, { stdio: 'inherit', env });
  interrupted.addEventListener('abort', () => child.kill(interrupted.reason));
  const [code, signal] = (await once(child, 'exit')) as [number | null, NodeJS.Signals | null];
  return code ?? exitCode(signal!);
}

function exitCode(signal: NodeJS.Signals): number {
  return 128 + constants.signals[signal];
}

/** What a test that was cut off left running: it knows the folder, whose name is this run's alone. */
async function stopLeftOvers(folder: string, databasePid: number | null): Promise<void> {
  for (const leftOver of await findProcessesOf(folder)) {
    if (leftOver.pid !== databasePid && leftOver.pid !== process.pid) await stopProcess(leftOver, 1_000);
  }
}
