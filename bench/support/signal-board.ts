/** Where one side waits for what another side is told of, whichever comes first. */
export class SignalBoard {
  readonly #told = new Map<string, number>();
  readonly #waiting = new Map<string, (at: number) => void>();

  /** Remembers when, on this process's clock. Only the first time counts. */
  tell(key: string): void {
    const at = performance.now();
    const waiter = this.#waiting.get(key);
    if (waiter) {
      this.#waiting.delete(key);
      waiter(at);
    } else if (!this.#told.has(key)) this.#told.set(key, at);
  }

  /** Answers when it was told. Each key may be waited for once. */
  async heard(key: string): Promise<number> {
    const at = this.#told.get(key);
    if (at === undefined) return new Promise((resolve) => this.#waiting.set(key, resolve));
    this.#told.delete(key);
    return at;
  }
}
