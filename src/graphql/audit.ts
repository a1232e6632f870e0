import { type AuditFilter, auditConditions, readsAll } from '../db/audit-filter.ts';
import type { ResourceKind } from '../domain/ids.ts';
import { encodeId } from '../domain/ids.ts';
import type { AUDIT_OUTCOMES, AuditOutcome, FieldChange } from '../domain/kinds.ts';
import { builder } from './builder.ts';
import { list, rootList } from './connection.ts';
import type { GraphContext } from './context.ts';
import { FieldChangeRef } from './event.ts';
import { loadersOf } from './loaders.ts';
import { NodeRef, nodeOf } from './node.ts';
import { PermissionKindRef } from './permission.ts';
import { encodeAuditId } from './public-id.ts';
import { ApiKeyRef, AuditRecordRef, JobRef, UserRef } from './refs.ts';
import type { AuditRow } from './rows.ts';

const AuditOutcomeRef = builder.enumType('AuditOutcome', {
  description: 'What became of what was asked for.',
  values: {
    ALLOWED: { description: 'It was done, is under way, or was so already.' },
    REFUSED: { description: 'It was not done; `code` says why.' },
  } as const satisfies Record<(typeof AUDIT_OUTCOMES)[number], unknown>,
});

const CREDENTIALS = {
  'api-key': { name: 'API_KEY', description: 'A key of a user.' },
  session: { name: 'SESSION', description: 'A session that a user had signed in to.' },
  'admin-token': { name: 'ADMIN_TOKEN', description: "The root admin's token." },
} as const;
const CredentialKindRef = builder.enumType('CredentialKind', {
  description: 'What a caller showed to be let in.',
  values: Object.fromEntries(
    Object.entries(CREDENTIALS).map(([value, { name, description }]) => [name, { value, description }]),
  ),
});

const credentialOf = ({ credential }: AuditRow): { kind: string; id: number } | null => {
  const [kind, id] = credential?.split(':') ?? [];
  return kind !== undefined && kind in CREDENTIALS ? { kind, id: Number(id) } : null;
};

/** Where somebody was, and what joins his requests with a log, is for operators and for those who answer for him. */
async function forThoseAbove<T>(context: GraphContext, { user_id }: AuditRow, value: T): Promise<T | null> {
  if (readsAll(context.actor)) return value;
  return user_id !== null && (await loadersOf(context).find('user', user_id)) ? value : null;
}

const subjectOf = (context: GraphContext, { subject_kind, subject_id }: AuditRow) =>
  subject_kind === null || subject_id === null ? null : loadersOf(context).find(subject_kind, subject_id);

AuditRecordRef.implement({
  description: 'Who asked for what, from where, and what became of it. Records are never changed.',
  interfaces: [NodeRef],
  fields: (t) => ({
    id: t.id({ description: 'The public id, the same for ever.', resolve: (record) => encodeAuditId(record.seq) }),
    seq: t.string({
      description: 'Its number: one more than that of the record before it, in the order of commits.',
      resolve: (record) => String(record.seq),
    }),
    at: t.expose('recorded_at', { type: 'DateTime', description: 'When.' }),
    action: t.exposeString('action', { description: 'What was asked for: the name of a mutation, `signIn`.' }),
    outcome: t.expose('outcome', { type: AuditOutcomeRef, description: 'What became of it.' }),
    code: t.exposeString('code', { nullable: true, description: 'Why it was refused; null when it was not.' }),
    actor: t.exposeString('actor', { description: 'Who, as he was called then.' }),
    user: t.field({
      type: UserRef,
      nullable: true,
      description: 'Who; null for root, and for someone whom the caller can not see.',
      resolve: ({ user_id }, _args, context) => (user_id === null ? null : loadersOf(context).find('user', user_id)),
    }),
    address: t.string({
      nullable: true,
      description: 'From which IP address. Null where it is not known, and for actors whom the caller can not see.',
      resolve: (record, _args, context) => forThoseAbove(context, record, record.address),
    }),
    requestId: t.string({
      nullable: true,
      description: 'The `x-request-id`, as it stands in the log; null for actors whom the caller can not see.',
      resolve: (record, _args, context) => forThoseAbove(context, record, record.request_id),
    }),
    credentialKind: t.field({
      type: CredentialKindRef,
      nullable: true,
      description: 'What he showed; null: nothing.',
      resolve: (record) => credentialOf(record)?.kind as never,
    }),
    apiKey: t.field({
      type: ApiKeyRef,
      nullable: true,
      description: 'The key that he showed; null where it was something else, or the caller can not see it.',
      resolve: (record, _args, context) => {
        const credential = credentialOf(record);
        return credential?.kind === 'api-key' ? loadersOf(context).find('api_key', credential.id) : null;
      },
    }),
    subject: t.field({
      type: NodeRef,
      nullable: true,
      description: 'To what, deleted or not; null when it is there no more, or not for the caller.',
      resolve: ({ subject_kind, subject_id }, _args, context) =>
        (subject_kind === null || subject_id === null ? null : nodeOf(context, subject_kind, subject_id)) as never,
    }),
    subjectKind: t.field({
      type: PermissionKindRef,
      nullable: true,
      description: 'What kind of thing the subject is; null where there is none.',
      resolve: ({ subject_kind }) => subject_kind,
    }),
    subjectId: t.id({
      nullable: true,
      description: 'The id that was asked for, whether or not there is such a thing; else that of the subject.',
      resolve: async (record, _args, context) => {
        if (record.asked_id !== null) return record.asked_id;
        const row = await subjectOf(context, record);
        return row && encodeId(record.subject_kind as ResourceKind, row.uid);
      },
    }),
    job: t.field({
      type: JobRef,
      nullable: true,
      description: 'The job that carries it out.',
      resolve: ({ job_id }, _args, context) => (job_id === null ? null : loadersOf(context).find('job', job_id)),
    }),
    reason: t.exposeString('reason', { nullable: true, description: 'Why, in the words of whoever asked.' }),
    changes: t.field({
      type: [FieldChangeRef],
      description: 'What it changed at once, field by field. What a job changes later is in the events.',
      resolve: ({ changes }) => JSON.parse(changes) as FieldChange[],
    }),
  }),
});

const AuditFilterRef = builder.inputType('AuditFilter', {
  description: 'Narrows a list of audit records.',
  fields: (t) => ({
    actor: t.string({ description: 'Only of whom was called so then: `acme/alice`.' }),
    userId: t.id({ description: 'Only of this user.' }),
    subjectId: t.id({ description: 'Only what was asked for with this object.' }),
    action: t.string({ description: 'Only this: the name of a mutation, `signIn`.' }),
    outcome: t.field({ type: AuditOutcomeRef, description: 'Only what ended so.' }),
    from: t.field({ type: 'DateTime', description: 'Not before this moment.' }),
    to: t.field({ type: 'DateTime', description: 'Before this moment.' }),
  }),
});

const AuditList = list({
  table: 'audit',
  ref: AuditRecordRef,
  noun: 'AuditRecord',
  filter: AuditFilterRef,
  direction: 'DESC',
  conditions: (filter, actor) => auditConditions(filter as AuditFilter & { outcome?: AuditOutcome }, actor),
});

builder.queryField('auditRecords', (t) =>
  rootList(t, AuditList, 'Who asked for what, from where, and what became of it; newest first.'),
);
