import { visible } from '../db/visible.ts';
import { isOfDomain, ownerOf, sees } from '../domain/authorize.ts';
import type { Condition } from './condition.ts';
import type { GraphContext } from './context.ts';
import type { Row } from './rows.ts';

/** What of a kind one subscriber may be told: for what is read for it, and for what was read for all. */
export interface Audience<K extends 'vm' | 'host' | 'event'> {
  condition: Condition;
  includes(row: Row<K>): boolean;
  /** Resolves once `includes` can tell of these rows. */
  prepare(rows: readonly Row<K>[]): Promise<void>;
}

export const audienceOf = <K extends 'vm' | 'host' | 'event'>(
  { actor, inventory }: GraphContext,
  kind: K,
): Audience<K> => ({
  condition: visible(actor, kind),
  includes: (row) => sees(actor, kind, row, inventory),
  async prepare(rows) {
    if (isOfDomain(actor)) await inventory.know(rows.map((row) => ownerOf(kind, row)));
  },
});
