import { type Expression, type SqlBool, sql } from 'kysely';
import { type Actor, grantableReaches, isOwned, may, projectsWith, type UserActor } from '../domain/authorize.ts';
import type { GuardedKind } from '../domain/permission.ts';

/**
 * The SQL twin of `sees`: the condition that every list adds to its `where`.
 *
 * @param kind also the name of the table
 */
export function visible(actor: Actor, kind: GuardedKind): Expression<SqlBool> {
  if (kind === 'session' && actor.kind === 'user')
    return sql<SqlBool>`(session.user_id = ${actor.userId} or ${visibleByRole(actor, kind)})`;
  return visibleByRole(actor, kind);
}

function visibleByRole(actor: Actor, kind: GuardedKind): Expression<SqlBool> {
  if (!may(actor, 'read', kind)) return sql<SqlBool>`false`;
  if (actor.kind !== 'user') return sql<SqlBool>`true`;
  const has = actor.permissions.has(`read ${kind}`);
  if (actor.reach === 'ALL' && has) return sql<SqlBool>`true`;
  if (kind === 'domain')
    return actor.reach === 'ACCOUNT'
      ? sql<SqlBool>`domain.path = ${actor.domainPath}`
      : sql<SqlBool>`domain.path like ${`${actor.domainPath}%`}`;
  if (kind === 'role') return sql<SqlBool>`role.reach in (${sql.join(grantableReaches(actor))})`;
  if (!isOwned(kind)) return sql<SqlBool>`true`;
  const owner = sql.ref(kind === 'account' ? 'account.id' : `${kind}.account_id`);
  const ways: Expression<SqlBool>[] = [];
  if (has) ways.push(within(actor, owner));
  const projects = projectsWith(actor, 'read', kind);
  if (projects.length > 0) ways.push(sql<SqlBool>`${owner} in (${sql.join(projects)})`);
  if (kind === 'template') ways.push(sql<SqlBool>`${owner} is null`);
  return ways.length === 1 ? ways[0]! : sql<SqlBool>`(${sql.join(ways, sql` or `)})`;
}

/** Of the own account, or of the own domain and all below. */
const within = (actor: UserActor, owner: Expression<unknown>): Expression<SqlBool> =>
  actor.reach === 'ACCOUNT'
    ? sql<SqlBool>`${owner} = ${actor.accountId}`
    : sql<SqlBool>`${owner} in (
        select account.id from account inner join domain on domain.id = account.domain_id
        where domain.path like ${`${actor.domainPath}%`})`;
