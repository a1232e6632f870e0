import { chargeAccount, insert, insertOnce, now, patch, refundAccount, takeStorage } from '../db/transition.ts';
import { chargeOfVm, chargeOfVolume } from '../domain/quota.ts';
import { vmStateAfter } from '../domain/vm-state.ts';
import {
  deleteVolumeCommand,
  FORCE,
  leftHost,
  moveVm,
  release,
  removeCommand,
  reserve,
  running,
  startCommand,
  stopCommand,
  TIMEOUT_MS,
  type VmContext,
  type VolumeContext,
  vmEvent,
  volumeSpec,
} from './vm-context.ts';
import { type Effects, type JobIdentity, nothing, together, type Workflow } from './workflow.ts';

export interface VmCreateContext extends VmContext {
  hostId: number;
  zoneId: number;
  podId: number;
  clusterId: number;
  /** The row to insert; null when a failed create is tried again on the row that is there. */
  row: VmRow | null;
  volume: VolumeContext & { uidHex: string; name: string };
  template: { id: number; publicId: string; fileName: string; format: 'QCOW2' | 'RAW'; sha256: string };
  /** The storage holds no copy of the template yet. */
  prepare: boolean;
  start: boolean;
}

interface VmRow {
  uidHex: string;
  offeringId: number;
  templateId: number;
  name: string;
  description: string | null;
}

/**
 * place → prepareTemplate → createVolume → startVm → verify
 *
 * Place before the volume, because the storage follows from the host. The template's copy has no undo: it belongs to
 * the storage and the next VM finds it. Verify is what the host itself saw after the start, carried by the same answer.
 */
export const createVm: Workflow<VmCreateContext> = {
  kind: 'CREATE_VM',
  version: 1,

  steps: (c) => [
    { name: 'place', weight: 0 },
    ...(c.prepare
      ? [
          {
            name: 'prepareTemplate',
            weight: 60,
            attempts: 2,
            command: {
              name: 'prepareTemplate',
              command: 'PrepareTemplateCommand' as const,
              hostId: c.hostId,
              epoch: 0,
              timeoutMs: TIMEOUT_MS.copy,
              payload: {
                templateId: c.template.publicId,
                fileName: c.template.fileName,
                format: c.template.format,
                sha256: c.template.sha256,
                storagePath: c.volume.storagePath,
              },
            },
            done: (): Effects => ({
              writes: [
                insertOnce('template_copy', { template_id: c.template.id, primary_storage_id: c.volume.storageId }),
              ],
              changes: [{ kind: 'template', id: c.template.id }],
              events: [],
            }),
          },
        ]
      : []),
    {
      name: 'createVolume',
      weight: 10,
      command: {
        name: 'createVolume',
        command: 'CreateVolumeCommand',
        hostId: c.hostId,
        epoch: c.vm.epoch,
        timeoutMs: TIMEOUT_MS.start,
        payload: { volume: volumeSpec(c.volume), templateId: c.template.publicId },
      },
      undo: [deleteVolumeCommand(c, c.volume, c.hostId, 'deleteVolume')],
    },
    ...(c.start
      ? [
          {
            name: 'startVm',
            weight: 30,
            command: startCommand({ ...c, volumes: [c.volume] }),
            undo: [stopCommand(c, FORCE), removeCommand(c)],
          },
          { name: 'verify', weight: 0 },
        ]
      : []),
  ],

  begin(c, job) {
    const volume = together(volumeRow(c, job), c.start ? reserve(c) : nothing);
    if (c.row === null) {
      const again = patch(
        'vm',
        c.vm.id,
        { active_job_id: null, state: 'ERROR', epoch: c.vm.epoch - 1 },
        {
          state: vmStateAfter('ERROR', 'CREATE_AGAIN'),
          active_job_id: job.id,
          epoch: c.vm.epoch,
          pod_id: c.podId,
          cluster_id: c.clusterId,
          host_id: c.start ? c.hostId : null,
          state_reason: null,
        },
      );
      const told = vmEvent(c.vm.id, job, 'ERROR', 'CREATING', job.reason);
      return together({ writes: [again], changes: [{ kind: 'vm', id: c.vm.id }], events: [told] }, volume);
    }
    return together(
      {
        writes: [
          insert('vm', {
            id: c.vm.id,
            uid: Buffer.from(c.row.uidHex, 'hex'),
            zone_id: c.zoneId,
            pod_id: c.podId,
            cluster_id: c.clusterId,
            host_id: c.start ? c.hostId : null,
            offering_id: c.row.offeringId,
            template_id: c.row.templateId,
            account_id: job.target.accountId!,
            name: c.row.name,
            description: c.row.description,
            state: 'CREATING',
            vcpus: c.vm.vcpus,
            memory_mib: c.vm.memoryMib,
            epoch: c.vm.epoch,
            active_job_id: job.id,
          }),
          chargeAccount(job.target.accountId!, chargeOfVm(c.vm.vcpus, c.vm.memoryMib)),
        ],
        changes: [{ kind: 'vm', id: c.vm.id }],
        events: [vmEvent(c.vm.id, job, null, 'CREATING', job.reason)],
      },
      volume,
    );
  },

  succeeded: (c, job) =>
    together(
      {
        writes: [patch('volume', c.volume.id, { state: 'CREATING' }, { state: 'READY' })],
        changes: [{ kind: 'volume', id: c.volume.id }],
        events: [],
      },
      c.start
        ? moveVm(c, job, 'CREATING', 'STARTED', running(c))
        : moveVm(c, job, 'CREATING', 'CREATED', { active_job_id: null, last_host_id: c.hostId }),
    ),

  // The VM counts on while its row stays, to be tried again: nobody takes its place in the quota meanwhile.
  failed(c, job, error, _at, end) {
    const cancelled = end === 'CANCELLED';
    const vm = moveVm(
      c,
      job,
      'CREATING',
      cancelled ? 'CREATE_CANCELLED' : 'CREATE_FAILED',
      { ...leftHost(c), state_reason: error.message, ...(cancelled ? { deleted_at: now } : {}) },
      error.message,
    );
    return together(
      vm,
      cancelled ? uncountedVm(c, job) : nothing,
      deletedVolume(c.volume, job, 'CREATING'),
      c.start ? release(c) : nothing,
    );
  },
};

function volumeRow(c: VmCreateContext, job: JobIdentity): Effects {
  const row = insert('volume', {
    id: c.volume.id,
    uid: Buffer.from(c.volume.uidHex, 'hex'),
    zone_id: c.zoneId,
    cluster_id: c.clusterId,
    primary_storage_id: c.volume.storageId,
    vm_id: c.vm.id,
    template_id: c.template.id,
    account_id: job.target.accountId!,
    name: c.volume.name,
    role: 'ROOT',
    format: c.volume.format,
    state: 'CREATING',
    size_bytes: c.volume.sizeBytes,
  });
  return {
    writes: [
      row,
      takeStorage(c.volume.storageId, c.volume.sizeBytes),
      chargeAccount(job.target.accountId!, chargeOfVolume(c.volume.sizeBytes)),
    ],
    changes: [
      { kind: 'volume', id: c.volume.id },
      { kind: 'primary_storage', id: c.volume.storageId },
    ],
    events: [],
  };
}

/** A VM that is no more gives its account back what it counted. */
export const uncountedVm = (c: VmContext, job: JobIdentity): Effects => ({
  writes: [refundAccount(job.target.accountId!, chargeOfVm(c.vm.vcpus, c.vm.memoryMib))],
  changes: [],
  events: [],
});

/** A volume whose file is gone: its row stays for those who speak of it, its room is free. */
export const deletedVolume = (volume: VolumeContext, job: JobIdentity, from: 'CREATING' | 'DELETING'): Effects => ({
  writes: [
    patch('volume', volume.id, { state: from }, { state: 'DELETED', deleted_at: now }),
    takeStorage(volume.storageId, -volume.sizeBytes),
    refundAccount(job.target.accountId!, chargeOfVolume(volume.sizeBytes)),
  ],
  changes: [
    { kind: 'volume', id: volume.id },
    { kind: 'primary_storage', id: volume.storageId },
  ],
  events: [],
});
