import { posix } from 'node:path';
import { CommandError, type VmSpec, type Volume } from '../hypervisor.ts';
import type { Nic } from '../network/nic.ts';
import { volumeFileName } from '../storage/paths.ts';
import type { Accelerator } from './accel.ts';
import { checkId, uuidOfId } from './ids.ts';

/** Names inside a VM's runtime folder, which is QEMU's working folder. */
export const RUN_FILES = {
  /**
   * The daemon's monitor after a restart; the first one is inherited. QEMU removes this socket when it ends in order, and
   * only then: what is left behind tells of a crash.
   */
  monitor: 'qmp',
  /** A second monitor for an operator: one monitor serves one client at a time. */
  operatorMonitor: 'qmp-operator',
  vnc: 'vnc',
  serial: 'serial',
  serialLog: 'serial.log',
} as const;

/** Descriptors that QEMU inherits beside stdin, stdout and stderr. */
export const MONITOR_FD = 3;
const FIRST_FOLDER_FD = 4;

/** Free places for devices that are plugged in later. Each costs an emulated guest 0.1 s of its boot. */
const SPARE_PORTS = 2;
/** QEMU's own default is an eighth of the host's memory for each VM. */
const TCG_CACHE_MIB = 256;
/** What virtio-blk has room for. */
const SERIAL_NUMBER_LENGTH = 20;

const MAX_VCPUS = 512;
const MAX_MEMORY_MIB = 16 * 1024 * 1024;

/**
 * The storage folders that QEMU inherits, from descriptor 4 on, in this order. A folder reached by its descriptor needs
 * no right on the folders above it, which may well be closed to the user that QEMU runs as.
 */
export function storagePaths(vm: VmSpec): string[] {
  return [...new Set(vm.volumes.map(({ storagePath }) => storagePath))];
}

/**
 * QEMU's arguments. Nothing in them is text that a person chose, but for the folders of storages, which never appear:
 * QEMU sees them as descriptors. Throws INTERNAL for ids and sizes that can't be ours.
 */
export function qemuArguments(vm: VmSpec, accelerator: Accelerator, nic: Nic | null = null): string[] {
  const id = checkId('vm', vm.vmId);
  const vcpus = checkSize('vcpus', vm.vcpus, MAX_VCPUS);
  const memoryMib = checkSize('memoryMib', vm.memoryMib, MAX_MEMORY_MIB);
  const folders = storagePaths(vm);
  return [
    ...['-nodefaults', '-no-user-config'],
    ...['-name', `guest=${id},debug-threads=on`, '-uuid', uuidOfId(id)],
    ...['-sandbox', 'on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny'],
    // Guests that are told to sleep would never be woken.
    ...['-machine', 'q35,vmport=off', '-global', 'ICH9-LPC.disable_s3=1', '-global', 'ICH9-LPC.disable_s4=1'],
    ...processor(accelerator),
    ...['-smp', `cpus=${vcpus},sockets=1,cores=${vcpus},threads=1`, '-m', `size=${memoryMib}M`],
    // Stopped until the daemon has seen that all is in place.
    ...['-S', '-rtc', 'base=utc'],
    ...monitor('launch', `fd=${MONITOR_FD}`),
    ...monitor('qmp', `path=${RUN_FILES.monitor},server=on,wait=off`),
    ...monitor('operator', `path=${RUN_FILES.operatorMonitor},server=on,wait=off`),
    ...['-chardev', serialSocket(), '-serial', 'chardev:serial'],
    ...['-device', 'VGA,id=video', '-vnc', `unix:${RUN_FILES.vnc}`],
    ...['-object', 'rng-builtin,id=entropy', '-device', 'virtio-rng-pci,id=rng,rng=entropy'],
    ...['-device', 'virtio-balloon-pci,id=balloon'],
    ...Array.from({ length: SPARE_PORTS }, (_, i) => ['-device', spareRootPort(i + 1)]).flat(),
    // Before the disks: how many there are must not move it, or guests would call it by another name.
    ...(nic ? network(nic) : []),
    ...vm.volumes.flatMap((volume, position) => disk(volume, position, folders.indexOf(volume.storagePath))),
  ];
}

function processor(accelerator: Accelerator): string[] {
  return accelerator === 'kvm'
    ? ['-accel', 'kvm', '-cpu', 'host']
    : ['-accel', `tcg,tb-size=${TCG_CACHE_MIB}`, '-cpu', 'max'];
}

function monitor(id: string, socket: string): string[] {
  return ['-chardev', `socket,id=${id},${socket}`, '-mon', `chardev=${id},mode=control`];
}

function serialSocket(): string {
  const { serial, serialLog } = RUN_FILES;
  return `socket,id=serial,path=${serial},server=on,wait=off,logfile=${serialLog},logappend=on`;
}

function spareRootPort(number: number): string {
  return `pcie-root-port,id=spare${number},chassis=${number},slot=${number}`;
}

/** The tap is there already, so QEMU has nothing to run. Without boot code in it, guests boot from their disks alone. */
function network({ tap, macAddress, mtuBytes }: Nic): string[] {
  return [
    ...['-netdev', `tap,id=net0,ifname=${tap},script=no,downscript=no`],
    ...['-device', `virtio-net-pci,id=nic0,netdev=net0,mac=${macAddress},host_mtu=${mtuBytes},romfile=`],
  ];
}

function disk(volume: Volume, position: number, folder: number): string[] {
  const id = checkId('vol', volume.volumeId);
  const node = {
    'node-name': id,
    driver: volume.format === 'QCOW2' ? 'qcow2' : 'raw',
    discard: 'unmap',
    file: {
      driver: 'file',
      filename: posix.join('/proc/self/fd', String(FIRST_FOLDER_FD + folder), volumeFileName(volume)),
      discard: 'unmap',
      // The last guard against two writers: without a working lock QEMU must not start.
      locking: 'on',
    },
  };
  const serialNumber = id.slice(-SERIAL_NUMBER_LENGTH);
  return [
    ...['-blockdev', JSON.stringify(node)],
    ...['-device', `virtio-blk-pci,id=disk${position},drive=${id},serial=${serialNumber},bootindex=${position}`],
  ];
}

function checkSize(name: string, value: number, max: number): number {
  if (Number.isSafeInteger(value) && value >= 1 && value <= max) return value;
  throw new CommandError('INTERNAL', `${name} is ${value}: not a whole number from 1 to ${max}`);
}
