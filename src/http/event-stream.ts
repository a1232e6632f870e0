import type { ExecutionResult } from 'graphql';
import type { Logger } from 'pino';

export interface EventStreamHooks {
  run(event: unknown): Promise<ExecutionResult>;
  /** Called once, however it ends, before the source is told. */
  onEnd(): void;
  log: Logger;
}

/** A subscription's results: each event of its source, run through its selection, one after the other. */
export class EventStream implements AsyncIterableIterator<ExecutionResult> {
  readonly #source: AsyncIterator<unknown>;
  readonly #hooks: EventStreamHooks;
  readonly #ended = Promise.withResolvers<IteratorReturnResult<undefined>>();
  #isEnded = false;

  constructor(source: AsyncIterable<unknown>, hooks: EventStreamHooks) {
    this.#source = source[Symbol.asyncIterator]();
    this.#hooks = hooks;
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  async next(): Promise<IteratorResult<ExecutionResult>> {
    if (this.#isEnded) return DONE;
    return await Promise.race([this.#advance(), this.#ended.promise]);
  }

  async #advance(): Promise<IteratorResult<ExecutionResult>> {
    try {
      const { done, value } = await this.#source.next();
      if (!done) return { done: false, value: await this.#hooks.run(value) };
      this.#end();
      return DONE;
    } catch (error) {
      this.#end();
      throw error;
    }
  }

  async return(): Promise<IteratorResult<ExecutionResult>> {
    if (this.#end()) endSource(this.#source, this.#hooks.log);
    return DONE;
  }

  #end(): boolean {
    if (this.#isEnded) return false;
    this.#isEnded = true;
    this.#ended.resolve(DONE);
    this.#hooks.onEnd();
    return true;
  }
}

/** Tells a source to end, and waits for nothing: `return()` of an async generator stands behind its pending `next()`. */
export function endSource(source: AsyncIterator<unknown>, log: Logger): void {
  source.return?.().catch((error: unknown) => log.warn({ err: error }, 'the source of a subscription ended badly'));
}

const DONE: IteratorReturnResult<undefined> = { done: true, value: undefined };
