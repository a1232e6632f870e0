import { etaMs } from '../domain/job-progress.ts';
import { STEP_STATES } from '../domain/job-state.ts';
import { builder } from './builder.ts';
import { loadersOf } from './loaders.ts';
import { HostRef } from './refs.ts';
import type { JobStepRow } from './rows.ts';
import { ErrorCodeRef, knownCode } from './user-error.ts';

const StepDirectionRef = builder.enumType('JobStepDirection', {
  description: 'Whether a step does something or takes it back.',
  values: {
    DO: { description: 'On the way to what was asked for.' },
    UNDO: { description: 'Takes back what a step before has done.' },
  } as const,
});

export { StepDirectionRef };

const STATE_DESCRIPTIONS: Record<(typeof STEP_STATES)[number], string> = {
  OPEN: 'Under way, or waiting for its host.',
  DONE: 'Done.',
  FAILED: 'Not done.',
  SKIPPED: 'Left out, by the decision of a person.',
};
const StepStateRef = builder.enumType('JobStepState', {
  description: 'How far a step is.',
  values: Object.fromEntries(STEP_STATES.map((state) => [state, { description: STATE_DESCRIPTIONS[state] }])) as Record<
    (typeof STEP_STATES)[number],
    { description: string }
  >,
});

/** What its host told last, here or in the row. */
function progressOf(
  step: JobStepRow,
): { done: number; total: number; unit: string | null; rate: number | null } | null {
  if (step.live) return step.live;
  if (step.progress_done === null || step.progress_total === null) return null;
  return {
    done: step.progress_done,
    total: step.progress_total,
    unit: step.progress_unit,
    rate: step.progress_rate,
  };
}

export const JobStepRef = builder.objectRef<JobStepRow>('JobStep').implement({
  description: 'One step of a job: an order to a host, or a change of the books.',
  fields: (t) => ({
    name: t.exposeString('name', { description: 'What is done, in the words of its workflow.' }),
    direction: t.expose('direction', { type: StepDirectionRef, description: 'Whether it does or takes back.' }),
    state: t.expose('state', { type: StepStateRef, description: 'How far it is.' }),
    attempt: t.exposeInt('attempt', { description: 'Which try this is, from 1.' }),
    host: t.field({
      type: HostRef,
      nullable: true,
      description: 'The host that does it; null when none has to.',
      resolve: (step, _args, context) => (step.host_id === null ? null : loadersOf(context).find('host', step.host_id)),
    }),
    done: t.field({
      type: 'BigInt',
      nullable: true,
      description: 'How much is done, in `unit`; null when that is not told.',
      resolve: (step) => progressOf(step)?.done ?? null,
    }),
    total: t.field({
      type: 'BigInt',
      nullable: true,
      description: 'How much there is to do, in `unit`.',
      resolve: (step) => progressOf(step)?.total ?? null,
    }),
    unit: t.string({
      nullable: true,
      description: 'What is counted: `bytes`.',
      resolve: (step) => progressOf(step)?.unit ?? null,
    }),
    rate: t.float({
      nullable: true,
      description: 'Units per second, smoothed.',
      resolve: (step) => progressOf(step)?.rate ?? null,
    }),
    etaMs: t.int({
      nullable: true,
      description: 'Milliseconds until it is done at this rate; null when that can not be said.',
      resolve: (step) => stepEtaMs(step),
    }),
    startedAt: t.expose('started_at', { type: 'DateTime', nullable: true, description: 'When it began.' }),
    finishedAt: t.expose('finished_at', { type: 'DateTime', nullable: true, description: 'When it ended.' }),
    message: t.exposeString('error_message', { nullable: true, description: 'Why it failed.' }),
    errorCode: t.field({
      type: ErrorCodeRef,
      nullable: true,
      description: 'Why it failed, for programs.',
      resolve: (step) => (step.error_code === null ? null : knownCode(step.error_code)),
    }),
  }),
});

const MAX_INT = 2 ** 31 - 1;

/** Null for what is not open, and what would take longer than an Int can say (24 days). */
export function stepEtaMs(step: JobStepRow): number | null {
  const progress = step.state === 'OPEN' ? progressOf(step) : null;
  const eta = progress && etaMs(progress);
  return eta !== null && eta <= MAX_INT ? eta : null;
}
