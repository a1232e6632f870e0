import { emptyTransition, patch, plus } from '../db/transition.ts';
import { type Actor, rightsOf } from '../domain/authorize.ts';
import { VirtgraphError } from '../domain/errors.ts';
import type { FieldChange } from '../domain/kinds.ts';
import { QUOTA, type QuotaOwner, type QuotaRow, quotaTable } from '../domain/quota.ts';
import type { OpsContext } from './context.ts';
import { INPUTS, type Inputs } from './inputs.ts';
import { type Asker, mutation } from './mutation.ts';
import { find, mustBeGeneration, told } from './named-resource.ts';
import { mustReachDomains } from './rights.ts';

/** A limit below what is used takes nothing away: nothing new is made until less is. */
export const updateQuota = mutation(
  'updateQuota',
  { verb: 'update', kind: 'account' },
  INPUTS.updateQuota,
  async (context, input, asker) => {
    const owner = await findOwner(context, input, asker);
    const table = quotaTable(owner);
    const row: QuotaRow = await context.db
      .selectFrom(table)
      .selectAll()
      .where('id', '=', owner.id)
      .executeTakeFirstOrThrow();
    mustBeGeneration(row, input.expectedGeneration);
    const { set, changes } = limitsOf(row, input.limits);
    if (changes.length === 0) return { kind: 'already', id: owner.id };
    return {
      kind: 'write',
      id: owner.id,
      jobId: null,
      transition: {
        ...emptyTransition(),
        writes: [patch(table, owner.id, { generation: row.generation }, { ...set, generation: plus(1) })],
        changes: [{ kind: table, id: owner.id }],
        events: [told(owner.kind, owner, 'updated', asker, changes)],
      },
    };
  },
  ['accountId', 'domainId'],
);

function limitsOf(row: QuotaRow, limits: Inputs['updateQuota']['limits']) {
  const set: Partial<Record<(typeof QUOTA)[keyof typeof QUOTA]['cap'], number | null>> = {};
  const changes: FieldChange[] = [];
  const text = (limit: number | null): string | null => (limit === null ? null : String(limit));
  for (const { resource, limit = null } of limits) {
    const { cap, per } = QUOTA[resource];
    const wanted = limit === null ? null : limit * per;
    const before = row[cap];
    if (wanted === before) continue;
    set[cap] = wanted;
    changes.push({
      field: `quota.${resource}`,
      before: text(before === null ? null : before / per),
      after: text(limit),
    });
  }
  return { set, changes };
}

/** @throws VirtgraphError NOT_FOUND, FORBIDDEN */
async function findOwner(
  context: OpsContext,
  { accountId, domainId }: Inputs['updateQuota'],
  asker: Asker,
): Promise<QuotaOwner> {
  const { actor } = asker;
  if (accountId != null) {
    const { id } = await find(context, 'account', accountId, ['accountId'], actor);
    await context.inventory.know([id]);
    mustAdminister(asker, 'account', context.inventory.domainPathOf(id), 'accountId');
    if (!isOfAll(actor) && actor.kind === 'user' && actor.accountId === id) throw own('account', 'accountId');
    return { kind: 'account', id };
  }
  const { id, path } = await find(context, 'domain', domainId!, ['domainId'], actor);
  mustAdminister(asker, 'domain', path, 'domainId');
  if (!isOfAll(actor) && actor.kind === 'user' && actor.domainPath === path) throw own('domain', 'domainId');
  return { kind: 'domain', id };
}

const isOfAll = (actor: Actor): boolean => rightsOf(actor).reach === 'ALL';

/**
 * By his own role, and where that reaches. What a role in a project allows there does not count: its members would raise
 * what they have together. Nor does anybody raise his own.
 *
 * @throws VirtgraphError FORBIDDEN
 */
function mustAdminister(asker: Asker, kind: QuotaOwner['kind'], domainPath: string | undefined, field: string): void {
  const { actor } = asker;
  mustReachDomains(asker, [field]);
  const isBelow = actor.kind !== 'user' || isOfAll(actor) || domainPath?.startsWith(actor.domainPath);
  if (isBelow && rightsOf(actor).permissions.has(`update ${kind}`)) return;
  throw new VirtgraphError({
    code: 'FORBIDDEN',
    message: `Your role does not administer this ${kind}.`,
    path: [field],
  });
}

const own = (noun: string, path: string): VirtgraphError =>
  new VirtgraphError({
    code: 'FORBIDDEN',
    message: `You are in this ${noun} yourself: whoever administers the domain above sets its quota.`,
    path: [path],
  });
