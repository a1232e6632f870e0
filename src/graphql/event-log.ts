import { type Kysely, type SqlBool, sql } from 'kysely';
import type { Logger } from 'pino';
import type { Feed } from '../db/feed.ts';
import type { Database } from '../db/tables.ts';
import { VirtgraphError } from '../domain/errors.ts';
import type { TargetKind } from '../domain/kinds.ts';
import type { Audience } from './audience.ts';
import type { Condition } from './condition.ts';
import { type EventRow, selected } from './rows.ts';

const KEPT = 2_048;
const PAGE = 500;
const RETRY_MS = 500;
const EVERYTHING: Condition = sql<SqlBool>`true`;

export interface EventSubject {
  kind: TargetKind;
  id: number;
}

/**
 * The newest events, read once for all who follow them. `seq` is dense over changes and events and in commit order, so
 * nothing can still appear below a number that was read.
 */
export class EventLog {
  readonly #db: Kysely<Database>;
  readonly #followers = new Set<() => void>();
  readonly #log: Pick<Logger, 'warn'>;
  readonly #stop: () => void;
  #recent: EventRow[] = [];
  /** Every event above this is in `#recent`, up to `#to`. */
  #from = 0;
  #to = 0;
  #reading = false;
  #again = false;
  #retry: NodeJS.Timeout | undefined;

  constructor(db: Kysely<Database>, feed: Feed, log: Pick<Logger, 'warn'>) {
    this.#db = db;
    this.#log = log;
    this.#stop = feed.listen(() => {
      if (this.#followers.size > 0) void this.#read();
    });
  }

  close(): void {
    this.#stop();
    clearTimeout(this.#retry);
  }

  /**
   * Every event above `afterSeq`, or from now on, one after the other. Its reader sets the pace: nothing is kept for one
   * who does not take it. After an error, which is handed over as the last value, another may go on behind the last one.
   *
   * @throws VirtgraphError LOG_TRIMMED, INVALID_INPUT when the number is not reached yet
   */
  async follow(
    afterSeq: number | null,
    subject: EventSubject | null,
    audience: Audience<'event'>,
  ): Promise<AsyncIterableIterator<EventRow | Error>> {
    const head = await this.#head();
    if (afterSeq !== null && afterSeq > head.seq)
      throw new VirtgraphError({
        code: 'INVALID_INPUT',
        message: `The log has only come to ${head.seq}.`,
        path: ['afterSeq'],
      });
    const cursor = afterSeq ?? head.seq;
    if (cursor < head.event_trimmed_to) throw trimmed();
    if (this.#followers.size === 0) {
      this.#recent = [];
      this.#from = head.seq;
      this.#to = head.seq;
    }
    const follower = new Follower(this, cursor, subject, audience);
    // What was committed since `head` was read has told no one.
    void this.#read();
    return follower;
  }

  /** @returns what is above the cursor, and where the next call begins; both as far as is known by now */
  async after(
    cursor: number,
    subject: EventSubject | null,
    audience: Audience<'event'>,
  ): Promise<{ events: EventRow[]; cursor: number }> {
    if (cursor >= this.#from) {
      const [events, to] = [this.#fromMemory(cursor, subject), Math.max(cursor, this.#to)];
      await audience.prepare(events);
      return { events: events.filter((event) => audience.includes(event)), cursor: to };
    }
    // Taken before the read: what the read misses is above it, and in memory.
    const covered = this.#from;
    const events = await this.#page(cursor, subject, audience.condition);
    if ((await this.#head()).event_trimmed_to > cursor) throw trimmed();
    if (events.length === PAGE) return { events, cursor: events.at(-1)!.seq };
    return { events, cursor: Math.max(cursor, covered, events.at(-1)?.seq ?? 0) };
  }

  attach(wake: () => void): void {
    this.#followers.add(wake);
  }

  detach(wake: () => void): void {
    this.#followers.delete(wake);
  }

  #fromMemory(cursor: number, subject: EventSubject | null): EventRow[] {
    return this.#recent.filter(
      (event) =>
        event.seq > cursor &&
        (subject === null || (event.subject_kind === subject.kind && event.subject_id === subject.id)),
    );
  }

  async #page(cursor: number, subject: EventSubject | null, condition: Condition = EVERYTHING): Promise<EventRow[]> {
    const about = subject ? sql`and subject_kind = ${subject.kind} and subject_id = ${subject.id}` : sql``;
    const { rows } = await sql<EventRow>`
      select ${selected('event')} from event where seq > ${cursor} ${about} and ${condition} order by seq limit ${PAGE}`.execute(
      this.#db,
    );
    return rows;
  }

  #head(): Promise<{ seq: number; event_trimmed_to: number }> {
    return this.#db.selectFrom('feed_head').select(['seq', 'event_trimmed_to']).executeTakeFirstOrThrow();
  }

  /** Reads until nothing new was told of meanwhile. */
  async #read(): Promise<void> {
    this.#again = true;
    if (this.#reading || this.#retry) return;
    this.#reading = true;
    try {
      while (this.#again) {
        this.#again = false;
        this.#keep(await this.#page(this.#to, null));
      }
    } catch (error) {
      this.#log.warn({ err: error }, 'followers wait: new events could not be read');
      this.#retry = setTimeout(() => {
        this.#retry = undefined;
        void this.#read();
      }, RETRY_MS).unref();
    } finally {
      this.#reading = false;
    }
  }

  #keep(events: EventRow[]): void {
    if (events.length === 0) return;
    this.#again ||= events.length === PAGE;
    this.#to = events.at(-1)!.seq;
    this.#recent.push(...events);
    const dropped = this.#recent.splice(0, Math.max(0, this.#recent.length - KEPT));
    if (dropped.length > 0) this.#from = dropped.at(-1)!.seq;
    for (const wake of this.#followers) wake();
  }
}

/** Asks for the next page when its reader has taken the last: it holds no more than that. */
class Follower implements AsyncIterableIterator<EventRow | Error> {
  readonly #log: EventLog;
  readonly #subject: EventSubject | null;
  readonly #audience: Audience<'event'>;
  readonly #wake = (): void => {
    this.#woken = true;
    this.#sleeper?.();
  };
  #cursor: number;
  #page: EventRow[] = [];
  #woken = false;
  #sleeper: (() => void) | undefined;
  #ended = false;

  constructor(log: EventLog, cursor: number, subject: EventSubject | null, audience: Audience<'event'>) {
    this.#log = log;
    this.#cursor = cursor;
    this.#subject = subject;
    this.#audience = audience;
    log.attach(this.#wake);
  }

  async next(): Promise<IteratorResult<EventRow | Error, undefined>> {
    while (!this.#ended) {
      const event = this.#page.shift();
      if (event) return { done: false, value: event };
      this.#woken = false;
      try {
        const { events, cursor } = await this.#log.after(this.#cursor, this.#subject, this.#audience);
        this.#page = events;
        this.#cursor = cursor;
        if (events.length === 0) await this.#sleep();
      } catch (error) {
        this.#end();
        return { done: false, value: error as Error };
      }
    }
    return { done: true, value: undefined };
  }

  return(): Promise<IteratorResult<EventRow | Error, undefined>> {
    this.#end();
    return Promise.resolve({ done: true, value: undefined });
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.return();
  }

  #end(): void {
    this.#ended = true;
    this.#page = [];
    this.#log.detach(this.#wake);
    this.#sleeper?.();
  }

  #sleep(): Promise<void> {
    if (this.#woken || this.#ended) return Promise.resolve();
    return new Promise((resolve) => {
      this.#sleeper = resolve;
    });
  }
}

const trimmed = (): VirtgraphError =>
  new VirtgraphError({
    code: 'LOG_TRIMMED',
    message: 'The events after this number are no longer kept. Read the state, then follow from now on.',
    path: ['afterSeq'],
  });
