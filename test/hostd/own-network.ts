import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { constants } from 'node:os';

const OWN = ['--net', '--mount'];

/** Why this machine lets us have no network of our own; false: it does. */
export function lacksOwnNetwork(): string | false {
  if (process.getuid!() !== 0) return 'needs root, for a network of its own';
  const { status, stderr } = spawnSync('unshare', [...OWN, 'true'], { encoding: 'utf8' });
  return status === 0 ? false : `needs a network of its own: ${stderr.trim()}`;
}

/**
 * Runs a file of tests, in place of this one, where nothing of the machine's network is seen, changed or in the way, and
 * which ends with its last process.
 */
export async function runInOwnNetwork(file: string): Promise<void> {
  const node = [process.execPath, ...process.execArgv, file];
  const child = spawn('setpriv', ['--pdeathsig', 'KILL', 'unshare', ...OWN, ...node], { stdio: 'inherit' });
  const [code, signal] = (await once(child, 'exit')) as [number | null, NodeJS.Signals | null];
  process.exitCode = code ?? 128 + constants.signals[signal!];
}

/** Makes the new network usable; to be called in there, first. */
export function openOwnNetwork(): void {
  // What the kernel tells of interfaces is that of the network in which it was mounted.
  run('mount', '-t', 'sysfs', 'sysfs', '/sys');
  // As udev makes it; a container may have it otherwise, or not at all.
  run('mkdir', '-p', '/dev/net');
  run('mount', '-t', 'tmpfs', '-o', 'mode=0755', 'tmpfs', '/dev/net');
  run('mknod', '-m', '0666', '/dev/net/tun', 'c', '10', '200');
  run('ip', 'link', 'set', 'lo', 'up');
}

/** Throws where it fails. */
export function run(program: string, ...args: string[]): void {
  execFileSync(program, args, { stdio: ['ignore', 'ignore', 'inherit'] });
}
