/** Of values in any order; `share` 0.5 is the median. */
export function percentile(values: readonly number[], share: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN;
}

export const median = (values: readonly number[]): number => percentile(values, 0.5);

/** Repeats `work` in so many lanes at once until `untilMs` of this process's clock; answers how long each took. */
export async function repeat(lanes: number, untilMs: number, work: () => Promise<unknown>): Promise<number[]> {
  const latenciesMs: number[] = [];
  const lane = async (): Promise<void> => {
    for (let now = performance.now(); now < untilMs; ) {
      const began = now;
      await work();
      now = performance.now();
      latenciesMs.push(now - began);
    }
  };
  await Promise.all(Array.from({ length: lanes }, lane));
  return latenciesMs;
}

/** Repeats `work` so often, one after the other. */
export async function inTurn(times: number, work: (turn: number) => Promise<unknown>): Promise<number[]> {
  const latenciesMs: number[] = [];
  for (let turn = 0; turn < times; turn++) {
    const began = performance.now();
    await work(turn);
    latenciesMs.push(performance.now() - began);
  }
  return latenciesMs;
}
