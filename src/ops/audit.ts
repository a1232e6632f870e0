import { sql } from 'kysely';
import type { NewAudit, Transition } from '../db/transition.ts';
import { visible } from '../db/visible.ts';
import { type Actor, actorName, isOwned } from '../domain/authorize.ts';
import type { ErrorCode } from '../domain/errors.ts';
import { decodeId, type ResourceKind } from '../domain/ids.ts';
import type { GuardedKind } from '../domain/permission.ts';
import type { OpsContext, Via } from './context.ts';

/** What the audit trail says of a request, whatever becomes of it. */
export interface Asked {
  action: string;
  actor: Actor;
  via: Via;
  /** The public id that it names, where it is one. Nothing else of what was sent is kept: it may be a secret. */
  id: string | null;
  reason: string | null;
}

const REASON_MAX = 1024;

/** Fields of an input that may name what a mutation is about, where it is not `id`. */
export type SubjectField = 'userId' | 'accountId' | 'domainId';

/**
 * @param raw what was sent, not looked at by anybody yet
 * @param fields the first that holds an id is what it is about
 */
export function askedOf(
  action: string,
  actor: Actor,
  via: Via,
  raw: unknown,
  fields: readonly ('id' | SubjectField)[],
): Asked {
  const input = (raw ?? {}) as Partial<Record<'id' | SubjectField | 'reason', unknown>>;
  const { reason } = input;
  const ids = fields.map((field) => input[field]);
  return {
    action,
    actor,
    via,
    id: ids.find((id): id is string => typeof id === 'string' && decodeId(id) !== null) ?? null,
    reason: typeof reason === 'string' && reason.length <= REASON_MAX && reason.isWellFormed() ? reason : null,
  };
}

const recordOf = ({ action, actor, via, id, reason }: Asked) => ({
  action,
  actor: actorName(actor),
  userId: actor.kind === 'user' ? actor.userId : null,
  credential: credentialOf(actor),
  address: via.address,
  askedId: id,
  reason,
  requestId: via.requestId,
});

function credentialOf(actor: Actor): string | null {
  if (actor.kind === 'user') return `${actor.credential.kind.replace('_', '-')}:${actor.credential.id}`;
  return actor.kind === 'root-admin' ? `admin-token:${actor.tokenId}` : null;
}

const accountOf = (actor: Actor): number | null => (actor.kind === 'user' ? actor.accountId : null);

/** What was done, or is begun: with what its events say of before and after. */
export async function allowed(
  context: OpsContext,
  asked: Asked,
  kind: GuardedKind,
  { id, jobId }: { id: number | null; jobId: number | null },
  transition: Transition,
): Promise<NewAudit> {
  const { events, jobs } = transition;
  const event = events.find(({ subject }) => subject.id === id);
  const named = asked.id === null ? null : decodeId(asked.id);
  const subject = id === null ? null : (event?.subject ?? { kind: named?.kind ?? (kind as ResourceKind), id });
  const owner =
    event?.accountId ?? jobs[0]?.target.accountId ?? (event || !subject ? null : await ownerOf(context, subject));
  return {
    ...recordOf(asked),
    outcome: 'ALLOWED',
    code: null,
    accountId: owner ?? accountOf(asked.actor),
    subject,
    jobId,
    changes: events.flatMap(({ changes }) => changes),
  };
}

/**
 * What was not done. Whose it is: of the owner of what it was about, if the actor may know of that; of the actor's own
 * account otherwise, so that nobody learns of a stranger who guesses, and those who answer for him do.
 */
export async function refused(context: OpsContext, asked: Asked, code: ErrorCode): Promise<NewAudit> {
  const subject = asked.id === null ? null : await subjectOf(context, asked.id, asked.actor);
  return {
    ...recordOf(asked),
    outcome: 'REFUSED',
    code,
    accountId: subject?.ownerIfSeen ?? accountOf(asked.actor),
    subject: subject && { kind: subject.kind, id: subject.id },
    jobId: null,
    changes: [],
  };
}

const ownerColumn = (kind: ResourceKind) =>
  kind === 'account' ? sql.ref('id') : isOwned(kind) ? sql.ref('account_id') : sql.lit(null);

async function ownerOf(context: OpsContext, { kind, id }: { kind: ResourceKind; id: number }): Promise<number | null> {
  if (!isOwned(kind)) return null;
  const row = await context.db
    .selectFrom(kind as 'vm')
    .select(ownerColumn(kind).$castTo<number | null>().as('owner'))
    .where('id', '=', id)
    .executeTakeFirst();
  return row?.owner ?? null;
}

interface AskedSubject {
  kind: ResourceKind;
  id: number;
  ownerIfSeen: number | null;
}

/** Of a public id, deleted or not; null: there never was one. */
async function subjectOf(context: OpsContext, publicId: string, actor: Actor): Promise<AskedSubject | null> {
  const { kind, uid } = decodeId(publicId)!;
  const row = await context.db
    .selectFrom(kind as 'vm')
    .select(['id', sql<number | null>`if(${visible(actor, kind)}, ${ownerColumn(kind)}, null)`.as('ownerIfSeen')])
    .where('uid', '=', uid)
    .executeTakeFirst();
  return row ? { kind, ...row } : null;
}
