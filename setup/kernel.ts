import { execFile } from 'node:child_process';
import { glob, readdir, readFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { promisify } from 'node:util';
import { zstdDecompress } from 'node:zlib';
import { refreshPackageLists } from './debian.mjs';

const run = promisify(execFile);
/** Debian's and Ubuntu's smallest kernel for virtual machines, by the packages that always name the newest. */
const NEWEST_KERNEL = ['linux-image-cloud-amd64', 'linux-image-virtual'];

/** A kernel package that has been unpacked. */
export interface Kernel {
  /** As `uname -r` says it. */
  release: string;
  /** Its bzImage. */
  image: Buffer;
  folder: string;
}

/**
 * Downloads the distribution's newest kernel for virtual machines into `folder` and unpacks it there. Nothing is
 * installed. Rejects where the package can't be found or fetched.
 */
export async function fetchKernel(folder: string): Promise<Kernel> {
  const packages = await kernelPackages().catch(async () => {
    // The lists may be missing (a fresh container) or older than the archive.
    await refreshPackageLists();
    return kernelPackages();
  });
  await download(packages, folder).catch(async () => {
    await refreshPackageLists();
    await download(packages, folder);
  });
  for (const file of await readdir(folder)) {
    if (file.endsWith('.deb')) await run('dpkg', ['-x', join(folder, file), folder]);
  }
  const [imagePath] = await Array.fromAsync(glob(`${folder}/boot/vmlinuz-*`));
  if (!imagePath) throw new Error(`no kernel image in ${packages.join(', ')}`);
  return { release: basename(imagePath).slice('vmlinuz-'.length), image: await readFile(imagePath), folder };
}

async function download(packages: readonly string[], folder: string): Promise<void> {
  // apt would drop to its own user, who can't write here.
  await run('apt-get', ['-q', '-o', 'APT::Sandbox::User=', 'download', ...packages], { cwd: folder });
}

/** The package of the newest kernel, and that of its modules where the distribution keeps them apart. */
async function kernelPackages(): Promise<string[]> {
  for (const newest of NEWEST_KERNEL) {
    const image = (await dependencies(newest)).find((name) => /^linux-image-.*\d/.test(name));
    if (image) return [image, ...(await dependencies(image)).filter((name) => /^linux-modules-.*\d/.test(name))];
  }
  throw new Error(`apt knows none of ${NEWEST_KERNEL.join(', ')}`);
}

async function dependencies(name: string): Promise<string[]> {
  const known = await run('apt-cache', ['--quiet=0', 'depends', '--important', name]).catch(() => null);
  return known === null ? [] : [...known.stdout.matchAll(/^\s*\|?Depends: (\S+)/gm)].map((match) => match[1]!);
}

/**
 * Answers the plain bytes of each module of `names` that the kernel has as a file, in the same order. Those that are
 * built into the kernel are left out; a name that is neither is an error.
 */
export async function readModules(
  kernel: Kernel,
  names: readonly string[],
): Promise<{ name: string; bytes: Buffer }[]> {
  const files = new Map<string, string>();
  const builtIn = new Set<string>();
  for await (const path of glob(`${kernel.folder}/{lib,usr/lib}/modules/${kernel.release}/**/*.{ko,ko.xz,ko.zst}`)) {
    files.set(moduleName(path), path);
  }
  for await (const path of glob(`${kernel.folder}/{lib,usr/lib}/modules/${kernel.release}/modules.builtin`)) {
    for (const line of (await readFile(path, 'utf8')).split('\n')) builtIn.add(moduleName(line));
  }
  const modules: { name: string; bytes: Buffer }[] = [];
  for (const name of names) {
    const path = files.get(name);
    if (path) modules.push({ name, bytes: await plainBytes(path) });
    else if (!builtIn.has(name)) throw new Error(`kernel ${kernel.release} has no module ${name}`);
  }
  return modules;
}

function moduleName(path: string): string {
  return basename(path)
    .replace(/\.ko(\.xz|\.zst)?$/, '')
    .replaceAll('-', '_');
}

async function plainBytes(path: string): Promise<Buffer> {
  if (path.endsWith('.zst')) return promisify(zstdDecompress)(await readFile(path));
  if (!path.endsWith('.xz')) return readFile(path);
  const { stdout } = await run('xz', ['-dc', path], { encoding: 'buffer', maxBuffer: 64 * 2 ** 20 });
  return stdout;
}
