/** Whom QEMU and qemu-img run as. */
export interface QemuUser {
  uid: number;
  gid: number;
  /** Supplementary groups; none by default. */
  groups?: number[];
}

/** Resource limits by the name of prlimit's option; bytes, seconds or files. */
export type Limits = Partial<Record<'as' | 'core' | 'cpu' | 'fsize' | 'nofile', number>>;

/** Debian gives this number to libvirt-qemu on every system, so files keep their owner between hosts. */
const DEFAULT_ID = 64_055;

/** Null where this process has no right to become another user. */
export function defaultQemuUser(): QemuUser | null {
  return process.getuid?.() === 0 ? { uid: DEFAULT_ID, gid: DEFAULT_ID } : null;
}

/**
 * Puts before a command what takes its rights away. Each tool replaces itself by the next, so the process keeps the id
 * and the start time that it was spawned with, and QEMU never has a right that it would have to drop by itself.
 */
export function confine(command: readonly string[], user: QemuUser | null, limits: Limits): string[] {
  const groups = user?.groups?.length ? [`--groups=${user.groups.join(',')}`] : ['--clear-groups'];
  const drop = user
    ? [
        ...[`--reuid=${user.uid}`, `--regid=${user.gid}`, ...groups],
        ...['--bounding-set=-all', '--inh-caps=-all', '--ambient-caps=-all'],
      ]
    : [];
  const limit = Object.entries({ core: 0, ...limits }).map(([name, value]) => `--${name}=${value}:${value}`);
  return ['setpriv', '--no-new-privs', ...drop, 'prlimit', ...limit, ...command];
}

/** Nothing of the daemon's own environment reaches what it runs; messages come in English, for us to read. */
export const CONFINED_ENVIRONMENT: NodeJS.ProcessEnv = {
  PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
  LC_ALL: 'C',
};
