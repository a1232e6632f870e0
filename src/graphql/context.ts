import type { Kysely } from 'kysely';
import type { Feed } from '../db/feed.ts';
import type { Inventory } from '../db/inventory.ts';
import type { Database } from '../db/tables.ts';
import type { Actor } from '../domain/authorize.ts';
import type { HostAgent } from '../domain/host-agent.ts';
import type { PlacementVerdict } from '../domain/placement.ts';
import type { PlanItem, Scope } from '../ops/compound-job.ts';
import type { Payload, Via } from '../ops/context.ts';
import type { ById, ExplainPlacementInput, Inputs } from '../ops/inputs.ts';
import type { OidcBegun } from '../ops/oidc-sign-in.ts';
import type { RecoveryPayload, TotpPayload } from '../ops/second-factor.ts';
import type { SignInVia } from '../ops/sign-in.ts';
import type { Watch } from './watch.ts';

/** What may be enabled, disabled and deleted. */
export const WANTED_NOUNS = {
  zone: 'Zone',
  pod: 'Pod',
  cluster: 'Cluster',
  host: 'Host',
  primary_storage: 'PrimaryStorage',
  offering: 'Offering',
  template: 'Template',
  domain: 'Domain',
  account: 'Account',
  user: 'User',
  identity_provider: 'IdentityProvider',
} as const;
export type WantedKind = keyof typeof WANTED_NOUNS;

type WantedMutation = `${'enable' | 'disable' | 'delete'}${(typeof WANTED_NOUNS)[WantedKind]}`;
type OwnMutation = Exclude<
  keyof Inputs,
  'createHostJoinToken' | 'createApiKey' | 'signIn' | 'beginOidcSignIn' | 'signOut' | 'beginTotp' | 'confirmTotp'
>;
/** Mutations that answer with a resource, a job or errors. */
export type MutationName = OwnMutation | WantedMutation;
export type InputOf<M extends MutationName> = M extends keyof Inputs ? Inputs[M] : ById;

/** The token in clear, which is told this once and kept nowhere. */
export type TokenPayload = Payload & { token: string | null };
export type JoinTokenPayload = TokenPayload & { expiresAt: Date | null };

/**
 * Every write that the graph offers. Ids are public ids. What the actor did wrong is in the payload's errors or thrown
 * as a VirtgraphError; the graph treats both alike.
 */
export type Ops = { [M in MutationName]: (actor: Actor, input: InputOf<M>, via: Via) => Promise<Payload> } & {
  createHostJoinToken(actor: Actor, input: Inputs['createHostJoinToken'], via: Via): Promise<JoinTokenPayload>;
  createApiKey(actor: Actor, input: Inputs['createApiKey'], via: Via): Promise<TokenPayload>;
  signIn(actor: Actor, input: Inputs['signIn'], via: SignInVia): Promise<TokenPayload>;
  beginOidcSignIn(actor: Actor, input: Inputs['beginOidcSignIn'], via: SignInVia): Promise<OidcBegun>;
  signOut(actor: Actor, input: Inputs['signOut'], via: Via): Promise<Payload>;
  beginTotp(actor: Actor, input: Inputs['beginTotp'], via: Via): Promise<TotpPayload>;
  confirmTotp(actor: Actor, input: Inputs['confirmTotp'], via: Via): Promise<RecoveryPayload>;
  /** @throws VirtgraphError */
  explainPlacement(actor: Actor, input: ExplainPlacementInput): Promise<PlacementVerdict>;
  /** For who was let through a deletion of it. */
  deletionPlan(scope: Scope): Promise<PlanItem[]>;
};

/** How a browser keeps a session, without any script being able to read it. */
export interface SessionCookies {
  /** @returns what the browser's scripts send along, so that nobody else's can ask in its name */
  keep(token: string): string;
  forget(): void;
  /** What a sign-in on a provider's page is known by when it comes back. */
  keepPending(pending: string): void;
}

/** One per request or subscription; loaders hang on it. */
export interface GraphContext {
  db: Kysely<Database>;
  actor: Actor;
  ops: Ops;
  inventory: Inventory;
  agent: HostAgent;
  feed: Feed;
  /** One per process. */
  watch: Watch;
  /** In the log with whatever is masked from the caller. */
  requestId: string;
  /** The client's, for the audit trail. */
  address: string | null;
  /** Whom a token stands for, now. */
  actorOf(token: string): Promise<Actor>;
  /** What the client says it is. */
  userAgent: string | null;
  /** Sets the cookie of a browser with the answer; null where there is no answer of HTTP that could. */
  cookies: SessionCookies | null;
}
