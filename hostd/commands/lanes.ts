/** Queues by key: what is asked for one key runs one after the other, in the order of asking. */
export class Lanes {
  readonly #tails = new Map<string, Promise<void>>();

  /**
   * Joins the queue. `turn` resolves when all who came before have left. `leave` must be called once, also by one that
   * gave up waiting: those behind it still wait for those before it.
   */
  join(key: string): { turn: Promise<void>; leave: () => void } {
    const turn = this.#tails.get(key) ?? Promise.resolve();
    const left = Promise.withResolvers<void>();
    const tail = turn.then(() => left.promise);
    this.#tails.set(key, tail);
    void tail.then(() => {
      if (this.#tails.get(key) === tail) this.#tails.delete(key);
    });
    return { turn, leave: left.resolve };
  }

  get size(): number {
    return this.#tails.size;
  }
}
