import { newUid } from '../db/ids.ts';
import { emptyTransition, hold, insert } from '../db/transition.ts';
import { INPUTS } from './inputs.ts';
import { mutation } from './mutation.ts';
import { createdEvent, find, switches, update } from './named-resource.ts';

export const createPod = mutation(
  'createPod',
  { verb: 'create', kind: 'pod' },
  INPUTS.createPod,
  async (context, input, asker) => {
    const zone = await find(context, 'zone', input.zoneId, ['zoneId']);
    const id = await context.ids.take();
    return {
      kind: 'write',
      id,
      jobId: null,
      transition: {
        ...emptyTransition(),
        writes: [hold('zone', zone.id), insert('pod', { id, uid: newUid(), zone_id: zone.id, name: input.name })],
        changes: [{ kind: 'pod', id }],
        events: [createdEvent('pod', id, input.name, asker)],
      },
    };
  },
);

export const updatePod = mutation(
  'updatePod',
  { verb: 'update', kind: 'pod' },
  INPUTS.updatePod,
  (context, input, asker) => update(context, 'pod', input, asker),
);

export const podSwitches = switches('pod', 'Pod');
