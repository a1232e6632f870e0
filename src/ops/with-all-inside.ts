import type { Transition } from '../db/transition.ts';
import { VirtgraphError } from '../domain/errors.ts';
import { encodeId } from '../domain/ids.ts';
import { COMPOUNDS } from '../jobs/compound.ts';
import { compoundJob } from './compound-job.ts';
import type { OpsContext } from './context.ts';
import type { Asker, Decision } from './mutation.ts';
import { type Extras, findToChange, NOUN, removal, switching } from './named-resource.ts';
import { mustHaveRightWith } from './rights.ts';

type Kind = 'account' | 'domain';

/**
 * Deletes what is empty; or, with `cascade`, disables it and begins a job that deletes all that is inside and then it.
 * `dryRun` checks the same and does nothing.
 */
export function deletionWithAll<K extends Kind>(kind: K, extras: Required<Pick<Extras<K>, 'guard'>> & Extras<K>) {
  const alone = removal(kind, extras);
  return async (
    context: OpsContext,
    input: { id: string; cascade?: boolean | null | undefined; dryRun?: boolean | null | undefined },
    asker: Asker,
  ): Promise<Decision> => {
    if (!input.cascade && !input.dryRun) return alone(context, input, asker);
    const row = await findToChange(context, kind, input.id, asker);
    await extras.guard(context, row, asker, 'DELETED');
    for (const gone of ['vm', 'user'] as const)
      await mustHaveRightInside(context, { ...asker, verb: 'delete' }, kind, row, gone);
    // All users inside are shut out at once.
    await extras.guard(context, row, asker, 'DISABLED');
    if (input.dryRun) return { kind: 'already', id: row.id };
    await mustBeAtRest(context, kind, row.id);
    const job = await compoundJob(context, `DELETE_${kind.toUpperCase()}`, { kind, id: row.id }, asker, input);
    const disabled = await switching(kind, 'DISABLED', extras)(context, input, asker);
    return withJob(row.id, disabled, job);
  };
}

/** Disables; with `stopVms`, begins a job that stops what runs inside. */
export function disablingWithVms<K extends Kind>(kind: K, extras: Extras<K>) {
  const alone = switching(kind, 'DISABLED', extras);
  return async (
    context: OpsContext,
    input: { id: string; stopVms?: boolean | null | undefined },
    asker: Asker,
  ): Promise<Decision> => {
    const disabled = await alone(context, input, asker);
    if (!input.stopVms) return disabled;
    const id = disabled.id!;
    await mustHaveRightInside(context, { ...asker, verb: 'operate' }, kind, { id }, 'vm');
    await mustBeAtRest(context, kind, id);
    return withJob(id, disabled, await compoundJob(context, `STOP_${kind.toUpperCase()}`, { kind, id }, asker, input));
  };
}

/** What a job does to all that is inside is no more than whoever begins it may do to each. @throws VirtgraphError FORBIDDEN */
const mustHaveRightInside = (
  context: OpsContext,
  asker: Asker,
  kind: Kind,
  { id }: { id: number },
  what: 'vm' | 'user',
): Promise<void> => mustHaveRightWith(context, asker, what, { account_id: kind === 'account' ? id : null });

const withJob = (
  id: number,
  decision: Decision,
  { jobId, transition }: { jobId: number; transition: Transition },
): Decision => ({
  kind: 'write',
  id,
  jobId,
  transition: decision.kind === 'already' ? transition : both(decision.transition, transition),
});

const both = (a: Transition, b: Transition): Transition => ({
  writes: [...a.writes, ...b.writes],
  changes: [...a.changes, ...b.changes],
  events: [...a.events, ...b.events],
  audits: [...a.audits, ...b.audits],
  commands: [...a.commands, ...b.commands],
  jobs: [...a.jobs, ...b.jobs],
});

/** @throws VirtgraphError CONFLICT while such a job is at work on it */
async function mustBeAtRest({ db }: OpsContext, kind: Kind, id: number): Promise<void> {
  const job = await db
    .selectFrom('job')
    .select(['uid', 'kind'])
    .where('target_kind', '=', kind)
    .where('target_id', '=', id)
    .where('state', '=', 'RUNNING')
    .where('kind', 'in', Object.keys(COMPOUNDS))
    .executeTakeFirst();
  if (!job) return;
  throw new VirtgraphError({
    code: 'CONFLICT',
    message: `The job ${encodeId('job', job.uid)} is at work on this ${NOUN[kind]} already.`,
    path: ['id'],
  });
}
