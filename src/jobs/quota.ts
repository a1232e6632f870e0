import type { Inventory } from '../db/inventory.ts';
import type { Blocked } from '../db/quota-book.ts';
import type { Transition } from '../db/transition.ts';
import { VirtgraphError } from '../domain/errors.ts';
import type { StepError } from '../domain/job.ts';
import { type Charge, excessText, ownersOf } from '../domain/quota.ts';

/**
 * Holds what a transaction is about to take of an account's quota and of those above, so that the next who asks sees it
 * taken. Call the result once the transaction has ended.
 *
 * @throws VirtgraphError QUOTA_EXCEEDED
 */
export async function chargeOrRefuse(
  inventory: Inventory,
  accountId: number,
  charge: Charge,
): Promise<(taken: boolean) => void> {
  const { quotas } = inventory;
  await inventory.know([accountId]);
  const owners = ownersOf(accountId, inventory);
  while (!quotas.fits(owners, charge)) {
    // Nobody is refused for what this process only believes, nor for what others are about to take and may not.
    await inventory.recountQuotas(owners);
    const blocked = quotas.blocked(owners, charge);
    if (blocked) throw quotaExceeded(inventory, blocked);
    if (!quotas.fits(owners, charge)) await quotas.settled();
  }
  return quotas.hold(owners, charge);
}

/** What is told of it to whoever may not know of the domain is less: graphql/user-error.ts. */
export function quotaExceeded(inventory: Inventory, { owner, excess }: Blocked): VirtgraphError {
  const { kind, id } = owner;
  const row = inventory.get(kind, id);
  return new VirtgraphError({
    code: 'QUOTA_EXCEEDED',
    message: `Quota of ${kind} ${row?.name ?? ''}: ${excessText(excess)}.`,
    quota: { owner, ...excess, ...(kind === 'domain' ? { path: inventory.get('domain', id)?.path ?? '' } : {}) },
  });
}

/**
 * Why a step's end could not be written, where it would take more than a quota has left: the step has failed then. Null:
 * for another reason. Those of the account read it, so of a domain above nothing is told.
 */
export async function overQuota(inventory: Inventory, { writes }: Transition): Promise<StepError | null> {
  for (const write of writes) {
    if (write.op !== 'charge') continue;
    await inventory.know([write.accountId]);
    const owners = ownersOf(write.accountId, inventory);
    await inventory.recountQuotas(owners);
    const blocked = inventory.quotas.blocked(owners, write.charge);
    if (!blocked) continue;
    const { owner, excess } = blocked;
    const whose =
      owner.kind === 'account' ? `Quota of the account: ${excessText(excess)}.` : 'A quota above is reached.';
    return { code: 'QUOTA_EXCEEDED', message: whose };
  }
  return null;
}
