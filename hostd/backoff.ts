import { setTimeout as delay } from 'node:timers/promises';

export interface Backoff {
  minMs: number;
  maxMs: number;
}

/**
 * How long to wait before attempt `attempt` (from 0): a random part of an exponentially growing span, bounded. Full
 * jitter, because a thousand hosts that lost the same control plane must not come back in step.
 */
export function fullJitter(attempt: number, { minMs, maxMs }: Backoff, random: () => number = Math.random): number {
  return random() * Math.min(maxMs, minMs * 2 ** Math.min(attempt, 30));
}

/** Waits, or returns at once when the signal is aborted. */
export async function pause(ms: number, signal: AbortSignal): Promise<void> {
  try {
    await delay(ms, undefined, { signal });
  } catch (error) {
    if (!signal.aborted) throw error;
  }
}
