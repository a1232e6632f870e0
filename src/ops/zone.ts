import { INPUTS } from './inputs.ts';
import { mutation } from './mutation.ts';
import { create, switches, update } from './named-resource.ts';

export const createZone = mutation(
  'createZone',
  { verb: 'create', kind: 'zone' },
  INPUTS.createZone,
  (context, { name }, asker) => create(context, 'zone', asker, { name }),
);

export const updateZone = mutation(
  'updateZone',
  { verb: 'update', kind: 'zone' },
  INPUTS.updateZone,
  (context, input, asker) => update(context, 'zone', input, asker),
);

export const zoneSwitches = switches('zone', 'Zone');
