import { z } from 'zod';
import { ACCOUNT_TYPES } from '../domain/authorize.ts';
import { decodeIdOf, notAnId, type ResourceKind } from '../domain/ids.ts';
import { hasControlCharacters, identityNameProblem, nameProblem } from '../domain/name.ts';
import { passwordProblem, passwordTextProblem } from '../domain/password.ts';
import { GUARDED_KINDS, REACHES, VERBS } from '../domain/permission.ts';
import { QUOTA, QUOTA_RESOURCES } from '../domain/quota.ts';
import { ldapSettings, oidcSettings } from './identity-provider-settings.ts';

/**
 * What each mutation takes beyond what GraphQL's types already check. `null` and absent mean the same: not given.
 * The GraphQL inputs have the same fields; test/repo compares them.
 */

const text = (max: number) =>
  z
    .string()
    .refine((value) => value.isWellFormed(), 'Holds half of a surrogate pair.')
    .refine((value) => [...value].length <= max, `At most ${max} characters.`);
/** @param problemOf why a text is not one; null: it is */
const textWithout = (problemOf: (value: string) => string | null) =>
  z.string().superRefine((value, context) => {
    const problem = problemOf(value);
    if (problem) context.addIssue({ code: 'custom', message: problem });
  });
const name = textWithout(nameProblem);
/** Of a domain, an account or a user: as one writes it, so that two that look the same are the same. */
const identityName = textWithout(identityNameProblem).transform((value) => value.normalize('NFC'));
const newPassword = textWithout(passwordProblem);
const anyPassword = textWithout(passwordTextProblem);
/** Of an authenticator, or a recovery code. */
const code = text(64);
/** Of the right form; whether there is such a thing is asked later. */
const idOf = (kind: ResourceKind) => z.string().refine((value) => decodeIdOf(kind, value) !== null, notAnId(kind));
const count = (min: number, max: number, unit: string) => {
  const between = `Between ${min} and ${max}${unit}.`;
  return z.number().int(between).min(min, between).max(max, between);
};
const absolutePath = text(1024)
  .refine((value) => value.startsWith('/'), 'Must be an absolute path.')
  .refine((value) => !hasControlCharacters(value), 'May not hold control characters.')
  .refine((value) => !value.split('/').includes('..'), 'May not hold `..`.');
const fileName = text(255).regex(
  /^[A-Za-z0-9][A-Za-z0-9._-]*$/,
  'A file name of letters, digits, dots, dashes and underscores.',
);
const overcommit = z.number().min(0.1, 'At least 0.1.').max(32, 'At most 32.');

/** On every mutation. */
const base = {
  idempotencyKey: text(128).min(1, 'May not be empty.').nullish(),
  reason: text(1024).nullish(),
};
const expectedGeneration = z.number().int().nullish();
const only = <T extends z.ZodRawShape>(shape: T) => z.object({ ...base, ...shape });
/** Without a key: what comes out of it can be told once only, or what goes into it may not even be kept as a hash. */
const unkeyed = <T extends z.ZodRawShape>(shape: T) => z.object({ reason: base.reason, ...shape });
/** What enableX, disableX and deleteX of every kind of the hierarchy take. */
export const byId = (kind: ResourceKind) => only({ id: idOf(kind) });
const vmId = byId('vm');
const jobId = byId('job');
const update = <T extends z.ZodRawShape>(kind: ResourceKind, shape: T) =>
  only({ id: idOf(kind), expectedGeneration, ...shape });

const vcpus = count(1, 256, ' vCPUs');
const memoryMib = count(64, 4_194_304, ' MiB');
const diskGib = count(1, 65_536, ' GiB');

const YEARS = 31_536_000_000;
const rules = z
  .array(
    z.object({
      effect: z.enum(['ALLOW', 'DENY']),
      verb: z.enum([...VERBS, '*']),
      kind: z.enum([...GUARDED_KINDS, '*']),
    }),
  )
  .max(200, 'At most 200 rules.');

const CASCADE = { cascade: z.boolean().nullish(), dryRun: z.boolean().nullish() };
const secret = text(1024);
const roleMapping = z
  .array(z.object({ group: text(1024).min(1, 'May not be empty.'), roleId: idOf('role') }))
  .min(1, 'At least one: nobody else is let in.')
  .max(100, 'At most 100.');

/** One of two, and not both. */
const oneOf =
  <K extends string>(...keys: K[]) =>
  (input: Partial<Record<K, unknown>>, context: z.RefinementCtx): void => {
    const given = keys.filter((key) => input[key] != null);
    if (given.length !== 1)
      context.addIssue({
        code: 'custom',
        message: `Give exactly one of ${keys.join(' and ')}.`,
        path: [given[1] ?? keys[0]!],
      });
  };

const limits = z
  .array(
    z.object({ resource: z.enum(QUOTA_RESOURCES), limit: z.number().nullish() }).superRefine((given, context) => {
      const { max } = QUOTA[given.resource];
      const { limit } = given;
      if (limit != null && !(Number.isInteger(limit) && limit >= 0 && limit <= max))
        context.addIssue({ code: 'custom', message: `A whole number from 0 to ${max}.`, path: ['limit'] });
    }),
  )
  .min(1, 'At least one limit.')
  .refine(
    (given) => new Set(given.map(({ resource }) => resource)).size === given.length,
    'Each resource at most once.',
  );

export const INPUTS = {
  createZone: only({ name }),
  updateZone: update('zone', { name: name.nullish() }),
  createPod: only({ zoneId: idOf('zone'), name }),
  updatePod: update('pod', { name: name.nullish() }),
  createCluster: only({
    podId: idOf('pod'),
    name,
    vcpuOvercommit: overcommit.nullish(),
    memoryOvercommit: overcommit.nullish(),
  }),
  updateCluster: update('cluster', {
    name: name.nullish(),
    vcpuOvercommit: overcommit.nullish(),
    memoryOvercommit: overcommit.nullish(),
  }),
  createHostJoinToken: only({
    /** This or `hostId`. */
    clusterId: idOf('cluster').nullish(),
    hostId: idOf('host').nullish(),
    maxHosts: count(1, 10_000, ' hosts').nullish(),
    expiresInMs: count(1_000, 604_800_000, ' ms').nullish(),
  }).superRefine((input, context) => {
    const refuse = (message: string, field: string): void =>
      context.addIssue({ code: 'custom', message, path: [field] });
    if ((input.clusterId == null) === (input.hostId == null))
      refuse('Takes either `clusterId`, for new hosts, or `hostId`, for one that joins again.', 'clusterId');
    if (input.hostId != null && (input.maxHosts ?? 1) !== 1) refuse('With `hostId` it is one host.', 'maxHosts');
  }),
  updateHost: update('host', { name: name.nullish() }),
  revokeHostCertificate: byId('host'),
  createPrimaryStorage: only({
    clusterId: idOf('cluster'),
    name,
    path: absolutePath,
    capacityGib: count(1, 1_048_576, ' GiB'),
  }),
  updatePrimaryStorage: update('primary_storage', {
    name: name.nullish(),
    capacityGib: count(1, 1_048_576, ' GiB').nullish(),
  }),
  createOffering: only({ name, vcpus, memoryMib, diskGib: diskGib.nullish() }),
  updateOffering: update('offering', { name: name.nullish() }),
  registerTemplate: only({
    zoneId: idOf('zone'),
    /** The caller's own unless told; of who reaches everything, everybody's. */
    accountId: idOf('account').nullish(),
    name,
    fileName,
    format: z.enum(['QCOW2', 'RAW']),
  }),
  updateTemplate: update('template', { name: name.nullish() }),

  createDomain: only({ parentId: idOf('domain'), name: identityName }),
  moveDomain: update('domain', { parentId: idOf('domain') }),
  enableDomain: byId('domain'),
  disableDomain: only({ id: idOf('domain'), stopVms: z.boolean().nullish() }),
  deleteDomain: only({ id: idOf('domain'), ...CASCADE }),
  updateDomain: update('domain', { name: identityName.nullish(), requireSecondFactor: z.boolean().nullish() }),
  createAccount: only({ domainId: idOf('domain'), name: identityName, type: z.enum(ACCOUNT_TYPES).nullish() }),
  moveAccount: update('account', { domainId: idOf('domain') }),
  enableAccount: byId('account'),
  disableAccount: only({ id: idOf('account'), stopVms: z.boolean().nullish() }),
  deleteAccount: only({ id: idOf('account'), ...CASCADE }),
  updateAccount: update('account', { name: identityName.nullish() }),
  addProjectMember: only({
    projectId: idOf('account'),
    accountId: idOf('account').nullish(),
    userId: idOf('user').nullish(),
    roleId: idOf('role'),
  }),
  updateProjectMember: update('project_member', { roleId: idOf('role') }),
  removeProjectMember: byId('project_member'),
  createUser: only({
    accountId: idOf('account'),
    roleId: idOf('role'),
    name: identityName,
    password: newPassword.nullish(),
  }),
  updateUser: update('user', { name: identityName.nullish(), roleId: idOf('role').nullish() }),
  updateQuota: only({
    accountId: idOf('account').nullish(),
    domainId: idOf('domain').nullish(),
    expectedGeneration,
    limits,
  }).superRefine(oneOf('accountId', 'domainId')),
  createApiKey: only({
    userId: idOf('user'),
    name,
    roleId: idOf('role').nullish(),
    expiresInMs: count(1_000, 10 * YEARS, ' ms').nullish(),
  }),
  revokeApiKey: byId('api_key'),
  /** Without `base`: who signs in is nobody yet, and an answer of it is never given twice. */
  signIn: z.object({
    domain: text(4096).nullish(),
    account: text(255),
    user: text(255),
    password: anyPassword,
    code: code.nullish(),
    cookie: z.boolean().nullish(),
  }),
  beginOidcSignIn: z.object({ provider: idOf('identity_provider') }),
  signOut: unkeyed({}),
  revokeSession: byId('session'),
  setPassword: unkeyed({ userId: idOf('user'), password: newPassword }),
  changePassword: unkeyed({ currentPassword: anyPassword, newPassword }),
  beginTotp: unkeyed({}),
  confirmTotp: unkeyed({ code }),
  removeTotp: unkeyed({ userId: idOf('user').nullish(), code: code.nullish() }),
  createRole: only({ name, reach: z.enum(REACHES), rules }),
  updateRole: update('role', { name: name.nullish(), reach: z.enum(REACHES).nullish(), rules: rules.nullish() }),
  deleteRole: byId('role'),
  createIdentityProvider: only({
    accountId: idOf('account'),
    name,
    oidc: oidcSettings.nullish(),
    ldap: ldapSettings.nullish(),
    secret: secret.nullish(),
    roleMapping,
  }),
  updateIdentityProvider: update('identity_provider', {
    name: name.nullish(),
    oidc: oidcSettings.nullish(),
    ldap: ldapSettings.nullish(),
    secret: secret.nullish(),
    roleMapping: roleMapping.nullish(),
  }),

  createVm: only({
    name,
    description: text(4096).nullish(),
    /** The caller's own unless told. */
    accountId: idOf('account').nullish(),
    zoneId: idOf('zone'),
    clusterId: idOf('cluster').nullish(),
    hostId: idOf('host').nullish(),
    offeringId: idOf('offering'),
    templateId: idOf('template'),
    start: z.boolean().nullish(),
  }),
  updateVm: update('vm', {
    name: name.nullish(),
    description: text(4096).nullish(),
    /** Another size, while the VM is stopped. */
    offeringId: idOf('offering').nullish(),
  }),
  startVm: only({ id: idOf('vm'), clusterId: idOf('cluster').nullish(), hostId: idOf('host').nullish() }),
  stopVm: only({
    id: idOf('vm'),
    force: z.boolean().nullish(),
    timeoutMs: count(1_000, 3_600_000, ' ms').nullish(),
    forceAfterTimeout: z.boolean().nullish(),
  }),
  rebootVm: only({
    id: idOf('vm'),
    timeoutMs: count(1_000, 3_600_000, ' ms').nullish(),
    forceAfterTimeout: z.boolean().nullish(),
  }),
  resetVm: vmId,
  pauseVm: vmId,
  resumeVm: vmId,
  destroyVm: vmId,
  recoverVm: vmId,
  expungeVm: vmId,

  cancelJob: jobId,
  retryJob: jobId,
  resolveJob: only({ id: idOf('job'), resolution: z.enum(['RETRY_STEP', 'SKIP_STEP', 'ROLL_BACK']) }),
};

export type Inputs = { [K in keyof typeof INPUTS]: z.infer<(typeof INPUTS)[K]> };
export type ById = z.infer<ReturnType<typeof byId>>;

export const explainPlacementInput = z.object({
  zoneId: idOf('zone'),
  clusterId: idOf('cluster').nullish(),
  hostId: idOf('host').nullish(),
  offeringId: idOf('offering'),
  templateId: idOf('template').nullish(),
});
export type ExplainPlacementInput = z.infer<typeof explainPlacementInput>;
