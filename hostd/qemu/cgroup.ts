import { access, constants, mkdir, readFile, rmdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';
import type { VmSpec } from '../hypervisor.ts';
import type { Accelerator } from './accel.ts';

const MOUNTS = '/proc/self/mountinfo';
const ROOT_GROUP = 'virtgraph';
const PERIOD_US = 100_000;
const REAP_TIMEOUT_MS = 2_000;
const LOOK_AGAIN_MS = 10;
/** QEMU itself, its video memory, its threads' stacks and the page cache it needs to get along. */
const OVERHEAD_MIB: Record<Accelerator, number> = { kvm: 384, tcg: 768 };

/** A way to limit processes that this host offers. */
interface Controller {
  /** Parent of the VMs' groups. */
  folder: string;
  /** File and content, in the order of writing. */
  settings(vcpus: number, memoryBytes: number): [file: string, value: string][];
}

const V2: Controller['settings'] = (vcpus, memoryBytes) => [
  ['cpu.max', `${vcpus * PERIOD_US} ${PERIOD_US}`],
  ['memory.max', String(memoryBytes)],
];
const V1_CPU: Controller['settings'] = (vcpus) => [
  ['cpu.cfs_period_us', String(PERIOD_US)],
  ['cpu.cfs_quota_us', String(vcpus * PERIOD_US)],
];
const V1_MEMORY: Controller['settings'] = (_, memoryBytes) => [['memory.limit_in_bytes', String(memoryBytes)]];

/** Keeps a VM from taking more of its host than it was given. */
export class Cgroups {
  /** What it limits, for the operator: `cgroup v2 (cpu, memory)`. */
  readonly description: string;
  readonly #controllers: Controller[];

  private constructor(controllers: Controller[], description: string) {
    this.#controllers = controllers;
    this.description = description;
  }

  /** Takes version 2, version 1 where that isn't given its controllers, or none. `mounts` as in /proc/self/mountinfo. */
  static async find(mounts?: string): Promise<Cgroups> {
    const found = parseMounts(mounts ?? (await readFile(MOUNTS, 'utf8')));
    const problems: string[] = [];
    for (const offer of [findV2, findV1]) {
      try {
        const controllers = await offer(found);
        if (controllers) return new Cgroups(...controllers);
      } catch (error) {
        problems.push((error as Error).message);
      }
    }
    return new Cgroups([], ['no cgroup that can be written to', ...problems].join(': '));
  }

  get limits(): boolean {
    return this.#controllers.length > 0;
  }

  /** Makes the VM's groups and answers how to put a process into them. */
  async create(vm: VmSpec, accelerator: Accelerator): Promise<(pid: number) => Promise<void>> {
    const memoryBytes = (vm.memoryMib + OVERHEAD_MIB[accelerator]) * 1024 * 1024;
    await Promise.all(
      this.#controllers.map(async ({ folder, settings }) => {
        const group = join(folder, vm.vmId);
        await makeGroup(group);
        for (const [file, value] of settings(vm.vcpus, memoryBytes)) await writeFile(join(group, file), value);
      }),
    );
    return async (pid) => {
      try {
        const groups = this.#controllers.map(({ folder }) => join(folder, vm.vmId, 'cgroup.procs'));
        await Promise.all(groups.map((file) => writeFile(file, String(pid))));
      } catch (error) {
        // It has ended already, and whoever waits for it sees why.
        if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
      }
    };
  }

  /**
   * Removes the groups of a VM whose processes have ended. Throws EBUSY when they are not reaped in time: that is up to
   * their parent, which after a restart of the daemon is the system's first process.
   */
  async remove(vmId: string): Promise<void> {
    const deadline = performance.now() + REAP_TIMEOUT_MS;
    for (const { folder } of this.#controllers) {
      while (!(await tryRemove(join(folder, vmId), performance.now() < deadline))) await wait(LOOK_AGAIN_MS);
    }
  }
}

/** Without those above it: where a file system refuses them by ENOENT, Node's `recursive` tries for ever. */
async function makeGroup(path: string): Promise<void> {
  try {
    await mkdir(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
  }
}

/** False: it is still busy, and that `mayBeBusy`. */
async function tryRemove(group: string, mayBeBusy: boolean): Promise<boolean> {
  try {
    await rmdir(group);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'EBUSY' && mayBeBusy) return false;
    if (code !== 'ENOENT') throw error;
  }
  return true;
}

interface Mount {
  folder: string;
  type: string;
  options: string[];
}

async function findV2(mounts: Mount[]): Promise<[Controller[], string] | null> {
  const mount = mounts.find(({ type }) => type === 'cgroup2');
  if (!mount) return null;
  const offered = (await readFile(join(mount.folder, 'cgroup.controllers'), 'utf8')).trim().split(' ');
  if (!offered.includes('cpu') || !offered.includes('memory')) return null;
  const folder = join(mount.folder, ROOT_GROUP);
  await makeGroup(folder);
  // From each level to the next: a group has only the controllers that its parent hands down.
  for (const level of [mount.folder, folder]) await writeFile(join(level, 'cgroup.subtree_control'), '+cpu +memory');
  return [[{ folder, settings: V2 }], 'cgroup v2 (cpu, memory)'];
}

async function findV1(mounts: Mount[]): Promise<[Controller[], string] | null> {
  const controllers: Controller[] = [];
  for (const [name, settings] of [
    ['cpu', V1_CPU],
    ['memory', V1_MEMORY],
  ] as const) {
    const mount = mounts.find(({ type, options }) => type === 'cgroup' && options.includes(name));
    if (!mount) return null;
    const folder = join(mount.folder, ROOT_GROUP);
    await makeGroup(folder);
    await access(folder, constants.W_OK);
    controllers.push({ folder, settings });
  }
  return [controllers, 'cgroup v1 (cpu, memory)'];
}

/** @see Linux, proc(5), /proc/pid/mountinfo */
function parseMounts(text: string): Mount[] {
  return text
    .split('\n')
    .filter(Boolean)
    .map((line) => {
      const [mount, filesystem] = line.split(' - ').map((part) => part.split(' '));
      return { folder: mount![4]!, type: filesystem![0]!, options: filesystem![2]!.split(',') };
    });
}
