import { VirtgraphError } from '../domain/errors.ts';
import { BURST, INTERVAL_MS, Pace } from './pace.ts';

/** How many messages may wait for a subscriber who does not take them. */
const MAX_WAITING = 1_000;
const SWEEP_ABOVE = 1_024;

export interface DeliveryOptions<T> {
  /** Ends the source; called once, whoever ends the delivery. */
  onEnd: () => void;
  /** What is there already, a page at a time; an empty page ends it. Read only when the subscriber waits. */
  present?: () => Promise<{ key: number; value: T }[]>;
  now?: () => number;
}

/**
 * From a source that pushes to a subscriber who pulls. Of each object at most a burst waits and the newest always
 * arrives, so a subscriber who stalls costs a bounded amount; one who stalls before too many objects is let go.
 *
 * An error is handed over as the last value: thrown, it would end everything else on the subscriber's connection.
 */
export class Delivery<T> implements AsyncIterableIterator<T | Error> {
  readonly #onEnd: () => void;
  readonly #now: () => number;
  readonly #pace = new Pace();
  #queue: { key: number; value: T | Error }[] = [];
  /** The newest of objects that may not go out yet. */
  readonly #held = new Map<number, T>();
  #timer: NodeJS.Timeout | undefined;
  #takers: ((result: IteratorResult<T | Error, undefined>) => void)[] = [];
  #ended = false;
  #present: DeliveryOptions<T>['present'];
  /** Objects that were offered while a page of the present is being read: the page is older. */
  #overtaken: Set<number> | undefined;

  constructor({ onEnd, present, now = () => performance.now() }: DeliveryOptions<T>) {
    this.#onEnd = onEnd;
    this.#present = present;
    this.#now = now;
  }

  /** Hands over the newest of an object, soon. */
  offer(key: number, value: T): void {
    if (this.#ended) return;
    this.#overtaken?.add(key);
    if (!this.#held.has(key) && this.#pace.take(key, this.#now())) {
      if (this.#pace.size > SWEEP_ABOVE) this.#pace.sweep(this.#now());
      this.#push(key, value);
      return;
    }
    this.#held.set(key, value);
    if (this.#held.size > MAX_WAITING) this.#letGo();
    else this.#timer ??= setTimeout(() => this.#release(), INTERVAL_MS).unref();
  }

  /** Hands over what waits and then the end. */
  finish(): void {
    if (this.#ended) return;
    for (const [key, value] of this.#held) this.#queue.push({ key, value });
    this.#end();
    this.#serve();
  }

  /** Hands over the error instead of all that waits, and then the end. */
  fail(error: Error): void {
    if (this.#ended) return;
    this.#queue = [{ key: 0, value: error }];
    this.#end();
    this.#serve();
  }

  next(): Promise<IteratorResult<T | Error, undefined>> {
    return new Promise((resolve) => {
      this.#takers.push(resolve);
      this.#serve();
    });
  }

  return(): Promise<IteratorResult<T | Error, undefined>> {
    this.#queue = [];
    if (!this.#ended) this.#end();
    this.#serve();
    return Promise.resolve({ done: true, value: undefined });
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.return();
  }

  #push(key: number, value: T): void {
    const waiting = this.#queue.filter((entry) => entry.key === key);
    if (waiting.length >= BURST) waiting.at(-1)!.value = value;
    else if (this.#queue.length >= MAX_WAITING) this.#letGo();
    else this.#queue.push({ key, value });
    this.#serve();
  }

  #release(): void {
    this.#timer = undefined;
    for (const [key, value] of this.#held) {
      if (!this.#pace.take(key, this.#now())) continue;
      this.#held.delete(key);
      this.#push(key, value);
    }
    if (this.#held.size > 0 && !this.#ended) this.#timer = setTimeout(() => this.#release(), INTERVAL_MS).unref();
  }

  #letGo(): void {
    this.fail(
      new VirtgraphError({
        code: 'LIMIT_EXCEEDED',
        message: `More than ${MAX_WAITING} changes wait for this subscriber. Subscribe again: the present comes first.`,
      }),
    );
  }

  #end(): void {
    this.#ended = true;
    clearTimeout(this.#timer);
    this.#held.clear();
    this.#onEnd();
  }

  #serve(): void {
    while (this.#takers.length > 0 && this.#queue.length > 0)
      this.#takers.shift()!({ done: false, value: this.#queue.shift()!.value });
    if (this.#takers.length === 0) return;
    if (this.#ended) for (const take of this.#takers.splice(0)) take({ done: true, value: undefined });
    else if (this.#present && !this.#overtaken) void this.#readPresent(this.#present);
  }

  async #readPresent(read: NonNullable<DeliveryOptions<T>['present']>): Promise<void> {
    const overtaken = new Set<number>();
    this.#overtaken = overtaken;
    try {
      const page = await read();
      if (page.length === 0) this.#present = undefined;
      if (!this.#ended) this.#queue.push(...page.filter(({ key }) => !overtaken.has(key)));
    } catch (error) {
      this.fail(error as Error);
    } finally {
      this.#overtaken = undefined;
    }
    this.#serve();
  }
}
