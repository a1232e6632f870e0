import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { sql } from 'kysely';
import pino from 'pino';
import { type Core, createCore } from '../../src/core.ts';
import type { Job } from '../../src/db/tables.ts';
import type { Actor } from '../../src/domain/authorize.ts';
import { encodeId } from '../../src/domain/ids.ts';
import { ENDED_JOB_STATES } from '../../src/domain/job-state.ts';
import { auditCounters } from '../../src/loops/audit.ts';

export const ADMIN: Actor = { kind: 'root-admin', tokenId: 1, name: 'root-admin' };

/** Longer than any job here takes on a busy machine: what ends it is a fault, never the clock. */
const PATIENCE_MS = 10_000;

/** A log whose lines a test can read. */
export function recordingLog(): { log: pino.Logger; lines: Record<string, unknown>[] } {
  const lines: Record<string, unknown>[] = [];
  const log = pino({ level: 'debug' }, { write: (line: string) => void lines.push(JSON.parse(line)) });
  return { log, lines };
}

/** Cores of one test work on one database. */
const SEALING_KEY = randomBytes(32);

/** A control plane without its loops: whoever needs a round of one calls it. */
export async function openCore(databaseUrl: string, log: pino.Logger = pino({ level: 'silent' })): Promise<Core> {
  const core = createCore({ databaseUrl, sealingKey: SEALING_KEY, log, readConnections: 4 });
  await core.start();
  return core;
}

/** From now on nothing that this core writes is ever answered, as if its process had been frozen. @returns the thaw */
export function freeze(core: Core): () => void {
  const { writer } = core;
  const submit = writer.submit;
  writer.submit = () => new Promise<never>(() => undefined);
  return () => {
    writer.submit = submit;
  };
}

/**
 * Lets each of two cores hear of the other's commits as soon as they are told, instead of by a poll.
 *
 * @returns a function that ends it
 */
export function follow(a: Core, b: Core): () => Promise<void> {
  const ends: (() => Promise<void>)[] = [];
  for (const [from, to] of [
    [a, b],
    [b, a],
  ] as const) {
    let reading: Promise<void> = Promise.resolve();
    const stop = from.feed.listen((_changes, origin) => {
      if (origin === 'self') reading = reading.then(() => to.feed.tail());
    });
    ends.push(() => {
      stop();
      return reading;
    });
  }
  return async () => {
    for (const end of ends) await end();
  };
}

/** Resolves with what `look` finds, which is asked again after each commit of this core. */
export async function until<T>(core: Core, what: string, look: () => Promise<T | null | false>): Promise<T> {
  const { promise, resolve, reject } = Promise.withResolvers<T>();
  const again = (): void => void look().then((found) => found && resolve(found), reject);
  const stop = core.feed.listen(again);
  const timer = setTimeout(() => reject(new Error(`waited in vain: ${what}`)), PATIENCE_MS);
  again();
  try {
    return await promise;
  } finally {
    clearTimeout(timer);
    stop();
  }
}

export const jobRow = (core: Core, jobId: number): Promise<Job> =>
  core.db.selectFrom('job').selectAll().where('id', '=', jobId).executeTakeFirstOrThrow();

/** The job, once nothing more happens to it by itself: it has ended, or a person must decide. */
export const jobEnded = (core: Core, jobId: number): Promise<Job> =>
  until(core, `the end of job ${jobId}`, async () => {
    const job = await jobRow(core, jobId);
    return job.state === 'NEEDS_ATTENTION' || ENDED_JOB_STATES.includes(job.state) ? job : null;
  });

export const jobIs = (core: Core, jobId: number, state: Job['state']): Promise<Job> =>
  until(core, `job ${jobId} to be ${state}`, async () => {
    const job = await jobRow(core, jobId);
    return job.state === state ? job : null;
  });

export const publicJobId = async (core: Core, jobId: number): Promise<string> =>
  encodeId('job', (await jobRow(core, jobId)).uid);

/** The job's time has run out, and its open step began so long ago. */
export async function makeDue(core: Core, jobId: number, ageMs = 0): Promise<void> {
  await core.db.updateTable('job').set({ due_at: sql<Date>`NOW(6)` }).where('id', '=', jobId).execute();
  if (ageMs === 0) return;
  await core.db
    .updateTable('job_step')
    .set({ started_at: sql<Date>`NOW(6) - INTERVAL ${ageMs * 1000} MICROSECOND` })
    .where('job_id', '=', jobId)
    .where('state', '=', 'OPEN')
    .execute();
}

/**
 * The job's time has run out, and it is taken up: by the first look that finds its row unlocked. One that somebody writes
 * at this very moment, be it a repeated answer that changes nothing, is left to the next look, as the product does.
 */
export async function takenUp(core: Core, jobId: number): Promise<void> {
  const before = (await jobRow(core, jobId)).lease_epoch;
  await makeDue(core, jobId);
  do await core.engine.claimDue();
  while ((await jobRow(core, jobId)).lease_epoch === before);
}

/** Nothing is left of jobs that have ended: no counter is off, no step open, no claim, reservation or half volume. */
export async function assertClean(core: Core): Promise<void> {
  const { db } = core;
  const openSteps = await db
    .selectFrom('job_step as s')
    .innerJoin('job as j', 'j.id', 's.job_id')
    .select(['s.job_id', 's.seq', 's.name', 'j.state'])
    .where('s.state', '=', 'OPEN')
    .where('j.state', 'not in', ['RUNNING', 'NEEDS_ATTENTION'])
    .execute();
  const claimed = await db
    .selectFrom('vm as v')
    .innerJoin('job as j', 'j.id', 'v.active_job_id')
    .select(['v.id', 'v.state', 'j.kind', 'j.state as job_state'])
    .where('j.state', 'in', [...ENDED_JOB_STATES])
    .execute();
  const claimedTemplates = await db
    .selectFrom('template as t')
    .innerJoin('job as j', 'j.id', 't.active_job_id')
    .select(['t.id', 't.state'])
    .where('j.state', 'in', [...ENDED_JOB_STATES])
    .execute();
  // Only a job may leave a VM in one of these, while it is at work.
  const adrift = await db
    .selectFrom('vm')
    .select(['id', 'state'])
    .where('state', 'in', ['CREATING', 'STARTING', 'STOPPING', 'EXPUNGING'])
    .where('active_job_id', 'is', null)
    .execute();
  const halfVolumes = await db
    .selectFrom('volume as v')
    .innerJoin('vm', 'vm.id', 'v.vm_id')
    .select(['v.id', 'v.state', 'vm.state as vm_state'])
    .where('v.state', 'in', ['CREATING', 'DELETING'])
    .where('vm.active_job_id', 'is', null)
    .execute();
  const halfTemplates = await db
    .selectFrom('template')
    .select(['id'])
    .where('state', '=', 'REGISTERING')
    .where('active_job_id', 'is', null)
    .execute();
  const placeless = await db
    .selectFrom('reservation as r')
    .innerJoin('vm as v', 'v.id', 'r.vm_id')
    .select(['v.id', 'v.state'])
    .where('v.host_id', 'is', null)
    .execute();
  assert.deepEqual(
    {
      drift: await auditCounters(db),
      openSteps,
      claimed,
      claimedTemplates,
      adrift,
      halfVolumes,
      halfTemplates,
      placeless,
    },
    {
      drift: [],
      openSteps: [],
      claimed: [],
      claimedTemplates: [],
      adrift: [],
      halfVolumes: [],
      halfTemplates: [],
      placeless: [],
    },
  );
}

/** Does something else between what an operation has read and what it writes. */
export function beforeNextWrite(of: Core, meanwhile: () => Promise<unknown>): void {
  const { submit } = of.writer;
  of.writer.submit = async (transition) => {
    of.writer.submit = submit;
    await meanwhile();
    return of.writer.submit(transition);
  };
}
