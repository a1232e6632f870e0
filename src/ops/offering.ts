import { newUid } from '../db/ids.ts';
import { emptyTransition, insert } from '../db/transition.ts';
import { INPUTS } from './inputs.ts';
import { mutation } from './mutation.ts';
import { createdEvent, switches, update } from './named-resource.ts';

export const createOffering = mutation(
  'createOffering',
  { verb: 'create', kind: 'offering' },
  INPUTS.createOffering,
  async (context, input, asker) => {
    const id = await context.ids.take();
    const row = insert('offering', {
      id,
      uid: newUid(),
      name: input.name,
      vcpus: input.vcpus,
      memory_mib: input.memoryMib,
      disk_gib: input.diskGib ?? null,
    });
    return {
      kind: 'write',
      id,
      jobId: null,
      transition: {
        ...emptyTransition(),
        writes: [row],
        changes: [{ kind: 'offering', id }],
        events: [createdEvent('offering', id, input.name, asker)],
      },
    };
  },
);

export const updateOffering = mutation(
  'updateOffering',
  { verb: 'update', kind: 'offering' },
  INPUTS.updateOffering,
  (context, input, asker) => update(context, 'offering', input, asker),
);

export const offeringSwitches = switches('offering', 'Offering');
