import { type ChildProcess, spawn } from 'node:child_process';
import { constants } from 'node:fs';
import { open } from 'node:fs/promises';
import type { Duplex } from 'node:stream';
import { CommandError, type VmSpec } from '../hypervisor.ts';
import type { Nic } from '../network/nic.ts';
import { regularFileSize, volumePath, volumesFolder } from '../storage/paths.ts';
import type { Accelerator } from './accel.ts';
import { MONITOR_FD, qemuArguments, storagePaths } from './argv.ts';
import { CONFINED_ENVIRONMENT, confine, type QemuUser } from './confine.ts';
import { type RunFolder, readEnd } from './run-folder.ts';

const LAST_WORDS_BYTES = 2_000;
const MAX_FILES = 8_192;

export interface Exit {
  code: number | null;
  signal: NodeJS.Signals | null;
}

/** A QEMU that was just started, with its guest not running yet. */
export interface Launched {
  pid: number;
  /** One end of a pair of sockets whose other end QEMU has had from birth: it greets there as soon as it can. */
  monitor: Duplex;
  exited: Promise<Exit>;
  kill(): void;
}

export interface LaunchOptions {
  folder: RunFolder;
  qemuBinary: string;
  user: QemuUser | null;
  accelerator: Accelerator;
  nic: Nic | null;
}

/** Throws NOT_FOUND when a volume is not there. */
export async function checkVolumes(vm: VmSpec): Promise<void> {
  await Promise.all(
    vm.volumes.map(async (volume) => {
      if ((await regularFileSize(volumePath(volume))) !== null) return;
      throw new CommandError('NOT_FOUND', `the volume ${volume.volumeId} is not on this storage`);
    }),
  );
}

/**
 * Starts QEMU in a session of its own, so that it outlives the daemon, as a user without rights, in the folder that is
 * its own. Throws when the process could not be made; what QEMU itself dislikes shows in `exited`.
 */
export async function launchQemu(vm: VmSpec, options: LaunchOptions): Promise<Launched> {
  const { folder, user } = options;
  const command = [options.qemuBinary, ...qemuArguments(vm, options.accelerator, options.nic)];
  const [program, ...args] = confine(command, user, { nofile: MAX_FILES });
  const log = await open(
    folder.log,
    constants.O_WRONLY | constants.O_CREAT | constants.O_APPEND | constants.O_TRUNC,
    0o600,
  );
  const folders = await Promise.all(storagePaths(vm).map((path) => open(volumesFolder(path), 'r')));
  try {
    const child = spawn(program!, args, {
      cwd: folder.run,
      env: CONFINED_ENVIRONMENT,
      detached: true,
      stdio: ['ignore', log.fd, log.fd, 'pipe', ...folders.map(({ fd }) => fd)],
    });
    return await toLaunched(child);
  } finally {
    await Promise.all([log, ...folders].map((handle) => handle.close()));
  }
}

/** The end of what QEMU wrote to stderr. */
export async function lastWords(folder: RunFolder): Promise<string> {
  const end = await readEnd(folder.log, LAST_WORDS_BYTES);
  return end?.bytes.toString('utf8').trim() ?? '';
}

async function toLaunched(child: ChildProcess): Promise<Launched> {
  const exited = new Promise<Exit>((resolve) => child.once('exit', (code, signal) => resolve({ code, signal })));
  await new Promise<void>((resolve, reject) => {
    child.once('spawn', resolve);
    child.once('error', reject);
  });
  child.unref();
  // Node makes a pipe of two connected unix sockets, which is what QEMU wants for a monitor.
  const monitor = child.stdio[MONITOR_FD] as Duplex;
  return { pid: child.pid!, monitor, exited, kill: () => void child.kill('SIGKILL') };
}
