import { visible } from '../db/visible.ts';
import { notFound, VirtgraphError } from '../domain/errors.ts';
import { decodeIdOf } from '../domain/ids.ts';
import type { JobView } from '../domain/job.ts';
import { isEnded, resolutionsOf } from '../domain/job-state.ts';
import { cancelledStuck, cancelRequested, endQueued, resolved } from '../jobs/advance.ts';
import { COMPOUNDS } from '../jobs/compound.ts';
import { readJobs } from '../jobs/job-read.ts';
import { CANCELLED } from '../jobs/move.ts';
import { workflowOf } from '../jobs/registry.ts';
import { ACTION_OF_KIND, type VmRequest } from '../jobs/vm-plan.ts';
import { cancelledCompound } from './compound-job.ts';
import type { OpsContext } from './context.ts';
import { INPUTS } from './inputs.ts';
import { type Asker, type Decision, mutation } from './mutation.ts';
import { mustHaveRightWith } from './rights.ts';
import { actOn, verbOf } from './vm.ts';
import { createAgain } from './vm-create.ts';

/** @throws VirtgraphError NOT_FOUND, FORBIDDEN */
async function findJob(context: OpsContext, id: string, asker: Asker): Promise<JobView & { input: unknown }> {
  const uid = decodeIdOf('job', id);
  const row =
    uid &&
    (await context.db
      .selectFrom('job')
      .select(['id', 'input'])
      .where('uid', '=', uid)
      .where(visible(asker.actor, 'job'))
      .executeTakeFirst());
  const job = row && (await readJobs(context.db, [row.id]))[0];
  if (!job) throw notFound('job', ['id']);
  await mustHaveRightWith(context, asker, 'job', { account_id: job.target.accountId });
  return { ...job, input: JSON.parse(row.input) };
}

const written = (job: JobView, transition: ReturnType<typeof resolved>): Decision => ({
  kind: 'write',
  id: job.id,
  jobId: job.id,
  transition,
});

/** Ends a queued job at once; asks the host to end what it does for a running one, which is then undone. */
export const cancelJob = mutation(
  'cancelJob',
  { verb: 'operate', kind: 'job' },
  INPUTS.cancelJob,
  async (context, input, asker) => {
    const job = await findJob(context, input.id, asker);
    // First of all: a job whose host fell silent before it heard of the cancel would else wait for ever.
    if (resolutionsOf(job).includes('ROLL_BACK')) return written(job, cancelledStuck(workflowOf(job.kind), job));
    if (job.state === 'CANCELLED' || (job.cancelRequested && !isEnded(job.state)))
      return { kind: 'already', id: job.id };
    if (job.state === 'QUEUED') return written(job, endQueued(job, 'CANCELLED', CANCELLED));
    if (job.state === 'RUNNING' && job.cancellable && job.kind in COMPOUNDS)
      return written(job, await cancelledCompound(context, job));
    if (job.state === 'RUNNING' && job.cancellable) return written(job, cancelRequested(job));
    throw new VirtgraphError({
      code: 'NOT_CANCELLABLE',
      message: isEnded(job.state)
        ? `The job has ended: ${job.state}.`
        : 'The job is past the point of no return, or is being undone already.',
      path: ['id'],
    });
  },
);

/** What a person decides for a job that needs attention. */
export const resolveJob = mutation(
  'resolveJob',
  { verb: 'update', kind: 'job' },
  INPUTS.resolveJob,
  async (context, input, asker) => {
    const job = await findJob(context, input.id, asker);
    const choices = resolutionsOf(job);
    if (!choices.includes(input.resolution)) {
      throw new VirtgraphError({
        code: 'INVALID_STATE',
        message:
          choices.length === 0
            ? `The job is ${job.state}; there is nothing to decide.`
            : `It can be: ${choices.join(', ')}.`,
        path: ['resolution'],
        state: job.state,
        allowedActions: choices,
      });
    }
    if (input.resolution === 'SKIP_STEP' && !input.reason?.trim()) {
      throw new VirtgraphError({
        code: 'INVALID_INPUT',
        message: 'Skipping a step needs a reason: it may leave something behind.',
        path: ['reason'],
      });
    }
    return written(job, resolved(workflowOf(job.kind), job, input.resolution));
  },
);

/** The same once more: the open step of a job that needs attention, or a failed job as a new one. */
export const retryJob = mutation(
  'retryJob',
  { verb: 'operate', kind: 'job' },
  INPUTS.retryJob,
  async (context, input, asker) => {
    const job = await findJob(context, input.id, asker);
    if (job.state === 'NEEDS_ATTENTION') return written(job, resolved(workflowOf(job.kind), job, 'RETRY_STEP'));
    if (job.state !== 'FAILED' && job.state !== 'CANCELLED') throw notRetryable(job, `The job is ${job.state}.`);
    const decision = await again(context, job, asker);
    // The payload is about jobs, so it names the new one, not its target.
    return decision.kind === 'write' ? { ...decision, id: decision.jobId } : { kind: 'already', id: job.id };
  },
);

async function again(context: OpsContext, job: JobView & { input: unknown }, asker: Asker): Promise<Decision> {
  const act = ACTION_OF_KIND[job.kind];
  const isCreate = job.kind === 'CREATE_VM';
  if (job.target.kind !== 'vm' || (!act && !isCreate))
    throw notRetryable(job, 'A job of this kind is begun anew by its own mutation.');
  const vm = await context.db
    .selectFrom('vm')
    .selectAll()
    .where('id', '=', job.target.id)
    .where('deleted_at', 'is', null)
    .executeTakeFirst();
  if (!vm) throw notRetryable(job, 'Its VM is no more.');
  // It is the same as its own mutation again, whoever began it first.
  await mustHaveRightWith(context, { ...asker, verb: act ? verbOf(act) : 'create' }, 'vm', vm);
  if (act) return actOn(context, vm, act, job.input as VmRequest, asker, job.id);
  if (vm.state !== 'ERROR') throw notRetryable(job, `Its VM is ${vm.state}.`);
  return createAgain(context, vm, asker.actor, {
    id: job.id,
    actor: asker.name,
    reason: asker.reason,
    input: job.input,
  });
}

const notRetryable = (job: JobView, message: string): VirtgraphError =>
  new VirtgraphError({ code: 'INVALID_STATE', message, path: ['id'], state: job.state, allowedActions: [] });
