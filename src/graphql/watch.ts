import { type Kysely, sql } from 'kysely';
import type { Logger } from 'pino';
import type { Feed } from '../db/feed.ts';
import type { Database } from '../db/tables.ts';
import type { Change } from '../db/transition.ts';
import type { HostAgent } from '../domain/host-agent.ts';
import { livePercent } from '../domain/job-progress.ts';
import { isEnded } from '../domain/job-state.ts';
import type { Audience } from './audience.ts';
import type { Condition } from './condition.ts';
import { Delivery } from './delivery.ts';
import { EventLog } from './event-log.ts';
import { QuotaWatch } from './quota-watch.ts';
import { type JobRow, type Row, selected } from './rows.ts';

export interface WatchOptions {
  db: Kysely<Database>;
  feed: Feed;
  agent: HostAgent;
  log: Pick<Logger, 'warn'>;
}

type WatchedKind = 'vm' | 'host' | 'job';
const KINDS: readonly WatchedKind[] = ['vm', 'host', 'job'];
type SetKind = 'vm' | 'host';
/** What sets are made by. */
export type SetColumn = 'zone_id' | 'cluster_id' | 'host_id';

/** On the last message about an object that is in the watched set no more. */
export interface Leaving {
  left?: true;
}

interface Subscriber {
  offer(row: Row<WatchedKind>): void;
  /** There is no row any more. */
  gone(): void;
}

/** All VMs or hosts of a zone, cluster or host, for all who watch it. */
interface WatchedSet {
  kind: SetKind;
  column: SetColumn;
  parentId: number;
  /** Those that were in it when they were last read, so that one who leaves is told of once more. */
  members: Set<number>;
  subscribers: Set<Subscriber>;
  loaded: Promise<void>;
}

const READ_AT_ONCE = 1_000;
const PRESENT_PAGE = 200;
const RETRY_MS = 500;

/**
 * Reads what has changed once, after the commit, for all subscribers of this process. While one read is under way the
 * next gathers, so the reads grow larger with the load, not more.
 */
export class Watch {
  readonly events: EventLog;
  readonly quotas: QuotaWatch;
  readonly #db: Kysely<Database>;
  readonly #agent: HostAgent;
  readonly #log: WatchOptions['log'];
  readonly #subscribers: Record<WatchedKind, Map<number, Set<Subscriber>>> = {
    vm: new Map(),
    host: new Map(),
    job: new Map(),
  };
  readonly #sets = new Map<string, WatchedSet>();
  readonly #changed: Record<WatchedKind, Set<number>> = { vm: new Set(), host: new Set(), job: new Set() };
  /** Watched jobs as they were read last: their progress is told without a read. */
  readonly #jobs = new Map<number, JobRow>();
  readonly #stop: (() => void)[];
  #reading = false;
  #retry: NodeJS.Timeout | undefined;

  constructor({ db, feed, agent, log }: WatchOptions) {
    this.#db = db;
    this.#agent = agent;
    this.#log = log;
    this.events = new EventLog(db, feed, log);
    this.quotas = new QuotaWatch(db, feed, log);
    this.#stop = [
      feed.listen((changes) => this.#note(changes)),
      agent.listenProgress(({ jobId }) => {
        const row = this.#jobs.get(jobId);
        if (row) for (const subscriber of this.#subscribers.job.get(jobId) ?? []) subscriber.offer(row);
      }),
    ];
  }

  /** Hears and reads nothing any more. Subscriptions stay silent until they are returned. */
  close(): void {
    this.events.close();
    this.quotas.close();
    for (const stop of this.#stop) stop();
    clearTimeout(this.#retry);
  }

  /** The object as it is, then each change of it. */
  object<K extends SetKind>(kind: K, id: number): Delivery<Row<K>> {
    return this.#watchOne<Row<K>>(kind, id, (row, delivery) => delivery.offer(id, row as Row<K>));
  }

  /** The job as it is, then each change and its progress, which never goes back; ends with the job. */
  job(id: number): Delivery<JobRow> {
    let floor = 0;
    return this.#watchOne<JobRow>('job', id, (row, delivery) => {
      const job = row as JobRow;
      const live = isEnded(job.state) ? null : this.#agent.progressOf(id);
      floor = Math.max(floor, livePercent(job, live));
      // The share of the open step is in `progress` now, and must not be added again.
      delivery.offer(id, { ...job, live, progress: floor, step_percent: 0 });
      if (isEnded(job.state)) delivery.finish();
    });
  }

  /**
   * All that are in a set, then each change of one that is in it or has just left it.
   *
   * @param audience what of it is for the subscriber
   */
  async set<K extends SetKind>(
    kind: K,
    column: SetColumn,
    parentId: number,
    audience: Audience<K>,
  ): Promise<Delivery<Row<K>>> {
    const watched = this.#setOf(kind, column, parentId);
    let cursor = 0;
    const delivery = new Delivery<Row<K>>({
      onEnd: () => this.#leave(watched, subscriber),
      present: async () => {
        const rows = await this.#members(watched, cursor, audience.condition);
        cursor = rows.at(-1)?.id ?? cursor;
        return rows.map((row) => ({ key: row.id, value: row as unknown as Row<K> }));
      },
    });
    const subscriber: Subscriber = {
      offer: (row) => {
        if (audience.includes(row as Row<K>)) delivery.offer(row.id, row as Row<K>);
      },
      gone: () => undefined,
    };
    watched.subscribers.add(subscriber);
    try {
      await watched.loaded;
    } catch (error) {
      await delivery.return();
      throw error;
    }
    return delivery;
  }

  #watchOne<R>(
    kind: WatchedKind,
    id: number,
    offer: (row: Row<WatchedKind>, delivery: Delivery<R>) => void,
  ): Delivery<R> {
    const ofKind = this.#subscribers[kind];
    const delivery = new Delivery<R>({
      onEnd: () => {
        const others = ofKind.get(id);
        others?.delete(subscriber);
        if (others?.size !== 0) return;
        ofKind.delete(id);
        if (kind === 'job') this.#jobs.delete(id);
      },
    });
    const subscriber: Subscriber = { offer: (row) => offer(row, delivery), gone: () => delivery.finish() };
    const others = ofKind.get(id);
    if (others) others.add(subscriber);
    else ofKind.set(id, new Set([subscriber]));
    // The present is a change like any other, read after the subscriber is attached: nothing falls between.
    this.#note([{ kind, id }]);
    return delivery;
  }

  #setOf(kind: SetKind, column: SetColumn, parentId: number): WatchedSet {
    const name = `${kind}.${column}.${parentId}`;
    const known = this.#sets.get(name);
    if (known) return known;
    const watched: WatchedSet = {
      kind,
      column,
      parentId,
      members: new Set(),
      subscribers: new Set(),
      loaded: Promise.resolve(),
    };
    this.#sets.set(name, watched);
    watched.loaded = sql<{ id: number }>`
      select id from ${sql.table(kind)}
      where ${sql.ref(column)} = ${parentId} and deleted_at is null`
      .execute(this.#db)
      .then(({ rows }) => {
        for (const { id } of rows) watched.members.add(id);
      });
    return watched;
  }

  #leave(watched: WatchedSet, subscriber: Subscriber): void {
    watched.subscribers.delete(subscriber);
    if (watched.subscribers.size === 0) this.#sets.delete(`${watched.kind}.${watched.column}.${watched.parentId}`);
  }

  async #members({ kind, column, parentId }: WatchedSet, after: number, condition: Condition): Promise<Row<SetKind>[]> {
    const { rows } = await sql<Row<SetKind>>`
      select ${selected(kind)} from ${sql.table(kind)}
      where ${sql.ref(column)} = ${parentId} and deleted_at is null and id > ${after} and ${condition}
      order by id limit ${PRESENT_PAGE}`.execute(this.#db);
    return rows;
  }

  #note(changes: Pick<Change, 'kind' | 'id'>[]): void {
    let any = false;
    for (const { kind, id } of changes) {
      if (!isWatched(kind) || !(this.#subscribers[kind].has(id) || this.#hasSetOf(kind))) continue;
      this.#changed[kind].add(id);
      any = true;
    }
    if (any && !this.#reading && !this.#retry) void this.#readChanged();
  }

  #hasSetOf(kind: WatchedKind): boolean {
    for (const watched of this.#sets.values()) if (watched.kind === kind) return true;
    return false;
  }

  async #readChanged(): Promise<void> {
    this.#reading = true;
    for (let kind = this.#nextKind(); kind; kind = this.#nextKind()) {
      const ids = [...this.#changed[kind]].slice(0, READ_AT_ONCE);
      for (const id of ids) this.#changed[kind].delete(id);
      try {
        await this.#read(kind, ids);
      } catch (error) {
        // Nothing is lost: what could not be read is still to be read, and the newest state is what counts.
        for (const id of ids) this.#changed[kind].add(id);
        this.#log.warn({ err: error }, 'subscribers wait: what has changed could not be read');
        this.#retry = setTimeout(() => {
          this.#retry = undefined;
          void this.#readChanged();
        }, RETRY_MS).unref();
        break;
      }
    }
    this.#reading = false;
  }

  #nextKind(): WatchedKind | undefined {
    return KINDS.find((kind) => this.#changed[kind].size > 0);
  }

  async #read(kind: WatchedKind, ids: number[]): Promise<void> {
    const { rows } = await sql<Row<WatchedKind>>`
      select ${selected(kind)} from ${sql.table(kind)} where id in (${sql.join(ids)})`.execute(this.#db);
    const missing = new Set(ids);
    for (const row of rows) {
      missing.delete(row.id);
      this.#tell(kind, row);
    }
    for (const id of missing) for (const subscriber of this.#subscribers[kind].get(id) ?? []) subscriber.gone();
  }

  #tell(kind: WatchedKind, row: Row<WatchedKind>): void {
    const subscribers = this.#subscribers[kind].get(row.id);
    if (subscribers && kind === 'job') this.#jobs.set(row.id, row as JobRow);
    for (const subscriber of subscribers ?? []) subscriber.offer(row);
    for (const watched of this.#sets.values()) if (watched.kind === kind) this.#tellSet(watched, row as Row<SetKind>);
  }

  #tellSet({ column, parentId, members, subscribers }: WatchedSet, row: Row<SetKind>): void {
    const inside = row.deleted_at === null && (row as unknown as Record<string, unknown>)[column] === parentId;
    if (inside) members.add(row.id);
    else if (!members.delete(row.id)) return;
    const told: Row<SetKind> & Leaving = inside ? row : { ...row, left: true };
    for (const subscriber of subscribers) subscriber.offer(told);
  }
}

const isWatched = (kind: Change['kind']): kind is WatchedKind => (KINDS as readonly string[]).includes(kind);
