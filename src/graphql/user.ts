import { ApiKeyList } from './api-key.ts';
import { builder } from './builder.ts';
import { conditionsOn } from './condition.ts';
import { childList, list, rootList } from './connection.ts';
import { loadersOf } from './loaders.ts';
import { mutation, updateInput, wantedMutations } from './mutation.ts';
import { lookUp, NodeRef } from './node.ts';
import { AccountRef, IdentityProviderRef, RoleRef, UserRef } from './refs.ts';
import { namedFields, WantedStateRef } from './resource.ts';
import { SessionList } from './session.ts';

UserRef.implement({
  description: 'Someone, or some program, that acts for an account.',
  interfaces: [NodeRef],
  fields: (t) => ({
    ...namedFields(t, 'user'),
    account: t.field({
      type: AccountRef,
      nullable: true,
      description: 'Whom it acts for. Null for who may not see it.',
      resolve: (user, _args, context) => loadersOf(context).find('account', user.account_id),
    }),
    role: t.field({
      type: RoleRef,
      nullable: true,
      description: 'What it may do. Null for who may not see it.',
      resolve: (user, _args, context) => loadersOf(context).find('role', user.role_id),
    }),
    identityProvider: t.field({
      type: IdentityProviderRef,
      nullable: true,
      description: 'Where he is known, and signs in. Null for who is known here alone, and for who may not see it.',
      resolve: (user, _args, context) =>
        user.identity_provider_id === null
          ? null
          : loadersOf(context).find('identity_provider', user.identity_provider_id),
    }),
    apiKeys: childList(t, ApiKeyList, 'Its keys that are not revoked.', 'user_id'),
    sessions: childList(t, SessionList, 'Where it is signed in.', 'user_id'),
    passwordChangedAt: t.expose('password_changed_at', {
      type: 'DateTime',
      nullable: true,
      description: 'When its password was set last. Null: it has none, and nobody signs in by one.',
    }),
    secondFactorSince: t.expose('totp_confirmed_at', {
      type: 'DateTime',
      nullable: true,
      description: 'Since when a code of its authenticator is asked for too. Null: none is.',
    }),
  }),
});

const UserFilterRef = builder.inputType('UserFilter', {
  description: 'Narrows a list of users.',
  fields: (t) => ({
    accountId: t.id({ description: 'Only users of this account.' }),
    roleId: t.id({ description: 'Only users of this role.' }),
    name: t.string({ description: 'Only users of exactly this name.' }),
    namePrefix: t.string({ description: 'Only users whose name begins so.' }),
    wantedState: t.field({ type: WantedStateRef, description: 'Only users that are wanted so.' }),
  }),
});

const where = conditionsOn('user');
export const UserList = list({
  table: 'user',
  ref: UserRef,
  noun: 'User',
  filter: UserFilterRef,
  orders: { NAME: { column: 'name', description: 'By name, byte by byte.' } },
  conditions: (filter, actor) => [
    ...where.refersTo('account_id', 'account', filter.accountId, 'accountId', actor),
    ...where.refersTo('role_id', 'role', filter.roleId, 'roleId', actor),
    ...where.is('name', filter.name),
    ...where.startsWith('name', filter.namePrefix),
    ...where.is('wanted_state', filter.wantedState),
  ],
});

builder.queryFields((t) => ({
  user: lookUp(t, 'user'),
  users: rootList(t, UserList, 'The users that the caller may see.'),
}));

mutation('createUser', 'user', 'Adds a user to an account, with a role that has no more than the caller.', (t) => ({
  accountId: t.id({ required: true, description: 'Whom it acts for.' }),
  roleId: t.id({ required: true, description: 'What it may do.' }),
  name: t.string({ required: true, description: 'As people call it: 1 to 255 characters.' }),
  password: t.string({
    description: 'With which it signs in, 12 to 1024 characters. Unless told, nobody signs in as it.',
  }),
}));
mutation('updateUser', 'user', 'Renames a user, or gives it another role that has no more than the caller.', (t) => ({
  ...updateInput(t, 'user'),
  name: t.string({ description: 'A new name.' }),
  roleId: t.id({ description: 'Another role.' }),
}));
wantedMutations('user', {
  enable: 'Lets a user in again.',
  disable: 'Lets a user in no more, until it is enabled; what it has open ends.',
  delete: 'Deletes a user and ends all its keys and sessions.',
});
