import { randomBytes } from 'node:crypto';
import type { Insertable, Kysely } from 'kysely';
import type { IdentityProviderTable } from '../../src/db/identity-provider-tables.ts';
import { newUid } from '../../src/db/ids.ts';
import { principalOf } from '../../src/db/principal.ts';
import type { Database } from '../../src/db/tables.ts';
import type {
  AccountTable,
  ApiKeyTable,
  DomainTable,
  ProjectMemberTable,
  RoleTable,
  SessionTable,
  UserTable,
} from '../../src/db/tenant-tables.ts';
import type { UserActor } from '../../src/domain/authorize.ts';
import { encodeId, type ResourceKind } from '../../src/domain/ids.ts';
import type { Rule } from '../../src/domain/permission.ts';
import { SESSION_MS } from '../../src/domain/session.ts';
import { secretHash } from '../../src/hosts/identities.ts';
import type { Payload } from '../../src/ops/context.ts';
import { insertRow, nextId, type Placed } from './world.ts';

/** The roles that every installation has. */
export const ROLE = { rootAdmin: 1, domainAdmin: 2, user: 3, readOnly: 4, projectAdmin: 5 };
export const ROOT_DOMAIN = { id: 1, path: '/1/' };

export interface PlacedDomain extends Placed {
  path: string;
}

export async function insertDomain(
  db: Kysely<Database>,
  parent: { id: number; path: string } = ROOT_DOMAIN,
  overrides: Partial<Insertable<DomainTable>> = {},
): Promise<PlacedDomain> {
  const id = nextId();
  const path = `${parent.path}${id}/`;
  const row = { id, uid: newUid(), parent_id: parent.id, path, name: `domain-${id}`, ...overrides };
  const placed = await insertRow(db, 'domain', row);
  await db.insertInto('domain_quota').values({ id }).execute();
  return { ...placed, path };
}

export async function insertAccount(
  db: Kysely<Database>,
  domain: { id: number },
  overrides: Partial<Insertable<AccountTable>> = {},
): Promise<Placed> {
  const id = nextId();
  const row = { id, uid: newUid(), domain_id: domain.id, name: `account-${id}`, ...overrides };
  const placed = await insertRow(db, 'account', row);
  const { path } = await db.selectFrom('domain').select('path').where('id', '=', domain.id).executeTakeFirstOrThrow();
  await db.insertInto('account_quota').values({ id, path }).execute();
  return placed;
}

export function insertUser(
  db: Kysely<Database>,
  account: { id: number },
  role: number,
  overrides: Partial<Insertable<UserTable>> = {},
): Promise<Placed> {
  const id = nextId();
  const row = { id, uid: newUid(), account_id: account.id, role_id: role, name: `user-${id}`, ...overrides };
  return insertRow(db, 'user', row);
}

/** @param who an account with all its users, or one user */
export function insertMember(
  db: Kysely<Database>,
  project: { id: number },
  who: { account: { id: number } } | { user: { id: number } },
  role: number,
  overrides: Partial<Insertable<ProjectMemberTable>> = {},
): Promise<Placed> {
  const member = {
    member_account_id: 'account' in who ? who.account.id : null,
    member_user_id: 'user' in who ? who.user.id : null,
  };
  const row = { id: nextId(), uid: newUid(), account_id: project.id, ...member, role_id: role, ...overrides };
  return insertRow(db, 'project_member', row);
}

/** May look at VMs of its account. */
export function insertRole(
  db: Kysely<Database>,
  rules: readonly Rule[] = [{ effect: 'ALLOW', verb: 'read', kind: 'vm' }],
  overrides: Partial<Insertable<RoleTable>> = {},
): Promise<Placed> {
  const id = nextId();
  const named = { id, uid: newUid(), name: `role-${id}` };
  return insertRow(db, 'role', { ...named, reach: 'ACCOUNT', rules: JSON.stringify(rules), ...overrides });
}

/** An API key of a user, with the token in clear. */
export async function insertApiKey(
  db: Kysely<Database>,
  user: { id: number },
  overrides: Partial<Insertable<ApiKeyTable>> = {},
): Promise<Placed & { token: string }> {
  const id = nextId();
  const token = `vgk_${randomBytes(32).toString('base64url')}`;
  const { account_id } = await db
    .selectFrom('user')
    .select('account_id')
    .where('id', '=', user.id)
    .executeTakeFirstOrThrow();
  const named = { id, uid: newUid(), name: `key-${id}` };
  const row = { ...named, user_id: user.id, account_id, role_id: null, key_hash: secretHash(token) };
  return { ...(await insertRow(db, 'api_key', { ...row, ...overrides })), token };
}

/** Where a user has signed in by a password, with the token in clear. */
export async function insertSession(
  db: Kysely<Database>,
  user: { id: number },
  overrides: Partial<Insertable<SessionTable>> = {},
): Promise<Placed & { token: string }> {
  const token = `vgs_${randomBytes(32).toString('base64url')}`;
  const { account_id } = await db
    .selectFrom('user')
    .select('account_id')
    .where('id', '=', user.id)
    .executeTakeFirstOrThrow();
  const named = { id: nextId(), uid: newUid(), user_id: user.id, account_id, token_hash: secretHash(token) };
  const shown = { how: 'PASSWORD' as const, address: null, user_agent: null };
  const row = { ...named, ...shown, expires_at: new Date(Date.now() + SESSION_MS) };
  return { ...(await insertRow(db, 'session', { ...row, ...overrides })), token };
}

/** An OpenID Connect provider that gives everybody a role. */
export function insertIdentityProvider(
  db: Kysely<Database>,
  { domain, account, role }: { domain: { id: number }; account: { id: number }; role: { id: number } },
  overrides: Partial<Insertable<IdentityProviderTable>> = {},
): Promise<Placed> {
  const id = nextId();
  return insertRow(db, 'identity_provider', {
    id,
    uid: newUid(),
    domain_id: domain.id,
    account_id: account.id,
    name: `provider-${id}`,
    type: 'OIDC',
    settings: JSON.stringify({
      issuer: 'https://login.example.com',
      clientId: 'virtgraph',
      scopes: ['profile'],
      groupsClaim: 'groups',
      vouchesForSecondFactor: false,
      caCertificates: null,
    }),
    role_mapping: JSON.stringify([{ group: '*', roleId: role.id }]),
    ...overrides,
  });
}

/** Someone new of an account, as the product knows him by his key. */
export async function insertActor(
  db: Kysely<Database>,
  account: { id: number },
  role: number,
  key: Partial<Insertable<ApiKeyTable>> = {},
): Promise<UserActor & Placed> {
  const user = await insertUser(db, account, role);
  return { ...(await actorOf(db, (await insertApiKey(db, user, key)).token)), ...user };
}

export async function actorOf(db: Kysely<Database>, token: string): Promise<UserActor> {
  const actor = await principalOf(db, secretHash(token));
  if (actor.kind !== 'user') throw new Error(`the token is of ${actor.kind}`);
  return actor;
}

/** An operation's id of a row. */
export const idOf = (kind: ResourceKind, row: { uid: Buffer }): string => encodeId(kind, row.uid);

/** The code and path of the one refusal of a payload; what is beyond in its message is for the test to look at. */
export function refusalOf({ errors }: Payload): { code: string; path: string[] | null; message: string } {
  if (errors.length !== 1) throw new Error(`refused by ${JSON.stringify(errors)}`);
  const { code, path, message } = errors[0]!;
  return { code, path, message };
}
