import { holdDomainAt, insert } from '../db/transition.ts';
import { domainsOf } from '../domain/authorize.ts';
import { INPUTS } from './inputs.ts';
import { mustBeDepth } from './move.ts';
import { mutation } from './mutation.ts';
import { create, find, update } from './named-resource.ts';
import { mayGo, mustOutrankAllIn, mustReachDomains } from './rights.ts';
import { switchesWithAll } from './with-all-inside.ts';

export const createDomain = mutation(
  'createDomain',
  { verb: 'create', kind: 'domain' },
  INPUTS.createDomain,
  async (context, { name, parentId }, asker) => {
    const parent = await find(context, 'domain', parentId, ['parentId'], asker.actor);
    mustReachDomains(asker, ['parentId']);
    mustBeDepth(domainsOf(parent.path).length + 1);
    const id = await context.ids.take();
    const row = { id, parent_id: parent.id, path: `${parent.path}${id}/`, name };
    return create(context, 'domain', asker, row, [holdDomainAt(parent)], () => [insert('domain_quota', { id })]);
  },
);

export const updateDomain = mutation(
  'updateDomain',
  { verb: 'update', kind: 'domain' },
  INPUTS.updateDomain,
  (context, input, asker) =>
    update(context, 'domain', input, asker, async (domain) => {
      mustReachDomains(asker, ['id']);
      const wanted = input.requireSecondFactor;
      const before = domain.require_second_factor === 1;
      if (wanted == null || wanted === before) return { set: {}, changes: [] };
      return {
        set: { require_second_factor: wanted ? 1 : 0 },
        changes: [{ field: 'requireSecondFactor', before: String(before), after: String(wanted) }],
      };
    }),
);

export const domainSwitches = switchesWithAll('domain', 'Domain', {
  async guard(context, domain, asker, wanted) {
    mustReachDomains(asker, ['id']);
    mayGo('domain', domain.id, asker, wanted);
    if (wanted === 'DISABLED') await mustOutrankAllIn(context, { path: domain.path }, asker);
  },
});
