import type { Logger } from 'pino';
import { type Backoff, fullJitter, pause } from './backoff.ts';
import { type Connection, ConnectionLost, connect, RequestFailed } from './connection.ts';
import type { Command, CommandReportInput, ProgressInput, Session, VmObservationInput } from './generated/protocol.ts';
import { GivenUp } from './given-up.ts';
import type { HostFacts, Hypervisor, VmObservation } from './hypervisor.ts';
import type { Identity } from './identity.ts';
import { Membership, type MembershipOptions } from './membership.ts';
import { OPEN_SESSION, type OpenSessionAnswer, SEND_SERIAL, type SendSerialAnswer } from './operations.ts';
import { Outbox } from './outbox.ts';
import { ProgressFeed } from './progress-feed.ts';
import { holdSession, SessionEnded } from './session.ts';
import type { Slots } from './slots.ts';
import { UsageMeter } from './usage-meter.ts';

export interface LinkTiming {
  /** Between attempts to get a session. */
  backoff: Backoff;
  /** Ping after this long, and give up when the pong takes as long again. */
  keepAliveMs: number;
  /** Bounds the handshake and each request but heartbeats. */
  requestTimeoutMs: number;
}

export const LINK_TIMING: LinkTiming = {
  backoff: { minMs: 100, maxMs: 15_000 },
  keepAliveMs: 10_000,
  requestTimeoutMs: 30_000,
};

export interface LinkOptions {
  /** WebSocket addresses of control planes; each failed attempt goes on to the next. */
  urls: readonly string[];
  name: string;
  joinToken: MembershipOptions['joinToken'];
  authorities: MembershipOptions['authorities'];
  store: MembershipOptions['store'];
  hypervisor: Hypervisor;
  /** Highest epoch that this host has accepted for the VM. */
  epochOf: (vmId: string) => number;
  /** Bounds how many links of this process shake hands at once. */
  handshakes: Slots;
  timing: LinkTiming;
  log: Logger;
}

export interface LinkHandlers {
  commands(commands: Command[]): void;
  /** The session is over; what only it could use should end. */
  lost(): void;
}

/**
 * One host's line to the control plane: dials out, registers once, and holds a session for as long as it is wanted.
 * Reports wait here for a link, progress doesn't.
 */
export class Link {
  readonly #options: LinkOptions;
  readonly #log: Logger;
  readonly #stopping = new AbortController();
  readonly #reports = new Outbox<CommandReportInput>(({ commandId }) => commandId);
  readonly #vms = new Outbox<VmObservationInput>(({ vmId }) => vmId);
  readonly #progress = new ProgressFeed();
  readonly #usage: UsageMeter;
  readonly #membership: Membership;
  readonly #givenUp = Promise.withResolvers<GivenUp>();
  #connection: Connection | null = null;
  #linked = Promise.withResolvers<void>();
  #running: Promise<void> | null = null;
  #attempt = 0;
  #target = 0;

  constructor(options: LinkOptions) {
    this.#options = options;
    this.#log = options.log;
    this.#usage = new UsageMeter(options.hypervisor, options.log);
    // Nobody need wait for the link; a rejection at the end is told to those who do.
    this.#linked.promise.catch(() => undefined);
    this.#membership = new Membership({ ...options, signal: this.#stopping.signal });
  }

  /** Resolves, with why, when the link tries no more. */
  get givenUp(): Promise<GivenUp> {
    return this.#givenUp.promise;
  }

  /**
   * Resolves while there is a session, or when there is one. Rejects once the link is closed, and with `GivenUp`, after
   * which it tries no more.
   */
  get linked(): Promise<void> {
    return this.#linked.promise;
  }

  /** How many answers wait to be acknowledged. */
  get unacknowledged(): number {
    return this.#reports.size;
  }

  report(report: CommandReportInput): void {
    this.#progress.forget(report.commandId);
    this.#reports.put(report);
  }

  progress(progress: ProgressInput): void {
    this.#progress.put(progress);
  }

  vmChanged(vm: VmObservation): void {
    this.#vms.put(this.#observation(vm));
  }

  /** False: nobody watches any more. Throws `ConnectionLost` or `RequestFailed`. */
  async sendSerial(commandId: string, offset: number, bytes: Buffer): Promise<boolean> {
    if (!this.#connection) throw new ConnectionLost('not linked');
    const variables = { commandId, offset: String(offset), base64: bytes.toString('base64') };
    return (await this.#connection.request<SendSerialAnswer>(SEND_SERIAL, variables)).sendSerial;
  }

  start(handlers: LinkHandlers): void {
    this.#running ??= this.#run(handlers);
  }

  async close(): Promise<void> {
    this.#connection?.close();
    this.#stop();
    await this.#running;
  }

  /** Ends as a process that dies: nothing is said, nothing flushed. */
  async kill(): Promise<void> {
    this.#stop();
    await this.#running;
  }

  #stop(): void {
    this.#stopping.abort();
    this.#linked.reject(new ConnectionLost('the link is closed'));
  }

  async #run(handlers: LinkHandlers): Promise<void> {
    const { signal } = this.#stopping;
    const { urls, timing } = this.#options;
    while (!signal.aborted) {
      const url = urls[this.#target % urls.length]!;
      try {
        await this.#session(url, handlers);
      } catch (error) {
        if (signal.aborted) return;
        this.#tell(url, error);
        if (error instanceof GivenUp) return this.#giveUp(error);
        if (isRefusal(error)) this.#membership.refused(error.message);
      }
      this.#target++;
      await pause(fullJitter(this.#attempt++, timing.backoff), signal);
    }
  }

  #tell(url: string, error: unknown): void {
    const { message } = error as Error;
    if (error instanceof GivenUp) {
      this.#log.error({ url, kind: error.name, reason: message }, 'the link is given up: a person has to look');
    } else if (error instanceof ConnectionLost || error instanceof RequestFailed || error instanceof SessionEnded) {
      this.#log.warn({ url, reason: message, attempt: this.#attempt }, 'no session');
    } else {
      this.#log.error({ url, err: error }, 'no session');
    }
  }

  #giveUp(error: GivenUp): void {
    this.#linked.reject(error);
    this.#givenUp.resolve(error);
  }

  /** Throws what ended the session; returns when it is to be followed by one with a newer certificate. */
  async #session(url: string, handlers: LinkHandlers): Promise<void> {
    const { own, connection, session } = await this.#open(url);
    this.#connection = connection;
    const ended = new AbortController();
    try {
      const held = holdSession(connection, session, {
        reports: this.#reports,
        vms: this.#vms,
        progress: this.#progress,
        usage: this.#usage,
        log: this.#log,
        linked: () => this.#linked.resolve(),
        commands: handlers.commands,
        answered: () => this.#tellOfCrashes(),
        // Only now may the next attempt be made at once: two daemons with one credential would else chase each other.
        alive: () => {
          this.#attempt = 0;
        },
      });
      await Promise.race([held, this.#membership.renew(connection, own, ended.signal)]);
    } finally {
      ended.abort();
      this.#connection = null;
      connection.close();
      if (!this.#stopping.signal.aborted) {
        this.#linked = Promise.withResolvers();
        this.#linked.promise.catch(() => undefined);
      }
      handlers.lost();
    }
  }

  async #open(url: string): Promise<{ own: Identity; connection: Connection; session: Session }> {
    const release = await this.#options.handshakes.take(this.#stopping.signal);
    try {
      const own = await this.#membership.identity(url);
      const facts = await this.#options.hypervisor.facts();
      const { signal } = this.#stopping;
      const connection = await connect({ url, authority: own.authority, own, ...this.#options.timing, signal });
      try {
        const session = await this.#openSession(connection, facts);
        return { own, connection, session };
      } catch (error) {
        connection.close();
        throw error;
      }
    } finally {
      release();
    }
  }

  async #openSession(connection: Connection, facts: HostFacts): Promise<Session> {
    // What is seen now covers every change that waited; a change from here on waits for its turn behind this.
    this.#vms.clear();
    const vms = this.#options.hypervisor.observe().map((vm) => this.#observation(vm));
    const input = { ...facts, vms };
    const { openSession } = await connection.request<OpenSessionAnswer>(OPEN_SESSION, { input });
    this.#log.info({ sessionId: openSession.sessionId, hostId: openSession.hostId, vms: vms.length }, 'linked');
    return openSession;
  }

  /** An answer that comes late says of a VM what was so before its crash: the crash is told once more, behind it. */
  #tellOfCrashes(): void {
    for (const vm of this.#options.hypervisor.observe())
      if (vm.state === 'CRASHED') this.#vms.put(this.#observation(vm));
  }

  #observation(vm: VmObservation): VmObservationInput {
    return { ...vm, epoch: Math.max(vm.epoch, this.#options.epochOf(vm.vmId)) };
  }
}

/** The certificate is refused, as far as one control plane can say. */
const isRefusal = (error: unknown): error is ConnectionLost =>
  error instanceof ConnectionLost && error.closeCode === 4403;
