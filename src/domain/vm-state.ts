import type { Verb } from './permission.ts';

/** What a host says of a VM; its own vocabulary, apart from what is wanted. */
export const OBSERVED_VM_STATES = ['ABSENT', 'CRASHED', 'PAUSED', 'RUNNING', 'STARTING', 'STOPPED'] as const;
export type ObservedVmState = (typeof OBSERVED_VM_STATES)[number];

export const VM_STATES = [
  'CREATING',
  'STOPPED',
  'STARTING',
  'RUNNING',
  'PAUSED',
  'STOPPING',
  'DESTROYED',
  'EXPUNGING',
  'EXPUNGED',
  'ERROR',
] as const;
export type VmState = (typeof VM_STATES)[number];

/** What people ask of a VM that exists. */
export const VM_ACTIONS = [
  'START',
  'STOP',
  'REBOOT',
  'RESET',
  'PAUSE',
  'RESUME',
  'UPDATE',
  'DESTROY',
  'RECOVER',
  'EXPUNGE',
] as const;
export type VmAction = (typeof VM_ACTIONS)[number];

/** Everything that moves a VM: an action that begins, a job's end, and what hosts report. */
export type VmEvent =
  | VmAction
  | 'CREATED'
  | 'CREATE_FAILED'
  | 'CREATE_CANCELLED'
  | 'CREATE_AGAIN'
  | 'STARTED'
  | 'START_AGAIN'
  | 'START_FAILED'
  | 'STOPPED'
  | 'STOP_FAILED'
  | 'STOP_FAILED_PAUSED'
  | 'DESTROYED'
  | 'EXPUNGED'
  | 'EXPUNGE_FAILED'
  | 'SEEN_STOPPED';

/**
 * The transition table: state × event → state. What is not in it is refused.
 *
 * Losing contact with a host is no event here: it changes what is observed, never what is wanted.
 */
export const VM_TRANSITIONS: Record<VmState, Partial<Record<VmEvent, VmState>>> = {
  CREATING: { CREATED: 'STOPPED', STARTED: 'RUNNING', CREATE_FAILED: 'ERROR', CREATE_CANCELLED: 'EXPUNGED' },
  STOPPED: { START: 'STARTING', DESTROY: 'DESTROYED', UPDATE: 'STOPPED' },
  STARTING: { STARTED: 'RUNNING', START_FAILED: 'STOPPED' },
  RUNNING: {
    STOP: 'STOPPING',
    REBOOT: 'STOPPING',
    RESET: 'RUNNING',
    PAUSE: 'PAUSED',
    UPDATE: 'RUNNING',
    DESTROY: 'STOPPING',
    SEEN_STOPPED: 'STOPPED',
  },
  PAUSED: {
    RESUME: 'RUNNING',
    STOP: 'STOPPING',
    RESET: 'PAUSED',
    UPDATE: 'PAUSED',
    DESTROY: 'STOPPING',
    SEEN_STOPPED: 'STOPPED',
  },
  STOPPING: {
    STOPPED: 'STOPPED',
    START_AGAIN: 'STARTING',
    DESTROYED: 'DESTROYED',
    STOP_FAILED: 'RUNNING',
    STOP_FAILED_PAUSED: 'PAUSED',
  },
  DESTROYED: { RECOVER: 'STOPPED', EXPUNGE: 'EXPUNGING' },
  EXPUNGING: { EXPUNGED: 'EXPUNGED', EXPUNGE_FAILED: 'DESTROYED' },
  EXPUNGED: {},
  ERROR: { DESTROY: 'DESTROYED', UPDATE: 'ERROR', CREATE_AGAIN: 'CREATING' },
};

/** Requests that a state satisfies already: the answer is success without a job. */
export const VM_SATISFIED: Partial<Record<VmState, readonly VmAction[]>> = {
  RUNNING: ['START', 'RESUME'],
  PAUSED: ['PAUSE'],
  STOPPED: ['STOP', 'RECOVER'],
  DESTROYED: ['DESTROY'],
  EXPUNGED: ['EXPUNGE'],
};

export type VmDecision =
  | { kind: 'go'; to: VmState }
  | { kind: 'already' }
  | { kind: 'deny'; state: VmState; allowed: VmAction[] };

/** Whether a VM in `state` may do `action`, has done so already, or may not (and what it may instead). */
export function decideVm(state: VmState, action: VmAction): VmDecision {
  if (VM_SATISFIED[state]?.includes(action)) return { kind: 'already' };
  const to = VM_TRANSITIONS[state][action];
  return to ? { kind: 'go', to } : { kind: 'deny', state, allowed: allowedVmActions(state) };
}

/** What a role must allow for an action. */
export const verbOfVmAction = (action: VmAction): Verb =>
  action === 'DESTROY' || action === 'EXPUNGE' ? 'delete' : action === 'UPDATE' ? 'update' : 'operate';

/** The actions that would change something now. */
export function allowedVmActions(state: VmState): VmAction[] {
  return VM_ACTIONS.filter((action) => VM_TRANSITIONS[state][action] !== undefined);
}

/** The state that an event leads to. A pair that is not in the table is a fault of the workflow that names it. */
export function vmStateAfter(state: VmState, event: VmEvent): VmState {
  const to = VM_TRANSITIONS[state][event];
  if (!to) throw new Error(`a VM in state ${state} knows no ${event}`);
  return to;
}
