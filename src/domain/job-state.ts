export const JOB_STATES = ['QUEUED', 'RUNNING', 'SUCCEEDED', 'FAILED', 'CANCELLED', 'NEEDS_ATTENTION'] as const;
export type JobState = (typeof JOB_STATES)[number];

/** A job in one of these is never taken up again. */
export const ENDED_JOB_STATES: readonly JobState[] = ['SUCCEEDED', 'FAILED', 'CANCELLED'];
export const isEnded = (state: JobState): boolean => ENDED_JOB_STATES.includes(state);

export type StepDirection = 'DO' | 'UNDO';
export const STEP_STATES = ['OPEN', 'DONE', 'FAILED', 'SKIPPED'] as const;
export type StepState = (typeof STEP_STATES)[number];

/** What a person may decide for a job that needs attention. */
export const JOB_RESOLUTIONS = ['RETRY_STEP', 'SKIP_STEP', 'ROLL_BACK'] as const;
export type JobResolution = (typeof JOB_RESOLUTIONS)[number];

/** What may be decided for a job now. Past the point of no return, and while it is undone, there is no rolling back. */
export function resolutionsOf(job: {
  state: JobState;
  direction: StepDirection;
  cancellable: boolean;
}): JobResolution[] {
  if (job.state !== 'NEEDS_ATTENTION') return [];
  return job.direction === 'DO' && job.cancellable ? [...JOB_RESOLUTIONS] : ['RETRY_STEP', 'SKIP_STEP'];
}
