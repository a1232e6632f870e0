import type { Domain } from '../db/tables.ts';
import { holdDomainAt, patch, rebase, takeQuota, type Write } from '../db/transition.ts';
import { domainsOf } from '../domain/authorize.ts';
import { VirtgraphError } from '../domain/errors.ts';
import { type Charge, domainOwners, minus, QUOTA, type QuotaPath, type QuotaRow } from '../domain/quota.ts';
import { quotaExceeded } from '../jobs/quota.ts';
import type { OpsContext } from './context.ts';
import { INPUTS } from './inputs.ts';
import { type Decision, mutation } from './mutation.ts';
import { changed, find, findToChange, mustBeGeneration } from './named-resource.ts';
import { mayGo, mustOutrankAllIn, mustReachDomains } from './rights.ts';

/** How deep domains may stand in one another: the ids of all of them make up a path of 255 characters. */
export const MAX_DEPTH = 16;

/** @throws VirtgraphError INVALID_INPUT where so many domains do not stand in one another */
export function mustBeDepth(depth: number): void {
  if (depth <= MAX_DEPTH) return;
  throw new VirtgraphError({
    code: 'INVALID_INPUT',
    message: `Domains stand at most ${MAX_DEPTH} deep in one another.`,
    path: ['parentId'],
  });
}

/** With all that it has, and what of it is counted in the domains above. Its users see from then on what is there. */
export const moveAccount = mutation(
  'moveAccount',
  { verb: 'update', kind: 'account' },
  INPUTS.moveAccount,
  async (context, input, asker) => {
    const account = await findToChange(context, 'account', input.id, asker);
    const to = await find(context, 'domain', input.domainId, ['domainId'], asker.actor);
    mustBeGeneration(account, input.expectedGeneration);
    mustReachDomains(asker, ['id']);
    mayGo('account', account.id, asker, 'MOVED');
    await mustOutrankAllIn(context, { account: account.id }, asker);
    if (to.id === account.domain_id) return { kind: 'already', id: account.id };
    const from = await domainOf(context, account.domain_id);
    const quota = await context.db
      .selectFrom('account_quota')
      .selectAll()
      .where('id', '=', account.id)
      .executeTakeFirstOrThrow();
    const providers = await context.db
      .selectFrom('identity_provider')
      .select('id')
      .where('account_id', '=', account.id)
      .where('deleted_at', 'is', null)
      .execute();
    const decision = changed('account', account, asker, { domain_id: to.id }, [moved('domain', from, to)]);
    return along(context, decision, { from, to, quota }, [
      holdDomainAt(to),
      patch('account_quota', account.id, { ...usedOf(quota), path: from.path }, { path: to.path }),
      ...providers.map(({ id }) => patch('identity_provider', id, { deleted_at: null }, { domain_id: to.id })),
    ]);
  },
);

/** With all that is below it. */
export const moveDomain = mutation(
  'moveDomain',
  { verb: 'update', kind: 'domain' },
  INPUTS.moveDomain,
  async (context, input, asker) => {
    const domain = await findToChange(context, 'domain', input.id, asker);
    const to = await find(context, 'domain', input.parentId, ['parentId'], asker.actor);
    mustBeGeneration(domain, input.expectedGeneration);
    mustReachDomains(asker, ['id']);
    mayGo('domain', domain.id, asker, 'MOVED');
    await mustOutrankAllIn(context, { path: domain.path }, asker);
    if (to.id === domain.parent_id) return { kind: 'already', id: domain.id };
    const below = await context.db
      .selectFrom('domain')
      .select(['id', 'path'])
      .where('path', 'like', `${domain.path}%`)
      .execute();
    mustFit(domain, to, below);
    const from = await domainOf(context, domain.parent_id!);
    const quota = await context.db
      .selectFrom('domain_quota')
      .selectAll()
      .where('id', '=', domain.id)
      .executeTakeFirstOrThrow();
    const path = `${to.path}${domain.id}/`;
    const decision = changed('domain', domain, asker, { parent_id: to.id, path }, [moved('parent', from, to)]);
    return along(
      context,
      decision,
      { from, to, quota },
      [
        holdDomainAt(to),
        // Nothing was counted in it meanwhile.
        patch('domain_quota', domain.id, usedOf(quota), usedOf(quota)),
        rebase(domain.path, path),
      ],
      below.map(({ id }) => id),
    );
  },
);

const domainOf = ({ db }: OpsContext, id: number): Promise<Domain> =>
  db.selectFrom('domain').selectAll().where('id', '=', id).executeTakeFirstOrThrow();

const moved = (field: string, from: Domain, to: Domain) => ({ field, before: from.name, after: to.name });

/** @throws VirtgraphError INVALID_INPUT */
function mustFit(domain: Domain, to: Domain, below: { path: string }[]): void {
  if (to.path.startsWith(domain.path))
    throw new VirtgraphError({
      code: 'INVALID_INPUT',
      message: `${to.name} is in ${domain.name}: a domain does not stand in itself.`,
      path: ['parentId'],
    });
  const height = Math.max(...below.map(({ path }) => domainsOf(path).length)) - domainsOf(domain.path).length + 1;
  mustBeDepth(domainsOf(to.path).length + height);
}

const USED = Object.values(QUOTA).map(({ used }) => used);
type Used = Pick<QuotaRow, (typeof USED)[number]>;
const usedOf = (row: QuotaRow): Used => Object.fromEntries(USED.map((column) => [column, row[column]])) as Used;
const chargeOf = (row: QuotaRow): Charge =>
  Object.fromEntries(Object.values(QUOTA).map(({ amount, used }) => [amount, row[used]]));

/**
 * What moves is counted no more in the domains that it leaves, and in those that it comes into, if there is room.
 *
 * @throws VirtgraphError QUOTA_EXCEEDED
 */
async function along(
  { inventory }: OpsContext,
  decision: Decision,
  { from, to, quota }: { from: Domain; to: Domain; quota: QuotaRow },
  writes: Write[],
  domainIds: number[] = [],
): Promise<Decision> {
  if (decision.kind === 'already') return decision;
  const charge = chargeOf(quota);
  const [left, entered] = [domainOwners(from.path), domainOwners(to.path)];
  const beyond = (owners: QuotaPath, others: QuotaPath) => owners.filter(({ id }) => !others.some((o) => o.id === id));
  const entering = beyond(entered, left);
  await inventory.recountQuotas(entering);
  const blocked = inventory.quotas.blocked(entering, charge);
  if (blocked) throw quotaExceeded(inventory, blocked);
  const takes = [
    ...beyond(left, entered).map((owner) => takeQuota(owner, minus(charge))),
    ...entering.map((owner) => takeQuota(owner, charge)),
  ];
  const { transition } = decision;
  return {
    ...decision,
    transition: {
      ...transition,
      writes: [...transition.writes, ...writes, ...takes],
      changes: [
        ...transition.changes,
        ...domainIds.map((id) => ({ kind: 'domain' as const, id })),
        ...takes.map(({ id }) => ({ kind: 'domain_quota' as const, id })),
      ],
    },
  };
}
