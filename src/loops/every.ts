import type { Logger } from 'pino';

/** Periodic work that is never at work twice: the next round begins `ms` after the last has ended. */
export class Loops {
  readonly #log: Logger;
  readonly #timers = new Set<NodeJS.Timeout>();
  readonly #rounds = new Set<Promise<void>>();
  #stopped = false;

  constructor(log: Logger) {
    this.#log = log;
  }

  every(name: string, ms: number, work: () => Promise<unknown>): void {
    const timer = setTimeout(() => {
      this.#timers.delete(timer);
      const round = this.#run(name, work).finally(() => {
        this.#rounds.delete(round);
        if (!this.#stopped) this.every(name, ms, work);
      });
      this.#rounds.add(round);
    }, ms);
    this.#timers.add(timer);
  }

  async #run(name: string, work: () => Promise<unknown>): Promise<void> {
    try {
      await work();
    } catch (error) {
      // One bad round must not end the loop; the next sees the same rows again.
      this.#log.warn({ err: error, loop: name }, 'a round of periodic work failed');
    }
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    for (const timer of this.#timers) clearTimeout(timer);
    await Promise.all(this.#rounds);
  }
}
