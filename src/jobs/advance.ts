import {
  atLeast,
  emptyTransition,
  inMs,
  insert,
  now,
  type OpenCommand,
  patch,
  plus,
  type Settable,
  type Transition,
  type Write,
} from '../db/transition.ts';
import type { Answer, JobView, StepError } from '../domain/job.ts';
import { isEnded, type JobResolution } from '../domain/job-state.ts';
import { firstMove, type Move, moveOnAnswer, moveOnResolution, moveToAttention } from './move.ts';
import { type CommandSpec, nothing, together, type Workflow } from './workflow.ts';

/** After so long without news a process takes the job up and asks the host again. */
export const ASK_AGAIN_MS = 10_000;
/** What fits wherever a message goes: the step, the job, its target and the event. */
const MESSAGE_MAX = 1_000;

/** What a new job is, whether it begins at once or waits. */
export interface NewJob {
  id: number;
  uid: Buffer;
  target: JobView['target'];
  actor: string;
  reason: string | null;
  /** What was asked, as JSON can hold it. */
  input: unknown;
  parentId: number | null;
}

/** A job that begins with its acceptance: its row, the steps done at once and the first command, in one transition. */
export function begin<C>(workflow: Workflow<C>, job: NewJob, context: C): Transition {
  const move = firstMove(workflow, job, context);
  const view = viewOf(workflow.kind, job, context, move);
  const steps = stepRows(move, job.id, 0);
  const effects = together(workflow.begin(context, job), move.effects);
  const ended = isEnded(move.state);
  const row = insert('job', {
    ...jobRow(workflow, job),
    state: move.state,
    step: steps.last,
    context: JSON.stringify(context),
    progress: move.progress,
    step_percent: move.stepPercent,
    cancellable: move.cancellable ? 1 : 0,
    due_at: ended ? null : inMs(ASK_AGAIN_MS),
    started_at: now,
    finished_at: ended ? now : null,
  });
  return {
    writes: [row, ...steps.writes, ...effects.writes],
    changes: [{ kind: 'job', id: job.id }, ...effects.changes],
    events: effects.events,
    audits: [],
    commands: steps.commands,
    jobs: ended ? [] : [{ ...view, step: steps.last }],
  };
}

/** A job that was accepted while another held its target: it waits, with nothing resolved yet. */
export function enqueue(workflow: Workflow, job: NewJob): Transition {
  const row = insert('job', { ...jobRow(workflow, job), state: 'QUEUED', context: null, due_at: inMs(ASK_AGAIN_MS) });
  return {
    ...emptyTransition(),
    writes: [row],
    changes: [{ kind: 'job', id: job.id }],
    jobs: [newView(workflow.kind, job, job.input)],
  };
}

/** A queued job begins: what `begin` writes, on the row that is there. */
export function beginQueued<C>(workflow: Workflow<C>, job: JobView, context: C): Transition {
  const move = firstMove(workflow, job, context);
  const effects = together(workflow.begin(context, job), move.effects);
  return moved({ ...job, context }, { ...move, effects }, [], { context: JSON.stringify(context), started_at: now });
}

/** A queued job that ends without having begun. */
export function endQueued(
  job: JobView,
  state: 'SUCCEEDED' | 'FAILED' | 'CANCELLED',
  error: StepError | null,
): Transition {
  return moved(job, {
    state,
    direction: 'DO',
    told: [],
    open: null,
    failure: error && { error, at: '' },
    progress: state === 'SUCCEEDED' ? 100 : 0,
    stepPercent: 0,
    cancellable: false,
    effects: nothing,
  });
}

/** A host has answered the open step. A message may be of any length; what doesn't fit would be refused for ever. */
export function answered(workflow: Workflow, job: JobView, told: Answer): Transition {
  const answer: Answer = told.ok ? told : { ok: false, error: { ...told.error, message: clip(told.error.message) } };
  const end: Settable<'job_step'> = answer.ok
    ? { state: 'DONE', ...(Object.keys(answer.result).length > 0 ? { result: JSON.stringify(answer.result) } : {}) }
    : { state: 'FAILED', error_code: answer.error.code, error_message: answer.error.message };
  const stepEnd = patch('job_step', job.id, { seq: job.step, state: 'OPEN' }, { ...end, finished_at: now });
  return moved(job, moveOnAnswer(workflow, job, answer), [stepEnd]);
}

/** Nobody can say what became of the open step. Its row stays open: the host may still answer, and a person decides. */
export const stuck = (job: JobView, error: StepError): Transition => moved(job, moveToAttention(job, error));

/** A person has decided for a job that needs attention. */
export function resolved(workflow: Workflow, job: JobView, resolution: JobResolution): Transition {
  const state = resolution === 'RETRY_STEP' ? 'FAILED' : 'SKIPPED';
  const stepEnd = patch('job_step', job.id, { seq: job.step }, { state, finished_at: now });
  return moved(job, moveOnResolution(workflow, job, resolution), [stepEnd]);
}

/** A person wants a job that needs attention to end: it is rolled back, and ends as cancelled. */
export function cancelledStuck(workflow: Workflow, job: JobView): Transition {
  const stepEnd = patch('job_step', job.id, { seq: job.step }, { state: 'SKIPPED', finished_at: now });
  const cancelled = { ...job, cancelRequested: true };
  return moved(cancelled, moveOnResolution(workflow, cancelled, 'ROLL_BACK'), [stepEnd], { cancel_requested_at: now });
}

/** The rows of one move of a job that exists. Applies only while the job is as `job` says. */
function moved(job: JobView, move: Move, stepEnds: Write[] = [], also: Settable<'job'> = {}): Transition {
  const steps = stepRows(move, job.id, job.step);
  const ended = isEnded(move.state);
  const next: JobView = {
    ...job,
    state: move.state,
    direction: move.direction,
    step: steps.last,
    cancellable: move.cancellable,
    failure: move.failure,
    open: move.open && openOf(move.open),
  };
  const set: Settable<'job'> = {
    state: move.state,
    direction: move.direction,
    step: steps.last,
    progress: atLeast(move.progress),
    step_percent: move.stepPercent,
    cancellable: move.cancellable ? 1 : 0,
    due_at: move.state === 'RUNNING' ? inMs(ASK_AGAIN_MS) : null,
    lease_owner: null,
    ...(ended ? { finished_at: now } : {}),
    error_code: move.failure?.error.code ?? null,
    error_message: move.failure ? clip(move.failure.error.message) : null,
    failed_step: move.failure?.at ?? null,
    ...also,
  };
  return {
    writes: [
      patch('job', job.id, { state: job.state, step: job.step, lease_epoch: job.leaseEpoch }, set),
      ...stepEnds,
      ...steps.writes,
      ...move.effects.writes,
    ],
    changes: [{ kind: 'job', id: job.id }, ...move.effects.changes],
    events: move.effects.events,
    audits: [],
    commands: steps.commands,
    jobs: [next],
  };
}

function stepRows(move: Move, jobId: number, last: number): { writes: Write[]; commands: OpenCommand[]; last: number } {
  const writes: Write[] = [];
  let seq = last;
  for (const name of move.told) {
    seq++;
    writes.push(
      insert('job_step', {
        job_id: jobId,
        seq,
        name,
        direction: move.direction,
        state: 'DONE',
        host_id: null,
        command: null,
        payload: null,
        finished_at: now,
      }),
    );
  }
  if (!move.open) return { writes, commands: [], last: seq };
  seq++;
  const { spec, name, attempt } = move.open;
  const payload = JSON.stringify(spec.payload);
  writes.push(
    insert('job_step', {
      job_id: jobId,
      seq,
      name,
      direction: move.direction,
      attempt,
      state: 'OPEN',
      host_id: spec.hostId,
      vm_epoch: spec.epoch,
      command: spec.command,
      payload,
      timeout_ms: spec.timeoutMs,
    }),
  );
  return { writes, commands: [commandOf(jobId, seq, spec, payload)], last: seq };
}

const commandOf = (jobId: number, seq: number, spec: CommandSpec, payload: string): OpenCommand => ({
  jobId,
  seq,
  hostId: spec.hostId,
  command: spec.command,
  vmEpoch: spec.epoch,
  timeoutMs: spec.timeoutMs,
  payload,
});

export const jobRow = (workflow: Pick<Workflow, 'kind' | 'version'>, job: NewJob) => ({
  id: job.id,
  uid: job.uid,
  kind: workflow.kind,
  workflow_version: workflow.version,
  target_kind: job.target.kind,
  account_id: job.target.accountId,
  target_id: job.target.id,
  parent_id: job.parentId,
  actor: job.actor,
  reason: job.reason,
  input: JSON.stringify(job.input),
});

/** A job that has not begun, as its process remembers it. */
export const newView = (kind: string, job: NewJob, context: unknown): JobView => ({
  id: job.id,
  kind,
  state: 'QUEUED',
  direction: 'DO',
  step: 0,
  leaseEpoch: 1,
  parentId: job.parentId,
  target: job.target,
  actor: job.actor,
  reason: job.reason,
  cancelRequested: false,
  cancellable: true,
  failure: null,
  context,
  open: null,
});

const viewOf = (kind: string, job: NewJob, context: unknown, move: Move): JobView => ({
  ...newView(kind, job, context),
  state: move.state,
  direction: move.direction,
  cancellable: move.cancellable,
  open: move.open && openOf(move.open),
});

const openOf = ({ name, attempt, spec }: NonNullable<Move['open']>): JobView['open'] => ({
  name,
  attempt,
  hostId: spec.hostId,
  answered: false,
});

export const clip = (message: string): string => {
  const characters = [...message.toWellFormed()];
  return characters.length > MESSAGE_MAX ? `${characters.slice(0, MESSAGE_MAX).join('')}…` : characters.join('');
};

/**
 * A person wants the job to end. The lease epoch is raised, so that whoever is about to move it reads this first; the
 * host hears of it by the change of its commands.
 */
export const cancelRequested = (job: JobView): Transition => ({
  ...emptyTransition(),
  writes: [
    patch(
      'job',
      job.id,
      { state: 'RUNNING', step: job.step, lease_epoch: job.leaseEpoch, cancellable: 1, cancel_requested_at: null },
      { cancel_requested_at: now, lease_epoch: plus(1) },
    ),
  ],
  changes: [
    { kind: 'job', id: job.id },
    ...(job.open?.hostId == null ? [] : [{ kind: 'command' as const, id: job.open.hostId }]),
  ],
});
