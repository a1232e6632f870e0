import {
  type Charge,
  excessOf,
  minus,
  QUOTA,
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
  readonly #pending = new Map<string, Charge>();

  constructor(rowOf: (owner: QuotaOwner) => QuotaRow | undefined) {
    this.#rowOf = rowOf;
  }

  /** The first of these whose limit is in the way. One that is not known yet is left to the guard. */
  blocked(owners: readonly QuotaOwner[], charge: Charge): Blocked | null {
    for (const owner of owners) {
      const row = this.#rowOf(owner);
      const excess = row && excessOf(row, charge, this.#pending.get(keyOf(owner)));
      if (excess) return { owner, excess };
    }
    return null;
  }

  /** Holds what a transaction is about to take. Call the result when it has ended. */
  hold(owners: readonly QuotaOwner[], charge: Charge): (taken: boolean) => void {
    this.#pend(owners, charge);
    return (taken) => {
      this.#pend(owners, minus(charge));
      // Until the feed has brought the row anew.
      if (taken) for (const owner of owners) this.#take(owner, charge);
    };
  }

  #pend(owners: readonly QuotaOwner[], charge: Charge): void {
    for (const owner of owners) {
      const held = together(this.#pending.get(keyOf(owner)) ?? {}, charge);
      if (Object.values(held).some((n) => n !== 0)) this.#pending.set(keyOf(owner), held);
      else this.#pending.delete(keyOf(owner));
    }
  }

  #take(owner: QuotaOwner, charge: Charge): void {
    const row = this.#rowOf(owner);
    if (row) addTo(row, charge);
  }
}

function addTo(row: QuotaRow, charge: Charge): void {
  for (const { amount, used } of Object.values(QUOTA)) row[used] += charge[amount] ?? 0;
}
