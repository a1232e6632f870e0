import type { Actor } from '../domain/authorize.ts';
import type { FieldChange } from '../domain/kinds.ts';
import { builder } from './builder.ts';
import { conditionsOn } from './condition.ts';
import { list, rootList } from './connection.ts';
import { loadersOf } from './loaders.ts';
import { NodeRef, nodeOf } from './node.ts';
import { encodeEventId, parseId } from './public-id.ts';
import { EventRef, JobRef } from './refs.ts';

export const FieldChangeRef = builder.objectRef<FieldChange>('FieldChange').implement({
  description: 'One field that was changed, as text that a person reads.',
  fields: (t) => ({
    field: t.exposeString('field', { description: 'Its name.' }),
    before: t.exposeString('before', { nullable: true, description: 'What it was; null: nothing.' }),
    after: t.exposeString('after', { nullable: true, description: 'What it became; null: nothing.' }),
  }),
});

EventRef.implement({
  description: 'Who did what to what, and why. Events are numbered in the order in which they were committed.',
  interfaces: [NodeRef],
  fields: (t) => ({
    id: t.id({ description: 'The public id, the same for ever.', resolve: (event) => encodeEventId(event.seq) }),
    seq: t.string({
      description: 'Its number, for `eventAppended(afterSeq:)`. Grows; not every number is an event.',
      resolve: (event) => String(event.seq),
    }),
    type: t.exposeString('type', { description: 'What happened: `vm.started`.' }),
    occurredAt: t.expose('occurred_at', { type: 'DateTime', description: 'When.' }),
    subject: t.field({
      type: NodeRef,
      nullable: true,
      description: 'To what; null when it is there no more.',
      resolve: (event, _args, context) => nodeOf(context, event.subject_kind, event.subject_id) as never,
    }),
    job: t.field({
      type: JobRef,
      nullable: true,
      description: 'The job that it was part of.',
      resolve: (event, _args, context) => (event.job_id === null ? null : loadersOf(context).find('job', event.job_id)),
    }),
    actor: t.exposeString('actor', { description: 'Who.' }),
    reason: t.exposeString('reason', { nullable: true, description: 'Why, in the words of whoever asked.' }),
    changes: t.field({
      type: [FieldChangeRef],
      description: 'What it changed, field by field.',
      resolve: (event) => JSON.parse(event.changes) as FieldChange[],
    }),
  }),
});

const EventFilterRef = builder.inputType('EventFilter', {
  description: 'Narrows a list of events.',
  fields: (t) => ({
    type: t.string({ description: 'Only events of this type.' }),
    subjectId: t.id({ description: 'Only what happened to this object.' }),
    jobId: t.id({ description: 'Only what this job did.' }),
  }),
});

const on = conditionsOn('event');
export const EventList = list({
  table: 'event',
  ref: EventRef,
  noun: 'Event',
  filter: EventFilterRef,
  direction: 'DESC',
  conditions: (filter, actor) => [
    ...on.is('type', filter.type),
    ...subjectIs(filter.subjectId, actor),
    ...on.refersTo('job_id', 'job', filter.jobId, 'jobId', actor),
  ],
});

function subjectIs(id: string | null | undefined, actor: Actor) {
  if (id == null) return [];
  const { kind } = parseId(id, ['filter', 'subjectId']);
  // No event is about a job: what the job is about is.
  if (kind === 'job') return on.isOneOf('subject_kind', []);
  return [...on.is('subject_kind', kind), ...on.refersTo('subject_id', kind, id, 'subjectId', actor)];
}

builder.queryField('events', (t) => rootList(t, EventList, 'What was done, newest first.'));
