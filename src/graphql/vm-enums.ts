import {
  OBSERVED_VM_STATES,
  type ObservedVmState,
  VM_ACTIONS,
  VM_STATES,
  type VmAction,
  type VmState,
} from '../domain/vm-state.ts';
import { builder } from './builder.ts';

const STATES: Record<VmState, string> = {
  CREATING: 'Its volumes are being made.',
  STOPPED: 'It is off and occupies no host.',
  STARTING: 'It has a host, which is starting it.',
  RUNNING: 'It runs on its host.',
  PAUSED: 'It stands still in the memory of its host.',
  STOPPING: 'It is being turned off.',
  DESTROYED: 'It is off and hidden; it can be recovered until it is expunged.',
  EXPUNGING: 'Its volumes are being removed.',
  EXPUNGED: 'Nothing of it is left but its history.',
  ERROR: 'It could not be created; `stateReason` says why.',
};

const OBSERVED: Record<ObservedVmState, string> = {
  ABSENT: 'The host has no such VM.',
  CRASHED: 'Its process ended by itself.',
  PAUSED: 'Its CPUs stand still.',
  RUNNING: 'Its CPUs run.',
  STARTING: 'Its process is coming up.',
  STOPPED: 'It is off, and its process is gone.',
};

const ACTIONS: Record<VmAction, string> = {
  START: '`startVm`',
  STOP: '`stopVm`',
  REBOOT: '`rebootVm`',
  RESET: '`resetVm`',
  PAUSE: '`pauseVm`',
  RESUME: '`resumeVm`',
  UPDATE: '`updateVm`',
  DESTROY: '`destroyVm`',
  RECOVER: '`recoverVm`',
  EXPUNGE: '`expungeVm`',
};

const described = <V extends string>(names: readonly V[], descriptions: Record<V, string>) =>
  Object.fromEntries(names.map((name) => [name, { description: descriptions[name] }])) as Record<
    V,
    { description: string }
  >;

export const VmStateRef = builder.enumType('VmState', {
  description:
    'What is wanted of a VM, or on its way to be. Losing contact with a host changes what is observed, never this.',
  values: described(VM_STATES, STATES),
});

export const ObservedVmStateRef = builder.enumType('ObservedVmState', {
  description: 'What a host has seen of a VM.',
  values: described(OBSERVED_VM_STATES, OBSERVED),
});

export const VmActionRef = builder.enumType('VmAction', {
  description: 'What can be asked of a VM: the mutation that asks it.',
  values: described(VM_ACTIONS, ACTIONS),
});
