import { setImmediate } from 'node:timers';
import DataLoader from 'dataloader';
import { type Kysely, sql } from 'kysely';
import type { Logger } from 'pino';
import type { Inventory } from '../db/inventory.ts';
import { locking } from '../db/pool.ts';
import type { Database } from '../db/tables.ts';
import { type Change, emptyTransition, type OpenCommand, type Outcome, type Transition } from '../db/transition.ts';
import type { Writer } from '../db/writer.ts';
import { VirtgraphError } from '../domain/errors.ts';
import type { Answer, JobView, StepError } from '../domain/job.ts';
import { isEnded } from '../domain/job-state.ts';
import { ASK_AGAIN_MS, answered, beginQueued, endQueued, stuck } from './advance.ts';
import { COMPOUNDS } from './compound.ts';
import { type DueJob, readDue, readFirstQueued, readJobs } from './job-read.ts';
import { overQuota } from './quota.ts';
import { workflowOf } from './registry.ts';
import { ACTION_OF_KIND, planVm, type VmRequest } from './vm-plan.ts';

export interface EngineOptions {
  db: Kysely<Database>;
  writer: Writer;
  inventory: Inventory;
  /** Brings the inventory up to all that was committed before. */
  catchUp: () => Promise<void>;
  /** Sends a command if its host is linked here; false: it is not. */
  deliver: (command: OpenCommand) => boolean;
  /** Does a round of a job whose steps are other jobs, soon. */
  round: (jobId: number) => void;
  /** This process, as the owner of leases. */
  owner: string;
  log: Logger;
}

const CLAIM_AT_ONCE = 200;
const STALE_TRIES = 4;
/** Of a queued job whose VM has changed, or whose place was taken, while it was planned. */
const PROMOTE_TRIES = 3;
/** How long past its time-out a command may stay unanswered by a host that is not connected. */
const UNREACHABLE_GRACE_MS = 60_000;
/** The same for one that is: it restarts commands when it restarts, so it gets more. */
const CONNECTED_GRACE_MS = 900_000;

/** `repeat`: of a step that is not open, whoever was asked; `foreign`: of one that another host was asked. */
export type AnswerVerdict = 'taken' | 'repeat' | 'foreign';

/**
 * Moves jobs on: by what hosts answer, by time that has run out, by a target that has become free. It holds no thread
 * and no lease while a job waits; what it remembers is a hint that the guards of each write check.
 */
export class Engine {
  readonly #o: EngineOptions;
  readonly #known = new Map<number, JobView>();
  /** Reads of many answers in one message become one. */
  readonly #read: DataLoader<number, JobView | null>;
  /** The job that waits longest for a VM. Asked at the end of every job, so those of one commit are asked together. */
  readonly #firstQueued: DataLoader<number, number | null>;
  readonly counts = { answers: 0, repeats: 0, claims: 0, foreign: 0 };

  constructor(options: EngineOptions) {
    this.#o = options;
    this.#read = new DataLoader((ids) => readJobs(options.db, ids), { cache: false });
    this.#firstQueued = new DataLoader((vmIds) => readFirstQueued(options.db, vmIds), {
      cache: false,
      batchScheduleFn: setImmediate,
    });
  }

  /** To be called with everything that was committed: commands leave only once they are durable. */
  committed(transitions: Transition[]): void {
    for (const { jobs, commands } of transitions) {
      for (const job of jobs) {
        if (job.open && !isEnded(job.state)) this.#known.set(job.id, job);
        else this.#known.delete(job.id);
        // Its target is free, or a job waits that may begin: either way the queue is looked at.
        if (isEnded(job.state) || job.state === 'QUEUED') this.#promoteSoon(job.target);
        if (isEnded(job.state) && job.parentId !== null) this.#o.round(job.parentId);
        if (isCompound(job) && !isEnded(job.state)) this.#o.round(job.id);
      }
      for (const command of commands) this.#o.deliver(command);
    }
  }

  /** Jobs that another process has moved. */
  forget(changes: readonly Change[]): void {
    for (const { kind, id } of changes) if (kind === 'job') this.#known.delete(id);
  }

  /**
   * Records what a host says of a command and moves the job on; durable when it resolves. Repeats, and answers to a
   * step that is no longer open, change nothing; nor do those of a host that was not asked.
   */
  async answer(hostId: number, jobId: number, seq: number, told: Answer): Promise<AnswerVerdict> {
    this.counts.answers++;
    let answer = told;
    for (let attempt = 1; attempt <= STALE_TRIES; attempt++) {
      const known = attempt === 1 ? this.#known.get(jobId) : undefined;
      const job = known?.step === seq ? known : await this.#read.load(jobId);
      if (!job?.open || job.open.answered || job.step !== seq || isEnded(job.state) || job.state === 'QUEUED') {
        this.counts.repeats++;
        return 'repeat';
      }
      if (job.open.hostId !== hostId) {
        this.counts.foreign++;
        this.#o.log.warn({ hostId, jobId, seq }, 'a host answered a command that is not its own; ignored');
        return 'foreign';
      }
      const transition = answered(workflowOf(job.kind), job, answer);
      const outcome = await this.#move(job, transition);
      if (outcome === 'written') return 'taken';
      // What the host did may not be kept: for the job it has failed, and is undone.
      const over = outcome === 'full' && answer.ok ? await overQuota(this.#o.inventory, transition) : null;
      if (over) answer = { ok: false, error: over };
    }
    await this.#quarantine(jobId, seq);
    return 'taken';
  }

  /** Written, or why not: mostly because the job is no longer as it was seen. */
  async #move(job: JobView, transition: Transition): Promise<Outcome['kind']> {
    this.#known.delete(job.id);
    return (await this.#o.writer.submit(transition)).kind;
  }

  #promoteSoon(target: JobView['target']): void {
    this.promote(target).catch((error: unknown) =>
      // The queued job's time runs out, and whoever takes it up tries again.
      this.#o.log.warn({ err: error, target }, 'a queue could not be looked at'),
    );
  }

  /** A job whose move is refused although nobody else has moved it would be tried for ever: a person must look. */
  async #quarantine(jobId: number, seq: number): Promise<void> {
    const job = await this.#read.load(jobId);
    if (!job?.open || job.open.answered || job.step !== seq || isEnded(job.state)) return;
    this.#o.log.error({ jobId, seq, kind: job.kind }, 'a move of this job is refused again and again');
    const error = { code: 'INTERNAL', message: 'What this step would write no longer fits the state of its target.' };
    await this.#o.writer.submit(stuck(job, error));
  }

  /** Lets the next queued job of a target begin, if nothing holds it. Safe to call at any time, by anyone. */
  async promote(target: JobView['target']): Promise<void> {
    if (target.kind !== 'vm') return;
    for (let tries = 0; tries < PROMOTE_TRIES; ) {
      const next = await this.#firstQueued.load(target.id);
      const job = next && (await this.#read.load(next));
      const vm = job && (await this.#o.db.selectFrom('vm').selectAll().where('id', '=', target.id).executeTakeFirst());
      if (!vm || vm.active_job_id !== null) return;
      const { transition, settle } = await this.#planQueued(job, vm);
      let written = false;
      try {
        const outcome = await this.#o.writer.submit(transition);
        written = outcome.kind === 'written';
        if (outcome.kind === 'full') await this.#o.inventory.doubt(transition.writes);
      } finally {
        // Also when the database has gone away meanwhile: else the room would be held for ever.
        settle(written);
      }
      if (!written) tries++;
      else if (transition.jobs[0]!.state === 'RUNNING') return;
    }
  }

  async #planQueued(
    job: JobView,
    vm: Parameters<typeof planVm>[1],
  ): Promise<{ transition: Transition; settle: (taken: boolean) => void }> {
    const settle = (): void => undefined;
    await this.#o.catchUp();
    try {
      const plan = await planVm(this.#o, vm, ACTION_OF_KIND[job.kind]!, job.context as VmRequest);
      if (plan.kind === 'already') return { transition: endQueued(job, 'SUCCEEDED', null), settle };
      return { transition: beginQueued(plan.workflow, job, plan.context), settle: plan.settle };
    } catch (error) {
      if (!(error instanceof VirtgraphError)) throw error;
      return { transition: endQueued(job, 'FAILED', { code: error.code, message: error.message }), settle };
    }
  }

  /**
   * Takes up jobs whose time has run out, whoever had them. The claim raises the lease epoch, so whatever the former
   * owner still writes hits zero rows. Then the host is asked again: its journal knows what became of the command.
   */
  async claimDue(): Promise<number> {
    const ids = await this.#claim();
    if (ids.length === 0) return 0;
    this.counts.claims += ids.length;
    const due = await readDue(this.#o.db, ids);
    const elsewhere = new Set<number>();
    for (const item of due) {
      this.#known.delete(item.job.id);
      try {
        await this.#takeUp(item, elsewhere);
      } catch (error) {
        // One job that can't be taken up must not hold back the others; its time runs out again.
        this.#o.log.error({ err: error, jobId: item.job.id }, 'a job could not be taken up');
      }
    }
    if (elsewhere.size > 0) {
      const changes = [...elsewhere].map((id) => ({ kind: 'command' as const, id }));
      await this.#o.writer.submit({ ...emptyTransition(), changes });
    }
    return ids.length;
  }

  async #takeUp({ job, command, ageMs }: DueJob, elsewhere: Set<number>): Promise<void> {
    if (job.state === 'QUEUED') return this.promote(job.target);
    if (isCompound(job)) return this.#o.round(job.id);
    if (!command) return;
    const connected = this.#o.inventory.get('host', command.hostId)?.link_state === 'UP';
    if (ageMs > command.timeoutMs + (connected ? CONNECTED_GRACE_MS : UNREACHABLE_GRACE_MS)) {
      await this.#o.writer.submit(stuck(job, unanswered(connected)));
      return;
    }
    if (!this.#o.deliver(command)) elsewhere.add(command.hostId);
  }

  async #claim(): Promise<number[]> {
    return locking(this.#o.db, async (tx) => {
      const rows = await tx
        .selectFrom('job')
        .select('id')
        .where('due_at', '<=', sql<string>`NOW(6)`)
        .orderBy('due_at')
        .limit(CLAIM_AT_ONCE)
        .forUpdate()
        .skipLocked()
        .execute();
      const ids = rows.map((row) => row.id).sort((a, b) => a - b);
      if (ids.length > 0) {
        await tx
          .updateTable('job')
          .set({
            lease_owner: this.#o.owner,
            lease_epoch: sql`lease_epoch + 1`,
            due_at: sql`NOW(6) + INTERVAL ${ASK_AGAIN_MS * 1000} MICROSECOND`,
          })
          .where('id', 'in', ids)
          .execute();
      }
      return ids;
    });
  }
}

const isCompound = ({ kind }: JobView): boolean => kind in COMPOUNDS;

const unanswered = (connected: boolean): StepError =>
  connected
    ? { code: 'TIMEOUT', message: 'The host is connected but has not answered in time.' }
    : { code: 'HOST_UNREACHABLE', message: 'The host is not connected, so what became of the step is unknown.' };
