import type { CommandErrorCode, ControlAction, ImageFormat, ObservedVmState, StopMode } from './generated/protocol.ts';

/** What a command may use while it runs. */
export interface Run {
  /** Aborted by a cancel or the command's time-out; `signal.reason` is the `CommandError` to answer with. */
  readonly signal: AbortSignal;
  /** May be called as often as is handy: the link thins it out. */
  progress(done: number, total: number, unit: string): void;
}

/** A command that a host could not do. Anything else that is thrown is a bug and answered INTERNAL. */
export class CommandError extends Error {
  readonly code: CommandErrorCode;

  constructor(code: CommandErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = 'CommandError';
    this.code = code;
  }
}

export interface Volume {
  volumeId: string;
  storagePath: string;
  format: ImageFormat;
  /** Virtual size; null: as large as the template. */
  sizeBytes: number | null;
}

export interface VmSpec {
  vmId: string;
  vcpus: number;
  memoryMib: number;
  /** In boot order. */
  volumes: Volume[];
}

export interface ImageFacts {
  virtualBytes: number;
  fileBytes: number;
  sha256: string;
}

export interface VmObservation {
  vmId: string;
  state: ObservedVmState;
  epoch: number;
  reason: string | null;
}

export interface VmUsage {
  vmId: string;
  cpuNs: bigint;
  memoryBytes: bigint;
  diskReadBytes: bigint;
  diskWriteBytes: bigint;
  networkReceiveBytes: bigint | null;
  networkTransmitBytes: bigint | null;
}

export interface HostFacts {
  hypervisor: 'KVM' | 'TCG' | 'FAKE';
  version: string;
  /** Sorted names of what this host can do. */
  capabilities: string[];
  vcpusTotal: number;
  memoryTotalMib: number;
}

export interface HostUsage {
  /** Busy share of all CPUs since the last call, 0 to 1. */
  cpuLoad: number;
  memoryUsedMib: number;
  vms: VmUsage[];
}

/**
 * What a host daemon drives: QEMU, or the fake that behaves like it. Every operation may be asked for again after a
 * crash between act and journal, so each looks first whether its effect is there already.
 */
export interface Hypervisor {
  /** Finds the VMs that run already and adopts them. `changed` is called from then on with every change of a VM. */
  start(changed: (vm: VmObservation) => void): Promise<void>;
  facts(): Promise<HostFacts>;
  /** Every VM that this host knows of. */
  observe(): VmObservation[];
  usage(): Promise<HostUsage>;

  inspectImage(
    image: { fileName: string; format: ImageFormat; maxVirtualBytes: number },
    run: Run,
  ): Promise<ImageFacts>;
  /** Answers the virtual size of the copy in bytes. */
  prepareTemplate(
    template: { templateId: string; fileName: string; format: ImageFormat; sha256: string; storagePath: string },
    run: Run,
  ): Promise<{ virtualBytes: number }>;
  createVolume(volume: Volume, templateId: string | null, run: Run): Promise<void>;
  deleteVolume(volume: Volume, run: Run): Promise<void>;
  startVm(vm: VmSpec, epoch: number, run: Run): Promise<void>;
  stopVm(vmId: string, mode: StopMode, gracefulTimeoutMs: number, run: Run): Promise<void>;
  controlVm(vmId: string, action: ControlAction, run: Run): Promise<void>;
  removeVm(vmId: string, run: Run): Promise<void>;

  /** PNG. */
  screenshot(vmId: string): Promise<Buffer>;
  serialLog(vmId: string, lastBytes: number): Promise<{ offset: number; bytes: Buffer }>;
  /** Calls `next` with each piece of the log, beginning `lastBytes` before its end, until `signal` is aborted. */
  watchSerial(
    vmId: string,
    lastBytes: number,
    next: (offset: number, bytes: Buffer) => Promise<void>,
    signal: AbortSignal,
  ): Promise<void>;

  /** Lets go of everything without touching a VM. */
  close(): Promise<void>;
}
