import { VirtgraphError } from './errors.ts';
import {
  type GuardedKind,
  type Permissions,
  permissionsOf,
  REACHES,
  type Reach,
  type Rights,
  type Verb,
} from './permission.ts';

/** What a token stands for: a key of a program, or a session of someone who has signed in. */
export interface Credential {
  kind: 'api_key' | 'session';
  id: number;
}

/** A project has members of other accounts instead of users of its own. */
export const ACCOUNT_TYPES = ['ACCOUNT', 'PROJECT'] as const;
export type AccountType = (typeof ACCOUNT_TYPES)[number];

/** What a user may do in a project. */
export interface Membership {
  memberId: number;
  /** Where the project stands: ids of the domains from the root down, each between slashes. */
  domainPath: string;
  permissions: Permissions;
}

/** Someone of an account, by what the token allows. */
export interface UserActor {
  kind: 'user';
  userId: number;
  credential: Credential;
  /** The domain asks for a second factor, and this session was opened without one: it is good for setting one up. */
  enrolling?: true;
  /** Who says who he is, where that is not a password here. */
  identityProviderId?: number;
  accountId: number;
  /** Ids of the domains from the root to the account's, each between slashes. */
  domainPath: string;
  /** As it stands in jobs and events: account/user. */
  name: string;
  /** Of the user, of the key, and in projects. */
  roleIds: readonly number[];
  reach: Reach;
  /** With what is of the own account, and of whatever else the reach has. */
  permissions: Permissions;
  /** By the id of the project's account. */
  projects: ReadonlyMap<number, Membership>;
}

/** Who asks. `system` files repairs; it never comes from outside. */
export type Actor =
  | { kind: 'anonymous' }
  | { kind: 'root-admin'; tokenId: number; name: string }
  | { kind: 'system'; name: string }
  | UserActor;

/** How an actor stands in jobs and events. */
export const actorName = (actor: Actor): string => (actor.kind === 'anonymous' ? 'anonymous' : actor.name);

/** What decides who somebody is and what he may do. */
export const IDENTITIES = [
  'domain',
  'account',
  'user',
  'role',
  'identity_provider',
  'api_key',
  'session',
  'project_member',
] as const;

/** Whether what an actor may do can have changed with a change of this object. */
export function restsOn(actor: Actor, { kind, id }: { kind: string; id: number }): boolean {
  if (actor.kind !== 'user') return false;
  switch (kind) {
    case 'user':
      return actor.userId === id;
    case 'api_key':
    case 'session':
      return actor.credential.kind === kind && actor.credential.id === id;
    case 'account':
      return actor.accountId === id || actor.projects.has(id);
    case 'identity_provider':
      return actor.identityProviderId === id;
    case 'role':
      return actor.roleIds.includes(id);
    case 'domain':
      return [actor, ...actor.projects.values()].some(({ domainPath }) => domainPath.includes(`/${id}/`));
    case 'project_member':
      return [...actor.projects.values()].some(({ memberId }) => memberId === id);
    default:
      return false;
  }
}

/** What never means another: names change hands, and two accounts may have the same. */
export const actorKey = (actor: Actor): string => (actor.kind === 'user' ? `user:${actor.userId}` : actorName(actor));

/** Where an account stands in the tree; undefined: there is no such account. */
export interface Tenancy {
  domainPathOf(accountId: number): string | undefined;
}

/** The account of what operators make for themselves; and the domain that it is in, above all others. */
export const OPERATOR_ACCOUNT = 1;
const ROOT_DOMAIN = 1;

/** What every installation has to have: it is neither disabled nor deleted. */
export const isKept = (kind: string, id: number): boolean =>
  (kind === 'domain' && id === ROOT_DOMAIN) || (kind === 'account' && id === OPERATOR_ACCOUNT);

/** Ids of the domains of a path, from the root down. */
export const domainsOf = (path: string): number[] => path.split('/').filter(Boolean).map(Number);

/** A row, with who owns it. Infrastructure has no `account_id`; null: nobody, and everybody may use such a template. */
export interface Owned {
  id?: number;
  account_id?: number | null;
  /** Of a session. */
  user_id?: number;
  /** Of a domain. */
  path?: string;
  /** Of a role. */
  reach?: Reach;
}

/** The account that a row belongs to; an account is its own. */
export const ownerOf = (kind: string, row: Owned): number | null =>
  (kind === 'account' ? row.id : row.account_id) ?? null;

const EVERYTHING: Rights = { reach: 'ALL', permissions: permissionsOf([{ effect: 'ALLOW', verb: '*', kind: '*' }]) };
const NOTHING: Rights = { reach: 'ACCOUNT', permissions: new Set() };

/** All that an actor has; nobody gives more than that. */
export function rightsOf(actor: Actor): Rights {
  if (actor.kind === 'user') return actor;
  return actor.kind === 'anonymous' ? NOTHING : EVERYTHING;
}

/** Whether any role of the actor has the verb for a kind at all. */
export function may(actor: Actor, verb: Verb, kind: GuardedKind): boolean {
  if (actor.kind !== 'user') return actor.kind !== 'anonymous';
  return actor.permissions.has(`${verb} ${kind}`) || (isOwned(kind) && projectsWith(actor, verb, kind).length > 0);
}

/** Ids of the projects in which a user has the verb for a kind. */
export function projectsWith({ projects }: UserActor, verb: Verb, kind: GuardedKind): number[] {
  const found: number[] = [];
  for (const [id, { permissions }] of projects) if (permissions.has(`${verb} ${kind}`)) found.push(id);
  return found;
}

/**
 * Whether the actor has the verb for this very object: in a project the role there counts, whatever the user's own role
 * is; elsewhere that one does. Says nothing of whether the object is there for him: that is `sees`.
 */
export function mayWith(actor: Actor, verb: Verb, kind: GuardedKind, row: Owned, tenancy: Tenancy): boolean {
  if (actor.kind !== 'user') return actor.kind !== 'anonymous';
  const permission = `${verb} ${kind}`;
  const owner = isOwned(kind) ? ownerOf(kind, row) : null;
  if (owner !== null && actor.projects.get(owner)?.permissions.has(permission)) return true;
  return actor.permissions.has(permission) && (owner === null || isWithin(actor, owner, tenancy));
}

/** What an actor has with what an account owns; nobody gives more than that in a project. */
export function rightsIn(actor: Actor, account: number, tenancy: Tenancy): Rights {
  const own = rightsOf(actor);
  if (actor.kind !== 'user') return own;
  const there = actor.projects.get(account)?.permissions ?? new Set<string>();
  return isWithin(actor, account, tenancy)
    ? { ...own, permissions: own.permissions.union(there) }
    : { reach: 'ACCOUNT', permissions: there };
}

/**
 * The one decision about rights on a kind; `sees` is the one about an object, with its twin for lists in db/visible.ts.
 *
 * @throws VirtgraphError UNAUTHENTICATED, FORBIDDEN
 */
export function authorize(actor: Actor, verb: Verb, kind: GuardedKind): void {
  mustBeKnown(actor);
  if (may(actor, verb, kind)) return;
  if (actor.kind === 'user' && actor.enrolling) throw mustEnrol();
  throw new VirtgraphError({
    code: 'FORBIDDEN',
    message: `Your role may not ${verb} a ${kind.replaceAll('_', ' ')}.`,
  });
}

/** As `authorize`, for an object that the actor sees. @throws VirtgraphError FORBIDDEN */
export function authorizeWith(actor: Actor, verb: Verb, kind: GuardedKind, row: Owned, tenancy: Tenancy): void {
  if (mayWith(actor, verb, kind, row, tenancy)) return;
  const owner = ownerOf(kind, row);
  const where = actor.kind === 'user' && owner !== null && actor.projects.has(owner) ? ' in this project' : ' here';
  throw new VirtgraphError({
    code: 'FORBIDDEN',
    message: `Your role${where} may not ${verb} a ${kind.replaceAll('_', ' ')}.`,
  });
}

const mustEnrol = (): VirtgraphError =>
  new VirtgraphError({
    code: 'SECOND_FACTOR_ENROLMENT_REQUIRED',
    message:
      'Your domain asks for a second factor. Set one up with `beginTotp` and `confirmTotp`; until then nothing else can be done.',
  });

/** @throws VirtgraphError UNAUTHENTICATED */
export function mustBeKnown(actor: Actor): void {
  if (actor.kind === 'anonymous')
    throw new VirtgraphError({
      code: 'UNAUTHENTICATED',
      message: 'Send a known token as `Authorization: Bearer <token>`.',
    });
}

/** Kinds that belong to an account. */
export const OWNED_KINDS = [
  'vm',
  'volume',
  'template',
  'job',
  'event',
  'audit',
  'account',
  'user',
  'api_key',
  'project_member',
  'session',
  'identity_provider',
] as const satisfies GuardedKind[];
export const isOwned = (kind: GuardedKind): boolean => (OWNED_KINDS as readonly string[]).includes(kind);

/** Whether an object exists for the actor. What it may not see is as absent as what never was. */
export function sees(actor: Actor, kind: GuardedKind, row: Owned, tenancy: Tenancy): boolean {
  if (isOwn(actor, kind, row)) return true;
  if (!may(actor, 'read', kind)) return false;
  if (actor.kind !== 'user') return true;
  if (actor.reach === 'ALL' && actor.permissions.has(`read ${kind}`)) return true;
  if (kind === 'domain') return actor.reach === 'ACCOUNT' ? row.path === actor.domainPath : isBelow(actor, row.path);
  if (kind === 'role') return grantableReaches(actor).includes(row.reach!);
  if (!isOwned(kind)) return true;
  return ownerOf(kind, row) === null ? kind === 'template' : mayWith(actor, 'read', kind, row, tenancy);
}

/** Where somebody is signed in is his to see whatever his role says. */
const isOwn = (actor: Actor, kind: GuardedKind, row: Owned): boolean =>
  kind === 'session' && actor.kind === 'user' && row.user_id === actor.userId;

const isBelow = (actor: UserActor, path: string | undefined): boolean => path?.startsWith(actor.domainPath) ?? false;

/** Of roles that an actor can be concerned with: what reaches further is neither his nor his to give. */
export const grantableReaches = (actor: UserActor): Reach[] => REACHES.slice(REACHES.indexOf(actor.reach));

/** Whether what it sees depends on where an account stands. */
export const isOfDomain = (actor: Actor): boolean => actor.kind === 'user' && actor.reach === 'DOMAIN';

/** What everybody may use is changed by operators alone, whatever else a role allows. */
export const isOperators = (actor: Actor, kind: string, row: Owned): boolean =>
  kind === 'template' && ownerOf(kind, row) === null && rightsOf(actor).reach !== 'ALL';

/** Whether an account is the actor's, or in what it administers. */
export function isWithin(actor: UserActor, accountId: number, tenancy: Tenancy): boolean {
  if (actor.accountId === accountId || actor.reach === 'ALL') return true;
  return actor.reach === 'DOMAIN' && isBelow(actor, tenancy.domainPathOf(accountId));
}
