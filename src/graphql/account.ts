import { builder } from './builder.ts';
import { conditionsOn } from './condition.ts';
import { childList, list, rootList } from './connection.ts';
import { loadersOf } from './loaders.ts';
import { mutation, updateInput, wantedMutations } from './mutation.ts';
import { lookUp, NodeRef } from './node.ts';
import { AccountRef, DomainRef } from './refs.ts';
import { namedFields, WantedStateRef } from './resource.ts';
import { TemplateList } from './template.ts';
import { UserList } from './user.ts';
import { VmList } from './vm.ts';
import { VolumeList } from './volume.ts';

AccountRef.implement({
  description: 'What VMs, volumes and templates belong to: one customer, with its users.',
  interfaces: [NodeRef],
  fields: (t) => ({
    ...namedFields(t, 'account'),
    domain: t.field({
      type: DomainRef,
      nullable: true,
      description: 'Where it stands. Null for who may not see it.',
      resolve: (account, _args, context) => loadersOf(context).find('domain', account.domain_id),
    }),
    users: childList(t, UserList, 'Who acts for it.', 'account_id'),
    vms: childList(t, VmList, 'Its VMs.', 'account_id'),
    volumes: childList(t, VolumeList, 'Its disks.', 'account_id'),
    templates: childList(t, TemplateList, 'Its own templates, which nobody else may use.', 'account_id'),
  }),
});

const AccountFilterRef = builder.inputType('AccountFilter', {
  description: 'Narrows a list of accounts.',
  fields: (t) => ({
    domainId: t.id({ description: 'Only accounts that stand in this domain itself.' }),
    name: t.string({ description: 'Only accounts of exactly this name.' }),
    namePrefix: t.string({ description: 'Only accounts whose name begins so.' }),
    wantedState: t.field({ type: WantedStateRef, description: 'Only accounts that are wanted so.' }),
  }),
});

const where = conditionsOn('account');
export const AccountList = list({
  table: 'account',
  ref: AccountRef,
  noun: 'Account',
  filter: AccountFilterRef,
  orders: { NAME: { column: 'name', description: 'By name, byte by byte.' } },
  conditions: (filter, actor) => [
    ...where.refersTo('domain_id', 'domain', filter.domainId, 'domainId', actor),
    ...where.is('name', filter.name),
    ...where.startsWith('name', filter.namePrefix),
    ...where.is('wanted_state', filter.wantedState),
  ],
});

builder.queryFields((t) => ({
  account: lookUp(t, 'account'),
  accounts: rootList(t, AccountList, 'The accounts that the caller may see.'),
}));

mutation('createAccount', 'account', 'Adds an account to a domain.', (t) => ({
  domainId: t.id({ required: true, description: 'Where it stands.' }),
  name: t.string({ required: true, description: 'As people call it: 1 to 255 characters.' }),
}));
mutation('updateAccount', 'account', 'Renames an account.', (t) => ({
  ...updateInput(t, 'account'),
  name: t.string({ description: 'A new name.' }),
}));
wantedMutations('account', {
  enable: 'Lets the users of an account in again.',
  disable: 'Lets no user of an account in, and no new VM. What runs runs on.',
  delete: 'Deletes an account that has no users, VMs, volumes and templates.',
});
