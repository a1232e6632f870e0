import type { Kysely } from 'kysely';
import type { Logger } from 'pino';
import type { Feed } from '../db/feed.ts';
import type { Database } from '../db/tables.ts';
import { type QuotaPath, quotaTable } from '../domain/quota.ts';
import { Delivery } from './delivery.ts';
import { type QuotaView, readQuotas } from './quota-read.ts';

interface Subscriber {
  path: QuotaPath;
  delivery: Delivery<QuotaView>;
}

const RETRY_MS = 500;

/**
 * Quotas for those who watch them. What may still be taken depends on every quota above too, so a change of any of them
 * is told. One read serves all who wait; while it is under way the next gathers.
 */
export class QuotaWatch {
  readonly #db: Kysely<Database>;
  readonly #log: Pick<Logger, 'warn'>;
  /** Who watches a quota, or one below it: by table and id. */
  readonly #subscribers = new Map<string, Set<Subscriber>>();
  #due = new Set<Subscriber>();
  #reading = false;
  #retry: NodeJS.Timeout | undefined;
  readonly #stop: () => void;

  constructor(db: Kysely<Database>, feed: Feed, log: Pick<Logger, 'warn'>) {
    this.#db = db;
    this.#log = log;
    this.#stop = feed.listen((changes) => {
      for (const { kind, id } of changes)
        for (const subscriber of this.#subscribers.get(`${kind} ${id}`) ?? []) this.#due.add(subscriber);
      this.#readSoon();
    });
  }

  close(): void {
    this.#stop();
    clearTimeout(this.#retry);
  }

  /** The quota as it is, then each change of it and of what is left above it. */
  quota(path: QuotaPath): Delivery<QuotaView> {
    const keys = path.map((owner) => `${quotaTable(owner)} ${owner.id}`);
    const subscriber: Subscriber = {
      path,
      delivery: new Delivery<QuotaView>({
        onEnd: () => {
          this.#due.delete(subscriber);
          for (const key of keys) this.#leave(key, subscriber);
        },
      }),
    };
    for (const key of keys) {
      const others = this.#subscribers.get(key);
      if (others) others.add(subscriber);
      else this.#subscribers.set(key, new Set([subscriber]));
    }
    // The present is a change like any other, read after the subscriber is attached: nothing falls between.
    this.#due.add(subscriber);
    this.#readSoon();
    return subscriber.delivery;
  }

  #leave(key: string, subscriber: Subscriber): void {
    const others = this.#subscribers.get(key);
    others?.delete(subscriber);
    if (others?.size === 0) this.#subscribers.delete(key);
  }

  #readSoon(): void {
    if (this.#due.size > 0 && !this.#reading && !this.#retry) void this.#readDue();
  }

  async #readDue(): Promise<void> {
    this.#reading = true;
    while (this.#due.size > 0) {
      const due = [...this.#due];
      this.#due = new Set();
      try {
        const views = await readQuotas(
          this.#db,
          due.map(({ path }) => path),
        );
        for (const [i, { path, delivery }] of due.entries()) {
          const view = views[i];
          if (view) delivery.offer(path[0].id, view);
          else delivery.finish();
        }
      } catch (error) {
        // Nothing is lost: what could not be read is still to be read, and the newest state is what counts.
        for (const subscriber of due) this.#due.add(subscriber);
        this.#log.warn({ err: error }, 'subscribers wait: quotas could not be read');
        this.#retry = setTimeout(() => {
          this.#retry = undefined;
          this.#readSoon();
        }, RETRY_MS).unref();
        break;
      }
    }
    this.#reading = false;
  }
}
