import type { AccountType } from '../domain/authorize.ts';
import { builder } from './builder.ts';
import { conditionsOn } from './condition.ts';
import { childList, list, rootList } from './connection.ts';
import { loadersOf } from './loaders.ts';
import { mutation, updateInput } from './mutation.ts';
import { lookUp, NodeRef } from './node.ts';
import { ProjectMemberList } from './project-member.ts';
import { AccountRef, DomainRef } from './refs.ts';
import { namedFields, WantedStateRef } from './resource.ts';
import { TemplateList } from './template.ts';
import { UserList } from './user.ts';
import { VmList } from './vm.ts';
import { VolumeList } from './volume.ts';
import { tenantMutations } from './with-all-inside.ts';

const AccountTypeRef = builder.enumType('AccountType', {
  description: 'Who acts for an account.',
  values: {
    ACCOUNT: { description: 'Users of its own.' },
    PROJECT: { description: 'Members: users of other accounts, each with a role that counts here alone.' },
  } as const satisfies Record<AccountType, unknown>,
});

AccountRef.implement({
  description:
    'What VMs, volumes and templates belong to: one customer with its users, or a project that several share.',
  interfaces: [NodeRef],
  fields: (t) => ({
    ...namedFields(t, 'account'),
    domain: t.field({
      type: DomainRef,
      nullable: true,
      description: 'Where it stands. Null for who may not see it.',
      resolve: (account, _args, context) => loadersOf(context).find('domain', account.domain_id),
    }),
    type: t.expose('type', { type: AccountTypeRef, description: 'Who acts for it.' }),
    users: childList(t, UserList, 'Its own users; a project has none.', 'account_id'),
    members: childList(t, ProjectMemberList, 'Who shares it; only a project has some.', 'account_id'),
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
    type: t.field({ type: AccountTypeRef, description: 'Only projects, or only accounts with users of their own.' }),
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
    ...where.is('type', filter.type),
    ...where.is('wanted_state', filter.wantedState),
  ],
});

builder.queryFields((t) => ({
  account: lookUp(t, 'account'),
  accounts: rootList(t, AccountList, 'The accounts that the caller may see.'),
}));

mutation('createAccount', 'account', 'Adds an account, or a project, to a domain.', (t) => ({
  domainId: t.id({ required: true, description: 'Where it stands.' }),
  name: t.string({ required: true, description: 'As people call it: 1 to 255 characters.' }),
  type: t.field({ type: AccountTypeRef, description: 'Whether it has users of its own, as unless told, or members.' }),
}));
mutation('updateAccount', 'account', 'Renames an account.', (t) => ({
  ...updateInput(t, 'account'),
  name: t.string({ description: 'A new name.' }),
}));
mutation(
  'moveAccount',
  'account',
  'Puts an account, with all that it has, into another domain. Its quota counts there; what its users have open ends.',
  (t) => ({
    ...updateInput(t, 'account'),
    domainId: t.id({ required: true, description: 'Where it will stand.' }),
  }),
);
tenantMutations('account', {
  enable: 'Lets the users of an account in again.',
  disable: 'Lets no user of an account in, and no new VM. What runs runs on unless told.',
  delete:
    'Deletes an account that has no users, VMs, volumes and templates; memberships end with it; or, told so, one with all of that.',
});
