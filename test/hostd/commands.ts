import type { CommandKind, CommandOf } from '../../hostd/commands/table.ts';
import type { Command } from '../../hostd/generated/protocol.ts';

const VOLUME = { volumeId: 'volume-1', storagePath: '/pool', format: 'QCOW2', sizeBytes: '1073741824' } as const;
const BASE = { epoch: 0, timeoutMs: 60_000 };

/** One valid command of each kind. */
const DEFAULTS: { [Kind in CommandKind]: Omit<CommandOf<Kind>, 'commandId'> } = {
  InspectImageCommand: {
    __typename: 'InspectImageCommand',
    ...BASE,
    fileName: 'disk.qcow2',
    format: 'QCOW2',
    maxVirtualBytes: '10995116277760',
  },
  PrepareTemplateCommand: {
    __typename: 'PrepareTemplateCommand',
    ...BASE,
    templateId: 'template-1',
    fileName: 'disk.qcow2',
    format: 'QCOW2',
    sha256: 'ab'.repeat(32),
    storagePath: '/pool',
  },
  CreateVolumeCommand: { __typename: 'CreateVolumeCommand', ...BASE, volume: VOLUME, templateId: 'template-1' },
  DeleteVolumeCommand: { __typename: 'DeleteVolumeCommand', ...BASE, volume: VOLUME },
  StartVmCommand: {
    __typename: 'StartVmCommand',
    ...BASE,
    epoch: 1,
    vm: { vmId: 'vm-1', vcpus: 2, memoryMib: 512, volumes: [VOLUME] },
  },
  StopVmCommand: {
    __typename: 'StopVmCommand',
    ...BASE,
    epoch: 1,
    vmId: 'vm-1',
    mode: 'GRACEFUL_THEN_FORCE',
    gracefulTimeoutMs: 30_000,
  },
  ControlVmCommand: { __typename: 'ControlVmCommand', ...BASE, epoch: 1, vmId: 'vm-1', action: 'PAUSE' },
  RemoveVmCommand: { __typename: 'RemoveVmCommand', ...BASE, epoch: 1, vmId: 'vm-1' },
  ScreenshotRequest: { __typename: 'ScreenshotRequest', ...BASE, epoch: 1, vmId: 'vm-1' },
  SerialLogRequest: { __typename: 'SerialLogRequest', ...BASE, epoch: 1, vmId: 'vm-1', lastBytes: 65_536 },
  WatchSerialRequest: { __typename: 'WatchSerialRequest', ...BASE, epoch: 1, vmId: 'vm-1', lastBytes: 65_536 },
};

/** A valid command of the kind, with what matters to the test put in. */
export function aCommand<Kind extends CommandKind>(
  kind: Kind,
  commandId: string,
  changes: Partial<Omit<CommandOf<Kind>, '__typename' | 'commandId'>> = {},
): CommandOf<Kind> {
  return { ...DEFAULTS[kind], commandId, ...changes } as CommandOf<Kind>;
}

export function aStart(commandId: string, vmId: string, epoch = 1): CommandOf<'StartVmCommand'> {
  return aCommand('StartVmCommand', commandId, { epoch, vm: { ...DEFAULTS.StartVmCommand.vm, vmId } });
}

export function aCancel(commandId: string): Command {
  return { __typename: 'CancelCommand', commandId, epoch: 0, timeoutMs: 0 };
}
