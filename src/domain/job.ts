import type { JobState, StepDirection } from './job-state.ts';
import type { TargetKind } from './kinds.ts';

/**
 * A running job as a process remembers it between two steps. Never trusted: the guards of the next write compare it
 * with the row.
 */
export interface JobView {
  id: number;
  kind: string;
  state: JobState;
  direction: StepDirection;
  /** Seq of the open step. */
  step: number;
  leaseEpoch: number;
  /** The job that this one is a part of, or tries again. */
  parentId: number | null;
  /** With the account that owns it; null: the operator's alone. */
  target: { kind: TargetKind; id: number; accountId: number | null };
  actor: string;
  reason: string | null;
  cancelRequested: boolean;
  cancellable: boolean;
  /** Why it is being undone, or needs attention. */
  failure: Failure | null;
  /** What was resolved when the job began; typed by its workflow. */
  context: unknown;
  /** The open step, or the one that a person must decide about; null once the job has ended. */
  open: { name: string; attempt: number; hostId: number | null; answered: boolean } | null;
}

export interface Failure {
  error: StepError;
  /** Step at which it happened. */
  at: string;
}

/** What a host says of a command. */
export type Answer = { ok: true; result: CommandResult } | { ok: false; error: StepError };

/** Fields that only some commands answer. */
export interface CommandResult {
  virtualBytes?: number | null | undefined;
  fileBytes?: number | null | undefined;
  sha256?: string | null | undefined;
  base64?: string | null | undefined;
}

export interface StepError {
  /** A CommandErrorCode of the host's, or one of our own. */
  code: string;
  message: string;
}
