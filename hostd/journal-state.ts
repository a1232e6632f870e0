import type { Outcome } from './journal.ts';

/** One line of the journal. */
export type JournalEntry =
  | { intent: string; kind: string; vmId: string | null; epoch: number; at: number }
  | { result: string; outcome: Outcome; at: number }
  | { epochs: Record<string, number> };

/** Which outcomes are kept. An epoch is kept for ever. */
export interface Retention {
  /** At least this many of the last outcomes … */
  outcomes: number;
  /** … and those younger than this … */
  ms: number;
  /** … but never more than this many. The control plane asks again only until it has the answer. */
  atMost: number;
}

export const RETENTION: Retention = { outcomes: 10_000, ms: 24 * 3_600_000, atMost: 100_000 };

const EPOCHS_PER_ENTRY = 1_000;

/** What a journal's entries add up to. Applying an entry twice, or entries of the same kind in any order, is harmless. */
export class JournalState {
  readonly now: () => number;
  readonly #retention: Retention;
  /** In the order in which they ended. */
  readonly #outcomes = new Map<string, { outcome: Outcome; at: number }>();
  readonly #epochs = new Map<string, number>();

  constructor(retention: Retention, now: () => number) {
    this.#retention = retention;
    this.now = now;
  }

  outcome(commandId: string): Outcome | undefined {
    return this.#outcomes.get(commandId)?.outcome;
  }

  epochOf(vmId: string): number {
    return this.#epochs.get(vmId) ?? 0;
  }

  raise(vmId: string, epoch: number): void {
    if (epoch > this.epochOf(vmId)) this.#epochs.set(vmId, epoch);
  }

  apply(entry: JournalEntry): void {
    if ('result' in entry) {
      this.#outcomes.set(entry.result, { outcome: entry.outcome, at: entry.at });
      this.#forgetOld();
    } else if ('intent' in entry) {
      if (entry.vmId !== null) this.raise(entry.vmId, entry.epoch);
    } else {
      for (const [vmId, epoch] of Object.entries(entry.epochs)) this.raise(vmId, epoch);
    }
  }

  /** The fewest entries with the same sum. Intents are left out: one without a result is simply done again. */
  *snapshot(): Iterable<JournalEntry> {
    const epochs = [...this.#epochs];
    for (let i = 0; i < epochs.length; i += EPOCHS_PER_ENTRY) {
      yield { epochs: Object.fromEntries(epochs.slice(i, i + EPOCHS_PER_ENTRY)) };
    }
    for (const [result, { outcome, at }] of this.#outcomes) yield { result, outcome, at };
  }

  #forgetOld(): void {
    const { outcomes, ms, atMost } = this.#retention;
    for (const [commandId, { at }] of this.#outcomes) {
      const size = this.#outcomes.size;
      if (size <= outcomes || (size <= atMost && this.now() - at < ms)) return;
      this.#outcomes.delete(commandId);
    }
  }
}
