import { execFile } from 'node:child_process';
import { access, mkdir, mkdtemp, readdir, rename, rm } from 'node:fs/promises';
import { arch } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { refreshPackageLists } from './debian.mjs';

const run = promisify(execFile);

/** An LDAP server that was unpacked, but is not installed: Debian's package would start a service. */
export interface Slapd {
  program: string;
  /** For the libraries that came with it. */
  environment: { LD_LIBRARY_PATH: string };
  modules: string;
  schemas: string;
}

/**
 * Answers the distribution's own slapd, with the libraries of it that the system does not have: downloaded once by apt
 * and kept in `cacheFolder`. Neither root is needed nor is anything installed.
 */
export async function fetchSlapd(cacheFolder: string): Promise<Slapd> {
  const folder = join(cacheFolder, 'slapd');
  if (!(await exists(folder))) {
    await mkdir(cacheFolder, { recursive: true });
    const work = await mkdtemp(join(cacheFolder, 'unpacking-'));
    try {
      await unpackInto(work).catch(async () => {
        // The lists may be missing (a fresh container) or older than the archive.
        await refreshPackageLists();
        await unpackInto(work);
      });
      await rename(work, folder).catch(async (error: NodeJS.ErrnoException) => {
        // Another process was faster: what it has is as good.
        if (error.code !== 'ENOTEMPTY' && error.code !== 'EEXIST') throw error;
      });
    } finally {
      await rm(work, { recursive: true, force: true });
    }
  }
  const libraries = join(folder, 'usr/lib', arch() === 'x64' ? 'x86_64-linux-gnu' : 'aarch64-linux-gnu');
  return {
    program: join(folder, 'usr/sbin/slapd'),
    environment: { LD_LIBRARY_PATH: libraries },
    modules: join(folder, 'usr/lib/ldap'),
    schemas: join(folder, 'etc/ldap/schema'),
  };
}

async function unpackInto(folder: string): Promise<void> {
  // What apt would install, without doing it: the package, where it is installed too, and what it lacks.
  const plan = await run('apt-get', ['-s', 'install', '--no-install-recommends', 'slapd']);
  const missing = [...plan.stdout.matchAll(/^Inst (\S+)/gm)].map((match) => match[1]!);
  // apt would drop to its own user, who can't write here.
  const names = [...new Set(['slapd', ...missing])];
  await run('apt-get', ['-q', '-o', 'APT::Sandbox::User=', 'download', ...names], { cwd: folder });
  for (const file of await readdir(folder)) {
    if (!file.endsWith('.deb')) continue;
    await run('dpkg', ['-x', join(folder, file), folder]);
    await rm(join(folder, file));
  }
}

const exists = (path: string): Promise<boolean> =>
  access(path).then(
    () => true,
    (error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT') return false;
      throw error;
    },
  );
