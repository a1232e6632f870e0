import { sql } from 'kysely';
import type { Actor } from '../domain/authorize.ts';
import type { StepProgress } from '../domain/host-agent.ts';
import { livePercent } from '../domain/job-progress.ts';
import {
  isEnded,
  JOB_RESOLUTIONS,
  JOB_STATES,
  type JobResolution,
  type JobState,
  resolutionsOf,
} from '../domain/job-state.ts';
import { builder } from './builder.ts';
import { conditionsOn } from './condition.ts';
import { childList, list, rootList } from './connection.ts';
import type { GraphContext } from './context.ts';
import { EventList } from './event.ts';
import { JobStepRef, StepDirectionRef, stepEtaMs } from './job-step.ts';
import { loadersOf } from './loaders.ts';
import { idInput, mutation } from './mutation.ts';
import { idField, lookUp, NodeRef, nodeOf } from './node.ts';
import { parseId } from './public-id.ts';
import { JobRef } from './refs.ts';
import { type JobRow, type JobStepRow, selected } from './rows.ts';
import { knownCode, UserErrorRef } from './user-error.ts';

const STATE_DESCRIPTIONS: Record<JobState, string> = {
  QUEUED: 'Waits for another job on the same object.',
  RUNNING: 'Under way, forwards or back.',
  SUCCEEDED: 'Everything that was asked for is done.',
  FAILED: 'It could not be done, and what had been done is taken back.',
  CANCELLED: 'A person cancelled it, and what had been done is taken back.',
  NEEDS_ATTENTION: 'It can go neither on nor back by itself: a person decides with `resolveJob`.',
};
const JobStateRef = builder.enumType('JobState', {
  description: 'How far a job is.',
  values: Object.fromEntries(JOB_STATES.map((state) => [state, { description: STATE_DESCRIPTIONS[state] }])) as Record<
    JobState,
    { description: string }
  >,
});

const RESOLUTION_DESCRIPTIONS: Record<JobResolution, string> = {
  RETRY_STEP: 'Try the step again that did not go.',
  SKIP_STEP: 'Take the step as done: someone has done it by hand, or it does not matter.',
  ROLL_BACK: 'Take back what was done so far.',
};
const JobResolutionRef = builder.enumType('JobResolution', {
  description: 'What a person may decide for a job that needs attention.',
  values: Object.fromEntries(
    JOB_RESOLUTIONS.map((choice) => [choice, { description: RESOLUTION_DESCRIPTIONS[choice] }]),
  ) as Record<JobResolution, { description: string }>,
});

/** There is no way back from undoing. */
const liveOf = (context: GraphContext, job: JobRow): StepProgress | null => {
  if (isEnded(job.state)) return null;
  return job.live === undefined ? context.agent.progressOf(job.id) : job.live;
};

/** The steps of many jobs in one query, the open ones with what their hosts told last. */
function stepsOf(context: GraphContext, job: JobRow): Promise<JobStepRow[]> {
  const live = liveOf(context, job);
  const rows = loadersOf(context).below('job_step', job.id, (ids) => readSteps(context, ids));
  if (!live) return rows;
  return rows.then((steps) =>
    steps.map((step) => (step.state === 'OPEN' && step.seq === live.seq ? { ...step, live } : step)),
  );
}

async function readSteps(context: GraphContext, ids: readonly number[]): Promise<JobStepRow[][]> {
  const { rows } = await sql<JobStepRow>`
    select ${selected('job_step')} from job_step
    where job_id in (${sql.join(ids)}) order by job_id, seq`.execute(context.db);
  const steps = new Map<number, JobStepRow[]>(ids.map((id) => [id, []]));
  for (const row of rows) steps.get(row.job_id)!.push(row);
  return ids.map((id) => steps.get(id)!);
}

const openStep = async (context: GraphContext, job: JobRow): Promise<JobStepRow | null> =>
  isEnded(job.state) ? null : ((await stepsOf(context, job)).find((step) => step.state === 'OPEN') ?? null);

/** Percent of the whole, 0 to 100. */
const percentOf = (context: GraphContext, job: JobRow): number =>
  Math.max(job.progress, livePercent(job, liveOf(context, job)));

JobRef.implement({
  description: 'Something that takes time: it outlives processes, shows its progress, and ends in exactly one way.',
  interfaces: [NodeRef],
  fields: (t) => ({
    id: idField(t, 'job'),
    kind: t.exposeString('kind', { description: 'Which workflow: `CREATE_VM`.' }),
    state: t.expose('state', { type: JobStateRef, description: 'How far it is.' }),
    direction: t.expose('direction', { type: StepDirectionRef, description: 'Whether it goes on or is taken back.' }),
    target: t.field({
      type: NodeRef,
      nullable: true,
      description: 'What it is about; null when that is there no more.',
      resolve: (job, _args, context) => nodeOf(context, job.target_kind, job.target_id) as never,
    }),
    actor: t.exposeString('actor', { description: 'Who asked for it.' }),
    reason: t.exposeString('reason', { nullable: true, description: 'Why, in the words of whoever asked.' }),
    progressPercent: t.float({
      description: 'How much is done, from 0 to 100. In a subscription it never goes back.',
      resolve: (job, _args, context) => percentOf(context, job),
    }),
    etaMs: t.int({
      nullable: true,
      description: 'Milliseconds until the open step is done; null when that can not be said.',
      resolve: async (job, _args, context) => {
        const step = await openStep(context, job);
        return step && stepEtaMs(step);
      },
    }),
    currentStep: t.field({
      type: JobStepRef,
      nullable: true,
      description: 'The step that is open; null before the first and after the last.',
      extensions: { ofRow: true },
      resolve: (job, _args, context) => openStep(context, job),
    }),
    steps: t.field({
      type: [JobStepRef],
      description: 'What was done and is being done, in order. Steps to come are not in it.',
      extensions: { cost: { own: 1, factor: 5 }, ofRow: true },
      resolve: (job, _args, context) => stepsOf(context, job),
    }),
    cancellable: t.boolean({
      description: 'Whether `cancelJob` would be heard: not after the point of no return.',
      resolve: (job) =>
        job.cancellable === 1 &&
        job.cancel_requested_at === null &&
        job.direction === 'DO' &&
        (job.state === 'QUEUED' || job.state === 'RUNNING'),
    }),
    resolutions: t.field({
      type: [JobResolutionRef],
      description: 'What can be chosen while it needs attention; empty otherwise.',
      resolve: (job) => resolutionsOf({ ...job, cancellable: job.cancellable === 1 }),
    }),
    error: t.field({
      type: UserErrorRef,
      nullable: true,
      description: 'Why it failed, is being taken back, or needs attention.',
      extensions: { ofRow: true },
      resolve: ({ error_code, error_message }) =>
        error_code === null ? null : { code: knownCode(error_code), message: error_message ?? '', path: null },
    }),
    parent: t.field({
      type: JobRef,
      nullable: true,
      description: 'The job that it is a part of.',
      resolve: (job, _args, context) => (job.parent_id === null ? null : loadersOf(context).find('job', job.parent_id)),
    }),
    children: childList(t, JobList, 'Jobs that are parts of it.', 'parent_id'),
    events: childList(t, EventList, 'What it did.', 'job_id'),
    createdAt: t.expose('created_at', { type: 'DateTime', description: 'When it was asked for.' }),
    startedAt: t.expose('started_at', { type: 'DateTime', nullable: true, description: 'When it began.' }),
    finishedAt: t.expose('finished_at', { type: 'DateTime', nullable: true, description: 'When it ended.' }),
  }),
});

const JobFilterRef = builder.inputType('JobFilter', {
  description: 'Narrows a list of jobs.',
  fields: (t) => ({
    state: t.field({ type: [JobStateRef], description: 'Only jobs in one of these states.' }),
    kind: t.string({ description: 'Only jobs of this kind.' }),
    targetId: t.id({ description: 'Only jobs about this object.' }),
  }),
});

const on = conditionsOn('job');
export const JobList = list({
  table: 'job',
  ref: JobRef,
  noun: 'Job',
  filter: JobFilterRef,
  direction: 'DESC',
  conditions: (filter, actor) => [
    ...on.isOneOf('state', filter.state),
    ...on.is('kind', filter.kind),
    ...targetIs(filter.targetId, actor),
  ],
});

function targetIs(id: string | null | undefined, actor: Actor) {
  if (id == null) return [];
  const { kind } = parseId(id, ['filter', 'targetId']);
  if (kind === 'job') return on.isOneOf('target_kind', []);
  return [...on.is('target_kind', kind), ...on.refersTo('target_id', kind, id, 'targetId', actor)];
}

builder.queryFields((t) => ({
  job: lookUp(t, 'job'),
  jobs: rootList(t, JobList, 'Everything that was asked for and takes time, newest first.'),
}));

mutation('cancelJob', 'job', 'Takes a job back, as far as it still can be.', (t) => idInput(t, 'job'));
mutation('retryJob', 'job', 'Asks once more for what a failed job was to do.', (t) => idInput(t, 'job'));
mutation('resolveJob', 'job', 'Decides how a job that needs attention goes on.', (t) => ({
  ...idInput(t, 'job'),
  resolution: t.field({ type: JobResolutionRef, required: true, description: 'One of its `resolutions`.' }),
}));
