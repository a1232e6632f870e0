import type { Tenancy } from '../domain/authorize.ts';
import { ownersOf, quotaTable } from '../domain/quota.ts';
import { type ChargeAccount, type Transition, takeQuota } from './transition.ts';

const chargesOf = ({ writes }: Transition): ChargeAccount[] => writes.filter((w) => w.op === 'charge');

export const chargedAccounts = (transition: Transition): number[] => chargesOf(transition).map((w) => w.accountId);

/**
 * The transition with each charge as what it is to the database: a take of the account's quota and of that of every
 * domain above, and a change of each, which is told.
 */
export function withTakes(transition: Transition, tenancy: Tenancy): Transition {
  const charges = chargesOf(transition);
  if (charges.length === 0) return transition;
  const takes = charges.flatMap(({ accountId, charge }) =>
    ownersOf(accountId, tenancy).map((owner) => ({
      owner,
      take: takeQuota(owner, charge, owner.kind === 'account' ? tenancy.domainPathOf(accountId)! : undefined),
    })),
  );
  return {
    ...transition,
    writes: [...transition.writes.filter((w) => w.op !== 'charge'), ...takes.map(({ take }) => take)],
    changes: [...transition.changes, ...takes.map(({ owner }) => ({ kind: quotaTable(owner), id: owner.id }))],
  };
}
