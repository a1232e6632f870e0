import { type LdapSettings, type MappedRole, mappingOf, type OidcSettings } from '../domain/identity-provider.ts';
import { builder } from './builder.ts';
import { conditionsOn } from './condition.ts';
import { childList, list, rootList } from './connection.ts';
import {
  LdapSettingsInputRef,
  LdapSettingsRef,
  MappedRoleInputRef,
  MappedRoleRef,
  OidcSettingsInputRef,
  OidcSettingsRef,
  ProviderTypeRef,
} from './identity-provider-settings.ts';
import { loadersOf } from './loaders.ts';
import { mutation, updateInput, wantedMutations } from './mutation.ts';
import { lookUp, NodeRef } from './node.ts';
import { AccountRef, DomainRef, IdentityProviderRef } from './refs.ts';
import { namedFields, WantedStateRef } from './resource.ts';
import { UserList } from './user.ts';

IdentityProviderRef.implement({
  description:
    'Where people are known who have no password here. They are let in with the role of the first group of the mapping ' +
    'that they are in, each time anew; disabling it lets nobody sign in by it, and ends nothing that is open.',
  interfaces: [NodeRef],
  fields: (t) => ({
    ...namedFields(t, 'identity_provider'),
    type: t.expose('type', { type: ProviderTypeRef, description: 'What it speaks.' }),
    domain: t.field({
      type: DomainRef,
      nullable: true,
      description: 'Whose sign-in page offers it. Null for who may not see it.',
      resolve: (provider, _args, context) => loadersOf(context).find('domain', provider.domain_id),
    }),
    account: t.field({
      type: AccountRef,
      nullable: true,
      description: 'Whom its users act for. Null for who may not see it.',
      resolve: (provider, _args, context) => loadersOf(context).find('account', provider.account_id),
    }),
    oidc: t.field({
      type: OidcSettingsRef,
      nullable: true,
      description: 'How it is reached by OpenID Connect; null where it speaks something else.',
      resolve: ({ type, settings }) => (type === 'OIDC' ? (JSON.parse(settings) as OidcSettings) : null),
    }),
    ldap: t.field({
      type: LdapSettingsRef,
      nullable: true,
      description: 'How the directory is searched; null where it is none.',
      resolve: ({ type, settings }) => (type === 'LDAP' ? (JSON.parse(settings) as LdapSettings) : null),
    }),
    roleMapping: t.field({
      type: [MappedRoleRef],
      description: 'Who gets which role: the first group that somebody is in decides, and who is in none is refused.',
      resolve: (provider): MappedRole[] => mappingOf(provider),
    }),
    users: childList(t, UserList, 'Who has come by it.', 'identity_provider_id'),
  }),
});

const IdentityProviderFilterRef = builder.inputType('IdentityProviderFilter', {
  description: 'Narrows a list of identity providers.',
  fields: (t) => ({
    domainId: t.id({ description: 'Only those of this domain itself.' }),
    accountId: t.id({ description: 'Only those whose users act for this account.' }),
    type: t.field({ type: ProviderTypeRef, description: 'Only those that speak this.' }),
    name: t.string({ description: 'Only those of exactly this name.' }),
    wantedState: t.field({ type: WantedStateRef, description: 'Only those that are wanted so.' }),
  }),
});

const where = conditionsOn('identity_provider');
export const IdentityProviderList = list({
  table: 'identity_provider',
  ref: IdentityProviderRef,
  noun: 'IdentityProvider',
  filter: IdentityProviderFilterRef,
  orders: { NAME: { column: 'name', description: 'By name, byte by byte.' } },
  conditions: (filter, actor) => [
    ...where.refersTo('domain_id', 'domain', filter.domainId, 'domainId', actor),
    ...where.refersTo('account_id', 'account', filter.accountId, 'accountId', actor),
    ...where.is('type', filter.type),
    ...where.is('name', filter.name),
    ...where.is('wanted_state', filter.wantedState),
  ],
});

builder.queryFields((t) => ({
  identityProvider: lookUp(t, 'identity_provider'),
  identityProviders: rootList(t, IdentityProviderList, 'The identity providers that the caller may see.'),
}));

mutation(
  'createIdentityProvider',
  'identity_provider',
  'Lets people in who are known elsewhere, with roles that have no more than the caller.',
  (t) => ({
    accountId: t.id({ required: true, description: 'Whom its users will act for; its domain offers it.' }),
    name: t.string({ required: true, description: 'As the sign-in page shows it: 1 to 255 characters.' }),
    oidc: t.field({ type: OidcSettingsInputRef, description: 'Where it speaks OpenID Connect.' }),
    ldap: t.field({ type: LdapSettingsInputRef, description: 'Where it is a directory.' }),
    secret: t.string({
      description:
        "The client's secret, or the password of the one who searches; it is kept sealed and never told again.",
    }),
    roleMapping: t.field({ type: [MappedRoleInputRef], required: true, description: 'Who gets which role.' }),
  }),
);
mutation(
  'updateIdentityProvider',
  'identity_provider',
  'Changes an identity provider that gives no more than the caller has.',
  (t) => ({
    ...updateInput(t, 'identity provider'),
    name: t.string({ description: 'A new name.' }),
    oidc: t.field({ type: OidcSettingsInputRef, description: 'All settings anew, of one that speaks OpenID Connect.' }),
    ldap: t.field({ type: LdapSettingsInputRef, description: 'All settings anew, of a directory.' }),
    secret: t.string({ description: 'Another secret; an empty one takes it away.' }),
    roleMapping: t.field({ type: [MappedRoleInputRef], description: 'The whole mapping anew.' }),
  }),
);
wantedMutations('identity_provider', {
  enable: 'Lets people sign in by it again; sessions that have not run out, and keys, work again too.',
  disable:
    'Lets nobody sign in by it, and shuts its users out: sessions, keys and all that they have open. What runs, runs on.',
  delete: 'Deletes an identity provider that has no users.',
});
