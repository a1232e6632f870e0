import { type Expression, type SqlBool, sql } from 'kysely';
import { type Actor, rightsOf } from '../domain/authorize.ts';
import { VirtgraphError } from '../domain/errors.ts';
import { decodeId, decodeIdOf, notAnId } from '../domain/ids.ts';
import type { AuditOutcome } from '../domain/kinds.ts';
import { visible } from './visible.ts';

/** What the audit trail may be narrowed by, in the graph and in the export alike. */
export interface AuditFilter {
  actor?: string | null | undefined;
  /** Public ids. */
  userId?: string | null | undefined;
  subjectId?: string | null | undefined;
  action?: string | null | undefined;
  outcome?: AuditOutcome | null | undefined;
  /** Not before. */
  from?: Date | null | undefined;
  /** Before. */
  to?: Date | null | undefined;
}

/** Operators: they read the trail whole, not what concerns a tenant of theirs. */
export function readsAll(actor: Actor): boolean {
  const { reach, permissions } = rightsOf(actor);
  return reach === 'ALL' && permissions.has('read audit');
}

type Condition = Expression<SqlBool>;

/** What an actor may read of the trail, narrowed. @throws VirtgraphError INVALID_INPUT with the path below `filter` */
export function auditConditions(filter: AuditFilter, actor: Actor): Condition[] {
  const { userId, subjectId, action, outcome, from, to } = filter;
  return [
    ...(filter.actor == null ? [] : [sql<SqlBool>`audit.actor = ${filter.actor}`]),
    ...(userId == null ? [] : [sql<SqlBool>`audit.user_id = ${idOf('user', uidOfUser(userId), actor)}`]),
    ...(subjectId == null ? [] : [isAbout(subjectId, actor)]),
    ...(action == null ? [] : [sql<SqlBool>`audit.action = ${action}`]),
    ...(outcome == null ? [] : [sql<SqlBool>`audit.outcome = ${outcome}`]),
    ...(from == null ? [] : [sql<SqlBool>`audit.recorded_at >= ${from}`]),
    ...(to == null ? [] : [sql<SqlBool>`audit.recorded_at < ${to}`]),
  ];
}

const invalid = (message: string, field: string): VirtgraphError =>
  new VirtgraphError({ code: 'INVALID_INPUT', message, path: ['filter', field] });

function uidOfUser(id: string): Buffer {
  const uid = decodeIdOf('user', id);
  if (!uid) throw invalid(notAnId('user'), 'userId');
  return uid;
}

function isAbout(id: string, actor: Actor): Condition {
  const decoded = decodeId(id);
  if (!decoded) throw invalid('Not an id.', 'subjectId');
  const { kind, uid } = decoded;
  return sql<SqlBool>`audit.subject_kind = ${kind} and audit.subject_id = ${idOf(kind, uid, actor)}`;
}

/** Of an object, deleted or not; nothing is about one that is not there for the actor. */
const idOf = (kind: Parameters<typeof visible>[1], uid: Buffer, actor: Actor) =>
  sql`(select id from ${sql.table(kind)} where uid = ${uid} and ${visible(actor, kind)})`;
