import { type Expression, type SqlBool, sql } from 'kysely';
import type { Actor } from '../domain/authorize.ts';

/** The SQL twin of `authorize(actor, 'read', …)`: the condition that every list adds to its `where`. */
export function visible(actor: Actor): Expression<SqlBool> {
  return actor.kind === 'anonymous' ? sql<SqlBool>`false` : sql<SqlBool>`true`;
}
