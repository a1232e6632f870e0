import { newUid } from '../db/ids.ts';
import { hold } from '../db/transition.ts';
import { begin } from '../jobs/advance.ts';
import { registerTemplate as workflow } from '../jobs/template-register.ts';
import { connectedHost, noConnectedHost } from '../jobs/vm-plan.ts';
import { INPUTS } from './inputs.ts';
import { mutation } from './mutation.ts';
import { find, switches, update } from './named-resource.ts';

/** Larger than any disk that a template should have; keeps absurd sizes out of the counters. */
const MAX_VIRTUAL_BYTES = 2 * 2 ** 40;

/** A template from a file that lies in the image folder of the zone's hosts: a host looks at it before anything else. */
export const registerTemplate = mutation(
  'registerTemplate',
  { verb: 'create', kind: 'template' },
  INPUTS.registerTemplate,
  async (context, input, asker) => {
    const zone = await find(context, 'zone', input.zoneId, ['zoneId'], asker.actor);
    const hostId = connectedHost(context.inventory, (host) => host.zone_id === zone.id);
    if (hostId === null) throw noConnectedHost('No host of the zone is connected, so nobody can look at the file.');
    const [id, jobId] = [await context.ids.take(), await context.ids.take()];
    const job = {
      id: jobId,
      uid: newUid(),
      target: { kind: 'template' as const, id, accountId: null },
      actor: asker.name,
      reason: asker.reason,
      input,
      parentId: null,
    };
    const template = {
      id,
      uidHex: newUid().toString('hex'),
      zoneId: zone.id,
      name: input.name,
      fileName: input.fileName,
      format: input.format,
    };
    const transition = begin(workflow, job, { template, hostId, maxVirtualBytes: MAX_VIRTUAL_BYTES });
    return {
      kind: 'write',
      id,
      jobId,
      transition: { ...transition, writes: [hold('zone', zone.id), ...transition.writes] },
    };
  },
);

export const updateTemplate = mutation(
  'updateTemplate',
  { verb: 'update', kind: 'template' },
  INPUTS.updateTemplate,
  (context, input, asker) => update(context, 'template', input, asker),
);

export const templateSwitches = switches('template', 'Template');
