import type { Command, CommandResultInput, VolumeSpec } from '../generated/protocol.ts';
import { CommandError, type Hypervisor, type Run, type Volume } from '../hypervisor.ts';

export type CommandKind = Exclude<Command['__typename'], 'CancelCommand'>;
export type CommandOf<Kind extends CommandKind> = Extract<Command, { __typename: Kind }>;

/**
 * How long a command may take and how many of its like run at once. `quick` talks to QEMU, `transfer` moves whole
 * images, `stream` goes on until somebody ends it and has no time-out.
 */
export type CommandClass = 'quick' | 'transfer' | 'stream';
export const CLASS_SLOTS: Record<CommandClass, number> = { quick: 64, transfer: 4, stream: 64 };

/** What a running command may use: a hypervisor's `Run`, and a way to the watchers of a serial log. */
export interface CommandRun extends Run {
  sendSerial(offset: number, bytes: Buffer): Promise<void>;
}

interface CommandRow<Kind extends CommandKind> {
  class: CommandClass;
  /** Journalled commands act once, and those of one VM run one after the other. */
  journalled: boolean;
  /** The VM whose epoch is checked; null: it concerns none, or only looks. */
  vmId: ((command: CommandOf<Kind>) => string) | null;
  run(hypervisor: Hypervisor, command: CommandOf<Kind>, run: CommandRun): Promise<CommandResultInput | null>;
}

const SERIAL_LOG_MAX_BYTES = 1024 * 1024;
const nothing = (): null => null;
const byVmId = (command: { vmId: string }): string => command.vmId;

export const COMMANDS: { [Kind in CommandKind]: CommandRow<Kind> } = {
  InspectImageCommand: {
    class: 'transfer',
    journalled: true,
    vmId: null,
    async run(hypervisor, { fileName, format, maxVirtualBytes }, run) {
      const image = { fileName, format, maxVirtualBytes: toNumber(maxVirtualBytes) };
      const { virtualBytes, fileBytes, sha256 } = await hypervisor.inspectImage(image, run);
      return { virtualBytes: String(virtualBytes), fileBytes: String(fileBytes), sha256 };
    },
  },
  PrepareTemplateCommand: {
    class: 'transfer',
    journalled: true,
    vmId: null,
    async run(hypervisor, { templateId, fileName, format, sha256, storagePath }, run) {
      const template = { templateId, fileName, format, sha256, storagePath };
      return { virtualBytes: String((await hypervisor.prepareTemplate(template, run)).virtualBytes) };
    },
  },
  CreateVolumeCommand: {
    class: 'quick',
    journalled: true,
    vmId: null,
    run: (hypervisor, { volume, templateId }, run) =>
      hypervisor.createVolume(toVolume(volume), templateId, run).then(nothing),
  },
  DeleteVolumeCommand: {
    class: 'quick',
    journalled: true,
    vmId: null,
    run: (hypervisor, { volume }, run) => hypervisor.deleteVolume(toVolume(volume), run).then(nothing),
  },
  StartVmCommand: {
    class: 'quick',
    journalled: true,
    vmId: ({ vm }) => vm.vmId,
    run(hypervisor, { vm, epoch }, run) {
      const { vmId, vcpus, memoryMib } = vm;
      return hypervisor
        .startVm({ vmId, vcpus, memoryMib, volumes: vm.volumes.map(toVolume) }, epoch, run)
        .then(nothing);
    },
  },
  StopVmCommand: {
    class: 'quick',
    journalled: true,
    vmId: byVmId,
    run: (hypervisor, { vmId, mode, gracefulTimeoutMs }, run) =>
      hypervisor.stopVm(vmId, mode, gracefulTimeoutMs, run).then(nothing),
  },
  ControlVmCommand: {
    class: 'quick',
    journalled: true,
    vmId: byVmId,
    run: (hypervisor, { vmId, action }, run) => hypervisor.controlVm(vmId, action, run).then(nothing),
  },
  RemoveVmCommand: {
    class: 'quick',
    journalled: true,
    vmId: byVmId,
    run: (hypervisor, { vmId }, run) => hypervisor.removeVm(vmId, run).then(nothing),
  },
  ScreenshotRequest: {
    class: 'quick',
    journalled: false,
    vmId: null,
    run: async (hypervisor, { vmId }) => ({ base64: (await hypervisor.screenshot(vmId)).toString('base64') }),
  },
  SerialLogRequest: {
    class: 'quick',
    journalled: false,
    vmId: null,
    async run(hypervisor, { vmId, lastBytes }) {
      const { bytes } = await hypervisor.serialLog(vmId, Math.min(lastBytes, SERIAL_LOG_MAX_BYTES));
      return { base64: bytes.toString('base64') };
    },
  },
  WatchSerialRequest: {
    class: 'stream',
    journalled: false,
    vmId: null,
    run: (hypervisor, { vmId, lastBytes }, { sendSerial, signal }) =>
      hypervisor.watchSerial(vmId, Math.min(lastBytes, SERIAL_LOG_MAX_BYTES), sendSerial, signal).then(nothing),
  },
};

function toVolume({ volumeId, storagePath, format, sizeBytes }: VolumeSpec): Volume {
  return { volumeId, storagePath, format, sizeBytes: sizeBytes === null ? null : toNumber(sizeBytes) };
}

/** Sizes of files fit a double; one that doesn't is not a size. */
function toNumber(decimal: string): number {
  const number = Number(decimal);
  if (!Number.isSafeInteger(number) || number < 0) throw new CommandError('INTERNAL', `${decimal} is no size in bytes`);
  return number;
}
