import type { Domain } from '../db/tables.ts';
import { holdDomainAt, insert } from '../db/transition.ts';
import { domainsOf } from '../domain/authorize.ts';
import { VirtgraphError } from '../domain/errors.ts';
import type { OpsContext } from './context.ts';
import { INPUTS } from './inputs.ts';
import { MAX_DEPTH } from './move.ts';
import { type Asker, mutation } from './mutation.ts';
import { create, type Extras, find, switching, update, type Wanted } from './named-resource.ts';
import { mayGo, mustOutrankAllIn, mustReachDomains } from './rights.ts';
import { deletionWithAll, disablingWithVms } from './with-all-inside.ts';

export const createDomain = mutation(
  'createDomain',
  { verb: 'create', kind: 'domain' },
  INPUTS.createDomain,
  async (context, { name, parentId }, asker) => {
    const parent = await find(context, 'domain', parentId, ['parentId'], asker.actor);
    mustReachDomains(asker, ['parentId']);
    if (domainsOf(parent.path).length >= MAX_DEPTH)
      throw new VirtgraphError({
        code: 'INVALID_INPUT',
        message: `Domains stand at most ${MAX_DEPTH} deep in one another.`,
        path: ['parentId'],
      });
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

const extras = {
  async guard(context: OpsContext, domain: Domain, asker: Asker, wanted: Wanted) {
    mustReachDomains(asker, ['id']);
    mayGo('domain', domain.id, asker, wanted);
    if (wanted === 'DISABLED') await mustOutrankAllIn(context, { path: domain.path }, asker);
  },
} satisfies Extras<'domain'>;

export const enableDomain = mutation(
  'enableDomain',
  { verb: 'update', kind: 'domain' },
  INPUTS.enableDomain,
  switching('domain', 'ENABLED', extras),
);

export const disableDomain = mutation(
  'disableDomain',
  { verb: 'update', kind: 'domain' },
  INPUTS.disableDomain,
  disablingWithVms('domain', extras),
);

export const deleteDomain = mutation(
  'deleteDomain',
  { verb: 'delete', kind: 'domain' },
  INPUTS.deleteDomain,
  deletionWithAll('domain', extras),
);
