import {
  type LdapSettings,
  type MappedRole,
  type OidcSettings,
  PROVIDER_TYPES,
  type ProviderType,
} from '../domain/identity-provider.ts';
import { builder } from './builder.ts';
import { loadersOf } from './loaders.ts';
import { RoleRef } from './refs.ts';

const TYPE_DESCRIPTIONS: Record<ProviderType, string> = {
  OIDC: 'OpenID Connect: people sign in on its own page.',
  LDAP: 'A directory: it is shown the password that people type here.',
};
export const ProviderTypeRef = builder.enumType('IdentityProviderType', {
  description: 'What an identity provider speaks.',
  values: Object.fromEntries(PROVIDER_TYPES.map((type) => [type, { description: TYPE_DESCRIPTIONS[type] }])) as Record<
    ProviderType,
    { description: string }
  >,
});

const OIDC = {
  issuer: 'Its issuer, as it says it in its tokens: `https://login.example.com/realms/acme`.',
  clientId: 'Who Virtgraph is there.',
  scopes: 'What is asked for beside `openid`; default `profile`.',
  groupsClaim: 'The claim of its tokens, or of what it tells of people, that lists their groups; default `groups`.',
  vouchesForSecondFactor:
    'Whether it asks everybody for a second factor. Otherwise who its tokens say has shown one (`amr` holds `mfa`).',
};
const CA = "PEM certificates of who vouches for its certificate, where that is none of the system's.";
const LDAP = {
  url: '`ldaps://host` or `ldap://host`, with a port where it is another; without encryption on loopback alone.',
  startTls: 'Whether what begins as `ldap://` is encrypted before anything is said.',
  bindDn: 'Who searches, with the secret as password; null: anybody may search.',
  baseDn: 'Below what people are looked for.',
  userFilter: 'Finds a person (RFC 4515); `{name}` stands for the name that was typed. Default `(uid={name})`.',
  subjectAttribute: 'What a person keeps for ever: `entryUUID` (default), or `objectGUID` of Active Directory.',
  nameAttribute: 'What a person is called; default `uid`.',
  groupsAttribute: 'What lists the DNs of the groups that a person is in; default `memberOf`.',
  groupBaseDn: 'Below what groups are looked for, where persons do not list theirs.',
  groupFilter: 'Finds the groups of a person (RFC 4515); `{dn}` stands for the DN of the person.',
};

export const OidcSettingsRef = builder.objectRef<OidcSettings>('OidcSettings').implement({
  description: 'How an OpenID Connect provider is reached. The secret is told to nobody.',
  fields: (t) => ({
    issuer: t.exposeString('issuer', { description: OIDC.issuer }),
    clientId: t.exposeString('clientId', { description: OIDC.clientId }),
    scopes: t.exposeStringList('scopes', { description: OIDC.scopes }),
    groupsClaim: t.exposeString('groupsClaim', { description: OIDC.groupsClaim }),
    vouchesForSecondFactor: t.exposeBoolean('vouchesForSecondFactor', { description: OIDC.vouchesForSecondFactor }),
    caCertificates: t.exposeString('caCertificates', { nullable: true, description: CA }),
  }),
});

export const LdapSettingsRef = builder.objectRef<LdapSettings>('LdapSettings').implement({
  description: 'How a directory is searched. The secret is told to nobody.',
  fields: (t) => ({
    url: t.exposeString('url', { description: LDAP.url }),
    startTls: t.exposeBoolean('startTls', { description: LDAP.startTls }),
    bindDn: t.exposeString('bindDn', { nullable: true, description: LDAP.bindDn }),
    baseDn: t.exposeString('baseDn', { description: LDAP.baseDn }),
    userFilter: t.exposeString('userFilter', { description: LDAP.userFilter }),
    subjectAttribute: t.exposeString('subjectAttribute', { description: LDAP.subjectAttribute }),
    nameAttribute: t.exposeString('nameAttribute', { description: LDAP.nameAttribute }),
    groupsAttribute: t.exposeString('groupsAttribute', { description: LDAP.groupsAttribute }),
    groupBaseDn: t.exposeString('groupBaseDn', { nullable: true, description: LDAP.groupBaseDn }),
    groupFilter: t.exposeString('groupFilter', { description: LDAP.groupFilter }),
    caCertificates: t.exposeString('caCertificates', { nullable: true, description: CA }),
  }),
});

export const OidcSettingsInputRef = builder.inputType('OidcSettingsInput', {
  description: 'How an OpenID Connect provider is reached.',
  fields: (t) => ({
    issuer: t.string({ required: true, description: OIDC.issuer }),
    clientId: t.string({ required: true, description: OIDC.clientId }),
    scopes: t.stringList({ description: OIDC.scopes }),
    groupsClaim: t.string({ description: OIDC.groupsClaim }),
    vouchesForSecondFactor: t.boolean({ description: OIDC.vouchesForSecondFactor }),
    caCertificates: t.string({ description: CA }),
  }),
});

export const LdapSettingsInputRef = builder.inputType('LdapSettingsInput', {
  description: 'How a directory is searched.',
  fields: (t) => ({
    url: t.string({ required: true, description: LDAP.url }),
    startTls: t.boolean({ description: LDAP.startTls }),
    bindDn: t.string({ description: LDAP.bindDn }),
    baseDn: t.string({ required: true, description: LDAP.baseDn }),
    userFilter: t.string({ description: LDAP.userFilter }),
    subjectAttribute: t.string({ description: LDAP.subjectAttribute }),
    nameAttribute: t.string({ description: LDAP.nameAttribute }),
    groupsAttribute: t.string({ description: LDAP.groupsAttribute }),
    groupBaseDn: t.string({ description: LDAP.groupBaseDn }),
    groupFilter: t.string({ description: LDAP.groupFilter }),
    caCertificates: t.string({ description: CA }),
  }),
});

const GROUP = 'A group as the provider names it: a value of the claim, or a DN. `*`: everybody whom it knows.';
export const MappedRoleRef = builder.objectRef<MappedRole>('MappedRole').implement({
  description: 'The role that a group has.',
  fields: (t) => ({
    group: t.exposeString('group', { description: GROUP }),
    role: t.field({
      type: RoleRef,
      nullable: true,
      description: 'What whoever is in it may do. Null for who may not see it.',
      resolve: ({ roleId }, _args, context) => loadersOf(context).find('role', roleId),
    }),
  }),
});

export const MappedRoleInputRef = builder.inputType('MappedRoleInput', {
  description: 'The role that a group is to have.',
  fields: (t) => ({
    group: t.string({ required: true, description: GROUP }),
    roleId: t.id({ required: true, description: 'What whoever is in it may do.' }),
  }),
});
