import { type Kysely, sql } from 'kysely';
import type { Database } from '../db/tables.ts';
import type { OpenCommand } from '../db/transition.ts';
import type { JobView } from '../domain/job.ts';

export interface DueJob {
  job: JobView;
  /** The open step as its host knows it; null where none waits for a host. */
  command: OpenCommand | null;
  /** Since the step began. */
  ageMs: number;
}

/** Jobs as the rows say, in the order of `ids`. */
export async function readJobs(db: Kysely<Database>, ids: readonly number[]): Promise<(JobView | null)[]> {
  if (ids.length === 0) return [];
  const rows = await select(db, ids);
  const byId = new Map(rows.map((row) => [row.id, viewOf(row)]));
  return ids.map((id) => byId.get(id) ?? null);
}

export async function readDue(db: Kysely<Database>, ids: readonly number[]): Promise<DueJob[]> {
  const rows = await select(db, ids);
  return rows.map((row) => ({
    job: viewOf(row),
    command:
      row.step_state === 'OPEN' && row.step_host_id !== null
        ? {
            jobId: row.id,
            seq: row.step,
            hostId: row.step_host_id,
            command: row.step_command!,
            vmEpoch: row.step_vm_epoch!,
            timeoutMs: row.step_timeout_ms!,
            payload: row.step_payload!,
          }
        : null,
    ageMs: row.step_age_ms ?? 0,
  }));
}

/**
 * The job that waits longest for each VM; null: none waits. By the database's clock: ids tell nothing of the order, for
 * each process takes them by the thousand.
 */
export async function readFirstQueued(db: Kysely<Database>, vmIds: readonly number[]): Promise<(number | null)[]> {
  const rows = await db
    .selectFrom('job')
    .select(['target_id', 'id'])
    .where('target_kind', '=', 'vm')
    .where('target_id', 'in', [...vmIds])
    .where('state', '=', 'QUEUED')
    .orderBy('created_at', 'desc')
    .orderBy('id', 'desc')
    .execute();
  // Of many with one key the last stays.
  const byVm = new Map(rows.map((row) => [row.target_id, row.id]));
  return vmIds.map((id) => byVm.get(id) ?? null);
}

const select = (db: Kysely<Database>, ids: readonly number[]) =>
  db
    .selectFrom('job as j')
    .leftJoin('job_step as s', (join) => join.onRef('s.job_id', '=', 'j.id').onRef('s.seq', '=', 'j.step'))
    .select([
      'j.id',
      'j.kind',
      'j.state',
      'j.direction',
      'j.step',
      'j.lease_epoch',
      'j.target_kind',
      'j.target_id',
      'j.account_id',
      'j.parent_id',
      'j.actor',
      'j.reason',
      'j.input',
      'j.context',
      'j.cancel_requested_at',
      'j.cancellable',
      'j.error_code',
      'j.error_message',
      'j.failed_step',
      's.name as step_name',
      's.attempt as step_attempt',
      's.state as step_state',
      's.host_id as step_host_id',
      's.command as step_command',
      's.vm_epoch as step_vm_epoch',
      's.timeout_ms as step_timeout_ms',
      's.payload as step_payload',
      sql<number | null>`TIMESTAMPDIFF(MICROSECOND, s.started_at, NOW(6)) DIV 1000`.as('step_age_ms'),
    ])
    .where('j.id', 'in', [...ids])
    .execute();

type Row = Awaited<ReturnType<typeof select>>[number];

const viewOf = (row: Row): JobView => ({
  id: row.id,
  kind: row.kind,
  state: row.state,
  direction: row.direction,
  step: row.step,
  leaseEpoch: row.lease_epoch,
  parentId: row.parent_id,
  target: { kind: row.target_kind, id: row.target_id, accountId: row.account_id },
  actor: row.actor,
  reason: row.reason,
  cancelRequested: row.cancel_requested_at !== null,
  cancellable: row.cancellable === 1,
  failure:
    row.error_code === null
      ? null
      : { error: { code: row.error_code, message: row.error_message ?? '' }, at: row.failed_step ?? '' },
  // A queued job has resolved nothing yet: what it was asked is all there is.
  context: JSON.parse(row.context ?? row.input),
  open:
    row.step_command === null
      ? null
      : {
          name: row.step_name!,
          attempt: row.step_attempt!,
          hostId: row.step_host_id,
          answered: row.step_state !== 'OPEN',
        },
});
