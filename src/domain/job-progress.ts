import type { StepProgress } from './host-agent.ts';

/**
 * How far a job is, in percent: what its row says, plus the share of the open step that its host has told since.
 *
 * @param job `progress` and `step_percent` in percent of the whole, `step` the seq of the open step
 */
export function livePercent(
  job: { progress: number; step_percent: number; step: number },
  live: StepProgress | null,
): number {
  if (live === null || live.seq !== job.step || live.total <= 0) return job.progress;
  const share = Math.min(1, Math.max(0, live.done / live.total));
  return Math.min(100, job.progress + job.step_percent * share);
}

/** Milliseconds until the open step is done at its present rate; null when that can't be said. */
export function etaMs(progress: { done: number; total: number; rate: number | null }): number | null {
  if (progress.rate === null || progress.rate <= 0) return null;
  return Math.max(0, Math.round(((progress.total - progress.done) / progress.rate) * 1000));
}
