import { hold } from '../db/transition.ts';
import { INPUTS } from './inputs.ts';
import { mutation } from './mutation.ts';
import { create, find, switches, update } from './named-resource.ts';

export const createPod = mutation(
  'createPod',
  { verb: 'create', kind: 'pod' },
  INPUTS.createPod,
  async (context, { zoneId, name }, asker) => {
    const zone = await find(context, 'zone', zoneId, ['zoneId'], asker.actor);
    return create(context, 'pod', asker, { zone_id: zone.id, name }, [hold('zone', zone.id)]);
  },
);

export const updatePod = mutation(
  'updatePod',
  { verb: 'update', kind: 'pod' },
  INPUTS.updatePod,
  (context, input, asker) => update(context, 'pod', input, asker),
);

export const podSwitches = switches('pod', 'Pod');
