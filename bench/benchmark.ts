import type { Stage } from './support/stage.ts';

/** What one figure may be: at most or at least `due`; `aim` is where it should get. */
export interface Bound {
  is: 'at most' | 'at least';
  due: number;
  aim?: number;
}

/** One line of the table. Without a bound it is there to compare with. */
export interface Figure {
  what: string;
  value: number;
  unit: string;
  bound?: Bound;
}

export interface Benchmark {
  name: string;
  /** One sentence: what is measured, and beside what. */
  about: string;
  run(stage: Stage): Promise<Figure[]>;
}

export const atMost = (due: number, aim?: number): Bound => ({
  is: 'at most',
  due,
  ...(aim === undefined ? {} : { aim }),
});

export const atLeast = (due: number, aim?: number): Bound => ({ ...atMost(due, aim), is: 'at least' });

/** A figure that could not be measured meets nothing. */
export function isMet({ value, bound }: Figure, which: 'due' | 'aim' = 'due'): boolean {
  const limit = bound?.[which];
  if (bound === undefined || limit === undefined) return true;
  return bound.is === 'at most' ? value <= limit : value >= limit;
}
