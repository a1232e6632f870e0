import { createHash } from 'node:crypto';
import type { Logger } from 'pino';
import { pause } from '../backoff.ts';
import type { ControlAction, ImageFormat, ObservedVmState, StopMode } from '../generated/protocol.ts';
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
import { type FakeConfig, type ParsedFakeConfig, parseFakeConfig } from './config.ts';
import { FakeEstate } from './estate.ts';
import { Faults } from './faults.ts';
import { drawScreen, GUEST_LINE_MS, guestUsage, serialBytes, serialLength } from './guest.ts';
import { FakeStateFile, type FakeVm } from './state-file.ts';

export interface FakeHypervisorOptions {
  config?: FakeConfig;
  /** File that remembers the VMs while no daemon runs; absent: they end with the process. */
  statePath?: string;
  /** Shared by the fake hosts of a process; by default this host is alone. */
  estate?: FakeEstate;
  log: Logger;
  now?: () => number;
}

const CAPABILITIES = [
  'image.inspect',
  'template.prepare',
  'vm.control',
  'vm.network',
  'vm.screenshot',
  'vm.serial',
  'vm.start',
  'vm.stop',
  'volume.create',
  'volume.delete',
];
const DEFAULT_VIRTUAL_BYTES = 2 * 1024 ** 3;
const DEFAULT_FILE_BYTES = 512 * 1024 ** 2;
const ACTIVE: readonly ObservedVmState[] = ['RUNNING', 'PAUSED'];
/** An operation in which nothing is counted goes from none to all. */
const ONE_STEP = { total: 100, unit: 'percent' };
const NO_RUN: Run = { signal: new AbortController().signal, progress: () => undefined };

/** Behaves like a host with QEMU, in memory, with delays and faults by configuration. */
export class FakeHypervisor implements Hypervisor {
  readonly estate: FakeEstate;
  readonly #config: ParsedFakeConfig;
  readonly #faults: Faults;
  readonly #file: FakeStateFile;
  readonly #log: Logger;
  readonly #now: () => number;
  readonly #crashes = new Map<string, NodeJS.Timeout>();
  #vms = new Map<string, FakeVm>();
  #changed: (vm: VmObservation) => void = () => undefined;

  /** Throws `FakeConfigError`. */
  constructor(options: FakeHypervisorOptions) {
    this.estate = options.estate ?? new FakeEstate();
    this.#config = parseFakeConfig(options.config ?? {});
    this.#faults = new Faults(this.#config);
    this.#file = new FakeStateFile(options.statePath ?? null);
    this.#log = options.log;
    this.#now = options.now ?? Date.now;
  }

  async start(changed: (vm: VmObservation) => void): Promise<void> {
    // A daemon that is followed by another on the same object finds its VMs as the one before left them.
    if (this.#vms.size === 0) this.#vms = await this.#file.load();
    for (const [vmId, vm] of this.#vms) {
      if (vm.state === 'STARTING') this.#set(vmId, vm, 'STOPPED', 'its start was cut off');
      if (ACTIVE.includes(vm.state)) this.estate.adopted(vmId, this);
    }
    this.#changed = changed;
  }

  async facts(): Promise<HostFacts> {
    const facts = this.#config.facts;
    return {
      hypervisor: 'FAKE',
      version: facts?.version ?? 'fake 1',
      capabilities: facts?.capabilities?.toSorted() ?? CAPABILITIES,
      vcpusTotal: facts?.vcpusTotal ?? 64,
      memoryTotalMib: facts?.memoryTotalMib ?? 262_144,
    };
  }

  observe(): VmObservation[] {
    return Array.from(this.#vms, ([vmId, { state, epoch, reason }]) => ({ vmId, state, epoch, reason }));
  }

  async usage(): Promise<HostUsage> {
    const { vcpusTotal } = await this.facts();
    let busyVcpus = 0;
    let memoryUsedMib = 0;
    const vms = [...this.#vms]
      .filter(([, { state }]) => ACTIVE.includes(state))
      .map(([vmId, vm]) => {
        const { busy, ...usage } = guestUsage(vmId, vm.spec.vcpus, vm.spec.memoryMib, this.#upMs(vm));
        busyVcpus += busy * vm.spec.vcpus;
        memoryUsedMib += vm.spec.memoryMib;
        return usage;
      });
    return { cpuLoad: Math.min(1, busyVcpus / vcpusTotal), memoryUsedMib, vms };
  }

  async inspectImage(
    { fileName, maxVirtualBytes }: { fileName: string; format: ImageFormat; maxVirtualBytes: number },
    run: Run,
  ): Promise<ImageFacts> {
    const image = this.#image(fileName);
    const fault = this.#faults.take('inspectImage', { fileName });
    await this.#faults.suffer(fault, run, { total: image.fileBytes, unit: 'bytes' });
    if (image.virtualBytes > maxVirtualBytes) {
      throw new CommandError(
        'IMAGE_REFUSED',
        `${image.virtualBytes} bytes are more than the ${maxVirtualBytes} allowed`,
      );
    }
    return image;
  }

  async prepareTemplate(
    { fileName, sha256 }: { fileName: string; sha256: string },
    run: Run,
  ): Promise<{ virtualBytes: number }> {
    const image = this.#image(fileName);
    const fault = this.#faults.take('prepareTemplate', { fileName });
    await this.#faults.suffer(fault, run, { total: image.virtualBytes, unit: 'bytes' });
    // Only an image that the configuration describes has contents that could have changed.
    const described = this.#config.images?.[fileName]?.sha256;
    if (described !== undefined && described !== sha256) {
      throw new CommandError('IMAGE_REFUSED', `${fileName} has changed since it was registered`);
    }
    return { virtualBytes: image.virtualBytes };
  }

  async createVolume({ storagePath, volumeId }: Volume, _templateId: string | null, run: Run): Promise<void> {
    await this.#faults.suffer(this.#faults.take('createVolume', { volumeId }), run, ONE_STEP);
    this.estate.putVolume(storagePath, volumeId);
  }

  async deleteVolume({ storagePath, volumeId }: Volume, run: Run): Promise<void> {
    await this.#faults.suffer(this.#faults.take('deleteVolume', { volumeId }), run, ONE_STEP);
    this.estate.deleteVolume(storagePath, volumeId);
  }

  async startVm(spec: VmSpec, epoch: number, run: Run): Promise<void> {
    const { vmId } = spec;
    const before = this.#vms.get(vmId);
    if (before && ACTIVE.includes(before.state)) {
      if (before.epoch === epoch) return;
      throw new CommandError('QEMU_FAILED', `VM ${vmId} runs already, at epoch ${before.epoch}`);
    }
    const missing = spec.volumes.find(({ storagePath, volumeId }) => this.estate.isMissing(storagePath, volumeId));
    if (missing) throw new CommandError('NOT_FOUND', `volume ${missing.volumeId} was deleted`);

    const fault = this.#faults.take('startVm', { vmId });
    const vm: FakeVm = { spec, epoch, state: 'STARTING', reason: null, bootedAt: null, endedAt: null };
    this.#set(vmId, vm, 'STARTING', null);
    try {
      await this.#faults.suffer(fault, run, ONE_STEP);
    } catch (error) {
      if (before) this.#set(vmId, before, before.state, before.reason);
      else this.#forget(vmId, epoch, 'did not start');
      throw error;
    }
    vm.bootedAt = this.#now();
    this.estate.started(vmId, this);
    this.#set(vmId, vm, 'RUNNING', null);
    await this.#file.save(this.#vms);
    if (fault?.crashAfterMs !== undefined) {
      const timer = setTimeout(() => this.crash(vmId, 'crashed as configured'), fault.crashAfterMs);
      this.#crashes.set(vmId, timer.unref());
    }
  }

  /** A fault with `hang` is a guest that ignores its power button. */
  async stopVm(vmId: string, mode: StopMode, gracefulTimeoutMs: number, run: Run): Promise<void> {
    const vm = this.#vms.get(vmId);
    if (!vm || !ACTIVE.includes(vm.state)) return;
    const { hang, ...fault } = this.#faults.take('stopVm', { vmId }) ?? {};
    await this.#faults.suffer(fault, run, ONE_STEP);
    if (hang && mode !== 'FORCE') {
      await pause(gracefulTimeoutMs, run.signal);
      run.signal.throwIfAborted();
      if (mode === 'GRACEFUL')
        throw new CommandError('TIMEOUT', `the guest did not power off in ${gracefulTimeoutMs} ms`);
    }
    this.#end(vmId, 'STOPPED', hang || mode === 'FORCE' ? 'ended by force' : 'guest powered off');
    await this.#file.save(this.#vms);
  }

  async controlVm(vmId: string, action: ControlAction, run: Run): Promise<void> {
    const vm = this.#running(vmId);
    await this.#faults.suffer(this.#faults.take('controlVm', { vmId }), run, ONE_STEP);
    if (action === 'RESET') vm.bootedAt = this.#now();
    else this.#set(vmId, vm, action === 'PAUSE' ? 'PAUSED' : 'RUNNING', null);
    await this.#file.save(this.#vms);
  }

  async removeVm(vmId: string, run: Run): Promise<void> {
    const vm = this.#vms.get(vmId);
    if (vm && ACTIVE.includes(vm.state)) throw new CommandError('QEMU_FAILED', `VM ${vmId} still runs`);
    await this.#faults.suffer(this.#faults.take('removeVm', { vmId }), run, ONE_STEP);
    if (vm) this.#forget(vmId, vm.epoch, 'removed');
    await this.#file.save(this.#vms);
  }

  async screenshot(vmId: string): Promise<Buffer> {
    const vm = this.#running(vmId);
    await this.#faults.suffer(this.#faults.take('screenshot', { vmId }), NO_RUN, ONE_STEP);
    return drawScreen(vmId, this.#upMs(vm));
  }

  async serialLog(vmId: string, lastBytes: number): Promise<{ offset: number; bytes: Buffer }> {
    const vm = this.#known(vmId);
    await this.#faults.suffer(this.#faults.take('serialLog', { vmId }), NO_RUN, ONE_STEP);
    const end = this.#serialLength(vm);
    const offset = Math.max(0, end - lastBytes);
    return { offset, bytes: serialBytes(offset, end) };
  }

  async watchSerial(
    vmId: string,
    lastBytes: number,
    next: (offset: number, bytes: Buffer) => Promise<void>,
    signal: AbortSignal,
  ): Promise<void> {
    let { offset, bytes } = await this.serialLog(vmId, lastBytes);
    while (!signal.aborted) {
      if (bytes.length > 0) await next(offset, bytes);
      await pause(GUEST_LINE_MS, signal);
      const start = offset + bytes.length;
      const end = this.#serialLength(this.#known(vmId));
      // A guest that booted anew begins its log again.
      offset = end < start ? 0 : start;
      bytes = serialBytes(offset, end);
    }
  }

  /** As when QEMU dies. Nothing happens to a VM that doesn't run. */
  crash(vmId: string, reason = 'QEMU ended by signal 9'): void {
    this.#end(vmId, 'CRASHED', reason);
    this.#saveLater();
  }

  /** As when somebody shuts the guest down from within. */
  powerOff(vmId: string): void {
    this.#end(vmId, 'STOPPED', 'guest powered off');
    this.#saveLater();
  }

  async close(): Promise<void> {
    this.#changed = () => undefined;
    for (const timer of this.#crashes.values()) clearTimeout(timer);
    await this.#file.save(this.#vms);
  }

  #end(vmId: string, state: ObservedVmState, reason: string): void {
    const vm = this.#vms.get(vmId);
    if (!vm || !ACTIVE.includes(vm.state)) return;
    clearTimeout(this.#crashes.get(vmId));
    this.#crashes.delete(vmId);
    vm.endedAt = this.#now();
    this.estate.ended(vmId, this);
    this.#set(vmId, vm, state, reason);
  }

  #set(vmId: string, vm: FakeVm, state: ObservedVmState, reason: string | null): void {
    vm.state = state;
    vm.reason = reason;
    this.#vms.set(vmId, vm);
    this.#changed({ vmId, state, epoch: vm.epoch, reason });
  }

  #forget(vmId: string, epoch: number, reason: string): void {
    this.#vms.delete(vmId);
    this.#changed({ vmId, state: 'ABSENT', epoch, reason });
  }

  #known(vmId: string): FakeVm {
    const vm = this.#vms.get(vmId);
    if (!vm) throw new CommandError('NOT_FOUND', `VM ${vmId} is not on this host`);
    return vm;
  }

  #running(vmId: string): FakeVm {
    const vm = this.#known(vmId);
    if (!ACTIVE.includes(vm.state)) throw new CommandError('NOT_FOUND', `VM ${vmId} does not run`);
    return vm;
  }

  #upMs({ bootedAt, endedAt }: FakeVm): number {
    return bootedAt === null ? 0 : Math.max(0, (endedAt ?? this.#now()) - bootedAt);
  }

  #serialLength(vm: FakeVm): number {
    return vm.bootedAt === null ? 0 : serialLength(this.#upMs(vm));
  }

  #image(fileName: string): ImageFacts {
    if (/[/\\\0]/.test(fileName) || fileName === '' || fileName === '.' || fileName === '..') {
      throw new CommandError('IMAGE_REFUSED', 'the name of an image has no separators');
    }
    const image = this.#config.images?.[fileName];
    return {
      virtualBytes: image?.virtualBytes ?? DEFAULT_VIRTUAL_BYTES,
      fileBytes: image?.fileBytes ?? DEFAULT_FILE_BYTES,
      sha256: image?.sha256 ?? createHash('sha256').update(fileName).digest('hex'),
    };
  }

  #saveLater(): void {
    this.#file.save(this.#vms).catch((error: unknown) => this.#log.error({ err: error }, 'fake state not saved'));
  }
}
