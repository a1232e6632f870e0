import type { Change, NewEvent, Write } from '../db/transition.ts';
import type { CommandResult, JobView, StepError } from '../domain/job.ts';

/**
 * A workflow is data: steps with do and undo, and what its ends write. Everything in it is a pure function of the
 * context that was resolved when the job began, so any process can take the job up at any step.
 */
export interface Workflow<C = unknown> {
  kind: string;
  /** Raised when steps change their meaning; a job keeps the one it began with. */
  version: number;
  steps(context: C): Step<C>[];
  /** Written with the job's acceptance: state, claim, reservation. */
  begin(context: C, job: JobIdentity): Effects;
  succeeded(context: C, job: JobIdentity): Effects;
  /** After everything was undone. `end`: whether by failure or cancel. `at` is the step that failed. */
  failed(context: C, job: JobIdentity, error: StepError, at: string, end: 'FAILED' | 'CANCELLED'): Effects;
}

export type JobIdentity = Pick<JobView, 'id' | 'actor' | 'reason' | 'target'>;

export interface Step<C> {
  /** Unique in its workflow. */
  name: string;
  /** Share of the job's progress, against the other steps. */
  weight: number;
  /** Absent: the step is done by the transition itself and only told. */
  command?: CommandSpec;
  /** Tries, the first included. */
  attempts?: number;
  /** Commands that take back what the step did, or may have done. */
  undo?: CommandSpec[];
  /** Written with the step's end. */
  done?(context: C, job: JobIdentity, result: CommandResult): Effects;
  /** From here on the job goes only forward: it can't be cancelled, and its failure needs a person. */
  pointOfNoReturn?: true;
}

/** A row of hostd's command table, with its arguments. */
export interface CommandSpec {
  name: string;
  command: CommandKind;
  hostId: number;
  epoch: number;
  timeoutMs: number;
  payload: Record<string, unknown>;
}

export type CommandKind =
  | 'InspectImageCommand'
  | 'PrepareTemplateCommand'
  | 'CreateVolumeCommand'
  | 'DeleteVolumeCommand'
  | 'StartVmCommand'
  | 'StopVmCommand'
  | 'ControlVmCommand'
  | 'RemoveVmCommand';

export interface Effects {
  writes: Write[];
  changes: Change[];
  events: NewEvent[];
}

export const nothing: Effects = { writes: [], changes: [], events: [] };

export function together(...all: Effects[]): Effects {
  return {
    writes: all.flatMap((e) => e.writes),
    changes: all.flatMap((e) => e.changes),
    events: all.flatMap((e) => e.events),
  };
}
