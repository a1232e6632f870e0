import { spawn, spawnSync } from 'node:child_process';
import { accessSync, constants } from 'node:fs';
import { delimiter, join } from 'node:path';

/**
 * What Virtgraph needs from the system: the program that proves it is there, and the Debian package that brings it.
 * None of these packages starts a service.
 */
export const REQUIREMENTS = [
  { program: 'mariadbd', package: 'mariadb-server-core' },
  { program: 'mariadb', package: 'mariadb-client-core' },
  { program: 'qemu-system-x86_64', package: 'qemu-system-x86' },
  { program: 'qemu-img', package: 'qemu-utils' },
  { program: 'busybox', package: 'busybox-static' },
  { program: 'mformat', package: 'mtools' },
  { program: 'syslinux', package: 'syslinux' },
  { program: 'xz', package: 'xz-utils' },
  { program: 'ip', package: 'iproute2' },
];

/** Packages without a program: the boot code of a disk, and a library that the project's own Node is linked with. */
const OTHER_PACKAGES = ['syslinux-common', 'libatomic1'];

const OLDEST = { debian: 12, ubuntu: 24.04 };

/**
 * Says why the packages can't be installed on the system that `osRelease` (the text of /etc/os-release) describes, or
 * null where they can. `has` answers whether a program is on the machine.
 */
export function systemProblem(osRelease, architecture, has = hasProgram) {
  const field = (name) => osRelease.match(new RegExp(`^${name}=["']?([^"'\n]*)`, 'm'))?.[1] ?? '';
  const name = field('PRETTY_NAME') || 'this system';
  if (architecture !== 'x64') return `${name} runs on ${architecture}; Virtgraph's hosts need x86-64 (amd64).`;

  const oldest = OLDEST[field('ID')];
  const version = Number(field('VERSION_ID') || Number.POSITIVE_INFINITY);
  if (oldest !== undefined) {
    return version >= oldest ? null : `${name} is too old: Virtgraph needs Debian 12 or Ubuntu 24.04, or later.`;
  }
  if (field('ID_LIKE').split(' ').includes('debian')) return null;

  const missing = [...REQUIREMENTS, { program: 'apt-get', package: 'apt' }].filter(({ program }) => !has(program));
  const list = missing.map((one) => `  ${one.program}  (on Debian: package ${one.package})`).join('\n');
  return `${name} is not Debian 12, Ubuntu 24.04 or later, so nothing is installed on it. Missing here:\n${list}`;
}

function hasProgram(name) {
  const folders = [...(process.env.PATH ?? '').split(delimiter), '/usr/sbin', '/sbin'];
  return folders.some((folder) => {
    try {
      accessSync(join(folder, name), constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}

/** The required packages that aren't installed. `query` runs dpkg-query and answers what it printed. */
export function missingPackages(query = dpkgQuery) {
  const wanted = [...REQUIREMENTS.map((one) => one.package), ...OTHER_PACKAGES];
  const installed = new Set(
    query(wanted)
      .split('\n')
      .filter((line) => line.endsWith(' installed'))
      .map((line) => line.split(' ')[0]),
  );
  return wanted.filter((name) => !installed.has(name));
}

function dpkgQuery(names) {
  // biome-ignore lint/suspicious/noTemplateCurlyInString: dpkg-query fills these in.
  const format = '-f=${Package} ${db:Status-Status}\n';
  // Exits with 1 where it doesn't know a package: that one is missing, and simply isn't printed.
  const { stdout, error } = spawnSync('dpkg-query', ['-W', format, ...names], { encoding: 'utf8' });
  if (error) throw error;
  return stdout;
}

/** Installs `names`, with sudo where needed. Rejects with what to type by hand where neither root nor sudo is there. */
export async function installPackages(names) {
  await refreshPackageLists();
  await asRoot(['apt-get', 'install', '-y', '-q', '--no-install-recommends', ...names]);
}

/** `apt-get update`. */
export async function refreshPackageLists() {
  await asRoot(['apt-get', 'update', '-q']);
}

async function asRoot(command) {
  const root = process.getuid() === 0;
  if (!root && !hasProgram('sudo')) {
    throw new Error(`This needs root, and there is no sudo. As root, run:\n  ${command.join(' ')}`);
  }
  const environment = ['env', 'DEBIAN_FRONTEND=noninteractive', ...command];
  const [program, ...args] = root ? environment : ['sudo', ...environment];
  // apt-get talks on stderr: stdout belongs to whoever reads the output of the command that was asked for.
  const child = spawn(program, args, { stdio: ['inherit', 2, 2] });
  const code = await new Promise((resolve, reject) => child.on('error', reject).on('exit', resolve));
  if (code !== 0) throw new Error(`Failed (exit code ${code}): ${command.join(' ')}`);
}
