import { newUid } from '../db/ids.ts';
import { emptyTransition, insert } from '../db/transition.ts';
import { INPUTS } from './inputs.ts';
import { mutation } from './mutation.ts';
import { createdEvent, switches, update } from './named-resource.ts';

export const createZone = mutation(
  'createZone',
  { verb: 'create', kind: 'zone' },
  INPUTS.createZone,
  async (context, input, asker) => {
    const id = await context.ids.take();
    return {
      kind: 'write',
      id,
      jobId: null,
      transition: {
        ...emptyTransition(),
        writes: [insert('zone', { id, uid: newUid(), name: input.name })],
        changes: [{ kind: 'zone', id }],
        events: [createdEvent('zone', id, input.name, asker)],
      },
    };
  },
);

export const updateZone = mutation(
  'updateZone',
  { verb: 'update', kind: 'zone' },
  INPUTS.updateZone,
  (context, input, asker) => update(context, 'zone', input, asker),
);

export const zoneSwitches = switches('zone', 'Zone');
