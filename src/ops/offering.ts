import { INPUTS } from './inputs.ts';
import { mutation } from './mutation.ts';
import { create, switches, update } from './named-resource.ts';

export const createOffering = mutation(
  'createOffering',
  { verb: 'create', kind: 'offering' },
  INPUTS.createOffering,
  (context, { name, vcpus, memoryMib, diskGib }, asker) =>
    create(context, 'offering', asker, { name, vcpus, memory_mib: memoryMib, disk_gib: diskGib ?? null }),
);

export const updateOffering = mutation(
  'updateOffering',
  { verb: 'update', kind: 'offering' },
  INPUTS.updateOffering,
  (context, input, asker) => update(context, 'offering', input, asker),
);

export const offeringSwitches = switches('offering', 'Offering');
