import type { Actor } from '../domain/authorize.ts';
import type { PlacementVerdict } from '../domain/placement.ts';
import { accountSwitches, createAccount, updateAccount } from './account.ts';
import { createApiKey, revokeApiKey } from './api-key.ts';
import { clusterSwitches, createCluster, updateCluster } from './cluster.ts';
import { CompoundJobs, deletionPlan, type PlanItem, type Scope } from './compound-job.ts';
import { FROM_WITHIN, type OpsContext, type Payload, type Via } from './context.ts';
import { createDomain, domainSwitches, updateDomain } from './domain.ts';
import { createHostJoinToken, hostSwitches, type JoinTokenPayload, revokeHostCertificate, updateHost } from './host.ts';
import { createIdentityProvider, identityProviderSwitches, updateIdentityProvider } from './identity-provider.ts';
import type { ExplainPlacementInput } from './inputs.ts';
import { cancelJob, resolveJob, retryJob } from './job.ts';
import { moveAccount, moveDomain } from './move.ts';
import { createOffering, offeringSwitches, updateOffering } from './offering.ts';
import { beginOidcSignIn, type OidcBegun } from './oidc-sign-in.ts';
import { changePassword, setPassword } from './password.ts';
import { createPod, podSwitches, updatePod } from './pod.ts';
import { createPrimaryStorage, primaryStorageSwitches, updatePrimaryStorage } from './primary-storage.ts';
import { addProjectMember, removeProjectMember, updateProjectMember } from './project-member.ts';
import { updateQuota } from './quota.ts';
import { createRole, deleteRole, updateRole } from './role.ts';
import { beginTotp, confirmTotp, type RecoveryPayload, removeTotp, type TotpPayload } from './second-factor.ts';
import { revokeSession, signOut } from './session.ts';
import { type SignInVia, signIn } from './sign-in.ts';
import { registerTemplate, templateSwitches, updateTemplate } from './template.ts';
import type { TokenPayload } from './told-once.ts';
import { createUser, updateUser, userSwitches } from './user.ts';
import {
  destroyVm,
  expungeVm,
  pauseVm,
  rebootVm,
  recoverVm,
  resetVm,
  resumeVm,
  startVm,
  stopVm,
  updateVm,
} from './vm.ts';
import { createVm, explainPlacement } from './vm-create.ts';
import { createZone, updateZone, zoneSwitches } from './zone.ts';

/** Every mutation by its name. */
const MUTATIONS = {
  createZone,
  updateZone,
  enableZone: zoneSwitches.enable,
  disableZone: zoneSwitches.disable,
  deleteZone: zoneSwitches.remove,
  createPod,
  updatePod,
  enablePod: podSwitches.enable,
  disablePod: podSwitches.disable,
  deletePod: podSwitches.remove,
  createCluster,
  updateCluster,
  enableCluster: clusterSwitches.enable,
  disableCluster: clusterSwitches.disable,
  deleteCluster: clusterSwitches.remove,
  updateHost,
  enableHost: hostSwitches.enable,
  disableHost: hostSwitches.disable,
  deleteHost: hostSwitches.remove,
  revokeHostCertificate,
  createPrimaryStorage,
  updatePrimaryStorage,
  enablePrimaryStorage: primaryStorageSwitches.enable,
  disablePrimaryStorage: primaryStorageSwitches.disable,
  deletePrimaryStorage: primaryStorageSwitches.remove,
  createOffering,
  updateOffering,
  enableOffering: offeringSwitches.enable,
  disableOffering: offeringSwitches.disable,
  deleteOffering: offeringSwitches.remove,
  registerTemplate,
  updateTemplate,
  enableTemplate: templateSwitches.enable,
  disableTemplate: templateSwitches.disable,
  deleteTemplate: templateSwitches.remove,
  createDomain,
  updateDomain,
  moveDomain,
  enableDomain: domainSwitches.enable,
  disableDomain: domainSwitches.disable,
  deleteDomain: domainSwitches.remove,
  createAccount,
  updateAccount,
  moveAccount,
  enableAccount: accountSwitches.enable,
  disableAccount: accountSwitches.disable,
  deleteAccount: accountSwitches.remove,
  addProjectMember,
  updateProjectMember,
  removeProjectMember,
  updateQuota,
  createUser,
  updateUser,
  enableUser: userSwitches.enable,
  disableUser: userSwitches.disable,
  deleteUser: userSwitches.remove,
  revokeApiKey,
  signOut,
  revokeSession,
  setPassword,
  changePassword,
  removeTotp,
  createRole,
  updateRole,
  deleteRole,
  createIdentityProvider,
  updateIdentityProvider,
  enableIdentityProvider: identityProviderSwitches.enable,
  disableIdentityProvider: identityProviderSwitches.disable,
  deleteIdentityProvider: identityProviderSwitches.remove,
  createVm,
  updateVm,
  startVm,
  stopVm,
  rebootVm,
  resetVm,
  pauseVm,
  resumeVm,
  destroyVm,
  recoverVm,
  expungeVm,
  cancelJob,
  retryJob,
  resolveJob,
};

export type MutationName = keyof typeof MUTATIONS;
type Run = (actor: Actor, input: unknown, via?: Via) => Promise<Payload>;

export type Ops = Record<MutationName, Run> & {
  createHostJoinToken: (actor: Actor, input: unknown, via?: Via) => Promise<JoinTokenPayload>;
  createApiKey: (actor: Actor, input: unknown, via?: Via) => Promise<TokenPayload>;
  beginTotp: (actor: Actor, input: unknown, via?: Via) => Promise<TotpPayload>;
  confirmTotp: (actor: Actor, input: unknown, via?: Via) => Promise<RecoveryPayload>;
  signIn: (actor: Actor, input: unknown, via?: SignInVia) => Promise<TokenPayload>;
  beginOidcSignIn: (actor: Actor, input: unknown, via?: SignInVia) => Promise<OidcBegun>;
  explainPlacement: (actor: Actor, input: ExplainPlacementInput) => Promise<PlacementVerdict>;
  /** For who was let through a deletion of it. */
  deletionPlan: (scope: Scope) => Promise<PlanItem[]>;
};

/** Does the rounds of jobs whose steps are other jobs. */
export const compoundJobs = (context: OpsContext): CompoundJobs =>
  new CompoundJobs(context, {
    template: templateSwitches.remove,
    user: userSwitches.remove,
    identity_provider: identityProviderSwitches.remove,
    account: accountSwitches.remove,
    domain: domainSwitches.remove,
  });

/** All operations, bound to what they work with. */
export function bindOps(context: OpsContext): Ops {
  const bound = Object.entries(MUTATIONS).map(([name, run]): [string, Run] => [
    name,
    (actor, input, via = FROM_WITHIN) => run(context, actor, input, via),
  ]);
  return {
    ...(Object.fromEntries(bound) as Record<MutationName, Run>),
    createHostJoinToken: (actor, input, via = FROM_WITHIN) => createHostJoinToken(context, actor, input, via),
    createApiKey: (actor, input, via = FROM_WITHIN) => createApiKey(context, actor, input, via),
    beginTotp: (actor, input, via = FROM_WITHIN) => beginTotp(context, actor, input, via),
    confirmTotp: (actor, input, via = FROM_WITHIN) => confirmTotp(context, actor, input, via),
    beginOidcSignIn: (_actor, input, via = { ...FROM_WITHIN, userAgent: null }) => beginOidcSignIn(context, input, via),
    signIn: (_actor, input, via = { ...FROM_WITHIN, userAgent: null }) => signIn(context, input, via),
    explainPlacement: (actor, input) => explainPlacement(context, actor, input),
    deletionPlan: (scope) => deletionPlan(context, scope),
  };
}
