import type { ProgressInput } from './generated/protocol.ts';

const INTERVAL_MS = 500;

/** Thins progress out to the newest of each command, at most two messages a second, and none while there is no link. */
export class ProgressFeed {
  readonly #newest = new Map<string, ProgressInput>();
  #send: ((progress: ProgressInput[]) => void) | null = null;
  #timer: NodeJS.Timeout | null = null;

  put(progress: ProgressInput): void {
    if (!this.#send) return;
    this.#newest.set(progress.commandId, progress);
    if (!this.#timer) this.#flush();
  }

  /** The command has ended: what it had left to say would come after its answer. */
  forget(commandId: string): void {
    this.#newest.delete(commandId);
  }

  attach(send: (progress: ProgressInput[]) => void): void {
    this.#send = send;
  }

  detach(): void {
    this.#send = null;
    this.#newest.clear();
    if (this.#timer) clearTimeout(this.#timer);
    this.#timer = null;
  }

  #flush(): void {
    this.#timer = null;
    if (this.#newest.size === 0 || !this.#send) return;
    this.#send([...this.#newest.values()]);
    this.#newest.clear();
    this.#timer = setTimeout(() => this.#flush(), INTERVAL_MS);
  }
}
