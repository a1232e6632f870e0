import { pause } from '../backoff.ts';
import { CommandError, type Run } from '../hypervisor.ts';
import type { FakeOperation, Fault, ParsedFakeConfig } from './config.ts';

export interface FaultTarget {
  vmId?: string;
  fileName?: string;
  volumeId?: string;
}

/** How far an operation is, in a unit of its own. */
export interface Work {
  total: number;
  unit: string;
}

const PROGRESS_MS = 100;

/** Finds the rule for each operation and lets happen what it says. */
export class Faults {
  readonly #config: ParsedFakeConfig;
  readonly #used = new Map<Fault, number>();

  constructor(config: ParsedFakeConfig) {
    this.#config = config;
  }

  take(operation: FakeOperation, target: FaultTarget): Fault | undefined {
    const fault = this.#config[operation]?.find(
      (rule) =>
        (rule.vmId === undefined || rule.vmId === target.vmId) &&
        (rule.fileName === undefined || rule.fileName === target.fileName) &&
        (rule.volumeId === undefined || rule.volumeId === target.volumeId) &&
        (rule.failTimes === undefined || (this.#used.get(rule) ?? 0) < rule.failTimes),
    );
    if (fault) this.#used.set(fault, (this.#used.get(fault) ?? 0) + 1);
    return fault;
  }

  /** Takes as long as the rule says, with progress, and fails as it says. Throws `CommandError` or why it was aborted. */
  async suffer(fault: Fault | undefined, { signal, progress }: Run, work: Work): Promise<void> {
    signal.throwIfAborted();
    if (!fault) return;
    const { delayMs = 0, hang = false, fail, message = 'the fake was told to fail' } = fault;
    for (let done = 0; done < delayMs; done += PROGRESS_MS) {
      progress(Math.floor((work.total * done) / delayMs), work.total, work.unit);
      await pause(Math.min(PROGRESS_MS, delayMs - done), signal);
      signal.throwIfAborted();
    }
    if (hang) await untilAborted(signal);
    if (fail) throw new CommandError(fail, message);
  }
}

function untilAborted(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    const abort = (): void => reject(signal.reason);
    if (signal.aborted) abort();
    else signal.addEventListener('abort', abort, { once: true });
  });
}
