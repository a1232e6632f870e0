import { execFile } from 'node:child_process';
import { cpus } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { Logger } from 'pino';
import type { ControlAction, ImageFormat, StopMode } from '../generated/protocol.ts';
import {
  CommandError,
  type HostFacts,
  type HostUsage,
  type Hypervisor,
  type ImageFacts,
  type Run,
  type VmObservation,
  type VmSpec,
  type Volume,
} from '../hypervisor.ts';
import { Taps } from '../network/taps.ts';
import { Drafts } from '../storage/draft.ts';
import { inspectImage } from '../storage/image.ts';
import { type TemplateOrder, Templates } from '../storage/template.ts';
import { createVolume, deleteVolume } from '../storage/volume.ts';
import { type Accelerator, type AcceleratorChoice, chooseAccelerator, kvmGroups } from './accel.ts';
import { findLeftVms } from './adoption.ts';
import { RUN_FILES } from './argv.ts';
import { Cgroups } from './cgroup.ts';
import { defaultQemuUser, type QemuUser } from './confine.ts';
import { CpuLoad, readMemory } from './host-usage.ts';
import { checkId } from './ids.ts';
import { Machine, type MachineContext } from './machine.ts';
import { runFolder } from './run-folder.ts';
import { readSerialLog, trimLog, watchSerialLog } from './serial.ts';

export interface QemuHypervisorOptions {
  /** Folder of this daemon's own; it alone may use it. */
  dataPath: string;
  /** Images that templates are made of. */
  imagePath: string;
  log: Logger;
  /** By default KVM where it works. */
  accel?: Accelerator;
  /** Whom QEMU runs as; null: as this process. By default an unprivileged user where this process is root. */
  user?: QemuUser | null;
  qemuBinary?: string;
  /** A bridge of this machine that every VM is attached to when it starts; absent: VMs have no network interface. */
  bridge?: string | undefined;
}

const CAPABILITIES = [
  'image.inspect',
  'template.prepare',
  'vm.control',
  'vm.screenshot',
  'vm.serial',
  'vm.start',
  'vm.stop',
  'volume.create',
  'volume.delete',
];
/** Only with a bridge. */
const NETWORK_CAPABILITY = 'vm.network';
const TRIM_EVERY_MS = 10_000;

/** Drives the QEMUs of this machine. */
export class QemuHypervisor implements Hypervisor {
  readonly #options: QemuHypervisorOptions;
  readonly #log: Logger;
  readonly #user: QemuUser | null;
  readonly #qemuBinary: string;
  readonly #vmsPath: string;
  readonly #drafts: Drafts;
  readonly #templates: Templates;
  readonly #machines = new Map<string, Machine>();
  readonly #cpuLoad = new CpuLoad();
  #context: MachineContext | null = null;
  #version = '';
  #trimmer: NodeJS.Timeout | undefined;

  constructor(options: QemuHypervisorOptions) {
    this.#options = options;
    this.#log = options.log;
    this.#user = options.user === undefined ? defaultQemuUser() : options.user;
    this.#qemuBinary = options.qemuBinary ?? 'qemu-system-x86_64';
    this.#vmsPath = join(options.dataPath, 'vms');
    this.#drafts = new Drafts(options.dataPath);
    this.#templates = new Templates(options.imagePath, this.#user, this.#drafts);
  }

  async start(changed: (vm: VmObservation) => void): Promise<void> {
    const user = this.#user && { ...this.#user, groups: this.#user.groups ?? (await kvmGroups()) };
    const [choice, version, cgroups] = await Promise.all([
      this.#chooseAccelerator(user),
      readVersion(this.#qemuBinary),
      Cgroups.find(),
      this.#cpuLoad.read(),
    ]);
    this.#version = version;
    const taps = new Taps(this.#options.bridge ?? null, user);
    await taps.check();
    this.#log.info({ ...choice, version, user, limits: cgroups.description, bridge: taps.bridge }, 'QEMU');
    let listening = false;
    const context: MachineContext = {
      vmsPath: this.#vmsPath,
      qemuBinary: this.#qemuBinary,
      user,
      accelerator: choice.accelerator,
      cgroups,
      taps,
      log: this.#log,
      changed: (vm) => {
        if (listening) changed(vm);
      },
    };
    this.#context = context;
    const left = await findLeftVms(this.#vmsPath, this.#log);
    await Promise.all(left.map(({ vmId, record, process }) => this.#machine(vmId).adopt(record, process)));
    listening = true;
    this.#trimmer = setInterval(() => this.#trimLogs(), TRIM_EVERY_MS).unref();
  }

  async facts(): Promise<HostFacts> {
    const { totalMib } = await readMemory();
    const { accelerator, taps } = this.#started;
    return {
      hypervisor: accelerator === 'kvm' ? 'KVM' : 'TCG',
      version: this.#version,
      capabilities: taps.bridge === null ? CAPABILITIES : [...CAPABILITIES, NETWORK_CAPABILITY].toSorted(),
      vcpusTotal: cpus().length,
      memoryTotalMib: totalMib,
    };
  }

  observe(): VmObservation[] {
    return [...this.#machines.values()].map(({ observation }) => observation).filter(({ state }) => state !== 'ABSENT');
  }

  async usage(): Promise<HostUsage> {
    const [cpuLoad, { usedMib }, vms] = await Promise.all([
      this.#cpuLoad.read(),
      readMemory(),
      Promise.all([...this.#machines.values()].map((machine) => machine.usage())),
    ]);
    return { cpuLoad, memoryUsedMib: usedMib, vms: vms.filter((vm) => vm !== null) };
  }

  inspectImage(
    image: { fileName: string; format: ImageFormat; maxVirtualBytes: number },
    run: Run,
  ): Promise<ImageFacts> {
    return inspectImage(this.#options.imagePath, image, this.#user, run);
  }

  prepareTemplate(template: TemplateOrder, run: Run): Promise<{ virtualBytes: number }> {
    return this.#templates.prepare(template, run);
  }

  createVolume(volume: Volume, templateId: string | null, run: Run): Promise<void> {
    return createVolume(volume, templateId, { drafts: this.#drafts, user: this.#user, run });
  }

  async deleteVolume(volume: Volume, run: Run): Promise<void> {
    const user = [...this.#machines.values()].find(({ volumeIds }) => volumeIds.includes(volume.volumeId));
    if (user) throw new CommandError('QEMU_FAILED', `the volume ${volume.volumeId} is in use by ${user.vmId}`);
    await deleteVolume(volume, run);
  }

  async startVm(vm: VmSpec, epoch: number, run: Run): Promise<void> {
    await this.#machine(vm.vmId).start(vm, epoch, run);
  }

  async stopVm(vmId: string, mode: StopMode, gracefulTimeoutMs: number, run: Run): Promise<void> {
    await this.#machines.get(vmId)?.stop(mode, gracefulTimeoutMs, run);
  }

  async controlVm(vmId: string, action: ControlAction): Promise<void> {
    await this.#known(vmId).control(action);
  }

  async removeVm(vmId: string): Promise<void> {
    await this.#machines.get(vmId)?.remove();
  }

  async screenshot(vmId: string): Promise<Buffer> {
    return this.#known(vmId).screenshot();
  }

  async serialLog(vmId: string, lastBytes: number): Promise<{ offset: number; bytes: Buffer }> {
    return readSerialLog(this.#serialLogPath(vmId), lastBytes);
  }

  async watchSerial(
    vmId: string,
    lastBytes: number,
    next: (offset: number, bytes: Buffer) => Promise<void>,
    signal: AbortSignal,
  ): Promise<void> {
    await watchSerialLog(this.#serialLogPath(vmId), lastBytes, next, signal);
  }

  async close(): Promise<void> {
    clearInterval(this.#trimmer);
    for (const machine of this.#machines.values()) machine.release();
  }

  get #started(): MachineContext {
    if (this.#context) return this.#context;
    throw new Error('the hypervisor was not started');
  }

  /** Once made it stays, also for a VM that was removed: two of them for one VM would not know of each other. */
  #machine(vmId: string): Machine {
    const known = this.#machines.get(vmId);
    if (known) return known;
    const machine = new Machine(checkId('vm', vmId), this.#started);
    this.#machines.set(vmId, machine);
    return machine;
  }

  #known(vmId: string): Machine {
    const machine = this.#machines.get(vmId);
    if (machine) return machine;
    throw new CommandError('NOT_FOUND', `VM ${vmId} is not on this host`);
  }

  async #chooseAccelerator(user: QemuUser | null): Promise<AcceleratorChoice> {
    const { accel } = this.#options;
    return accel ? { accelerator: accel, reason: 'chosen by the operator' } : chooseAccelerator(this.#qemuBinary, user);
  }

  #serialLogPath(vmId: string): string {
    return join(runFolder(this.#vmsPath, checkId('vm', vmId)).run, RUN_FILES.serialLog);
  }

  #trimLogs(): void {
    for (const { folder } of this.#machines.values()) {
      Promise.all([trimLog(join(folder.run, RUN_FILES.serialLog), this.#user), trimLog(folder.log, null)]).catch(
        (error: unknown) => this.#log.warn({ err: error }, 'a log could not be trimmed'),
      );
    }
  }
}

async function readVersion(qemuBinary: string): Promise<string> {
  const { stdout } = await promisify(execFile)(qemuBinary, ['--version']);
  return /version (\S+)/.exec(stdout)?.[1] ?? stdout.trim();
}
