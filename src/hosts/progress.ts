import type { Logger } from 'pino';
import { patch } from '../db/transition.ts';
import type { Writer } from '../db/writer.ts';
import type { StepProgress } from '../domain/host-agent.ts';

/** How often the database hears of a step's progress, at most. */
const WRITE_EVERY_MS = 3_000;
/** Weight of the newest rate against those before. */
const SMOOTHING = 0.3;

interface Tracked extends StepProgress {
  hostId: number;
  at: number;
  writtenAt: number;
}

/** Progress of open steps as hosts tell it: memory and subscribers have it at once, the database now and then. */
export class ProgressBoard {
  readonly #writer: Writer;
  readonly #log: Logger;
  readonly #now: () => number;
  readonly #byJob = new Map<number, Tracked>();
  readonly #listeners = new Set<(progress: StepProgress) => void>();

  /** @param monotonicMs a clock that never goes back */
  constructor(writer: Writer, log: Logger, monotonicMs: () => number = () => performance.now()) {
    this.#writer = writer;
    this.#log = log;
    this.#now = monotonicMs;
  }

  of(jobId: number): StepProgress | null {
    return this.#byJob.get(jobId) ?? null;
  }

  /** @returns a function that ends the listening */
  listen(listener: (progress: StepProgress) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** The step has ended: what was told of it is history. */
  settle(jobId: number, seq: number): void {
    if (this.#byJob.get(jobId)?.seq === seq) this.#byJob.delete(jobId);
  }

  /** Its link has ended: it goes on telling elsewhere, and what the database hears is newer than what is kept here. */
  hostGone(hostId: number): void {
    for (const [jobId, tracked] of this.#byJob) if (tracked.hostId === hostId) this.#byJob.delete(jobId);
  }

  report(hostId: number, jobId: number, seq: number, told: { done: number; total: number; unit: string }): void {
    const at = this.#now();
    const before = this.#byJob.get(jobId);
    const same = before?.seq === seq ? before : undefined;
    if (before && before.seq > seq) return;
    // A command that is asked for again begins anew; what people see never goes back.
    const done = Math.min(Math.max(told.done, same?.done ?? 0), told.total);
    const tracked: Tracked = {
      hostId,
      jobId,
      seq,
      ...told,
      done,
      rate: rateOf(same, done, at),
      at,
      writtenAt: same?.writtenAt ?? at,
    };
    this.#byJob.set(jobId, tracked);
    for (const listener of this.#listeners) listener(tracked);
    if (at - tracked.writtenAt >= WRITE_EVERY_MS) this.#write(tracked, at);
  }

  #write(tracked: Tracked, at: number): void {
    tracked.writtenAt = at;
    const { jobId, seq, done, total, unit, rate } = tracked;
    const set = { progress_done: done, progress_total: total, progress_unit: unit.slice(0, 16), progress_rate: rate };
    this.#writer
      .submit({
        writes: [patch('job_step', jobId, { seq, state: 'OPEN' }, set)],
        changes: [{ kind: 'job', id: jobId }],
        events: [],
        audits: [],
        commands: [],
        jobs: [],
      })
      .catch((error: unknown) => this.#log.warn({ err: error, jobId }, 'progress could not be written'));
  }
}

function rateOf(before: Tracked | undefined, done: number, at: number): number | null {
  if (!before || at <= before.at) return before?.rate ?? null;
  const newest = ((done - before.done) / (at - before.at)) * 1000;
  return before.rate === null ? newest : before.rate + SMOOTHING * (newest - before.rate);
}
