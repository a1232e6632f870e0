import { type Expression, type Kysely, type SqlBool, sql } from 'kysely';
import type { Actor, Credential } from '../domain/authorize.ts';
import { both, type Reach, type Rights, rightsOfRole } from '../domain/permission.ts';
import { SESSION_IDLE_MS } from '../domain/session.ts';
import { type Memberships, membershipsOf } from './memberships.ts';
import type { Database } from './tables.ts';

interface CredentialRow {
  kind: Credential['kind'];
  id: number;
  user_id: number;
  user_name: string;
  identity_provider_id: number | null;
  account_id: number;
  account_name: string;
  path: string;
  role_id: number;
  reach: Reach;
  rules: string;
  key_role_id: number | null;
  key_reach: Reach | null;
  key_rules: string | null;
  /** 0 or 1: it lacks what a domain above asks for. */
  enrolling: number;
  /** 0 or 1: projects may have him, by name or by his account. */
  is_member: number;
}

/** Of a session: not ended, not old, not idle. */
export const isLiveSession = sql<SqlBool>`session.deleted_at is null and session.expires_at > now(6)
  and session.last_used_at > now(6) - interval ${SESSION_IDLE_MS / 1_000} second`;

/** That the domain and every one above it are there and enabled, however deep the tree. */
export const isDomainOpen = sql<SqlBool>`not exists (
  select 1 from domain as above
  where domain.path like concat(above.path, '%')
    and (above.deleted_at is not null or above.wanted_state <> 'ENABLED'))`;

/** Of a user: that who says who he is, if it is not a password here, is there and enabled. */
export const isProviderOpen = sql<SqlBool>`not exists (
  select 1 from identity_provider as provider
  where provider.id = user.identity_provider_id
    and (provider.deleted_at is not null or provider.wanted_state <> 'ENABLED'))`;

/** That it, or a domain above, asks for a second factor. */
export const asksSecondFactor: Expression<SqlBool> = sql<SqlBool>`exists (
  select 1 from domain as above
  where domain.path like concat(above.path, '%') and above.require_second_factor)`;

/** What most are not, and then nothing more has to be read of them. Each half has an index of its own. */
const isMember = sql<SqlBool>`(
  exists (select 1 from project_member as m where m.member_user_id = user.id and m.deleted_at is null)
  or exists (select 1 from project_member as m where m.member_account_id = account.id and m.deleted_at is null))`;

/**
 * Who a token belongs to. It works while it, its user, his identity provider, its account and every domain above are
 * enabled and there: one statement for that, for keys and sessions alike.
 *
 * @param hash SHA-256 of the token
 */
export async function principalOf(db: Kysely<Database>, hash: Buffer): Promise<Actor> {
  const root = await db
    .selectFrom('api_token')
    .select(['id', 'name'])
    .where('token_hash', '=', hash)
    .executeTakeFirst();
  if (root) return { kind: 'root-admin', tokenId: root.id, name: root.name };
  const { rows } = await sql<CredentialRow>`
    select credential.kind, credential.id, user.id as user_id, user.name as user_name, user.identity_provider_id,
      account.id as account_id, account.name as account_name, domain.path, role.id as role_id, role.reach, role.rules,
      key_role.id as key_role_id, key_role.reach as key_reach, key_role.rules as key_rules,
      (credential.lacks_factor and ${asksSecondFactor}) as enrolling, ${isMember} as is_member
    from (
      select 'api_key' as kind, id, user_id, role_id, false as lacks_factor from api_key
      where key_hash = ${hash} and deleted_at is null and (expires_at is null or expires_at > now(6))
      union all
      select 'session', id, user_id, null, not second_factor from session
      where token_hash = ${hash} and ${isLiveSession}
    ) as credential
    inner join user on user.id = credential.user_id and user.deleted_at is null and user.wanted_state = 'ENABLED'
    inner join account on account.id = user.account_id and account.deleted_at is null
      and account.wanted_state = 'ENABLED'
    inner join domain on domain.id = account.domain_id
    inner join role on role.id = user.role_id
    left join role as key_role on key_role.id = credential.role_id
    where ${isProviderOpen} and ${isDomainOpen}`.execute(db);
  const row = rows[0];
  return row ? await actorOf(db, row) : { kind: 'anonymous' };
}

async function actorOf(db: Kysely<Database>, row: CredentialRow): Promise<Actor> {
  const own = rightsOfRole({ id: row.role_id, reach: row.reach, rules: row.rules });
  const narrowing =
    row.key_role_id === null
      ? null
      : rightsOfRole({ id: row.key_role_id, reach: row.key_reach!, rules: row.key_rules! });
  const user = { id: row.user_id, accountId: row.account_id };
  const mayShare = row.is_member && !row.enrolling;
  const { projects, roleIds } = mayShare ? await membershipsOf(db, user, own, narrowing) : NOTHING_SHARED;
  const { reach, permissions } = row.enrolling ? NO_RIGHTS : narrowing ? both(own, narrowing) : own;
  return {
    kind: 'user',
    userId: row.user_id,
    credential: { kind: row.kind, id: row.id },
    accountId: row.account_id,
    domainPath: row.path,
    name: `${row.account_name}/${row.user_name}`,
    roleIds: [row.role_id, ...(row.key_role_id === null ? [] : [row.key_role_id]), ...roleIds],
    reach,
    permissions,
    projects,
    ...(row.identity_provider_id === null ? {} : { identityProviderId: row.identity_provider_id }),
    ...(row.enrolling ? { enrolling: true } : {}),
  };
}

/** Of who has to set up a second factor first. */
const NO_RIGHTS: Rights = { reach: 'ACCOUNT', permissions: new Set() };
const NOTHING_SHARED: Memberships = { projects: new Map(), roleIds: [] };
