import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { mkdir, readdir } from 'node:fs/promises';
import { basename, join } from 'node:path';
import type { TestContext } from 'node:test';
import { pino } from 'pino';
import { CommandError, type Run, type VmObservation, type VmSpec, type Volume } from '../../hostd/hypervisor.ts';
import { Cgroups } from '../../hostd/qemu/cgroup.ts';
import { QemuHypervisor, type QemuHypervisorOptions } from '../../hostd/qemu/hypervisor.ts';
import { identify, processesIn, untilGone } from '../../hostd/qemu/proc.ts';
import { encodeId, type ResourceKind } from '../../src/domain/ids.ts';
import { temporaryFolder } from './temporary-folder.ts';

export const silent = pino({ level: 'silent' });

export function anId(kind: ResourceKind): string {
  return encodeId(kind, Buffer.from(randomUUID().replaceAll('-', ''), 'hex'));
}

export function aRun(options: Partial<Run> = {}): Run {
  return { signal: new AbortController().signal, progress: () => undefined, ...options };
}

export function hasCode(code: string, message = /./): (error: unknown) => boolean {
  return (error) => {
    if (error instanceof CommandError && error.code === code && message.test(error.message)) return true;
    throw error;
  };
}

/** Folders of one host, and the daemons that come and go on it. */
export class QemuHost {
  readonly path: string;
  readonly dataPath: string;
  readonly imagePath: string;
  readonly storagePath: string;
  readonly seen: VmObservation[] = [];
  readonly #daemons: QemuHypervisor[] = [];
  readonly #changes = new EventTarget();

  private constructor(path: string) {
    this.path = path;
    this.dataPath = join(path, 'data');
    this.imagePath = join(path, 'images');
    this.storagePath = join(path, 'storage');
  }

  static async make(test: TestContext): Promise<QemuHost> {
    const host = new QemuHost(await temporaryFolder());
    for (const folder of [host.dataPath, host.imagePath, host.storagePath]) await mkdir(folder);
    test.after(() => host.#end());
    return host;
  }

  /** A daemon on this host; what it observes goes to `seen`. */
  async start(options: Partial<QemuHypervisorOptions> = {}): Promise<QemuHypervisor> {
    const { dataPath, imagePath } = this;
    const hypervisor = new QemuHypervisor({ dataPath, imagePath, log: silent, ...options });
    this.#daemons.push(hypervisor);
    await hypervisor.start((vm) => {
      this.seen.push(vm);
      this.#changes.dispatchEvent(new Event('change'));
    });
    return hypervisor;
  }

  /** Resolves with the first observation that fits, of those to come or already seen. */
  async until(fits: (vm: VmObservation) => boolean): Promise<VmObservation> {
    for (;;) {
      const found = this.seen.find(fits);
      if (found) return found;
      await once(this.#changes, 'change');
    }
  }

  aVolume(overrides: Partial<Volume> = {}): Volume {
    const { storagePath } = this;
    return { volumeId: anId('volume'), storagePath, format: 'QCOW2', sizeBytes: 16 * 1024 * 1024, ...overrides };
  }

  /** A VM with one empty disk, which its firmware looks at for ever. */
  async aVm(hypervisor: QemuHypervisor): Promise<VmSpec> {
    const volume = this.aVolume();
    await hypervisor.createVolume(volume, null, aRun());
    return { vmId: anId('vm'), vcpus: 1, memoryMib: 64, volumes: [volume] };
  }

  runPath(vmId: string): string {
    return join(this.dataPath, 'vms', vmId, 'run');
  }

  /** Of the QEMUs of a VM, or of all. */
  async pids(vmId?: string): Promise<number[]> {
    const processes = await processesIn(vmId ? join(this.dataPath, 'vms', vmId) : this.path);
    return [...processes.values()].flat();
  }

  /** Ends every QEMU of this host and returns when they are gone. */
  async killAll(): Promise<void> {
    const identities = await Promise.all((await this.pids()).map(identify));
    for (const identity of identities) {
      if (!identity) continue;
      process.kill(identity.pid, 'SIGKILL');
      await untilGone(identity, 10_000);
    }
  }

  async #end(): Promise<void> {
    for (const daemon of this.#daemons) await daemon.close();
    await this.killAll();
    const cgroups = await Cgroups.find();
    const names = await readdir(this.dataPath, { recursive: true });
    for (const name of names) if (/^vms\/vm_\w+$/.test(name)) await cgroups.remove(basename(name));
  }
}
