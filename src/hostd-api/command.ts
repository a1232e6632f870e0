import type { WireCommand } from '../hosts/links.ts';
import { builder } from './builder.ts';

export const ControlAction = builder.enumType('ControlAction', { values: ['PAUSE', 'RESET', 'RESUME'] as const });
export const ImageFormat = builder.enumType('ImageFormat', { values: ['QCOW2', 'RAW'] as const });
export const StopMode = builder.enumType('StopMode', {
  values: {
    GRACEFUL: { description: "Ask the guest to power off; answer TIMEOUT when it doesn't." },
    GRACEFUL_THEN_FORCE: { description: "Ask the guest, then end QEMU when it doesn't." },
    FORCE: { description: 'End QEMU at once.' },
  },
});

interface VolumeSpecData {
  volumeId: string;
  storagePath: string;
  format: 'QCOW2' | 'RAW';
  sizeBytes: string | null;
}

const VolumeSpec = builder.objectRef<VolumeSpecData>('VolumeSpec').implement({
  fields: (t) => ({
    volumeId: t.exposeID('volumeId'),
    storagePath: t.exposeString('storagePath', { description: 'Folder of the primary storage on this host.' }),
    format: t.expose('format', { type: ImageFormat }),
    sizeBytes: t.expose('sizeBytes', {
      type: 'BigInt',
      nullable: true,
      description: 'Virtual size in bytes; null: as large as the template.',
    }),
  }),
});

interface VmSpecData {
  vmId: string;
  vcpus: number;
  memoryMib: number;
  volumes: VolumeSpecData[];
}

const VmSpec = builder.objectRef<VmSpecData>('VmSpec').implement({
  fields: (t) => ({
    vmId: t.exposeID('vmId'),
    vcpus: t.exposeInt('vcpus'),
    memoryMib: t.exposeInt('memoryMib'),
    volumes: t.expose('volumes', { type: [VolumeSpec], description: 'In boot order.' }),
  }),
});

export const Command = builder.interfaceRef<WireCommand>('Command').implement({
  description:
    'One instruction to a host. Delivered at least once: a host that knows `commandId` answers with the stored result and acts no second time.',
  resolveType: (command) => command.__typename,
  fields: (t) => ({
    commandId: t.exposeID('commandId', { description: 'Identifies the command for ever: `<job>.<step>`.' }),
    epoch: t.exposeInt('epoch', {
      description:
        'Fencing token of the VM that the command concerns, 0 where it concerns none. A host refuses any that is lower than the highest it has seen for that VM.',
    }),
    timeoutMs: t.exposeInt('timeoutMs', {
      description: 'The host may give up after this many milliseconds and answers TIMEOUT.',
    }),
  }),
});

/** A command's own fields, in their wire form. */
type Of<T> = WireCommand & T;
const interfaces = [Command];

builder
  .objectRef<Of<{ fileName: string; format: 'QCOW2' | 'RAW'; maxVirtualBytes: string }>>('InspectImageCommand')
  .implement({
    description: "Reads an image file in the host's image folder and says what it is, or refuses it.",
    interfaces,
    fields: (t) => ({
      fileName: t.exposeString('fileName', {
        description: "Name of the file inside the host's image folder; no separators.",
      }),
      format: t.expose('format', { type: ImageFormat }),
      maxVirtualBytes: t.expose('maxVirtualBytes', {
        type: 'BigInt',
        description: 'Largest virtual size that is accepted, in bytes.',
      }),
    }),
  });

builder
  .objectRef<
    Of<{ templateId: string; fileName: string; format: 'QCOW2' | 'RAW'; sha256: string; storagePath: string }>
  >('PrepareTemplateCommand')
  .implement({
    description:
      'Makes a fresh qcow2 of a registered image on a primary storage, once: a copy that is there already is the result.',
    interfaces,
    fields: (t) => ({
      templateId: t.exposeID('templateId'),
      fileName: t.exposeString('fileName'),
      format: t.expose('format', { type: ImageFormat }),
      sha256: t.exposeString('sha256', {
        description: 'SHA-256 of the file as it was registered, in lower-case hexadecimal. Another one is refused.',
      }),
      storagePath: t.exposeString('storagePath'),
    }),
  });

builder.objectRef<Of<{ volume: VolumeSpecData; templateId: string | null }>>('CreateVolumeCommand').implement({
  description: 'Creates a volume, empty or on top of a prepared template.',
  interfaces,
  fields: (t) => ({
    volume: t.expose('volume', { type: VolumeSpec }),
    templateId: t.exposeID('templateId', { nullable: true, description: 'Template under the volume; null: empty.' }),
  }),
});

builder.objectRef<Of<{ volume: VolumeSpecData }>>('DeleteVolumeCommand').implement({
  description: "Deletes a volume's file. One that isn't there is the wanted result.",
  interfaces,
  fields: (t) => ({ volume: t.expose('volume', { type: VolumeSpec }) }),
});

builder.objectRef<Of<{ vm: VmSpecData }>>('StartVmCommand').implement({
  description: 'Starts a VM, or finds it running at this epoch.',
  interfaces,
  fields: (t) => ({ vm: t.expose('vm', { type: VmSpec }) }),
});

builder
  .objectRef<Of<{ vmId: string; mode: 'GRACEFUL' | 'GRACEFUL_THEN_FORCE' | 'FORCE'; gracefulTimeoutMs: number }>>(
    'StopVmCommand',
  )
  .implement({
    description: "Stops a VM. One that isn't there is the wanted result.",
    interfaces,
    fields: (t) => ({
      vmId: t.exposeID('vmId'),
      mode: t.expose('mode', { type: StopMode }),
      gracefulTimeoutMs: t.exposeInt('gracefulTimeoutMs', {
        description: 'How long the guest may take to power off, in milliseconds.',
      }),
    }),
  });

builder.objectRef<Of<{ vmId: string; action: 'PAUSE' | 'RESET' | 'RESUME' }>>('ControlVmCommand').implement({
  description: 'Resets, pauses or resumes a running VM.',
  interfaces,
  fields: (t) => ({ vmId: t.exposeID('vmId'), action: t.expose('action', { type: ControlAction }) }),
});

builder.objectRef<Of<{ vmId: string }>>('RemoveVmCommand').implement({
  description: 'Removes what a host keeps of a stopped VM: its runtime folder and serial log.',
  interfaces,
  fields: (t) => ({ vmId: t.exposeID('vmId') }),
});

builder.objectRef<WireCommand>('CancelCommand').implement({
  description: 'Ends another command, if it is still under way; that one is then answered CANCELLED.',
  interfaces,

  fields: (t) => ({ commandId: t.exposeID('commandId', { description: 'Id of the command to end.' }) }),
});

builder.objectRef<Of<{ vmId: string }>>('ScreenshotRequest').implement({
  description: "A picture of the VM's screen: PNG, in base64. Not journalled.",
  interfaces,
  fields: (t) => ({ vmId: t.exposeID('vmId') }),
});

builder.objectRef<Of<{ vmId: string; lastBytes: number }>>('SerialLogRequest').implement({
  description: "The end of the VM's serial log. Not journalled.",
  interfaces,
  fields: (t) => ({
    vmId: t.exposeID('vmId'),
    lastBytes: t.exposeInt('lastBytes', { description: 'How many bytes from the end, at most 1 MiB.' }),
  }),
});

builder.objectRef<Of<{ vmId: string; lastBytes: number }>>('WatchSerialRequest').implement({
  description:
    'Sends the serial log from an offset on and then all that follows, by `sendSerial`, until a `CancelCommand` names this one. Not journalled.',
  interfaces,
  fields: (t) => ({
    vmId: t.exposeID('vmId'),
    lastBytes: t.exposeInt('lastBytes', { description: 'How many bytes of what is there already to send first.' }),
  }),
});
