import { idInput, mutation, updateInput } from './mutation.ts';

mutation('createVm', 'vm', 'Creates a VM with a root volume made from a template, and starts it.', (t) => ({
  name: t.string({ required: true, description: 'As people call it: 1 to 255 characters.' }),
  description: t.string({ description: 'What it is for, at most 4,096 characters.' }),
  accountId: t.id({ description: "Whose it is; the caller's own account unless told." }),
  zoneId: t.id({ required: true, description: 'Where it lives.' }),
  clusterId: t.id({ description: 'Only in this cluster.' }),
  hostId: t.id({ description: 'Only on this host, this first time.' }),
  offeringId: t.id({ required: true, description: 'How large it is.' }),
  templateId: t.id({ required: true, description: 'What its root volume is made from.' }),
  start: t.boolean({ defaultValue: true, description: 'Whether it is started once it is there.' }),
}));
mutation('updateVm', 'vm', 'Changes what is known of a VM, or its size while it is off.', (t) => ({
  ...updateInput(t, 'VM'),
  name: t.string({ description: 'A new name.' }),
  description: t.string({ description: 'A new description; an empty one removes it.' }),
  offeringId: t.id({ description: 'Another size, while the VM is off.' }),
}));
mutation('startVm', 'vm', 'Starts a VM on a host that has room.', (t) => ({
  ...idInput(t, 'VM'),
  clusterId: t.id({ description: 'Only in this cluster.' }),
  hostId: t.id({ description: 'Only on this host.' }),
}));
mutation('stopVm', 'vm', 'Asks the guest to shut down, or turns it off.', (t) => ({
  ...idInput(t, 'VM'),
  force: t.boolean({ description: 'Turn it off without asking the guest.' }),
  timeoutMs: t.int({
    description: 'How long the guest may take, in milliseconds, from 1,000 to 3,600,000; 60,000 unless told.',
  }),
  forceAfterTimeout: t.boolean({ description: 'Turn it off when the guest takes longer; not unless told.' }),
}));
mutation('rebootVm', 'vm', 'Asks the guest to shut down, then starts it anew on the same host.', (t) => ({
  ...idInput(t, 'VM'),
  timeoutMs: t.int({
    description: 'How long the guest may take, in milliseconds, from 1,000 to 3,600,000; 60,000 unless told.',
  }),
  forceAfterTimeout: t.boolean({ description: 'Turn it off when the guest takes longer, unless told not to.' }),
}));
mutation('resetVm', 'vm', 'Presses the reset button: the guest is not asked.', (t) => idInput(t, 'VM'));
mutation('pauseVm', 'vm', 'Lets a VM stand still in memory.', (t) => idInput(t, 'VM'));
mutation('resumeVm', 'vm', 'Lets a paused VM go on.', (t) => idInput(t, 'VM'));
mutation('destroyVm', 'vm', 'Turns a VM off and hides it; it can be recovered until it is expunged.', (t) =>
  idInput(t, 'VM'),
);
mutation('recoverVm', 'vm', 'Takes back that a VM was destroyed.', (t) => idInput(t, 'VM'));
mutation('expungeVm', 'vm', 'Removes a destroyed VM and its volumes for ever.', (t) => idInput(t, 'VM'));
