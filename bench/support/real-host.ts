import { copyFile, mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { VmSpec } from '../../hostd/hypervisor.ts';
import type { Accelerator } from '../../hostd/qemu/accel.ts';
import { stopProcess } from '../../setup/process-record.ts';
import { findVmProcesses } from '../../setup/process-search.ts';
import { encodeId } from '../../src/domain/ids.ts';
import { tinyLinux } from '../../test/support/guest.ts';
import { GraphSocket } from './graph-socket.ts';
import { SignalBoard } from './signal-board.ts';
import type { ControlPlane, Stage } from './stage.ts';

const QEMU_STOP_TIMEOUT_MS = 5_000;
const IMAGE = 'tiny-linux.qcow2';
const VM_CHANGED = 'subscription ($id: ID!) { vmChanged(id: $id) { state activeJob { id } } }';
const VM = { name: 'bench', vcpus: 1, memoryMib: 128 };

/** One VM on a host daemon that drives QEMU, switched off. */
export interface RealVm {
  control: ControlPlane;
  id: string;
  accelerator: Accelerator;
  /** What its host is told of it. */
  spec: VmSpec;
  /** Answers when, on this process's clock, a subscriber was told that it is in this state and nothing is under way. */
  settled(state: 'RUNNING' | 'STOPPED'): Promise<number>;
}

interface Payload {
  [resource: string]: { id: string };
}

/** Everything is made by the public API, as an operator does. */
export async function createRealVm(stage: Stage): Promise<RealVm> {
  const storagePath = join(stage.folder, 'storage');
  const images = join(stage.folder, 'images');
  await Promise.all([storagePath, images].map((path) => mkdir(path)));
  await copyFile(await tinyLinux(), join(images, IMAGE));

  const control = await stage.startControl({ clients: 2 });
  const { api } = control;
  const make = async (mutation: string, resource: string, input: object): Promise<string> =>
    (await api.mutate<Payload>(mutation, { name: VM.name, ...input }, `${resource} { id }`))[resource]!.id;
  const zoneId = await make('createZone', 'zone', {});
  const podId = await make('createPod', 'pod', { zoneId });
  const clusterId = await make('createCluster', 'cluster', { podId });
  await make('createPrimaryStorage', 'primaryStorage', { clusterId, path: storagePath, capacityGib: 10 });
  const offeringId = await make('createOffering', 'offering', { vcpus: VM.vcpus, memoryMib: VM.memoryMib });
  const { token } = await api.mutate<{ token: string }>('createHostJoinToken', { clusterId }, 'token');
  // A host daemon that ends leaves its VMs alone.
  stage.defer(async () => {
    for (const qemu of await findVmProcesses(stage.folder)) await stopProcess(qemu, QEMU_STOP_TIMEOUT_MS);
  });
  const hostd = await stage.startHostd(control, token, ['--name', VM.name, '--images', images]);

  const socket = await GraphSocket.open(control.url, control.token);
  stage.defer(() => socket.close());
  stage.breakWith(socket.broken);
  const job = async (mutation: string, resource: string, input: object): Promise<string> => {
    const payload = await api.mutate<Payload>(mutation, input, `${resource} { id } job { id }`);
    await succeeded(socket, payload['job']!.id);
    return payload[resource]!.id;
  };
  const templateId = await job('registerTemplate', 'template', {
    name: VM.name,
    zoneId,
    fileName: IMAGE,
    format: 'QCOW2',
  });
  const id = await job('createVm', 'vm', { name: VM.name, zoneId, offeringId, templateId, start: false });

  const board = new SignalBoard();
  socket.subscribe<{ vmChanged: { state: string; activeJob: object | null } }>(VM_CHANGED, { id }, ({ vmChanged }) => {
    if (vmChanged.activeJob === null) board.tell(vmChanged.state);
  });
  await board.heard('STOPPED');
  const accelerator = hostd.ready['hypervisor'] === 'KVM' ? 'kvm' : 'tcg';
  return {
    control,
    id,
    accelerator,
    spec: await specOf(stage, id, storagePath),
    settled: (state) => board.heard(state),
  };
}

/** A job's subscription ends with it. */
function succeeded(socket: GraphSocket, jobId: string): Promise<void> {
  const query = 'subscription ($id: ID!) { jobProgress(id: $id) { state error { message } } }';
  let last: { state: string; error: { message: string } | null };
  return new Promise((resolve, reject) => {
    socket.subscribe<{ jobProgress: typeof last }>(
      query,
      { id: jobId },
      ({ jobProgress }) => {
        last = jobProgress;
      },
      () => {
        if (last.state === 'SUCCEEDED') resolve();
        else reject(new Error(`the job ended ${last.state}: ${last.error?.message}`));
      },
    );
  });
}

async function specOf(stage: Stage, vmId: string, storagePath: string): Promise<VmSpec> {
  const volume = await stage.db.selectFrom('volume').select(['uid', 'size_bytes']).executeTakeFirstOrThrow();
  return {
    vmId,
    vcpus: VM.vcpus,
    memoryMib: VM.memoryMib,
    volumes: [
      { volumeId: encodeId('volume', volume.uid), storagePath, format: 'QCOW2', sizeBytes: Number(volume.size_bytes) },
    ],
  };
}
