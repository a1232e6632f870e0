import { open } from 'node:fs/promises';
import type { Logger } from 'pino';
import { type AppendFile, AppendLog } from './append-log.ts';
import type { CommandReportInput } from './generated/protocol.ts';
import { type JournalEntry, JournalState, RETENTION, type Retention } from './journal-state.ts';

/** What became of a command. */
export type Outcome = Omit<CommandReportInput, 'commandId'>;

export interface Intent {
  commandId: string;
  kind: string;
  /** The VM that the command concerns, if any. */
  vmId: string | null;
  epoch: number;
}

/** A host's memory of commands: what makes one that is delivered twice act once, and one that is stale not at all. */
export interface Journal {
  /** The durable outcome of a command; undefined: unknown, under way, or begun and cut off by a crash. */
  outcome(commandId: string): Outcome | undefined;
  /** Highest epoch seen for the VM, 0 for one never seen. Raised as soon as `begin` is called. */
  epochOf(vmId: string): number;
  /** Returns once the intent and its epoch are durable. Only then may the command act. */
  begin(intent: Intent): Promise<void>;
  /** Returns once the outcome is durable. Only then may it be told. */
  finish(commandId: string, outcome: Outcome): Promise<void>;
  /** Raises the epoch of a VM that was found running. */
  adopt(vmId: string, epoch: number): Promise<void>;
  /** Returns when all that was begun to be written is durable. */
  close(): Promise<void>;
}

/** Forgets all when the process ends. For fake hosts by the thousand. */
export class MemoryJournal implements Journal {
  readonly #state: JournalState;

  constructor(retention: Retention = { ...RETENTION, outcomes: 1_000, ms: 0 }, now: () => number = Date.now) {
    this.#state = new JournalState(retention, now);
  }

  outcome(commandId: string): Outcome | undefined {
    return this.#state.outcome(commandId);
  }

  epochOf(vmId: string): number {
    return this.#state.epochOf(vmId);
  }

  async begin({ vmId, epoch }: Intent): Promise<void> {
    if (vmId !== null) this.#state.raise(vmId, epoch);
  }

  async finish(commandId: string, outcome: Outcome): Promise<void> {
    this.#state.apply({ result: commandId, outcome, at: this.#state.now() });
  }

  async adopt(vmId: string, epoch: number): Promise<void> {
    this.#state.raise(vmId, epoch);
  }

  async close(): Promise<void> {
    // Nothing to flush.
  }
}

export interface FileJournalOptions {
  log: Logger;
  retention?: Retention;
  /** The file is rewritten when it is larger than this and twice what it was after the last time. */
  compactBytes?: number;
  now?: () => number;
  openFile?: (path: string, flags: string) => Promise<AppendFile>;
}

const COMPACT_BYTES = 4 * 1024 * 1024;

/** An append-only file. Every promise is kept by an fsync, shared by all who wait for one. */
export class FileJournal implements Journal {
  readonly #state: JournalState;
  readonly #log: AppendLog<JournalEntry>;

  private constructor(state: JournalState, log: AppendLog<JournalEntry>) {
    this.#state = state;
    this.#log = log;
  }

  /** Reads what is there, cuts off a torn end and opens for append. Throws `JournalError` for a format not known. */
  static async open(path: string, options: FileJournalOptions): Promise<FileJournal> {
    const { log, retention = RETENTION, compactBytes = COMPACT_BYTES, now = Date.now } = options;
    const state = new JournalState(retention, now);
    const openFile = options.openFile ?? ((file, flags) => open(file, flags, 0o600));
    const entries = await AppendLog.open<JournalEntry>({
      path,
      log,
      openFile,
      compactBytes,
      apply: (entry) => state.apply(entry),
      snapshot: () => state.snapshot(),
    });
    return new FileJournal(state, entries);
  }

  outcome(commandId: string): Outcome | undefined {
    return this.#state.outcome(commandId);
  }

  epochOf(vmId: string): number {
    return this.#state.epochOf(vmId);
  }

  begin(intent: Intent): Promise<void> {
    // In memory at once: a lower epoch is refused even while this one is on its way to the disk.
    if (intent.vmId !== null) this.#state.raise(intent.vmId, intent.epoch);
    const { commandId, ...rest } = intent;
    return this.#log.append({ intent: commandId, ...rest, at: this.#state.now() });
  }

  finish(commandId: string, outcome: Outcome): Promise<void> {
    return this.#log.append({ result: commandId, outcome, at: this.#state.now() });
  }

  async adopt(vmId: string, epoch: number): Promise<void> {
    if (epoch <= this.#state.epochOf(vmId)) return;
    this.#state.raise(vmId, epoch);
    await this.#log.append({ epochs: { [vmId]: epoch } });
  }

  close(): Promise<void> {
    return this.#log.close();
  }
}
