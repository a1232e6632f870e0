import { type Kysely, sql } from 'kysely';
import type { Actor } from '../domain/authorize.ts';
import { both, type Reach, rightsOfRole } from '../domain/permission.ts';
import { membershipsOf } from './memberships.ts';
import type { Database } from './tables.ts';

interface KeyRow {
  key_id: number;
  user_id: number;
  user_name: string;
  account_id: number;
  account_name: string;
  path: string;
  role_id: number;
  reach: Reach;
  rules: string;
  key_role_id: number | null;
  key_reach: Reach | null;
  key_rules: string | null;
}

/**
 * Who a token belongs to. A key works while it, its user, its account and every domain above are enabled and there: one
 * statement for that, however deep the tree.
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
  const { rows } = await sql<KeyRow>`
    select api_key.id as key_id, user.id as user_id, user.name as user_name, account.id as account_id,
      account.name as account_name, domain.path, role.id as role_id, role.reach, role.rules,
      key_role.id as key_role_id, key_role.reach as key_reach, key_role.rules as key_rules
    from api_key
    inner join user on user.id = api_key.user_id and user.deleted_at is null and user.wanted_state = 'ENABLED'
    inner join account on account.id = user.account_id and account.deleted_at is null
      and account.wanted_state = 'ENABLED'
    inner join domain on domain.id = account.domain_id
    inner join role on role.id = user.role_id
    left join role as key_role on key_role.id = api_key.role_id
    where api_key.key_hash = ${hash} and api_key.deleted_at is null
      and (api_key.expires_at is null or api_key.expires_at > now(6))
      and not exists (
        select 1 from domain as above
        where domain.path like concat(above.path, '%')
          and (above.deleted_at is not null or above.wanted_state <> 'ENABLED'))`.execute(db);
  const row = rows[0];
  if (!row) return { kind: 'anonymous' };
  const own = rightsOfRole({ id: row.role_id, reach: row.reach, rules: row.rules });
  const narrowing =
    row.key_role_id === null
      ? null
      : rightsOfRole({ id: row.key_role_id, reach: row.key_reach!, rules: row.key_rules! });
  const { reach, permissions } = narrowing ? both(own, narrowing) : own;
  const user = { id: row.user_id, accountId: row.account_id };
  const { projects, roleIds } = await membershipsOf(db, user, own, narrowing);
  return {
    kind: 'user',
    userId: row.user_id,
    keyId: row.key_id,
    accountId: row.account_id,
    domainPath: row.path,
    name: `${row.account_name}/${row.user_name}`,
    roleIds: [row.role_id, ...(row.key_role_id === null ? [] : [row.key_role_id]), ...roleIds],
    reach,
    permissions,
    projects,
  };
}
