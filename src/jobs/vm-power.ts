import { now } from '../db/transition.ts';
import type { ObservedVmState } from '../domain/vm-state.ts';
import {
  backToRunning,
  beforeRaise,
  claimOnly,
  claimVm,
  FORCE,
  leftHost,
  moveVm,
  release,
  releaseClaim,
  reserve,
  running,
  type StopContext,
  seen,
  startCommand,
  stopCommand,
  TIMEOUT_MS,
  type VmContext,
} from './vm-context.ts';
import { nothing, together, type Workflow } from './workflow.ts';

export interface VmStopContext extends VmContext {
  stop: StopContext;
}

/**
 * place → startVm → verify
 *
 * The place is taken and the epoch raised in the transaction that accepts the job, so from then on no other host's
 * copy of this VM may act. Verify is carried by the host's answer.
 */
export const startVm: Workflow<VmContext> = {
  kind: 'START_VM',
  version: 1,
  steps: (c) => [
    { name: 'place', weight: 0 },
    { name: 'startVm', weight: 1, command: startCommand(c), undo: [stopCommand(c, FORCE)] },
    { name: 'verify', weight: 0 },
  ],
  begin: (c, job) =>
    together(claimVm(beforeRaise(c), job, 'START', { host_id: c.hostId, epoch: c.vm.epoch }), reserve(c)),
  succeeded: (c, job) => moveVm(c, job, 'STARTING', 'STARTED', running(c)),
  failed: (c, job, error) =>
    together(
      moveVm(c, job, 'STARTING', 'START_FAILED', { ...leftHost(c), state_reason: error.message }, error.message),
      release(c),
    ),
};

/**
 * stopVm → verify
 *
 * The reservation goes with the answer and not before: until the host says that QEMU has ended, the room is in use.
 */
export const stopVm: Workflow<VmStopContext> = {
  kind: 'STOP_VM',
  version: 1,
  steps: (c) => [
    { name: 'stopVm', weight: 1, command: stopCommand(c, c.stop) },
    { name: 'verify', weight: 0 },
  ],
  begin: (c, job) => claimVm(c, job, 'STOP'),
  succeeded: (c, job) => together(moveVm(c, job, 'STOPPING', 'STOPPED', leftHost(c)), release(c)),
  failed: (c, job, error) => backToRunning(c, job, error.message),
};

/**
 * stopVm → startVm → verify
 *
 * On the same host and in the same reservation, so that nobody takes the place meanwhile. A stop that fails leaves the
 * VM as it was; a start that fails leaves it stopped. The epoch is raised between the two: a late stop can't end the new
 * life, and a reboot that never reached the host leaves the epoch that the host still speaks of.
 */
export const rebootVm: Workflow<VmStopContext> = {
  kind: 'REBOOT_VM',
  version: 1,
  steps: (c) => [
    {
      name: 'stopVm',
      weight: 1,
      command: stopCommand(beforeRaise(c), c.stop),
      done: (_c, job) => moveVm(c, job, 'STOPPING', 'START_AGAIN', { epoch: c.vm.epoch }),
    },
    {
      name: 'startVm',
      weight: 1,
      command: startCommand(c),
      attempts: 2,
      undo: [{ ...stopCommand(c, FORCE), name: 'stopAgain' }],
    },
    { name: 'verify', weight: 0 },
  ],
  begin: (c, job) => claimVm(beforeRaise(c), job, 'REBOOT'),
  succeeded: (c, job) => moveVm(c, job, 'STARTING', 'STARTED', running(c)),
  failed(c, job, error, at) {
    if (at === 'stopVm') return backToRunning(c, job, error.message);
    return together(
      moveVm(c, job, 'STARTING', 'START_FAILED', { ...leftHost(c), state_reason: error.message }, error.message),
      release(c),
    );
  },
};

/** stopVm (by force, where it runs): then the VM is kept, without its place, until it is recovered or expunged. */
export const destroyVm: Workflow<VmContext> = {
  kind: 'DESTROY_VM',
  version: 1,
  steps: (c) => (c.reserved ? [{ name: 'stopVm', weight: 1, command: stopCommand(c, FORCE) }] : []),
  begin(c, job) {
    if (c.reserved) return claimVm(c, job, 'DESTROY');
    return claimVm(c, job, 'DESTROY', { active_job_id: null, destroyed_at: now });
  },
  succeeded: (c, job) =>
    c.reserved
      ? together(moveVm(c, job, 'STOPPING', 'DESTROYED', { ...leftHost(c), destroyed_at: now }), release(c))
      : nothing,
  failed: (c, job, error) => backToRunning(c, job, error.message),
};

/** Nothing to do but to say so: its volumes were kept. */
export const recoverVm: Workflow<VmContext> = {
  kind: 'RECOVER_VM',
  version: 1,
  steps: () => [],
  begin: (c, job) => claimVm(c, job, 'RECOVER', { active_job_id: null, destroyed_at: null }),
  succeeded: () => nothing,
  failed: () => nothing,
};

/** A host saw the VM's QEMU end although nobody asked for it. Filed by the reconciler. */
export const settleVm: Workflow<VmContext & { observed: ObservedVmState; why: string }> = {
  kind: 'SETTLE_VM',
  version: 1,
  steps: () => [],
  begin: (c, job) =>
    together(
      claimVm(c, job, 'SEEN_STOPPED', { ...leftHost(c), observed_state: c.observed, state_reason: c.why }, c.why),
      release(c),
    ),
  succeeded: () => nothing,
  failed: () => nothing,
};

const SEEN_AFTER = { PAUSE: 'PAUSED', RESUME: 'RUNNING', RESET: null } as const;
const observedOf = (c: VmContext) => (c.vm.from === 'PAUSED' ? 'PAUSED' : 'RUNNING');

const CONTROLS = { RESET: 'resetVm', PAUSE: 'pauseVm', RESUME: 'resumeVm' } as const;

/** One command, whose answer moves the VM; its failure leaves it as it was. */
const control = (action: keyof typeof CONTROLS): Workflow<VmContext> => ({
  kind: `${action}_VM`,
  version: 1,
  steps: (c) => [
    {
      name: CONTROLS[action],
      weight: 1,
      command: {
        name: CONTROLS[action],
        command: 'ControlVmCommand',
        hostId: c.hostId!,
        epoch: c.vm.epoch,
        timeoutMs: TIMEOUT_MS.quick,
        payload: { vmId: c.vm.publicId, action },
      },
    },
  ],
  begin: (c, job) => claimOnly(c, job.id),
  succeeded: (c, job) =>
    moveVm(c, job, c.vm.from, action, { active_job_id: null, ...seen(c, SEEN_AFTER[action] ?? observedOf(c)) }),
  failed: (c, job) => releaseClaim(c, job.id),
});

export const resetVm = control('RESET');
export const pauseVm = control('PAUSE');
export const resumeVm = control('RESUME');
