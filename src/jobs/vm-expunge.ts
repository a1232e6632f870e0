import { now, patch } from '../db/transition.ts';
import { claimVm, deleteVolumeCommand, moveVm, removeCommand, type VmContext } from './vm-context.ts';
import { deletedVolume, uncountedVm } from './vm-create.ts';
import { type Effects, type Step, together, type Workflow } from './workflow.ts';

export interface VmExpungeContext extends VmContext {
  /** Host that reaches the volumes; null when there are none. */
  storageHostId: number | null;
}

/**
 * removeVm → deleteVolume …
 *
 * The first deleted volume is the point of no return: data can't be brought back, so what fails after it waits for a
 * person. Each volume's room is free with the answer that its file is gone, never before.
 */
export const expungeVm: Workflow<VmExpungeContext> = {
  kind: 'EXPUNGE_VM',
  version: 1,
  steps: (c) => [
    ...(c.hostId === null ? [] : [{ name: 'removeVm', weight: 1, command: removeCommand(c), attempts: 2 }]),
    ...c.volumes.map((volume, index): Step<VmExpungeContext> => {
      const name = index === 0 ? 'deleteVolume' : `deleteVolume${index + 1}`;
      return {
        name,
        weight: 4,
        attempts: 3,
        pointOfNoReturn: true,
        command: deleteVolumeCommand(c, volume, c.storageHostId!, name),
        done: (_c, job) => deletedVolume(volume, job, 'DELETING'),
      };
    }),
  ],
  begin: (c, job) =>
    together(claimVm(c, job, 'EXPUNGE'), ...c.volumes.map((volume) => mark(volume.id, 'READY', 'DELETING'))),
  succeeded: (c, job) =>
    together(moveVm(c, job, 'EXPUNGING', 'EXPUNGED', { active_job_id: null, deleted_at: now }), uncountedVm(c, job)),
  failed: (c, job, error) =>
    together(
      moveVm(
        c,
        job,
        'EXPUNGING',
        'EXPUNGE_FAILED',
        { active_job_id: null, state_reason: error.message },
        error.message,
      ),
      ...c.volumes.map((volume) => mark(volume.id, 'DELETING', 'READY')),
    ),
};

const mark = (id: number, from: 'READY' | 'DELETING', to: 'READY' | 'DELETING'): Effects => ({
  writes: [patch('volume', id, { state: from }, { state: to })],
  changes: [{ kind: 'volume', id }],
  events: [],
});
