import { insert, now, patch, removeReservation, type Settable, takeHost } from '../db/transition.ts';
import { type VmEvent, type VmState, vmStateAfter } from '../domain/vm-state.ts';
import type { CommandSpec, Effects, JobIdentity } from './workflow.ts';

/** Everything that the steps of a VM's job need to know, resolved when the job began. */
export interface VmContext {
  vm: {
    id: number;
    publicId: string;
    epoch: number;
    vcpus: number;
    memoryMib: number;
    /** State before the job. */
    from: VmState;
  };
  /** Host that the commands go to; null where there is none to ask. */
  hostId: number | null;
  /** The VM holds a reservation on the host when the job begins. */
  reserved: boolean;
  volumes: VolumeContext[];
}

export interface VolumeContext {
  id: number;
  publicId: string;
  storageId: number;
  storagePath: string;
  format: 'QCOW2' | 'RAW';
  sizeBytes: number;
}

const SECOND = 1_000;
export const TIMEOUT_MS = { quick: 30 * SECOND, start: 60 * SECOND, copy: 3_600 * SECOND };

/** How long past a graceful stop's own time-out the command may take. */
const STOP_MARGIN_MS = 15 * SECOND;

export const startCommand = (context: VmContext): CommandSpec => ({
  name: 'startVm',
  command: 'StartVmCommand',
  hostId: context.hostId!,
  epoch: context.vm.epoch,
  timeoutMs: TIMEOUT_MS.start,
  payload: {
    vm: {
      vmId: context.vm.publicId,
      vcpus: context.vm.vcpus,
      memoryMib: context.vm.memoryMib,
      volumes: context.volumes.map(volumeSpec),
    },
  },
});

export interface StopContext {
  mode: 'GRACEFUL' | 'GRACEFUL_THEN_FORCE' | 'FORCE';
  gracefulTimeoutMs: number;
}

export const stopCommand = (context: VmContext, stop: StopContext): CommandSpec => ({
  name: 'stopVm',
  command: 'StopVmCommand',
  hostId: context.hostId!,
  epoch: context.vm.epoch,
  timeoutMs: stop.gracefulTimeoutMs + STOP_MARGIN_MS,
  payload: { vmId: context.vm.publicId, mode: stop.mode, gracefulTimeoutMs: stop.gracefulTimeoutMs },
});

export const FORCE: StopContext = { mode: 'FORCE', gracefulTimeoutMs: 0 };

export const removeCommand = (context: VmContext): CommandSpec => ({
  name: 'removeVm',
  command: 'RemoveVmCommand',
  hostId: context.hostId!,
  epoch: context.vm.epoch,
  timeoutMs: TIMEOUT_MS.quick,
  payload: { vmId: context.vm.publicId },
});

export const deleteVolumeCommand = (
  context: VmContext,
  volume: VolumeContext,
  hostId: number,
  name: string,
): CommandSpec => ({
  name,
  command: 'DeleteVolumeCommand',
  hostId,
  epoch: context.vm.epoch,
  timeoutMs: TIMEOUT_MS.start,
  payload: { volume: volumeSpec(volume) },
});

export const volumeSpec = (volume: VolumeContext) => ({
  volumeId: volume.publicId,
  storagePath: volume.storagePath,
  format: volume.format,
  sizeBytes: String(volume.sizeBytes),
});

/**
 * Moves the VM that a job holds, by the transition table, with the event that says so.
 *
 * @param also other columns of the VM, for example the host that it leaves
 */
export function moveVm(
  context: VmContext,
  job: JobIdentity,
  from: VmState,
  event: VmEvent,
  also: Settable<'vm'> = {},
  why: string | null = job.reason,
): Effects {
  const { id } = context.vm;
  const to = vmStateAfter(from, event);
  return {
    writes: [patch('vm', id, { active_job_id: job.id, state: from }, { state: to, ...also })],
    changes: [{ kind: 'vm', id }],
    events: [vmEvent(id, job, from, to, why)],
  };
}

export const vmEvent = (id: number, job: JobIdentity, from: VmState | null, to: VmState, reason: string | null) => ({
  // Only a reset leaves the state as it was.
  type: from === null ? 'vm.created' : from === to ? 'vm.reset' : 'vm.state',
  subject: { kind: 'vm' as const, id },
  accountId: job.target.accountId,
  jobId: job.id,
  actor: job.actor,
  reason,
  changes: from === to ? [] : [{ field: 'state', before: from, after: to }],
});

/**
 * A VM that nobody holds, as it was when the job was planned. State alone doesn't say that: it may have been stopped and
 * started since, elsewhere even, or have another size, and what its job takes and gives back would be another's.
 */
const asPlanned = ({ vm: { epoch, vcpus, memoryMib, from } }: VmContext) => ({
  active_job_id: null,
  state: from,
  epoch,
  vcpus,
  memory_mib: memoryMib,
});

/** The context of a job that raises the epoch, as it is until then. */
export const beforeRaise = <C extends VmContext>(context: C): C => ({
  ...context,
  vm: { ...context.vm, epoch: context.vm.epoch - 1 },
});

/** Takes a VM that nobody holds for this job. */
export function claimVm(
  context: VmContext,
  job: JobIdentity,
  event: VmEvent,
  also: Settable<'vm'> = {},
  why: string | null = job.reason,
): Effects {
  const { id, from } = context.vm;
  const to = vmStateAfter(from, event);
  return {
    writes: [patch('vm', id, asPlanned(context), { state: to, active_job_id: job.id, state_reason: null, ...also })],
    changes: [{ kind: 'vm', id }],
    events: [vmEvent(id, job, from, to, why)],
  };
}

/** What taking a place on the host writes. */
export const reserve = (context: VmContext): Effects => ({
  writes: [
    insert('reservation', {
      vm_id: context.vm.id,
      host_id: context.hostId!,
      vcpus: context.vm.vcpus,
      memory_mib: context.vm.memoryMib,
    }),
    takeHost(context.hostId!, context.vm.vcpus, context.vm.memoryMib),
  ],
  changes: [{ kind: 'host', id: context.hostId! }],
  events: [],
});

export const release = (context: VmContext): Effects => ({
  writes: [
    removeReservation(context.vm.id, context.hostId!),
    takeHost(context.hostId!, -context.vm.vcpus, -context.vm.memoryMib),
  ],
  changes: [{ kind: 'host', id: context.hostId! }],
  events: [],
});

/** Columns of a VM that has left its host. What was seen goes with what the host answered. */
export const leftHost = (context: VmContext): Settable<'vm'> => ({
  active_job_id: null,
  host_id: null,
  last_host_id: context.hostId,
  ...seen(context, 'STOPPED'),
});

/** Columns of a VM whose host has answered that it runs. */
export const running = (context: VmContext): Settable<'vm'> => ({
  active_job_id: null,
  state_reason: null,
  started_at: now,
  ...seen(context, 'RUNNING'),
});

/** An answer to a command is an observation too. */
export const seen = (context: VmContext, state: 'RUNNING' | 'STOPPED' | 'PAUSED'): Settable<'vm'> => ({
  observed_state: state,
  observed_reason: null,
  observed_at: now,
  observed_host_id: context.hostId,
  observed_epoch: context.vm.epoch,
});

/** Takes the VM without moving it. */
export const claimOnly = (context: VmContext, jobId: number): Effects => ({
  writes: [patch('vm', context.vm.id, asPlanned(context), { active_job_id: jobId })],
  changes: [{ kind: 'vm', id: context.vm.id }],
  events: [],
});

export const releaseClaim = (context: VmContext, jobId: number): Effects => ({
  writes: [patch('vm', context.vm.id, { active_job_id: jobId }, { active_job_id: null })],
  changes: [{ kind: 'vm', id: context.vm.id }],
  events: [],
});

/** A stop that failed: the VM is where it was. */
export const backToRunning = (context: VmContext, job: JobIdentity, why: string): Effects => {
  const event = context.vm.from === 'PAUSED' ? 'STOP_FAILED_PAUSED' : 'STOP_FAILED';
  return moveVm(context, job, 'STOPPING', event, { active_job_id: null, state_reason: why }, why);
};
