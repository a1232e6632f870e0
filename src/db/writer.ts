import { setImmediate } from 'node:timers';
import type { CompiledQuery, Kysely } from 'kysely';
import type { Pool, PoolConnection } from 'mysql2/promise';
import type { Tenancy } from '../domain/authorize.ts';
import { chargedAccounts, withTakes } from './charge.ts';
import { codeOf, isConnectionLost, isOutage, isRetryable, isTimeout, timedOut } from './failure.ts';
import { LOCKS_BEGIN, LOCKS_END } from './pool.ts';
import { feedStatements, type Statement, statementsFor } from './statements.ts';
import type { Database } from './tables.ts';
import { emptyTransition, type Outcome, type Refusal, type Transition } from './transition.ts';

interface Waiting {
  transition: Transition;
  resolve: (outcome: Outcome) => void;
  reject: (error: unknown) => void;
  /** Ends the waiting for a turn. */
  timer: NodeJS.Timeout;
}

export interface WriterOptions {
  /** The one pool with `multipleStatements`; values travel only as parameters. */
  pool: Pool;
  /** Compiles statements; never runs one. */
  db: Kysely<Database>;
  /** This process, as it stands in the change feed. */
  origin: string;
  /** Where accounts stand in the tree of domains, for charges. */
  tenancy: Tenancy & {
    /** Reads where those stand that are not known. */
    know(accountIds: number[]): Promise<void>;
    /** Reads anew where they stand. */
    recall(accountIds: number[]): Promise<void>;
  };
  maxBatch?: number;
  /** Whether a host's link ends in another process, which must then hear of the command by the feed. */
  isElsewhere: (hostId: number) => boolean;
  /** Called after commit, before the submitters hear of it. */
  onCommit: (written: Transition[]) => void;
  /** Called with what may have been committed although nobody heard so, before the submitters hear that they don't know. */
  onUncertain?: (perhaps: Transition[]) => void;
}

const MAX_TRIES = 5;
/** How long a transition may wait for its turn: beyond, the database is ill or overloaded, and its author is told so. */
const WAIT_MS = 1_900;
/** Longer than a lock wait. What it cuts off is not tried again: it may be committed. */
const STATEMENT_MS = 2_900;

class Refused extends Error {
  readonly outcome: Refusal;
  constructor(outcome: Refusal) {
    super(outcome);
    this.outcome = outcome;
  }
}

/**
 * Group commit in the application: the transitions of many jobs and mutations, one transaction.
 *
 * There is no timer. A transition that finds the writer idle is written at once; those that arrive while a transaction
 * is under way form the next. So one alone pays no delay, and batches grow with the load. One transaction at a time:
 * while it commits the next batch gathers, and two of one process would only wait for each other at `feed_head`.
 */
export class Writer {
  readonly #options: WriterOptions;
  #waiting: Waiting[] = [];
  #busy = false;
  #idle: (() => void)[] = [];
  #scheduled = false;
  readonly counts = { transactions: 0, transitions: 0, retries: 0, splits: 0, stale: 0, full: 0, gone: 0 };

  constructor(options: WriterOptions) {
    this.#options = options;
  }

  /**
   * Resolves after COMMIT, or with why nothing was written.
   *
   * @throws the database's error when it stays away; whether the transition was committed is then unknown
   */
  async submit(transition: Transition): Promise<Outcome> {
    const { tenancy } = this.#options;
    const charged = chargedAccounts(transition);
    if (charged.length === 0) return this.#queue(transition);
    await tenancy.know(charged);
    for (;;) {
      const places = placesOf(charged, tenancy);
      const outcome = await this.#queue(withTakes(transition, tenancy));
      if (outcome.kind !== 'full') return outcome;
      // Perhaps an account was moved, by another process even: then what it has is counted elsewhere.
      await tenancy.recall(charged);
      if (placesOf(charged, tenancy) === places) return outcome;
    }
  }

  #queue(transition: Transition): Promise<Outcome> {
    return new Promise((resolve, reject) => {
      const waiting: Waiting = { transition, resolve, reject, timer: setTimeout(() => this.#giveUp(waiting), WAIT_MS) };
      this.#waiting.push(waiting);
      if (this.#scheduled) return;
      this.#scheduled = true;
      // After this turn of the event loop, so that all answers of one host message travel together.
      setImmediate(() => {
        this.#scheduled = false;
        void this.#pump();
      });
    });
  }

  /** Resolves once all that was submitted so far has been written or refused. */
  async drained(): Promise<void> {
    while (this.#busy || this.#scheduled || this.#waiting.length > 0)
      await new Promise<void>((resolve) => {
        this.#idle.push(resolve);
      });
  }

  async #pump(): Promise<void> {
    if (this.#busy) return;
    this.#busy = true;
    while (this.#waiting.length > 0) await this.#write(this.#waiting.splice(0, this.#options.maxBatch ?? 64));
    this.#busy = false;
    for (const resolve of this.#idle.splice(0)) resolve();
  }

  #giveUp(waiting: Waiting): void {
    this.#waiting = this.#waiting.filter((other) => other !== waiting);
    waiting.reject(timedOut('no turn to write came in time'));
  }

  async #write(batch: Waiting[]): Promise<void> {
    for (const { timer } of batch) clearTimeout(timer);
    try {
      await this.#commit(batch.map((w) => w.transition));
      for (const w of batch) w.resolve({ kind: 'written' });
    } catch (error) {
      if (batch.length > 1 && !isOutage(error)) {
        // Something in here is refused. Nothing was committed, so halving finds it without harming its neighbours.
        this.counts.splits++;
        const half = batch.length >> 1;
        await this.#write(batch.slice(0, half));
        await this.#write(batch.slice(half));
        return;
      }
      for (const w of batch) this.#refuse(w, error);
    }
  }

  #refuse(waiting: Waiting, error: unknown): void {
    if (error instanceof Refused) {
      this.counts[error.outcome]++;
      waiting.resolve({ kind: error.outcome });
    } else if (codeOf(error) === 'ER_DUP_ENTRY') {
      const key = duplicateKeyOf(error);
      if (key !== 'PRIMARY') waiting.resolve({ kind: 'duplicate', key });
      else if (waiting.transition.writes.some((w) => w.op === 'patch')) {
        // Somebody has moved the same thing before: the insert failed before its guard could say so.
        this.counts.stale++;
        waiting.resolve({ kind: 'stale' });
      } else {
        // Row ids are ours alone: one that stands already was written by an earlier try whose COMMIT lost its answer.
        this.#options.onCommit([waiting.transition]);
        waiting.resolve({ kind: 'written' });
      }
    } else waiting.reject(error);
  }

  /** Retrying is safe although a lost COMMIT is ambiguous: writing the same again is refused by a guard or a unique key. */
  async #commit(transitions: Transition[]): Promise<void> {
    let uncertain = false;
    for (let attempt = 1; ; attempt++) {
      try {
        await this.#transaction(transitions);
        this.counts.transactions++;
        this.counts.transitions += transitions.length;
        this.#options.onCommit(transitions);
        return;
      } catch (error) {
        uncertain ||= isConnectionLost(error) || isTimeout(error);
        if (!isRetryable(error) || attempt === MAX_TRIES) {
          if (uncertain) this.#options.onUncertain?.(transitions);
          throw error;
        }
        this.counts.retries++;
      }
    }
  }

  #commandsElsewhere(transitions: Transition[]): Transition {
    const hosts = transitions.flatMap((t) => t.commands.map((c) => c.hostId)).filter(this.#options.isElsewhere);
    return { ...emptyTransition(), changes: hosts.map((id) => ({ kind: 'command', id })) };
  }

  async #transaction(transitions: Transition[]): Promise<void> {
    const { pool, db, origin } = this.#options;
    const guarded = statementsFor(db, transitions);
    const feed = feedStatements(db, [...transitions, this.#commandsElsewhere(transitions)], origin);
    const connection = await pool.getConnection();
    try {
      await runGuarded(connection, guarded, feed);
      connection.release();
    } catch (error) {
      await abandon(connection, error);
      throw error;
    }
  }
}

/** Two round trips: all up to the guards, then the feed and COMMIT once each statement hit the rows that it must. */
async function runGuarded(connection: PoolConnection, guarded: Statement[], feed: CompiledQuery[]): Promise<void> {
  const results = await run(connection, [...BEGIN, ...guarded.map((s) => s.query)]);
  guarded.forEach(({ mustHit, otherwise }, i) => {
    if (mustHit !== null && hits(results[BEGIN.length + i]) !== mustHit) throw new Refused(otherwise);
  });
  await run(connection, [...feed, ...COMMIT]);
}

type Text = Pick<CompiledQuery, 'sql' | 'parameters'>;
const plain = (sql: string): Text => ({ sql, parameters: [] });
const BEGIN = [plain(LOCKS_BEGIN), plain('START TRANSACTION')];
const COMMIT = [plain('COMMIT'), plain(LOCKS_END)];
const ROLLBACK = [plain('ROLLBACK'), plain(LOCKS_END)];

async function run(connection: PoolConnection, queries: Text[]): Promise<unknown[]> {
  const [results] = await connection.query({
    sql: queries.map((q) => q.sql).join(';\n'),
    values: queries.flatMap((q) => q.parameters as unknown[]),
    timeout: STATEMENT_MS,
  });
  return queries.length === 1 ? [results] : (results as unknown[]);
}

/** Rows that a write matched or a lock read. */
const hits = (result: unknown): number =>
  Array.isArray(result) ? result.length : (result as { affectedRows: number }).affectedRows;

const placesOf = (accountIds: number[], tenancy: Tenancy): string =>
  accountIds.map((id) => tenancy.domainPathOf(id)).join();

/** Always rolls back: a lock wait time-out (1205) undoes only its statement, and the connection would commit the rest. */
async function abandon(connection: PoolConnection, error: unknown): Promise<void> {
  if (isConnectionLost(error) || isTimeout(error)) {
    connection.destroy();
    return;
  }
  await run(connection, ROLLBACK).then(
    () => connection.release(),
    () => connection.destroy(),
  );
}

/** MariaDB names the key, MySQL the table and the key: `for key 'vm.name'`. */
function duplicateKeyOf(error: unknown): string {
  const match = /for key '(?:[^'.]+\.)?([^']+)'/.exec((error as Error).message);
  return match?.[1] ?? '';
}
