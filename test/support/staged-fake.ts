import { FakeHypervisor } from '../../hostd/fake/hypervisor.ts';
import type { ControlAction, ImageFormat, StopMode } from '../../hostd/generated/protocol.ts';
import type { ImageFacts, Run, VmSpec, Volume } from '../../hostd/hypervisor.ts';
import type { Intent, Journal, Outcome } from '../../hostd/journal.ts';

export type Operation =
  | 'inspectImage'
  | 'prepareTemplate'
  | 'createVolume'
  | 'deleteVolume'
  | 'startVm'
  | 'stopVm'
  | 'controlVm'
  | 'removeVm';

/** The nth time, from 1, that an operation is asked for since `begin`. */
export interface Call {
  operation: Operation;
  nth: number;
}

const PATIENCE_MS = 10_000;

/** Counts what happens by its name; what tests await instead of time. */
export class Tally {
  readonly #counts = new Map<string, number>();
  readonly #waiting = new Set<() => void>();

  of(name: string): number {
    return this.#counts.get(name) ?? 0;
  }

  add(name: string): void {
    this.#counts.set(name, this.of(name) + 1);
    for (const look of this.#waiting) look();
  }

  /** Resolves once it has happened so often; rejects when it does not. */
  async reached(name: string, times = 1): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const look = (): void => {
      if (this.of(name) >= times) resolve();
    };
    const timer = setTimeout(
      () => reject(new Error(`waited in vain: ${name}, ${this.of(name)} of ${times} times`)),
      PATIENCE_MS,
    );
    this.#waiting.add(look);
    look();
    try {
      await promise;
    } finally {
      clearTimeout(timer);
      this.#waiting.delete(look);
    }
  }
}

type Hook = (call: Call) => Promise<void> | void;
const pass: Hook = () => undefined;

/** The fake hypervisor, with a list of what it was asked to do and places where it waits for a test. */
export class StagedFake extends FakeHypervisor {
  /** What was asked for since `begin`, in order. */
  calls: Operation[] = [];
  /** An operation goes on only when this has returned; the command being ended, here as anywhere, ends it. */
  before: Hook = pass;
  /** The same once the effect is there and before anybody hears of it. */
  after: Hook = pass;
  /** An operation says how far it is. */
  progressed: Hook = pass;

  /** Another test begins: nothing was asked for and nothing waits. */
  begin(): void {
    this.calls = [];
    this.before = pass;
    this.after = pass;
    this.progressed = pass;
  }

  override inspectImage(
    image: { fileName: string; format: ImageFormat; maxVirtualBytes: number },
    run: Run,
  ): Promise<ImageFacts> {
    return this.#staged('inspectImage', run, (staged) => super.inspectImage(image, staged));
  }

  override prepareTemplate(image: { fileName: string; sha256: string }, run: Run): Promise<{ virtualBytes: number }> {
    return this.#staged('prepareTemplate', run, (staged) => super.prepareTemplate(image, staged));
  }

  override createVolume(volume: Volume, templateId: string | null, run: Run): Promise<void> {
    return this.#staged('createVolume', run, (staged) => super.createVolume(volume, templateId, staged));
  }

  override deleteVolume(volume: Volume, run: Run): Promise<void> {
    return this.#staged('deleteVolume', run, (staged) => super.deleteVolume(volume, staged));
  }

  override startVm(spec: VmSpec, epoch: number, run: Run): Promise<void> {
    return this.#staged('startVm', run, (staged) => super.startVm(spec, epoch, staged));
  }

  override stopVm(vmId: string, mode: StopMode, gracefulTimeoutMs: number, run: Run): Promise<void> {
    return this.#staged('stopVm', run, (staged) => super.stopVm(vmId, mode, gracefulTimeoutMs, staged));
  }

  override controlVm(vmId: string, action: ControlAction, run: Run): Promise<void> {
    return this.#staged('controlVm', run, (staged) => super.controlVm(vmId, action, staged));
  }

  override removeVm(vmId: string, run: Run): Promise<void> {
    return this.#staged('removeVm', run, (staged) => super.removeVm(vmId, staged));
  }

  async #staged<T>(operation: Operation, run: Run, act: (run: Run) => Promise<T>): Promise<T> {
    this.calls.push(operation);
    const call: Call = { operation, nth: this.calls.filter((one) => one === operation).length };
    const { signal } = run;
    await orAborted(this.before(call), signal);
    const result = await act({
      signal,
      progress: (done, total, unit) => {
        run.progress(done, total, unit);
        void this.progressed(call);
      },
    });
    await orAborted(this.after(call), signal);
    return result;
  }
}

/** Tells `tally` of each command: `heard <id>` when it arrives, `begun <id>` when it is about to act. */
export class HeardJournal implements Journal {
  readonly #journal: Journal;
  readonly #tally: Tally;

  constructor(journal: Journal, tally: Tally) {
    this.#journal = journal;
    this.#tally = tally;
  }

  /** Looked up once for every command that arrives, before anything else is done about it. */
  outcome(commandId: string): Outcome | undefined {
    const outcome = this.#journal.outcome(commandId);
    this.#tally.add(`heard ${commandId}`);
    return outcome;
  }

  epochOf(vmId: string): number {
    return this.#journal.epochOf(vmId);
  }

  begin(intent: Intent): Promise<void> {
    this.#tally.add(`begun ${intent.commandId}`);
    return this.#journal.begin(intent);
  }

  finish(commandId: string, outcome: Outcome): Promise<void> {
    return this.#journal.finish(commandId, outcome);
  }

  adopt(vmId: string, epoch: number): Promise<void> {
    return this.#journal.adopt(vmId, epoch);
  }

  close(): Promise<void> {
    return this.#journal.close();
  }
}

async function orAborted(promise: Promise<void> | void, signal: AbortSignal): Promise<void> {
  const aborted = Promise.withResolvers<never>();
  const abort = (): void => aborted.reject(signal.reason);
  signal.addEventListener('abort', abort, { once: true });
  if (signal.aborted) abort();
  try {
    await Promise.race([promise, aborted.promise]);
  } finally {
    signal.removeEventListener('abort', abort);
  }
}
