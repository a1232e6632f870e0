import { randomUUID } from 'node:crypto';
import type { Kysely } from 'kysely';
import type { Logger } from 'pino';
import type { Database } from '../db/tables.ts';
import type { OpenCommand } from '../db/transition.ts';
import { VirtgraphError } from '../domain/errors.ts';
import type { CommandResult, StepError } from '../domain/job.ts';

/** A command as it travels: what all have in common; its type, named by `__typename`, says what else it holds. */
export interface WireCommand {
  __typename: string;
  commandId: string;
  epoch: number;
  timeoutMs: number;
}

const withFields = (command: WireCommand, fields: Record<string, unknown>): WireCommand => ({ ...fields, ...command });

const REQUEST_PREFIX = 'ask.';
/** More than this waiting in one link means that its host does not read: the link is cut and starts anew. */
const QUEUE_MAX = 10_000;

export const commandIdOf = (jobId: number, seq: number): string => `${jobId}.${seq}`;

/** The job and step of a command id; null for one that belongs to no job. */
export function parseCommandId(commandId: string): { jobId: number; seq: number } | null {
  const match = /^(\d{1,15})\.(\d{1,5})$/.exec(commandId);
  return match ? { jobId: Number(match[1]), seq: Number(match[2]) } : null;
}

/** One host's subscription. Yields whatever has gathered since the last message: under load, many commands in one. */
class Link {
  readonly sessionId: string;
  #queue: WireCommand[] = [];
  readonly #sent = new Set<string>();
  #wake: (() => void) | undefined;
  #closed = false;

  constructor(sessionId: string) {
    this.sessionId = sessionId;
  }

  push(command: WireCommand): void {
    const key = `${command.__typename === 'CancelCommand' ? 'cancel ' : ''}${command.commandId}`;
    if (this.#closed || this.#sent.has(key)) return;
    this.#sent.add(key);
    this.#queue.push(command);
    if (this.#queue.length > QUEUE_MAX) this.close();
    this.#wake?.();
  }

  /** An answered command needs no memory here: its step is no longer open, so nobody reads it again. */
  forget(commandId: string): void {
    this.#sent.delete(commandId);
    this.#sent.delete(`cancel ${commandId}`);
  }

  knows(commandId: string): boolean {
    return this.#sent.has(commandId);
  }

  /** Asks again for a command that was sent before: the host may have lost it, and knows it if it has not. */
  repeat(command: WireCommand): void {
    // Still waiting to be sent: it would only be sent twice.
    if (this.#queue.some((waiting) => waiting.commandId === command.commandId)) return;
    this.#sent.delete(command.commandId);
    this.push(command);
  }

  close(): void {
    this.#closed = true;
    this.#wake?.();
  }

  async *batches(): AsyncGenerator<WireCommand[]> {
    while (!this.#closed) {
      if (this.#queue.length === 0)
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
        });
      this.#wake = undefined;
      if (this.#queue.length > 0) yield this.#queue.splice(0);
    }
  }
}

interface Asked {
  hostId: number;
  resolve: (result: CommandResult) => void;
  reject: (error: Error) => void;
  timer: NodeJS.Timeout;
}

/** The hosts whose links end in this process: commands of jobs to them, and questions that need no job. */
export class HostLinks {
  readonly #db: Kysely<Database>;
  readonly #log: Logger;
  readonly #links = new Map<number, Link>();
  readonly #asked = new Map<string, Asked>();
  readonly #gone = new Set<(hostId: number, sessionId: string) => void>();

  constructor(db: Kysely<Database>, log: Logger) {
    this.#db = db;
    this.#log = log;
  }

  has(hostId: number): boolean {
    return this.#links.has(hostId);
  }

  get size(): number {
    return this.#links.size;
  }

  /** @returns false when the host's link is not here */
  deliver(command: OpenCommand): boolean {
    const link = this.#links.get(command.hostId);
    link?.repeat(wireOf(command));
    return link !== undefined;
  }

  forget(hostId: number, commandId: string): void {
    this.#links.get(hostId)?.forget(commandId);
  }

  /** A new link of a host replaces its old one and begins with every command still open. */
  attach(hostId: number, sessionId: string): AsyncIterableIterator<WireCommand[]> {
    this.#links.get(hostId)?.close();
    const link = new Link(sessionId);
    // Listen first, then read: a command that commits in between is seen twice and sent once.
    this.#links.set(hostId, link);
    this.sendOpen([hostId]).catch((error: unknown) => {
      // Without the open commands the link is of no use: cut it, and the host comes back.
      this.#log.warn({ err: error, hostId }, 'open commands could not be read');
      link.close();
    });

    const batches = link.batches();
    const detach = (): Promise<IteratorResult<WireCommand[]>> => {
      // Close first: return() of a generator queues behind its pending next(), which would wait for ever.
      link.close();
      if (this.#links.get(hostId) === link) {
        this.#left(hostId, link);
      }
      return batches.return(undefined);
    };
    return {
      // A link that ends by itself, because its host does not read, has left no less than one that is ended.
      next: async () => {
        const batch = await batches.next();
        return batch.done ? detach() : batch;
      },
      return: detach,
      [Symbol.asyncIterator]() {
        return this;
      },
    };
  }

  /** Whether the command was sent to this host and is not answered yet: a host tells progress of its own alone. */
  isOpen(hostId: number, commandId: string): boolean {
    return this.#links.get(hostId)?.knows(commandId) ?? false;
  }

  /** Ends a host's link from this side. */
  cut(hostId: number): void {
    const link = this.#links.get(hostId);
    if (!link) return;
    link.close();
    this.#left(hostId, link);
  }

  /** Calls back with every host whose link has ended and not been replaced, and the session that it belonged to. */
  onGone(listener: (hostId: number, sessionId: string) => void): void {
    this.#gone.add(listener);
  }

  /** Reads the open commands of those of these hosts that are linked here, and the wishes to cancel them. */
  async sendOpen(hostIds: readonly number[]): Promise<void> {
    const here = [...new Set(hostIds)].filter((id) => this.#links.has(id));
    if (here.length === 0) return;
    const rows = await this.#db
      .selectFrom('job_step as s')
      .innerJoin('job as j', 'j.id', 's.job_id')
      .select(['s.host_id', 's.job_id', 's.seq', 's.command', 's.vm_epoch', 's.timeout_ms', 's.payload'])
      .select(['j.cancel_requested_at', 's.direction'])
      .where('s.host_id', 'in', here)
      .where('s.state', '=', 'OPEN')
      .where('j.state', 'in', ['RUNNING', 'NEEDS_ATTENTION'])
      .orderBy('s.job_id')
      .execute();
    for (const row of rows) {
      const link = this.#links.get(row.host_id!);
      const command = wireOf({
        jobId: row.job_id,
        seq: row.seq,
        hostId: row.host_id!,
        command: row.command!,
        vmEpoch: row.vm_epoch,
        timeoutMs: row.timeout_ms,
        payload: row.payload!,
      });
      link?.push(command);
      if (row.cancel_requested_at !== null && row.direction === 'DO') link?.push(cancelOf(command.commandId));
    }
  }

  /**
   * Asks a host something that needs no job.
   *
   * @throws VirtgraphError HOST_UNREACHABLE, TIMEOUT, HOST_REFUSED
   */
  ask(hostId: number, kind: string, fields: Record<string, unknown>, timeoutMs: number): Promise<CommandResult> {
    const link = this.#links.get(hostId);
    if (!link) return Promise.reject(unreachable());
    const commandId = `${REQUEST_PREFIX}${randomUUID()}`;
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#asked.delete(commandId);
        link.forget(commandId);
        reject(new VirtgraphError({ code: 'TIMEOUT', message: 'The host has not answered in time.' }));
      }, timeoutMs);
      this.#asked.set(commandId, { hostId, resolve, reject, timer });
      link.push(withFields({ __typename: kind, commandId, epoch: 0, timeoutMs }, fields));
    });
  }

  /** Sends a command that nobody awaits, for example a stream to begin or end. */
  tell(hostId: number, command: WireCommand, fields: Record<string, unknown> = {}): void {
    const link = this.#links.get(hostId);
    if (!link) throw unreachable();
    link.push(withFields(command, fields));
  }

  /** @returns false when the id is none of a question; FOREIGN when another host was asked: it still is */
  answered(
    hostId: number,
    commandId: string,
    result: CommandResult | null,
    error: StepError | null,
  ): boolean | 'FOREIGN' {
    if (!commandId.startsWith(REQUEST_PREFIX)) return false;
    const asked = this.#asked.get(commandId);
    if (asked && asked.hostId !== hostId) return 'FOREIGN';
    this.forget(hostId, commandId);
    // Nobody waits any more.
    if (!asked) return true;
    this.#asked.delete(commandId);
    clearTimeout(asked.timer);
    if (error)
      asked.reject(
        new VirtgraphError({ code: error.code === 'NOT_FOUND' ? 'NOT_FOUND' : 'HOST_REFUSED', message: error.message }),
      );
    else asked.resolve(result ?? {});
    return true;
  }

  #left(hostId: number, link: Link): void {
    this.#links.delete(hostId);
    this.#failAsked(hostId);
    for (const listener of this.#gone) listener(hostId, link.sessionId);
  }

  #failAsked(hostId: number): void {
    for (const [id, asked] of this.#asked) {
      if (asked.hostId !== hostId) continue;
      this.#asked.delete(id);
      clearTimeout(asked.timer);
      asked.reject(unreachable());
    }
  }
}

export const cancelOf = (commandId: string): WireCommand => ({
  __typename: 'CancelCommand',
  commandId,
  epoch: 0,
  timeoutMs: 10_000,
});

export const unreachable = (): VirtgraphError =>
  new VirtgraphError({ code: 'HOST_UNREACHABLE', message: 'The host is not connected, so it cannot be asked.' });

const wireOf = (command: OpenCommand): WireCommand =>
  withFields(
    {
      __typename: command.command,
      commandId: commandIdOf(command.jobId, command.seq),
      epoch: command.vmEpoch,
      timeoutMs: command.timeoutMs,
    },
    JSON.parse(command.payload) as Record<string, unknown>,
  );
