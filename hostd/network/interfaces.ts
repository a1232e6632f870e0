import { execFile } from 'node:child_process';
import { access, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { CONFINED_ENVIRONMENT } from '../qemu/confine.ts';

const INTERFACES = '/sys/class/net';

export function hasInterface(name: string): Promise<boolean> {
  return isThere(join(INTERFACES, name));
}

export function isBridge(name: string): Promise<boolean> {
  return isThere(join(INTERFACES, name, 'bridge'));
}

/** A number that the kernel tells of an interface; null when there is no such interface. */
export async function readInterface(name: string, file: string): Promise<bigint | null> {
  try {
    return BigInt((await readFile(join(INTERFACES, name, file), 'utf8')).trim());
  } catch (error) {
    // EINVAL: it is on its way out.
    if (['ENOENT', 'ENODEV', 'EINVAL'].includes((error as NodeJS.ErrnoException).code ?? '')) return null;
    throw error;
  }
}

/** Runs ip(8), which is `program`. Throws an error whose message is what it complained of. */
export async function runIp(program: string, args: readonly string[]): Promise<void> {
  try {
    await promisify(execFile)(program, args, { env: CONFINED_ENVIRONMENT });
  } catch (error) {
    const { code, stderr, message } = error as NodeJS.ErrnoException & { stderr?: string };
    const complaint =
      code === 'ENOENT' ? 'the program ip is missing (package iproute2)' : stderr?.trim().split('\n')[0];
    throw new Error(complaint || message, { cause: error });
  }
}

async function isThere(path: string): Promise<boolean> {
  try {
    await access(path);
    return true;
  } catch (error) {
    // ENOTDIR: not everything in that folder is an interface.
    if (['ENOENT', 'ENOTDIR'].includes((error as NodeJS.ErrnoException).code ?? '')) return false;
    throw error;
  }
}
