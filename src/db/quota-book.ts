import {
  type Charge,
  excessOf,
  minus,
  type QuotaExcess,
  type QuotaOwner,
  type QuotaRow,
  together,
} from '../domain/quota.ts';

export interface Blocked {
  owner: QuotaOwner;
  excess: QuotaExcess;
}

const keyOf = ({ kind, id }: QuotaOwner): string => `${kind} ${id}`;

/**
 * What this process believes of quotas, with what its own transactions are about to take. A hint, as all of the
 * inventory: it keeps those who ask for too much away from the writer; the guard in the transaction decides.
 */
export class QuotaBook {
  readonly #rowOf: (owner: QuotaOwner) => QuotaRow | undefined;
  /** Resolves when all that was told is read. */
  readonly #refresh: () => Promise<void>;
  readonly #pending = new Map<string, Charge>();
  #waiting: (() => void)[] = [];

  constructor(rowOf: (owner: QuotaOwner) => QuotaRow | undefined, refresh: () => Promise<void>) {
    this.#rowOf = rowOf;
    this.#refresh = refresh;
  }

  /** The first of these whose limit is in the way of what is committed. One that is not known is left to the guard. */
  blocked(owners: readonly QuotaOwner[], charge: Charge): Blocked | null {
    for (const owner of owners) {
      const row = this.#rowOf(owner);
      const excess = row && excessOf(row, charge);
      if (excess) return { owner, excess };
    }
    return null;
  }

  /** Whether it fits beside all that is under way too. */
  fits(owners: readonly QuotaOwner[], charge: Charge): boolean {
    return owners.every((owner) => {
      const row = this.#rowOf(owner);
      return !row || !excessOf(row, charge, this.#pending.get(keyOf(owner)));
    });
  }

  /** Resolves when something that was under way has ended. */
  settled(): Promise<void> {
    return new Promise((resolve) => {
      this.#waiting.push(resolve);
    });
  }

  /** Holds what a transaction is about to take. Call the result when it has ended. */
  hold(owners: readonly QuotaOwner[], charge: Charge): (taken: boolean) => void {
    this.#pend(owners, charge);
    const release = (): void => {
      this.#pend(owners, minus(charge));
      for (const resolve of this.#waiting.splice(0)) resolve();
    };
    return (taken) => {
      // What was taken is under way until the rows are read anew: it may count twice for a moment, which only lets
      // others wait, and never not at all.
      if (taken) void this.#refresh().finally(release);
      else release();
    };
  }

  #pend(owners: readonly QuotaOwner[], charge: Charge): void {
    for (const owner of owners) {
      const held = together(this.#pending.get(keyOf(owner)) ?? {}, charge);
      if (Object.values(held).some((n) => n !== 0)) this.#pending.set(keyOf(owner), held);
      else this.#pending.delete(keyOf(owner));
    }
  }
}
