const WINDOW_MS = 60_000;
/** Of one sort in a window, each with a record of its own; beyond, only every doubling has one. */
const KEPT_EACH = 50;
const SORTS_AT_MOST = 10_000;

interface Window {
  since: number;
  count: number;
  /** How many the records tell of. */
  told: number;
}

/** How many refusals of one sort there were in a minute, before and with what is recorded now. */
export interface Tally {
  before: number;
  after: number;
}

/**
 * Keeps whoever is refused again and again from filling the audit trail: the first of a sort in a minute are recorded one
 * by one, and from then on each doubling, with how many there were. So what a crash forgets was never more than what is
 * recorded, and nothing has to be written later.
 */
export class RefusalTally {
  readonly #now: () => number;
  readonly #windows = new Map<string, Window>();

  constructor(monotonicMs: () => number = () => performance.now()) {
    this.#now = monotonicMs;
  }

  /**
   * Counts one more.
   *
   * @param sort what all of them have in common
   * @returns whether to record it, and what the record stands for if that is more than itself: of the minute before,
   *   where that has ended untold
   */
  count(sort: string): { recorded: boolean; standsFor: Tally | null } {
    const now = this.#now();
    const before = this.#windows.get(sort);
    if (!before || now - before.since >= WINDOW_MS) {
      if (this.#windows.size >= SORTS_AT_MOST) this.#forget(now);
      this.#windows.set(sort, { since: now, count: 1, told: 1 });
      const untold = before && before.told < before.count;
      return { recorded: true, standsFor: untold ? { before: before.told, after: before.count } : null };
    }
    before.count++;
    if (before.count > KEPT_EACH && before.count < 2 * before.told) return { recorded: false, standsFor: null };
    const standsFor = before.count > KEPT_EACH ? { before: before.told, after: before.count } : null;
    before.told = before.count;
    return { recorded: true, standsFor };
  }

  #forget(now: number): void {
    for (const [sort, { since }] of this.#windows) if (now - since >= WINDOW_MS) this.#windows.delete(sort);
  }
}
