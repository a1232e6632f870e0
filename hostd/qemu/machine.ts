import type { Logger } from 'pino';
import type { ControlAction, ObservedVmState, StopMode } from '../generated/protocol.ts';
import { CommandError, type Run, type VmObservation, type VmSpec, type VmUsage } from '../hypervisor.ts';
import type { Taps } from '../network/taps.ts';
import type { Accelerator } from './accel.ts';
import type { Cgroups } from './cgroup.ts';
import type { QemuUser } from './confine.ts';
import { checkVolumes, type Launched, launchQemu } from './launch.ts';
import { type End, judgeEnd } from './observed-state.ts';
import { identify, type ProcessIdentity, readProcess, residentBytes } from './proc.ts';
import { asCommandError, QemuProcess, readRemains } from './qemu-process.ts';
import { QmpError } from './qmp.ts';
import { queryDiskBytes, takeScreenshot } from './queries.ts';
import { type VmRecord, writeRecord } from './record.ts';
import { makeRunFolder, type RunFolder, removeRunFolder, runFolder } from './run-folder.ts';

/** What all machines of a host share. */
export interface MachineContext {
  vmsPath: string;
  qemuBinary: string;
  user: QemuUser | null;
  accelerator: Accelerator;
  cgroups: Cgroups;
  taps: Taps;
  log: Logger;
  changed: (vm: VmObservation) => void;
}

const QMP_COMMAND: Record<ControlAction, string> = { PAUSE: 'stop', RESUME: 'cont', RESET: 'system_reset' };

/**
 * One VM on this host, and the only one who decides about its QEMU: there is never a second. What changes a VM runs one
 * after the other; what QEMU tells is observed at once.
 */
export class Machine {
  readonly vmId: string;
  readonly folder: RunFolder;
  readonly #context: MachineContext;
  readonly #log: Logger;
  #record: VmRecord | null = null;
  #running: { qemu: QemuProcess; ended: Promise<void> } | null = null;
  #state: ObservedVmState = 'ABSENT';
  #reason: string | null = null;
  #tail: Promise<unknown> = Promise.resolve();
  /** What the last QEMU left is seen to. Whatever changes the VM's folder waits for it. */
  #tidying: Promise<void> = Promise.resolve();

  constructor(vmId: string, context: MachineContext) {
    this.vmId = vmId;
    this.#context = context;
    this.#log = context.log.child({ vmId });
    this.folder = runFolder(context.vmsPath, vmId);
  }

  get observation(): VmObservation {
    return { vmId: this.vmId, state: this.#state, epoch: this.#record?.epoch ?? 0, reason: this.#reason };
  }

  /** Volumes that its QEMU has open. */
  get volumeIds(): string[] {
    return this.#running ? this.#record!.spec.volumes.map(({ volumeId }) => volumeId) : [];
  }

  /** Takes over what a daemon before left: a QEMU that runs (`process`), or the memory of one. */
  adopt(record: VmRecord, process: ProcessIdentity | null): Promise<void> {
    return this.#exclusively(async () => {
      this.#record = record;
      if (process) {
        await this.#write({ ...record, process, ended: null });
        this.#attach(await QemuProcess.adopted(this.#qemuOptions(process)));
        return;
      }
      await this.#giveBack();
      const end = record.ended ?? (await this.#judgeUnseen(record));
      await this.#write({ ...record, process: null, ended: end });
      this.#observe(end.state, end.reason);
    });
  }

  /** @see Hypervisor.startVm */
  start(spec: VmSpec, epoch: number, run: Run): Promise<void> {
    return this.#exclusively(async () => {
      run.signal.throwIfAborted();
      const known = this.#record?.epoch ?? 0;
      if (epoch < known) throw new CommandError('STALE_EPOCH', `epoch ${epoch} is over: the host has seen ${known}`);
      if (!this.#running) return this.#startAnew(spec, epoch, run.signal);
      if (known !== epoch) throw new CommandError('QEMU_FAILED', `the VM runs already, at epoch ${known}`);
      // A daemon that was killed between starting QEMU and letting the guest run has left it waiting.
      await this.#running.qemu.letRun(run.signal);
    });
  }

  /** @see Hypervisor.stopVm */
  stop(mode: StopMode, gracefulTimeoutMs: number, run: Run): Promise<void> {
    return this.#exclusively(async () => {
      if (!this.#running) return;
      const { qemu, ended } = this.#running;
      // A guest that never ran has nothing to put in order.
      if (mode === 'FORCE' || qemu.state === 'STARTING') await qemu.force();
      else if (!(await this.#powerDown(qemu, mode, gracefulTimeoutMs, run.signal))) {
        if (mode === 'GRACEFUL') {
          throw new CommandError('TIMEOUT', `the guest did not power off in ${gracefulTimeoutMs} ms`);
        }
        await qemu.force();
      }
      await ended;
    });
  }

  /** @see Hypervisor.controlVm */
  control(action: ControlAction): Promise<void> {
    return this.#exclusively(async () => {
      try {
        await this.#mustRun().qmp.execute(QMP_COMMAND[action]);
      } catch (error) {
        throw asCommandError(error);
      }
    });
  }

  /** @see Hypervisor.removeVm */
  remove(): Promise<void> {
    return this.#exclusively(async () => {
      if (this.#running) throw new CommandError('QEMU_FAILED', `the VM ${this.vmId} still runs`);
      await this.#tidying;
      await removeRunFolder(this.folder);
      if (this.#record) this.#observe('ABSENT', 'removed');
      this.#record = null;
    });
  }

  /** PNG. Throws NOT_FOUND when the VM doesn't run. */
  async screenshot(): Promise<Buffer> {
    try {
      return await takeScreenshot(this.#mustRun().qmp, this.folder.run);
    } catch (error) {
      throw asCommandError(error);
    }
  }

  /** Null when the VM doesn't run, or its monitor doesn't answer. */
  async usage(): Promise<VmUsage | null> {
    const qemu = this.#running?.qemu;
    if (!qemu) return null;
    const { pid } = qemu.process;
    try {
      const [stat, memoryBytes, disks, traffic] = await Promise.all([
        readProcess(pid),
        residentBytes(pid),
        queryDiskBytes(qemu.qmp),
        this.#context.taps.traffic(this.vmId),
      ]);
      if (!stat || memoryBytes === null) return null;
      return {
        vmId: this.vmId,
        cpuNs: stat.cpuNs,
        memoryBytes,
        diskReadBytes: disks.read,
        diskWriteBytes: disks.written,
        networkReceiveBytes: traffic?.receiveBytes ?? null,
        networkTransmitBytes: traffic?.transmitBytes ?? null,
      };
    } catch (error) {
      if (!(error instanceof QmpError) && !(error instanceof CommandError)) throw error;
      this.#log.debug({ err: error }, 'usage is not known');
      return null;
    }
  }

  /** Lets go without touching QEMU. */
  release(): void {
    this.#running?.qemu.release();
  }

  async #startAnew(spec: VmSpec, epoch: number, signal: AbortSignal): Promise<void> {
    await this.#tidying;
    const before = { record: this.#record, ...this.observation };
    await checkVolumes(spec);
    let launched: Launched | null = null;
    try {
      await makeRunFolder(this.folder, this.#context.user);
      // Before QEMU is: one that nobody has heard of is found by its folder, and this tells what it is.
      const record: VmRecord = { epoch, spec, process: null, ended: null };
      await this.#write(record);
      this.#observe('STARTING', null);
      const joinGroup = await this.#context.cgroups.create(spec, this.#context.accelerator);
      const nic = await this.#context.taps.attach(this.vmId);
      launched = await launchQemu(spec, { ...this.#context, folder: this.folder, nic });
      // At once, while it is a few pages: what it takes from here on is charged to its group.
      await joinGroup(launched.pid);
      const process = await identify(launched.pid);
      const options = this.#qemuOptions(process ?? { pid: launched.pid, startTicks: 0, bootId: '' });
      const [greeted, written] = await Promise.allSettled([
        QemuProcess.launched(launched, options, signal),
        this.#write({ ...record, process }),
      ]);
      if (greeted.status === 'rejected') throw greeted.reason;
      const qemu = greeted.value;
      this.#attach(qemu);
      if (written.status === 'rejected') throw written.reason;
      await qemu.letRun(signal);
    } catch (error) {
      await this.#undoStart(launched, before);
      signal.throwIfAborted();
      throw error;
    }
  }

  async #undoStart(launched: Launched | null, before: VmObservation & { record: VmRecord | null }): Promise<void> {
    this.#running?.qemu.release();
    this.#running = null;
    launched?.kill();
    await launched?.exited;
    await this.#giveBack();
    if (before.record) {
      // What the host has seen it has seen: only the epoch doesn't go back.
      await this.#write({ ...before.record, epoch: this.#record!.epoch });
      this.#observe(before.state, before.reason);
    } else {
      await removeRunFolder(this.folder);
      if (this.#record) this.#observe('ABSENT', 'did not start');
      this.#record = null;
    }
  }

  #qemuOptions(process: ProcessIdentity) {
    const changed = (state: ObservedVmState, reason: string | null): void => this.#observe(state, reason);
    return { vmId: this.vmId, process, folder: this.folder, log: this.#log, changed };
  }

  #attach(qemu: QemuProcess): void {
    this.#running = { qemu, ended: qemu.over.then((end) => this.#ended(qemu, end)) };
  }

  async #ended(qemu: QemuProcess, end: End): Promise<void> {
    if (this.#running?.qemu !== qemu) return;
    this.#running = null;
    this.#tidying = this.#tidyUp(end);
    await this.#tidying;
  }

  async #tidyUp(end: End): Promise<void> {
    try {
      await this.#write({ ...this.#record!, process: null, ended: end });
    } catch (error) {
      this.#log.error({ err: error }, 'how QEMU ended could not be written down');
    }
    // Seen before its group is gone, which may take a while.
    this.#observe(end.state, end.reason);
    await this.#giveBack();
  }

  /** How a QEMU ended that nobody watched. */
  async #judgeUnseen(record: VmRecord): Promise<End> {
    if (!record.process) return { state: 'STOPPED', reason: 'its start was cut off' };
    return judgeEnd({ shutdown: null, killed: false, exit: null, ...(await readRemains(this.folder)) });
  }

  async #powerDown(qemu: QemuProcess, mode: StopMode, timeoutMs: number, signal: AbortSignal): Promise<boolean> {
    try {
      return await qemu.powerDown(timeoutMs, signal);
    } catch (error) {
      const isMute = error instanceof QmpError || error instanceof CommandError;
      if (signal.aborted || mode === 'GRACEFUL' || !isMute) throw asCommandError(error);
      this.#log.warn({ err: error }, 'the guest could not be asked to power off');
      return false;
    }
  }

  /**
   * What the host held for a QEMU that has ended. An empty group or a tap without a guest that stays does no harm, and the
   * next start sees to it; a VM that can't be seen ended does.
   */
  async #giveBack(): Promise<void> {
    const { taps, cgroups } = this.#context;
    const warn = (what: string) => (error: unknown) =>
      this.#log.warn({ err: error }, `the ${what} of a VM could not be removed`);
    await Promise.all([taps.remove(this.vmId).catch(warn('tap')), cgroups.remove(this.vmId).catch(warn('cgroup'))]);
  }

  #mustRun(): QemuProcess {
    const qemu = this.#running?.qemu;
    if (qemu && qemu.state !== 'STARTING') return qemu;
    throw new CommandError('NOT_FOUND', `the VM ${this.vmId} does not run`);
  }

  async #write(record: VmRecord): Promise<void> {
    this.#record = record;
    await writeRecord(this.folder.path, record);
  }

  #observe(state: ObservedVmState, reason: string | null): void {
    if (state === this.#state && reason === this.#reason) return;
    this.#state = state;
    this.#reason = reason;
    this.#log.info({ state, reason, epoch: this.observation.epoch }, 'VM observed');
    this.#context.changed(this.observation);
  }

  #exclusively<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#tail.then(work);
    this.#tail = result.catch(() => undefined);
    return result;
  }
}
