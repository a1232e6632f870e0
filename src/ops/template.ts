import { newUid } from '../db/ids.ts';
import { hold, refundAccount } from '../db/transition.ts';
import type { Actor } from '../domain/authorize.ts';
import { VirtgraphError } from '../domain/errors.ts';
import { chargeOfTemplate } from '../domain/quota.ts';
import { begin } from '../jobs/advance.ts';
import { chargeOrRefuse } from '../jobs/quota.ts';
import { registerTemplate as workflow } from '../jobs/template-register.ts';
import { connectedHost, noConnectedHost } from '../jobs/vm-plan.ts';
import { INPUTS } from './inputs.ts';
import { mutation } from './mutation.ts';
import { find, switches, update } from './named-resource.ts';
import { mustHaveRightWith } from './rights.ts';
import { openOwners } from './vm-create.ts';

/** Larger than any disk that a template should have; keeps absurd sizes out of the counters. */
const MAX_VIRTUAL_BYTES = 2 * 2 ** 40;

/** Whose a template is unless told; null: everybody's, which operators alone give. */
const ownAccount = (actor: Actor): number | null =>
  actor.kind === 'user' && actor.reach !== 'ALL' ? actor.accountId : null;

/** A template from a file that lies in the image folder of the zone's hosts: a host looks at it before anything else. */
export const registerTemplate = mutation(
  'registerTemplate',
  { verb: 'create', kind: 'template' },
  INPUTS.registerTemplate,
  async (context, input, asker) => {
    const zone = await find(context, 'zone', input.zoneId, ['zoneId'], asker.actor);
    const accountId =
      input.accountId == null
        ? ownAccount(asker.actor)
        : (await find(context, 'account', input.accountId, ['accountId'], asker.actor)).id;
    await mustHaveRightWith(context, asker, 'template', { account_id: accountId });
    await context.inventory.know([accountId]);
    const hostId = connectedHost(context.inventory, (host) => host.zone_id === zone.id);
    if (hostId === null) throw noConnectedHost('No host of the zone is connected, so nobody can look at the file.');
    const [id, jobId] = [await context.ids.take(), await context.ids.take()];
    const job = {
      id: jobId,
      uid: newUid(),
      target: { kind: 'template' as const, id, accountId },
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
    const parents = [hold('zone', zone.id), ...(accountId === null ? [] : openOwners(context.inventory, accountId))];
    // Last of what is awaited: from here on the quota is held. How large it is comes from the host that looks at it.
    const settle =
      accountId === null ? null : await chargeOrRefuse(context.inventory, accountId, chargeOfTemplate(null));
    return {
      kind: 'write',
      id,
      jobId,
      ...(settle ? { settle } : {}),
      transition: { ...transition, writes: [...parents, ...transition.writes] },
    };
  },
);

export const updateTemplate = mutation(
  'updateTemplate',
  { verb: 'update', kind: 'template' },
  INPUTS.updateTemplate,
  (context, input, asker) => update(context, 'template', input, asker),
);

export const templateSwitches = switches('template', 'Template', {
  guard(_context, template, _asker, wanted) {
    if (wanted !== 'DELETED' || template.active_job_id === null) return;
    throw new VirtgraphError({
      code: 'INVALID_STATE',
      message: 'A host is looking at its image. Wait for its job, or cancel that first.',
      path: ['id'],
      state: template.state,
      allowedActions: ['UPDATE'],
    });
  },
  async along(_context, { account_id, file_bytes }) {
    // Its size counts from the end of its job on: what is given back must be what was taken.
    const still = { active_job_id: null };
    const refund = account_id === null ? [] : [refundAccount(account_id, chargeOfTemplate(file_bytes))];
    return { writes: refund, changes: [], still };
  },
});
