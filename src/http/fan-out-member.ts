import type { ExecutionResult, GraphQLError } from 'graphql';
import { WebSocket } from 'ws';
import type { Limits } from './limits.ts';
import { closeSlow } from './socket-keeper.ts';

const DONE: IteratorReturnResult<undefined> = { done: true, value: undefined };

/**
 * One subscriber of a shared execution. To graphql-ws it is a subscription that never yields: payloads go straight to
 * the socket. A socket that lags is owed the newest of each object, not every one in between.
 */
export class Member implements AsyncIterableIterator<ExecutionResult> {
  readonly #socket: WebSocket;
  readonly #head: string;
  readonly #limits: Limits;
  readonly #onEnd: () => void;
  readonly #ended = Promise.withResolvers<IteratorReturnResult<undefined>>();
  /** Objects whose newest payload is still to be sent, in the order they changed. */
  readonly #owed = new Set<string>();
  #present: ReadonlyMap<string, string> | undefined;
  #onLeave: () => void = () => undefined;
  #isEnded = false;
  /** An error of the socket's own comes with its `close`, which ends this member. */
  readonly #written = (): void => {
    if (this.owes) this.#pay();
  };

  constructor(socket: WebSocket, id: string, limits: Limits, onEnd: () => void) {
    this.#socket = socket;
    this.#head = `{"id":${JSON.stringify(id)},"type":"next","payload":`;
    this.#limits = limits;
    this.#onEnd = onEnd;
    // graphql-ws doesn't wait for anything here before there is an end.
    this.#ended.promise.catch(() => undefined);
  }

  onLeave(leave: () => void): void {
    this.#onLeave = leave;
  }

  /** Begins with the present, which is owed like any other payload. */
  start(present: ReadonlyMap<string, string>): void {
    this.#present = present;
    for (const key of present.keys()) this.#owed.add(key);
    this.#pay();
  }

  /** @param remembered the key under which `present` holds this payload; null: it is not to be had again */
  offer(payload: string, remembered: string | null, key: string | null): void {
    if (!this.#present || this.#isEnded) return;
    if (remembered !== null && (this.owes || this.isLagging)) {
      this.#owed.add(remembered);
    } else {
      if (key !== null) this.#owed.delete(key);
      this.#send(payload);
    }
  }

  get owes(): boolean {
    return this.#owed.size > 0;
  }

  get isLagging(): boolean {
    return this.#socket.bufferedAmount > this.#limits.coalesceBytes;
  }

  #pay(): void {
    for (const key of this.#owed) {
      if (this.isLagging) return;
      this.#owed.delete(key);
      this.#send(this.#present!.get(key)!);
    }
  }

  #send(payload: string): void {
    if (this.#socket.readyState !== WebSocket.OPEN || this.#isEnded) return;
    if (this.#socket.bufferedAmount > this.#limits.bufferedBytes) closeSlow(this.#socket);
    else this.#socket.send(`${this.#head}${payload}}`, this.#written);
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  next(): Promise<IteratorResult<ExecutionResult>> {
    return this.#ended.promise;
  }

  /** The client wants no more. */
  async return(): Promise<IteratorResult<ExecutionResult>> {
    if (this.#end()) this.#ended.resolve(DONE);
    return DONE;
  }

  complete(): void {
    this.#payAll();
    if (this.#end()) this.#ended.resolve(DONE);
  }

  fail(error: GraphQLError): void {
    this.#payAll();
    if (this.#end()) this.#ended.reject(error);
  }

  /** The end comes after what is owed, though it be much at once. */
  #payAll(): void {
    for (const key of this.#owed) this.#send(this.#present!.get(key)!);
    this.#owed.clear();
  }

  #end(): boolean {
    if (this.#isEnded) return false;
    this.#isEnded = true;
    this.#onEnd();
    this.#onLeave();
    return true;
  }
}
