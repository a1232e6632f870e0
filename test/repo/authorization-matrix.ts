import type { ErrorCode } from '../../src/domain/errors.ts';
import { encodeId, type ResourceKind } from '../../src/domain/ids.ts';

/** What a call comes to: an object, nothing, an empty list, or an error's code. */
export type Answer = 'FOUND' | 'NULL' | 'EMPTY' | ErrorCode;

/** Public ids of one living object of each kind. */
export type Ids = Record<ResourceKind, string>;

/** What is answered for an argument of type ID, by what it names. Null: there is no such thing to name. */
export interface IdRow {
  /** Null: of any kind. */
  kind: ResourceKind | null;
  living: Answer | null;
  /** Well-formed, of nothing. */
  unknown: Answer;
  /** Of a living object of another kind. */
  otherKind: Answer;
  /** No id at all. */
  malformed: Answer;
  deleted: Answer | null;
}

export const PRINCIPALS = ['anonymous', 'host', 'root'] as const;
/** `host`: the join token of a host, which is for `/hostd` alone. */
export type Principal = (typeof PRINCIPALS)[number];

export interface FieldRow extends Record<Principal, Answer> {
  /** What an anonymous actor gets of the field itself, had the door let it through. */
  behindTheDoor: Answer;
  /** Valid arguments. */
  args: (ids: Ids) => Record<string, unknown>;
  /** By path: `filter.zoneId`. */
  ids: Record<string, IdRow>;
  /** Whoever has no token may ask it, by POST alone. */
  isPublic?: true;
  /** Each id is tried without the others, beside these alone. */
  alone?: Record<string, unknown>;
}

const shut = { anonymous: 'UNAUTHENTICATED', host: 'UNAUTHENTICATED', behindTheDoor: 'UNAUTHENTICATED' } as const;
/** Jobs are kept; nobody deletes one. */
const ifDeleted = (kind: ResourceKind | null, answer: Answer): Answer | null => (kind === 'job' ? null : answer);

/** A look-up tells of deleted objects too, and of nothing that never was. */
const lookUp = (kind: ResourceKind, living: Answer = 'FOUND', deleted: Answer = living): FieldRow => ({
  ...shut,
  root: living,
  args: (ids) => ({ id: ids[kind] }),
  ids: {
    id: {
      kind,
      living,
      unknown: 'NULL',
      otherKind: 'INVALID_INPUT',
      malformed: 'INVALID_INPUT',
      deleted: ifDeleted(kind, deleted),
    },
  },
});

/** A filter by what is not there finds nothing; what is deleted has nothing that lives. */
const filter = (kind: ResourceKind): IdRow => ({
  kind,
  living: 'FOUND',
  unknown: 'EMPTY',
  otherKind: 'INVALID_INPUT',
  malformed: 'INVALID_INPUT',
  deleted: ifDeleted(kind, 'EMPTY'),
});
/** By what something was about, deleted or not. Nothing is about a job. */
const filterByAny: IdRow = { ...filter('vm'), kind: null, otherKind: 'EMPTY', deleted: 'FOUND' };

const list = (filters: Record<string, IdRow>): FieldRow => ({
  ...shut,
  root: 'FOUND',
  alone: {},
  args: (ids) => ({
    filter: Object.fromEntries(Object.entries(filters).map(([name, { kind }]) => [name, ids[kind ?? 'vm']])),
  }),
  ids: Object.fromEntries(Object.entries(filters).map(([name, row]) => [`filter.${name}`, row])),
});

export const QUERIES: Record<string, FieldRow> = {
  viewer: { ...shut, root: 'FOUND', behindTheDoor: 'NULL', args: () => ({}), ids: {} },
  node: {
    ...lookUp('vm'),
    ids: {
      id: {
        kind: null,
        living: 'FOUND',
        unknown: 'NULL',
        otherKind: 'FOUND',
        malformed: 'INVALID_INPUT',
        deleted: 'FOUND',
      },
    },
  },
  nodes: {
    ...lookUp('vm'),
    args: (ids) => ({ ids: [ids.vm] }),
    ids: {
      ids: {
        kind: null,
        living: 'FOUND',
        unknown: 'NULL',
        otherKind: 'FOUND',
        malformed: 'INVALID_INPUT',
        deleted: 'FOUND',
      },
    },
  },
  zone: lookUp('zone'),
  pod: lookUp('pod'),
  cluster: lookUp('cluster'),
  host: lookUp('host'),
  primaryStorage: lookUp('primary_storage'),
  offering: lookUp('offering'),
  template: lookUp('template'),
  vm: lookUp('vm'),
  volume: lookUp('volume'),
  job: lookUp('job'),
  domain: lookUp('domain'),
  account: lookUp('account'),
  user: lookUp('user'),
  role: lookUp('role'),
  apiKey: lookUp('api_key'),
  projectMember: lookUp('project_member'),
  session: lookUp('session'),
  signInProviders: {
    ...shut,
    root: 'EMPTY',
    behindTheDoor: 'EMPTY',
    isPublic: true,
    args: () => ({ domain: '/nowhere' }),
    ids: {},
  },
  identityProvider: lookUp('identity_provider'),
  // The living VM has a host, which is not linked; the deleted one has none.
  vmScreenshot: lookUp('vm', 'HOST_UNREACHABLE', 'INVALID_STATE'),
  zones: list({}),
  pods: list({ zoneId: filter('zone') }),
  clusters: list({ zoneId: filter('zone'), podId: filter('pod') }),
  hosts: list({ zoneId: filter('zone'), podId: filter('pod'), clusterId: filter('cluster') }),
  primaryStorages: list({ zoneId: filter('zone'), podId: filter('pod'), clusterId: filter('cluster') }),
  offerings: list({}),
  templates: list({ zoneId: filter('zone'), accountId: filter('account') }),
  domains: list({ parentId: filter('domain') }),
  accounts: list({ domainId: filter('domain') }),
  users: list({ accountId: filter('account'), roleId: filter('role') }),
  roles: list({}),
  apiKeys: list({ userId: filter('user') }),
  sessions: list({ userId: filter('user') }),
  identityProviders: list({ domainId: filter('domain'), accountId: filter('account') }),
  vms: list({
    accountId: filter('account'),
    zoneId: filter('zone'),
    podId: filter('pod'),
    clusterId: filter('cluster'),
    hostId: filter('host'),
    offeringId: filter('offering'),
    templateId: filter('template'),
  }),
  volumes: list({
    accountId: filter('account'),
    zoneId: filter('zone'),
    clusterId: filter('cluster'),
    primaryStorageId: filter('primary_storage'),
    templateId: filter('template'),
    vmId: filter('vm'),
  }),
  quotaUsage: {
    ...shut,
    root: 'FOUND',
    alone: {},
    args: (ids) => ({ accountId: ids.account }),
    ids: { accountId: lookUp('account').ids['id']!, domainId: lookUp('domain').ids['id']! },
  },
  jobs: list({ targetId: filterByAny }),
  events: list({ subjectId: filterByAny, jobId: filter('job') }),
  auditRecords: list({
    userId: { ...filter('user'), deleted: 'FOUND' },
    subjectId: { ...filterByAny, otherKind: 'FOUND' },
  }),
  auditVerification: { ...shut, root: 'FOUND', args: () => ({}), ids: {} },
  explainPlacement: {
    ...shut,
    root: 'FOUND',
    args: (ids) => ({
      input: {
        zoneId: ids.zone,
        clusterId: ids.cluster,
        hostId: ids.host,
        offeringId: ids.offering,
        templateId: ids.template,
      },
    }),
    ids: {
      'input.zoneId': named('zone', 'FOUND'),
      'input.clusterId': named('cluster', 'FOUND'),
      'input.hostId': named('host', 'FOUND'),
      'input.offeringId': named('offering', 'FOUND'),
      'input.templateId': named('template', 'FOUND'),
    },
  },
};

/** Missing, deleted and of another kind are one and the same: there is no such object. */
function named(kind: ResourceKind, living: Answer | null = null): IdRow {
  return {
    kind,
    living,
    unknown: 'NOT_FOUND',
    otherKind: 'INVALID_INPUT',
    malformed: 'INVALID_INPUT',
    deleted: ifDeleted(kind, 'NOT_FOUND'),
  };
}

/** `root`: what a valid input with one wrong id, or a wrong name where it has none, comes to. Nothing is carried out. */
const mutation = (
  input: (ids: Ids) => Record<string, unknown>,
  ids: Record<string, ResourceKind>,
  root: Answer = 'NOT_FOUND',
): FieldRow => ({
  ...shut,
  root,
  args: (all) => ({ input: input(all) }),
  ids: Object.fromEntries(Object.entries(ids).map(([name, kind]) => [`input.${name}`, named(kind)])),
});
const onId = (kind: ResourceKind, more: Record<string, unknown> = {}): FieldRow =>
  mutation((ids) => ({ id: ids[kind], ...more }), { id: kind });

const NO_LIMIT = { resource: 'VMS', limit: null };

/** What every kind that operators arrange has. */
const arranged = (noun: string, kind: ResourceKind): Record<string, FieldRow> => ({
  [`update${noun}`]: onId(kind, { name: 'renamed' }),
  [`enable${noun}`]: onId(kind),
  [`disable${noun}`]: onId(kind),
  [`delete${noun}`]: onId(kind),
});

const OIDC = { issuer: 'https://login.example.com', clientId: 'virtgraph' };

export const MUTATIONS: Record<string, FieldRow> = {
  createZone: mutation(() => ({ name: 'new' }), {}, 'INVALID_INPUT'),
  ...arranged('Zone', 'zone'),
  createPod: mutation((ids) => ({ zoneId: ids.zone, name: 'new' }), { zoneId: 'zone' }),
  ...arranged('Pod', 'pod'),
  createCluster: mutation((ids) => ({ podId: ids.pod, name: 'new' }), { podId: 'pod' }),
  ...arranged('Cluster', 'cluster'),
  createHostJoinToken: {
    ...mutation((ids) => ({ clusterId: ids.cluster }), { clusterId: 'cluster', hostId: 'host' }),
    alone: {},
  },
  revokeHostCertificate: onId('host'),
  ...arranged('Host', 'host'),
  createPrimaryStorage: mutation((ids) => ({ clusterId: ids.cluster, name: 'new', path: '/srv/new', capacityGib: 1 }), {
    clusterId: 'cluster',
  }),
  ...arranged('PrimaryStorage', 'primary_storage'),
  createOffering: mutation(() => ({ name: 'new', vcpus: 1, memoryMib: 128 }), {}, 'INVALID_INPUT'),
  ...arranged('Offering', 'offering'),
  registerTemplate: mutation(
    (ids) => ({ zoneId: ids.zone, accountId: ids.account, name: 'new', fileName: 'new.qcow2', format: 'QCOW2' }),
    { zoneId: 'zone', accountId: 'account' },
  ),
  ...arranged('Template', 'template'),
  createDomain: mutation((ids) => ({ parentId: ids.domain, name: 'new' }), { parentId: 'domain' }),
  moveDomain: mutation(
    (ids) => ({ id: ids.domain, parentId: ids.domain }),
    { id: 'domain', parentId: 'domain' },
    'INVALID_INPUT',
  ),
  ...arranged('Domain', 'domain'),
  createAccount: mutation((ids) => ({ domainId: ids.domain, name: 'new' }), { domainId: 'domain' }),
  moveAccount: mutation((ids) => ({ id: ids.account, domainId: ids.domain }), { id: 'account', domainId: 'domain' }),
  ...arranged('Account', 'account'),
  addProjectMember: mutation(
    (ids) => ({ projectId: ids.account, accountId: ids.account, roleId: ids.role }),
    { projectId: 'account', accountId: 'account', userId: 'user', roleId: 'role' },
    'INVALID_INPUT',
  ),
  updateProjectMember: mutation((ids) => ({ id: ids.project_member, roleId: ids.role }), {
    id: 'project_member',
    roleId: 'role',
  }),
  removeProjectMember: onId('project_member'),
  updateQuota: {
    ...mutation((ids) => ({ accountId: ids.account, limits: [NO_LIMIT] }), {
      accountId: 'account',
      domainId: 'domain',
    }),
    alone: { input: { limits: [NO_LIMIT] } },
  },
  createUser: mutation((ids) => ({ accountId: ids.account, roleId: ids.role, name: 'new' }), {
    accountId: 'account',
    roleId: 'role',
  }),
  ...arranged('User', 'user'),
  updateUser: mutation((ids) => ({ id: ids.user, roleId: ids.role }), { id: 'user', roleId: 'role' }),
  createApiKey: mutation((ids) => ({ userId: ids.user, roleId: ids.role, name: 'new' }), {
    userId: 'user',
    roleId: 'role',
  }),
  revokeApiKey: onId('api_key'),
  signIn: {
    ...mutation(() => ({ account: 'nobody', user: 'nobody', password: 'wrong' }), {}, 'UNAUTHENTICATED'),
    isPublic: true,
  },
  beginOidcSignIn: {
    ...mutation(() => ({ provider: encodeId('identity_provider', Buffer.alloc(16, 9)) }), {}),
    isPublic: true,
  },
  signOut: mutation(() => ({}), {}, 'FORBIDDEN'),
  revokeSession: onId('session'),
  setPassword: mutation((ids) => ({ userId: ids.user, password: 'correct horse battery' }), { userId: 'user' }),
  changePassword: mutation(() => ({ currentPassword: 'wrong', newPassword: 'correct horse battery' }), {}, 'FORBIDDEN'),
  beginTotp: mutation(() => ({}), {}, 'FORBIDDEN'),
  confirmTotp: mutation(() => ({ code: '123456' }), {}, 'FORBIDDEN'),
  removeTotp: mutation((ids) => ({ userId: ids.user }), { userId: 'user' }),
  createRole: mutation(() => ({ name: 'new', reach: 'ACCOUNT', rules: [] }), {}, 'INVALID_INPUT'),
  updateRole: onId('role', { name: 'renamed' }),
  deleteRole: onId('role'),
  createIdentityProvider: mutation(
    (ids) => ({ accountId: ids.account, name: 'new', oidc: OIDC, roleMapping: [{ group: '*', roleId: ids.role }] }),
    { accountId: 'account', 'roleMapping.roleId': 'role' },
  ),
  ...arranged('IdentityProvider', 'identity_provider'),
  updateIdentityProvider: mutation(
    (ids) => ({ id: ids.identity_provider, roleMapping: [{ group: '*', roleId: ids.role }] }),
    { id: 'identity_provider', 'roleMapping.roleId': 'role' },
  ),
  createVm: mutation(
    (ids) => ({
      name: 'new',
      accountId: ids.account,
      zoneId: ids.zone,
      clusterId: ids.cluster,
      hostId: ids.host,
      offeringId: ids.offering,
      templateId: ids.template,
    }),
    {
      accountId: 'account',
      zoneId: 'zone',
      clusterId: 'cluster',
      hostId: 'host',
      offeringId: 'offering',
      templateId: 'template',
    },
  ),
  updateVm: mutation((ids) => ({ id: ids.vm, name: 'renamed', offeringId: ids.offering }), {
    id: 'vm',
    offeringId: 'offering',
  }),
  startVm: mutation((ids) => ({ id: ids.vm, clusterId: ids.cluster, hostId: ids.host }), {
    id: 'vm',
    clusterId: 'cluster',
    hostId: 'host',
  }),
  stopVm: onId('vm'),
  rebootVm: onId('vm'),
  resetVm: onId('vm'),
  pauseVm: onId('vm'),
  resumeVm: onId('vm'),
  destroyVm: onId('vm'),
  recoverVm: onId('vm'),
  expungeVm: onId('vm'),
  cancelJob: onId('job'),
  retryJob: onId('job'),
  resolveJob: onId('job', { resolution: 'RETRY_STEP' }),
};

/** Watching what is not there is an error, because nothing would ever come. */
const watched = (kind: ResourceKind, living: Answer = 'FOUND', deleted: Answer = living): IdRow => ({
  kind,
  living,
  unknown: 'NOT_FOUND',
  otherKind: 'INVALID_INPUT',
  malformed: 'INVALID_INPUT',
  deleted: ifDeleted(kind, deleted),
});
/** What is in a deleted object: nothing, so it is open and silent, and silence can't be awaited. */
const watchedSet = (kind: ResourceKind): IdRow => ({ ...watched(kind), deleted: null });

export const SUBSCRIPTIONS: Record<string, FieldRow> = {
  jobProgress: { ...shut, root: 'FOUND', args: (ids) => ({ id: ids.job }), ids: { id: watched('job') } },
  vmChanged: {
    ...shut,
    root: 'FOUND',
    alone: {},
    args: (ids) => ({ id: ids.vm }),
    ids: {
      id: watched('vm'),
      zoneId: watchedSet('zone'),
      clusterId: watchedSet('cluster'),
      hostId: watchedSet('host'),
    },
  },
  hostChanged: {
    ...shut,
    root: 'FOUND',
    alone: {},
    args: (ids) => ({ id: ids.host }),
    ids: { id: watched('host'), zoneId: watchedSet('zone'), clusterId: watchedSet('cluster') },
  },
  quotaUsage: {
    ...shut,
    root: 'FOUND',
    alone: {},
    args: (ids) => ({ accountId: ids.account }),
    ids: { accountId: watched('account'), domainId: watched('domain') },
  },
  eventAppended: {
    ...shut,
    root: 'FOUND',
    args: (ids) => ({ afterSeq: '0', subjectId: ids.vm }),
    ids: {
      subjectId: { ...watched('vm'), kind: null },
    },
  },
  vmSerialOutput: {
    ...shut,
    root: 'HOST_UNREACHABLE',
    args: (ids) => ({ vmId: ids.vm }),
    ids: { vmId: watched('vm', 'HOST_UNREACHABLE', 'INVALID_STATE') },
  },
};
