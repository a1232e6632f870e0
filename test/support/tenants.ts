import { randomBytes } from 'node:crypto';
import type { Insertable, Kysely } from 'kysely';
import { newUid } from '../../src/db/ids.ts';
import type { AccountTable, ApiKeyTable, Database, DomainTable, UserTable } from '../../src/db/tables.ts';
import { secretHash } from '../../src/hosts/sessions.ts';
import { insertRow, nextId, type Placed } from './world.ts';

/** The roles that every installation has. */
export const ROLE = { rootAdmin: 1, domainAdmin: 2, user: 3, readOnly: 4 };
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
  return { ...(await insertRow(db, 'domain', row)), path };
}

export function insertAccount(
  db: Kysely<Database>,
  domain: { id: number },
  overrides: Partial<Insertable<AccountTable>> = {},
): Promise<Placed> {
  const id = nextId();
  return insertRow(db, 'account', { id, uid: newUid(), domain_id: domain.id, name: `account-${id}`, ...overrides });
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

/** An API key of a user, with the token in clear. */
export async function insertApiKey(
  db: Kysely<Database>,
  user: { id: number },
  overrides: Partial<Insertable<ApiKeyTable>> = {},
): Promise<Placed & { token: string }> {
  const id = nextId();
  const token = `vgk_${randomBytes(32).toString('base64url')}`;
  const row = { id, uid: newUid(), user_id: user.id, role_id: null, name: `key-${id}`, key_hash: secretHash(token) };
  return { ...(await insertRow(db, 'api_key', { ...row, ...overrides })), token };
}
