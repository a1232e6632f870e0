import { holdDomainAt, insert } from '../db/transition.ts';
import { INPUTS } from './inputs.ts';
import { mutation } from './mutation.ts';
import { create, find, update } from './named-resource.ts';
import { membershipsGo } from './project-member.ts';
import { mayGo, mustOutrankAllIn, mustReachDomains } from './rights.ts';
import { switchesWithAll } from './with-all-inside.ts';

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

export const accountSwitches = switchesWithAll('account', 'Account', {
  async guard(context, account, asker, wanted) {
    mayGo('account', account.id, asker, wanted);
    if (wanted === 'DISABLED') await mustOutrankAllIn(context, { account: account.id }, asker);
  },
  along: (context, account) => membershipsGo(context, ['account_id', 'member_account_id'], account.id),
});
