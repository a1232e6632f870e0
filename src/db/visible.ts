import { type Expression, type SqlBool, sql } from 'kysely';
import { type Actor, grantableReaches, may, OWNED_KINDS } from '../domain/authorize.ts';
import type { GuardedKind } from '../domain/permission.ts';

/**
 * The SQL twin of `sees`: the condition that every list adds to its `where`.
 *
 * @param kind also the name of the table
 */
export function visible(actor: Actor, kind: GuardedKind): Expression<SqlBool> {
  if (!may(actor, 'read', kind)) return sql<SqlBool>`false`;
  if (actor.kind !== 'user' || actor.reach === 'ALL') return sql<SqlBool>`true`;
  if (kind === 'domain')
    return actor.reach === 'ACCOUNT'
      ? sql<SqlBool>`domain.path = ${actor.domainPath}`
      : sql<SqlBool>`domain.path like ${`${actor.domainPath}%`}`;
  if (kind === 'role') return sql<SqlBool>`role.reach in (${sql.join(grantableReaches(actor))})`;
  if (!(OWNED_KINDS as readonly string[]).includes(kind)) return sql<SqlBool>`true`;
  const owner = sql.ref(kind === 'account' ? 'account.id' : `${kind}.account_id`);
  const own =
    actor.reach === 'ACCOUNT'
      ? sql<SqlBool>`${owner} = ${actor.accountId}`
      : sql<SqlBool>`${owner} in (
          select account.id from account inner join domain on domain.id = account.domain_id
          where domain.path like ${`${actor.domainPath}%`})`;
  return kind === 'template' ? sql<SqlBool>`(${owner} is null or ${own})` : own;
}
