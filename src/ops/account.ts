import { hold } from '../db/transition.ts';
import { INPUTS } from './inputs.ts';
import { mutation } from './mutation.ts';
import { create, find, switches, update } from './named-resource.ts';
import { membershipsGo } from './project-member.ts';
import { mayGo, mustOutrankAllIn, mustReachDomains } from './rights.ts';

export const createAccount = mutation(
  'createAccount',
  { verb: 'create', kind: 'account' },
  INPUTS.createAccount,
  async (context, { name, domainId, type }, asker) => {
    const domain = await find(context, 'domain', domainId, ['domainId'], asker.actor);
    mustReachDomains(asker, ['domainId']);
    return create(context, 'account', asker, { domain_id: domain.id, type: type ?? 'ACCOUNT', name }, [
      hold('domain', domain.id),
    ]);
  },
);

export const updateAccount = mutation(
  'updateAccount',
  { verb: 'update', kind: 'account' },
  INPUTS.updateAccount,
  (context, input, asker) => update(context, 'account', input, asker),
);

export const accountSwitches = switches('account', 'Account', {
  async guard(context, account, asker, wanted) {
    mayGo('account', account.id, asker, wanted);
    if (wanted === 'DISABLED') await mustOutrankAllIn(context, { account: account.id }, asker);
  },
  along: (context, account) => membershipsGo(context, ['account_id', 'member_account_id'], account.id),
});
