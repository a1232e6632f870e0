import type { Answer, Failure, JobView, StepError } from '../domain/job.ts';
import type { JobResolution, JobState, StepDirection } from '../domain/job-state.ts';
import {
  type CommandSpec,
  type Effects,
  type JobIdentity,
  nothing,
  type Step,
  together,
  type Workflow,
} from './workflow.ts';

/** Where a job goes next: to a step that a host does, to its end, or to a person. Decided purely; written by advance.ts. */
export interface Move {
  state: JobState;
  direction: StepDirection;
  /** Steps that need no host: done by the move itself. */
  told: string[];
  open: { spec: CommandSpec; name: string; attempt: number } | null;
  failure: Failure | null;
  /** Percent of the whole before the open step, and what the open step adds. */
  progress: number;
  stepPercent: number;
  cancellable: boolean;
  effects: Effects;
}

const UNDO_ATTEMPTS = 3;
export const CANCELLED: StepError = { code: 'CANCELLED', message: 'Cancelled.' };

/** The first move of a job. */
export function firstMove<C>(workflow: Workflow<C>, job: JobIdentity, context: C): Move {
  return forward(workflow, context, job, 0);
}

/** What the answer to the open step leads to. */
export function moveOnAnswer<C>(workflow: Workflow<C>, job: JobView, answer: Answer): Move {
  const context = job.context as C;
  const open = job.open!;
  const steps = workflow.steps(context);

  if (job.direction === 'UNDO') {
    if (answer.ok) return backward(workflow, job, undosAfter(steps, open.name), job.failure!);
    const spec = undoNamed(steps, open.name);
    return open.attempt < UNDO_ATTEMPTS ? openUndo(spec, open.attempt + 1, job.failure!) : attention(job, answer.error);
  }

  const index = indexOf(steps, open.name);
  const step = steps[index]!;
  if (answer.ok) {
    const done = step.done?.(context, job, answer.result) ?? nothing;
    // A cancel that came too late for the command still stops what would follow. After the last command there is
    // nothing to stop: what the host did is done, and to say otherwise would be untrue.
    const next = steps.slice(index + 1).find((s) => s.command);
    const stops = job.cancelRequested && !passedReturn(steps, index) && next;
    const move = stops
      ? backward(workflow, job, undosFrom(steps, index), { error: CANCELLED, at: next.name })
      : forward(workflow, context, job, index + 1);
    return { ...move, effects: together(done, move.effects) };
  }
  const cancelled = job.cancelRequested || answer.error.code === 'CANCELLED';
  if (!cancelled && open.attempt < (step.attempts ?? 1)) return openStep(steps, index, open.attempt + 1);
  if (passedReturn(steps, index)) return attention(job, answer.error);
  return backward(workflow, job, undosFrom(steps, index), { error: answer.error, at: open.name });
}

/** The host does not answer and nobody can know what became of the command. */
export const moveToAttention = (job: JobView, error: StepError): Move => attention(job, error);

/** What a person decided for a job that needs attention. */
export function moveOnResolution<C>(workflow: Workflow<C>, job: JobView, resolution: JobResolution): Move {
  const context = job.context as C;
  const steps = workflow.steps(context);
  const open = job.open!;
  const undoing = job.direction === 'UNDO';
  switch (resolution) {
    case 'RETRY_STEP':
      return undoing
        ? openUndo(undoNamed(steps, open.name), open.attempt + 1, job.failure!)
        : openStep(steps, indexOf(steps, open.name), open.attempt + 1);
    case 'SKIP_STEP': {
      if (undoing) return backward(workflow, job, undosAfter(steps, open.name), job.failure!);
      // Taken as done, with what belongs to it: else its target would stay as the step found it, for ever.
      const index = indexOf(steps, open.name);
      const done = steps[index]!.done?.(context, job, {}) ?? nothing;
      const move = forward(workflow, context, job, index + 1);
      return { ...move, effects: together(done, move.effects) };
    }
    case 'ROLL_BACK':
      return backward(workflow, job, undosFrom(steps, indexOf(steps, open.name)), job.failure!);
  }
}

/** From `from` on: tells the steps that need no host, opens the first that does. */
function forward<C>(workflow: Workflow<C>, context: C, job: JobIdentity, from: number): Move {
  const steps = workflow.steps(context);
  const next = steps.findIndex((step, index) => index >= from && step.command);
  const passed = steps.slice(from, next === -1 ? undefined : next);
  const told = passed.map((step) => step.name);
  const effects = passed.map((step) => step.done?.(context, job, {}) ?? nothing);
  if (next === -1) {
    return { ...end('SUCCEEDED', null, 100, together(...effects, workflow.succeeded(context, job))), told };
  }
  return { ...openStep(steps, next, 1), told, effects: together(...effects) };
}

/** Opens the first of these undos. None left: the job has ended as its cause says. */
function backward<C>(workflow: Workflow<C>, job: JobView, undos: CommandSpec[], failure: Failure): Move {
  const first = undos[0];
  if (first) return openUndo(first, 1, failure);
  const state = job.cancelRequested || failure.error.code === 'CANCELLED' ? 'CANCELLED' : 'FAILED';
  return end(state, failure, 0, workflow.failed(job.context as C, job, failure.error, failure.at, state));
}

function openStep<C>(steps: Step<C>[], index: number, attempt: number): Move {
  const step = steps[index]!;
  const total = steps.reduce((sum, s) => sum + s.weight, 0) || 1;
  const before = steps.slice(0, index).reduce((sum, s) => sum + s.weight, 0);
  return {
    state: 'RUNNING',
    direction: 'DO',
    told: [],
    open: { spec: step.command!, name: step.name, attempt },
    failure: null,
    progress: (before / total) * 100,
    stepPercent: (step.weight / total) * 100,
    cancellable: !passedReturn(steps, index),
    effects: nothing,
  };
}

const openUndo = (spec: CommandSpec, attempt: number, failure: Failure): Move => ({
  state: 'RUNNING',
  direction: 'UNDO',
  told: [],
  open: { spec, name: spec.name, attempt },
  failure,
  progress: 0,
  stepPercent: 0,
  cancellable: false,
  effects: nothing,
});

/** Keeps the reason for which it was being undone, if it was. */
const attention = (job: JobView, error: StepError): Move => ({
  state: 'NEEDS_ATTENTION',
  direction: job.direction,
  told: [],
  open: null,
  failure: job.direction === 'UNDO' ? job.failure : { error, at: job.open!.name },
  progress: 0,
  stepPercent: 0,
  cancellable: job.cancellable,
  effects: nothing,
});

const end = (state: JobState, failure: Failure | null, progress: number, effects: Effects): Move => ({
  state,
  direction: state === 'SUCCEEDED' ? 'DO' : 'UNDO',
  told: [],
  open: null,
  failure,
  progress,
  stepPercent: 0,
  cancellable: false,
  effects,
});

const indexOf = <C>(steps: Step<C>[], name: string): number => steps.findIndex((step) => step.name === name);

/** Whether the step at `index`, or one before it, leaves no way back. */
const passedReturn = <C>(steps: Step<C>[], index: number): boolean =>
  steps.slice(0, index + 1).some((step) => step.pointOfNoReturn);

/** The undos of the steps up to and with `index`, last first: the failed step may have had an effect too. */
const undosFrom = <C>(steps: Step<C>[], index: number): CommandSpec[] =>
  steps
    .slice(0, index + 1)
    .reverse()
    .flatMap((step) => step.undo ?? []);

function undosAfter<C>(steps: Step<C>[], name: string): CommandSpec[] {
  const all = undosFrom(steps, steps.length - 1);
  return all.slice(all.findIndex((spec) => spec.name === name) + 1);
}

const undoNamed = <C>(steps: Step<C>[], name: string): CommandSpec =>
  undosFrom(steps, steps.length - 1).find((spec) => spec.name === name)!;
