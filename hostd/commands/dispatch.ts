import type { Logger } from 'pino';
import { JournalError } from '../append-log.ts';
import type { Command, CommandReportInput, CommandResultInput, ProgressInput } from '../generated/protocol.ts';
import { CommandError, type Hypervisor } from '../hypervisor.ts';
import type { Journal, Outcome } from '../journal.ts';
import { Slots } from '../slots.ts';
import { Lanes } from './lanes.ts';
import { CLASS_SLOTS, COMMANDS, type CommandClass, type CommandKind, type CommandRun } from './table.ts';

/** The way back to the control plane. */
export interface Uplink {
  /** Kept until it is acknowledged. */
  report(report: CommandReportInput): void;
  progress(progress: ProgressInput): void;
  /** False: nobody watches any more. */
  sendSerial(commandId: string, offset: number, bytes: Buffer): Promise<boolean>;
}

export interface DispatcherOptions {
  hypervisor: Hypervisor;
  journal: Journal;
  uplink: Uplink;
  log: Logger;
  /** How long an aborted command may take to wind up before it is answered without waiting for it. */
  graceMs?: number;
}

/** A command ends without an answer: nobody waits for one, or another process will give it. */
class Abandoned extends Error {
  override readonly name = 'Abandoned';
}

type DispatchedCommand = Extract<Command, { __typename: CommandKind }>;

/** A row of the table as the dispatcher sees it, whichever kind it is for. */
interface AnyRow {
  class: CommandClass;
  journalled: boolean;
  vmId: ((command: DispatchedCommand) => string) | null;
  run(hypervisor: Hypervisor, command: DispatchedCommand, run: CommandRun): Promise<CommandResultInput | null>;
}

interface Task {
  command: DispatchedCommand;
  row: AnyRow;
  vmId: string | null;
  abort: AbortController;
  done: Promise<void>;
}

const GRACE_MS = 10_000;
const CLOSE_MS = 5_000;
const LONGEST_TIMER_MS = 2 ** 31 - 1;

/**
 * Does commands, each once: those of one VM in turn, others side by side within bounds. Every one is answered, by the
 * journal if it is known already.
 */
export class Dispatcher {
  readonly #options: DispatcherOptions;
  readonly #log: Logger;
  readonly #tasks = new Map<string, Task>();
  readonly #lanes = new Lanes();
  readonly #slots: Record<CommandClass, Slots> = {
    quick: new Slots(CLASS_SLOTS.quick),
    transfer: new Slots(CLASS_SLOTS.transfer),
    stream: new Slots(CLASS_SLOTS.stream),
  };
  #closing = false;

  constructor(options: DispatcherOptions) {
    this.#options = options;
    this.#log = options.log;
  }

  /** How many commands wait or run. */
  get underway(): number {
    return this.#tasks.size;
  }

  receive(commands: readonly Command[]): void {
    for (const command of commands) {
      if (command.__typename === 'CancelCommand') this.#cancel(command.commandId);
      else this.#accept(command);
    }
  }

  /** Ends what needs the session that was just lost; commands go on, their answers wait for the next. */
  endStreams(): void {
    for (const { row, abort } of this.#tasks.values()) {
      if (row.class === 'stream') abort.abort(new Abandoned('the link is lost'));
    }
  }

  /**
   * Interrupts everything. What is cut off has no result, as after a crash: it is done again when it is asked for
   * again. Returns when all has wound up, or after five seconds.
   */
  async close(): Promise<void> {
    this.#closing = true;
    const tasks = [...this.#tasks.values()];
    for (const { abort } of tasks) abort.abort(new Abandoned('this host daemon ends'));
    await within(CLOSE_MS, Promise.all(tasks.map(({ done }) => done)));
  }

  #cancel(commandId: string): void {
    this.#tasks.get(commandId)?.abort.abort(new CommandError('CANCELLED', 'cancelled'));
  }

  #accept(command: DispatchedCommand): void {
    const { commandId } = command;
    if (this.#closing) return;
    const known = this.#options.journal.outcome(commandId);
    if (known) {
      this.#options.uplink.report({ commandId, ...known });
      return;
    }
    if (this.#tasks.has(commandId)) return;

    const row = COMMANDS[command.__typename] as AnyRow | undefined;
    if (!row) {
      const message = `this version of hostd doesn't know ${command.__typename}`;
      this.#options.uplink.report({ commandId, error: { code: 'INTERNAL', message } });
      return;
    }
    const task: Task = { command, row, vmId: row.vmId?.(command) ?? null, abort: new AbortController(), done: DONE };
    this.#tasks.set(commandId, task);
    task.done = this.#perform(task).finally(() => this.#tasks.delete(commandId));
  }

  async #perform(task: Task): Promise<void> {
    const { command, row, vmId, abort } = task;
    const { signal } = abort;
    // From arrival on: a command that waited too long for its turn is no more wanted than one that ran too long.
    const timer = row.class === 'stream' ? undefined : setTimeout(expire, toTimer(command.timeoutMs));
    function expire(): void {
      abort.abort(new CommandError('TIMEOUT', `not done in ${command.timeoutMs} ms`));
    }
    const lane = row.journalled && vmId !== null ? this.#lanes.join(vmId) : null;
    let release: (() => void) | undefined;
    let acting: Promise<CommandResultInput | null> = Promise.resolve(null);
    try {
      await orAborted(lane?.turn ?? DONE, signal);
      release = await this.#slots[row.class].take(signal);
      acting = this.#act(task);
      const result = await this.#result(acting, signal);
      // A stream ends only by being ended: what matters is by whom.
      if (row.class === 'stream') signal.throwIfAborted();
      await this.#settle(task, result ? { result } : {});
    } catch (error) {
      await this.#settle(task, this.#toOutcome(task, error));
    } finally {
      clearTimeout(timer);
      // The next in the lane must not act beside one that was answered but has not wound up yet.
      const free = (): void => {
        release?.();
        lane?.leave();
      };
      acting.then(free, free);
    }
  }

  async #act(task: Task): Promise<CommandResultInput | null> {
    const { command, row, vmId, abort } = task;
    const { commandId, epoch } = command;
    const { hypervisor, journal, uplink } = this.#options;
    if (vmId !== null && epoch < journal.epochOf(vmId)) {
      throw new CommandError('STALE_EPOCH', `epoch ${epoch} of VM ${vmId} is over: ${journal.epochOf(vmId)} was seen`);
    }
    if (row.journalled) await journal.begin({ commandId, kind: command.__typename, vmId, epoch });
    abort.signal.throwIfAborted();
    return row.run(hypervisor, command, {
      signal: abort.signal,
      progress: (done, total, unit) => uplink.progress({ commandId, done: String(done), total: String(total), unit }),
      sendSerial: (offset, bytes) => this.#sendSerial(task, offset, bytes),
    });
  }

  async #sendSerial({ command, abort }: Task, offset: number, bytes: Buffer): Promise<void> {
    try {
      if (await this.#options.uplink.sendSerial(command.commandId, offset, bytes)) return;
      abort.abort(new Abandoned('nobody watches any more'));
    } catch (error) {
      abort.abort(new Abandoned('a piece of the log could not be sent', { cause: error }));
    }
  }

  /** What the command comes to; once it is aborted and doesn't wind up within its grace, throws why it was aborted. */
  async #result(acting: Promise<CommandResultInput | null>, signal: AbortSignal): Promise<CommandResultInput | null> {
    const overdue = Promise.withResolvers<never>();
    let grace: NodeJS.Timeout | undefined;
    const aborted = (): void => {
      grace = setTimeout(() => overdue.reject(signal.reason), this.#options.graceMs ?? GRACE_MS);
    };
    signal.addEventListener('abort', aborted, { once: true });
    if (signal.aborted) aborted();
    try {
      // One that was aborted but did its work all the same is done: the truth is the better answer.
      return await Promise.race([acting, overdue.promise]);
    } finally {
      clearTimeout(grace);
      signal.removeEventListener('abort', aborted);
    }
  }

  /** Null: no answer. */
  #toOutcome({ command, abort }: Task, error: unknown): Outcome | null {
    const { commandId, __typename: kind } = command;
    const cause = abort.signal.aborted ? abort.signal.reason : error;
    if (cause instanceof Abandoned) return null;
    if (cause !== error) this.#log.debug({ commandId, kind, err: error }, 'how an aborted command wound up');
    if (cause instanceof CommandError) {
      this.#log.info({ commandId, kind, code: cause.code, err: cause }, 'command failed');
      return { error: { code: cause.code, message: cause.message } };
    }
    this.#log.error({ commandId, kind, err: cause }, 'command failed by a fault of this host');
    if (cause instanceof JournalError && isDiskFull(cause.cause)) {
      return { error: { code: 'DISK_FULL', message: 'no space for the journal of this host' } };
    }
    return { error: { code: 'INTERNAL', message: 'the host daemon failed; its log says how' } };
  }

  /** Makes the outcome durable, then tells it. */
  async #settle({ command, row }: Task, outcome: Outcome | null): Promise<void> {
    const { commandId, __typename: kind } = command;
    if (outcome === null) return;
    // A refusal that changes nothing comes out the same next time; it need not be remembered.
    if (row.journalled && outcome.error?.code !== 'STALE_EPOCH') {
      try {
        await this.#options.journal.finish(commandId, outcome);
      } catch (error) {
        // Untold, as if this process had died here: the control plane asks again, and the effect is found.
        this.#log.error({ commandId, kind, err: error }, 'outcome could not be journalled and is not told');
        return;
      }
    }
    this.#options.uplink.report({ commandId, ...outcome });
  }
}

const DONE: Promise<void> = Promise.resolve();

function toTimer(timeoutMs: number): number {
  return Math.min(Math.max(timeoutMs, 0), LONGEST_TIMER_MS);
}

function isDiskFull(error: unknown): boolean {
  return (error as NodeJS.ErrnoException | undefined)?.code === 'ENOSPC';
}

/** Rejects with the signal's reason if it is aborted first. */
async function orAborted(promise: Promise<unknown>, signal: AbortSignal): Promise<void> {
  signal.throwIfAborted();
  const aborted = Promise.withResolvers<never>();
  const abort = (): void => aborted.reject(signal.reason);
  signal.addEventListener('abort', abort, { once: true });
  try {
    await Promise.race([promise, aborted.promise]);
  } finally {
    signal.removeEventListener('abort', abort);
  }
}

async function within(ms: number, promise: Promise<unknown>): Promise<void> {
  const timer = Promise.withResolvers<void>();
  const timeout = setTimeout(timer.resolve, ms);
  await Promise.race([promise, timer.promise]);
  clearTimeout(timeout);
}
