import { emptyTransition, merged, patch, plus, type Transition } from '../db/transition.ts';
import { VirtgraphError } from '../domain/errors.ts';
import { encodeId } from '../domain/ids.ts';
import { COMPOUNDS } from '../jobs/compound.ts';
import { compoundJob } from './compound-job.ts';
import type { OpsContext } from './context.ts';
import { INPUTS } from './inputs.ts';
import { type Asker, type Decision, mutation } from './mutation.ts';
import { type Extras, findToChange, NOUN, type RowOf, removal, switched, switching } from './named-resource.ts';
import { mustHaveRightWith } from './rights.ts';

type Kind = 'account' | 'domain';
type Guarded<K extends Kind> = Extras<K> & Required<Pick<Extras<K>, 'guard'>>;

/**
 * Deletes what is empty; or, with `cascade`, disables it and begins a job that deletes all that is inside and then it.
 * `dryRun` checks the same and does nothing.
 */
function deletionWithAll<K extends Kind>(kind: K, extras: Guarded<K>) {
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
    return input.dryRun ? { kind: 'already', id: row.id } : disabledWithJob(context, 'DELETE', kind, row, asker, input);
  };
}

/** Disables; with `stopVms`, begins a job that stops what runs inside. */
function disablingWithVms<K extends Kind>(kind: K, extras: Guarded<K>) {
  const alone = switching(kind, 'DISABLED', extras);
  return async (
    context: OpsContext,
    input: { id: string; stopVms?: boolean | null | undefined },
    asker: Asker,
  ): Promise<Decision> => {
    if (!input.stopVms) return alone(context, input, asker);
    const row = await findToChange(context, kind, input.id, asker);
    await extras.guard(context, row, asker, 'DISABLED');
    await mustHaveRightInside(context, { ...asker, verb: 'operate' }, kind, row, 'vm');
    return disabledWithJob(context, 'STOP', kind, row, asker, input);
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

/**
 * Disables what is not, and begins the job. It is a change of the row in either case, so that of two who begin one at the
 * same moment the second is stale, reads anew, and finds the job of the first.
 *
 * @throws VirtgraphError CONFLICT while such a job is at work on it
 */
async function disabledWithJob<K extends Kind>(
  context: OpsContext,
  what: 'DELETE' | 'STOP',
  kind: K,
  row: RowOf<K>,
  asker: Asker,
  input: unknown,
): Promise<Decision> {
  const { id, generation } = row;
  await mustBeAtRest(context, kind, id);
  const { jobId, transition } = await compoundJob(context, `${what}_${kind.toUpperCase()}`, { kind, id }, asker, input);
  const disabled = switched(kind, row, asker, 'DISABLED');
  const change: Transition =
    disabled.kind === 'write'
      ? disabled.transition
      : {
          ...emptyTransition(),
          writes: [patch(kind as Kind, id, { generation, deleted_at: null }, { generation: plus(1) })],
          changes: [{ kind, id }],
        };
  return { kind: 'write', id, jobId, transition: merged(change, transition) };
}

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

/** enable, disable and delete of what holds others, by the names of their mutations. */
export const switchesWithAll = <K extends Kind>(kind: K, noun: Capitalize<Kind>, extras: Guarded<K>) => ({
  enable: mutation(
    `enable${noun}`,
    { verb: 'update', kind },
    INPUTS[`enable${noun}`],
    switching(kind, 'ENABLED', extras),
  ),
  disable: mutation(
    `disable${noun}`,
    { verb: 'update', kind },
    INPUTS[`disable${noun}`],
    disablingWithVms(kind, extras),
  ),
  remove: mutation(`delete${noun}`, { verb: 'delete', kind }, INPUTS[`delete${noun}`], deletionWithAll(kind, extras)),
});
