import {
  atLeast,
  emptyTransition,
  inMs,
  insert,
  now,
  patch,
  type Settable,
  type Transition,
} from '../db/transition.ts';
import type { JobView, StepError } from '../domain/job.ts';
import { decideVm, type VmState } from '../domain/vm-state.ts';
import { ASK_AGAIN_MS, jobRow, type NewJob, newView } from './advance.ts';
import type { PlannedAction } from './vm-plan.ts';

/**
 * Jobs whose steps are other jobs, one or two for each VM of an account or of all accounts in a domain. They keep no
 * list: a round looks at what is left, files what is missing, and ends the job when nothing is. So any process can do
 * any round, twice or at the same time as another, and after any crash.
 */
export interface Compound {
  kind: string;
  version: number;
  /** What each VM goes through, in order. */
  acts: PlannedAction[];
  /** States in which a VM still has something before it; it is left alone in others. */
  until: (state: VmState) => boolean;
  /** After the VMs, what they were in is deleted too. */
  deletes: boolean;
}

/** What a compound job is about, as it stands in `job.context`. */
export interface CompoundContext {
  kind: 'account' | 'domain';
  id: number;
  /** VMs that there were to begin with. */
  vms: number;
}

const runs = (state: VmState): boolean => decideVm(state, 'STOP').kind === 'go' || state === 'STARTING';

const stopping = (kind: string): Compound => ({ kind, version: 1, acts: ['STOP'], until: runs, deletes: false });
const deleting = (kind: string): Compound => ({
  kind,
  version: 1,
  acts: ['DESTROY', 'EXPUNGE'],
  until: () => true,
  deletes: true,
});

export const COMPOUNDS: Record<string, Compound> = Object.fromEntries(
  [stopping('STOP_ACCOUNT'), stopping('STOP_DOMAIN'), deleting('DELETE_ACCOUNT'), deleting('DELETE_DOMAIN')].map(
    (compound) => [compound.kind, compound],
  ),
);

/** By the seq of a step: first the VMs, then what they were in. */
const stepName = (seq: number): string => (seq === 1 ? 'vms' : 'rest');
/** How long until a round is done although nothing was heard of: the net below lost messages. */
const LOOK_AGAIN_MS = 6 * ASK_AGAIN_MS;

/** The job's row with its first step. Whoever writes it begins with a round once it is committed. */
export function beginCompound(compound: Compound, job: NewJob, context: CompoundContext): Transition {
  const row = insert('job', {
    ...jobRow(compound, job),
    state: 'RUNNING',
    step: 1,
    context: JSON.stringify(context),
    progress: 0,
    step_percent: 100,
    cancellable: 1,
    due_at: inMs(LOOK_AGAIN_MS),
    started_at: now,
  });
  return {
    ...changeOf(job.id),
    writes: [row, openStep(job.id, 1)],
    jobs: [{ ...newView(compound.kind, job, context), state: 'RUNNING', step: 1 }],
  };
}

const changeOf = (jobId: number): Transition => ({ ...emptyTransition(), changes: [{ kind: 'job', id: jobId }] });

const openStep = (jobId: number, seq: number) =>
  insert('job_step', {
    job_id: jobId,
    seq,
    name: stepName(seq),
    direction: 'DO',
    state: 'OPEN',
    host_id: null,
    command: null,
    payload: null,
  });

const whileRunning = (job: JobView) => ({ state: 'RUNNING' as const, step: job.step });

/** So much of the open step is done. */
export const progressed = (job: JobView, percent: number): Transition => ({
  ...changeOf(job.id),
  writes: [patch('job', job.id, whileRunning(job), { progress: atLeast(percent), due_at: inMs(LOOK_AGAIN_MS) })],
});

/** The VMs are done with: what they were in is next. There is no way back from here on. */
export const onToTheRest = (job: JobView): Transition => ({
  ...changeOf(job.id),
  writes: [
    patch('job', job.id, whileRunning(job), {
      step: job.step + 1,
      progress: atLeast(95),
      cancellable: 0,
      due_at: inMs(LOOK_AGAIN_MS),
    }),
    patch('job_step', job.id, { seq: job.step, state: 'OPEN' }, { state: 'DONE', finished_at: now }),
    openStep(job.id, job.step + 1),
  ],
});

/** @param error why; null: it is done */
export function endCompound(
  job: JobView,
  state: 'SUCCEEDED' | 'FAILED' | 'CANCELLED',
  error: StepError | null,
): Transition {
  const step = { SUCCEEDED: 'DONE', FAILED: 'FAILED', CANCELLED: 'SKIPPED' } as const;
  const set: Settable<'job'> = {
    state,
    cancellable: 0,
    due_at: null,
    lease_owner: null,
    finished_at: now,
    error_code: error?.code ?? null,
    error_message: error?.message ?? null,
    failed_step: error && stepName(job.step),
    ...(state === 'SUCCEEDED' ? { progress: 100 } : {}),
    ...(state === 'CANCELLED' ? { cancel_requested_at: now } : {}),
  };
  return {
    ...changeOf(job.id),
    writes: [
      patch('job', job.id, whileRunning(job), set),
      patch(
        'job_step',
        job.id,
        { seq: job.step, state: 'OPEN' },
        {
          state: step[state],
          finished_at: now,
          error_code: error?.code ?? null,
          error_message: error?.message ?? null,
        },
      ),
    ],
    jobs: [{ ...job, state }],
  };
}
