import type { ControlApi } from './graphql.ts';
import { JobDisplay, type StepView } from './terminal.ts';

/** As the API gives it: a BigInt is a decimal string. */
interface JobUpdate {
  state: string;
  progressPercent: number;
  etaMs: number | null;
  steps: (Omit<StepView, 'done' | 'total'> & { done: string | null; total: string | null })[];
  error: { code: string; message: string } | null;
}

const JOB_PROGRESS = `subscription($id: ID!) {
  jobProgress(id: $id) {
    state progressPercent etaMs error { code message }
    steps { name direction state done total unit rate etaMs message }
  }
}`;
const OVER = ['SUCCEEDED', 'FAILED', 'CANCELLED', 'NEEDS_ATTENTION'];

/** Draws a job as its steps come over the subscription. Rejects where it ends in anything but success. */
export async function watchJob(api: ControlApi, jobId: string, title: string): Promise<void> {
  const display = new JobDisplay(process.stdout);
  for await (const { jobProgress: job } of api.subscribe<{ jobProgress: JobUpdate }>(JOB_PROGRESS, { id: jobId })) {
    const steps = job.steps.map((step) => ({ ...step, done: toNumber(step.done), total: toNumber(step.total) }));
    display.show({ ...job, title, steps });
    if (job.state === 'SUCCEEDED') return;
    if (OVER.includes(job.state)) {
      throw new Error(`${title}: ${job.state.toLowerCase()}${job.error ? `, ${job.error.message}` : ''}`);
    }
  }
  throw new Error(`${title}: the subscription ended before the job did`);
}

function toNumber(value: string | null): number | null {
  return value === null ? null : Number(value);
}
