import type { Account } from '../db/tables.ts';
import { holdDomainAt, insert } from '../db/transition.ts';
import type { OpsContext } from './context.ts';
import { INPUTS } from './inputs.ts';
import { type Asker, mutation } from './mutation.ts';
import { create, type Extras, find, switching, update, type Wanted } from './named-resource.ts';
import { membershipsGo } from './project-member.ts';
import { mayGo, mustOutrankAllIn, mustReachDomains } from './rights.ts';
import { deletionWithAll, disablingWithVms } from './with-all-inside.ts';

export const createAccount = mutation(
  'createAccount',
  { verb: 'create', kind: 'account' },
  INPUTS.createAccount,
  async (context, { name, domainId, type }, asker) => {
    const domain = await find(context, 'domain', domainId, ['domainId'], asker.actor);
    mustReachDomains(asker, ['domainId']);
    const row = { domain_id: domain.id, type: type ?? 'ACCOUNT', name };
    return create(context, 'account', asker, row, [holdDomainAt(domain)], (id) => [
      insert('account_quota', { id, path: domain.path }),
    ]);
  },
);

export const updateAccount = mutation(
  'updateAccount',
  { verb: 'update', kind: 'account' },
  INPUTS.updateAccount,
  (context, input, asker) => update(context, 'account', input, asker),
);

const extras = {
  async guard(context: OpsContext, account: Account, asker: Asker, wanted: Wanted) {
    mayGo('account', account.id, asker, wanted);
    if (wanted === 'DISABLED') await mustOutrankAllIn(context, { account: account.id }, asker);
  },
  along: (context: OpsContext, account: Account) =>
    membershipsGo(context, ['account_id', 'member_account_id'], account.id),
} satisfies Extras<'account'>;

export const enableAccount = mutation(
  'enableAccount',
  { verb: 'update', kind: 'account' },
  INPUTS.enableAccount,
  switching('account', 'ENABLED', extras),
);

export const disableAccount = mutation(
  'disableAccount',
  { verb: 'update', kind: 'account' },
  INPUTS.disableAccount,
  disablingWithVms('account', extras),
);

export const deleteAccount = mutation(
  'deleteAccount',
  { verb: 'delete', kind: 'account' },
  INPUTS.deleteAccount,
  deletionWithAll('account', extras),
);
