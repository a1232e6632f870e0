import type { Logger } from 'pino';
import { pause } from './backoff.ts';
import { type Connection, RequestFailed } from './connection.ts';
import type { Command, CommandReportInput, ProgressInput, Session, VmObservationInput } from './generated/protocol.ts';
import {
  COMMANDS,
  type CommandsAnswer,
  decodeCommand,
  HEARTBEAT,
  type HeartbeatAnswer,
  REPORT_COMMANDS,
  REPORT_PROGRESS,
  REPORT_VMS,
  type ReportCommandsAnswer,
  type ReportVmsAnswer,
} from './operations.ts';
import type { Outbox } from './outbox.ts';
import type { ProgressFeed } from './progress-feed.ts';
import type { UsageMeter } from './usage-meter.ts';

/** The control plane says that this session is over. */
export class SessionEnded extends Error {
  override readonly name = 'SessionEnded';
}

/** What a host has to tell, and whom it tells what it is told. */
export interface SessionParts {
  reports: Outbox<CommandReportInput>;
  vms: Outbox<VmObservationInput>;
  progress: ProgressFeed;
  usage: UsageMeter;
  log: Logger;
  /** The subscription to commands is on its way. */
  linked(): void;
  commands(commands: Command[]): void;
  /** Answers to commands have been taken. */
  answered(): void;
  /** A heartbeat was answered: the session is worth something. */
  alive(): void;
}

const UNANSWERED_HEARTBEATS = 3;

/** Holds a session until it ends, and throws why: `ConnectionLost`, `RequestFailed` or `SessionEnded`. */
export async function holdSession(connection: Connection, session: Session, parts: SessionParts): Promise<never> {
  const { sessionId, heartbeatMs } = session;
  const { log } = parts;
  const ended = new AbortController();
  const { signal } = ended;

  async function takeCommands(): Promise<never> {
    const subscribed = connection.subscribe<CommandsAnswer>(COMMANDS, { sessionId }, ({ commands }) =>
      parts.commands(commands.map(decodeCommand)),
    );
    parts.linked();
    await subscribed;
    throw new SessionEnded('the control plane ended the subscription');
  }

  async function sendReports(): Promise<void> {
    await parts.reports.drain(
      async (reports) => {
        const { reportCommands } = await connection.request<ReportCommandsAnswer>(REPORT_COMMANDS, { reports });
        if (reportCommands) parts.answered();
        return reportCommands;
      },
      (error, reports) => log.warn({ err: error, reports: reports.length }, 'reports refused, will be repeated'),
      signal,
    );
  }

  async function sendVms(): Promise<void> {
    await parts.vms.drain(
      async (vms) => (await connection.request<ReportVmsAnswer>(REPORT_VMS, { sessionId, vms })).reportVms,
      (error, vms) => log.warn({ err: error, vms: vms.length }, 'VM states refused, will be repeated'),
      signal,
    );
  }

  function sendProgress(progress: ProgressInput[]): void {
    connection.request(REPORT_PROGRESS, { progress }).catch((error: unknown) => {
      log.debug({ err: error }, 'progress dropped');
    });
  }

  async function beat(): Promise<void> {
    // Many hosts spread their beats over the interval.
    await pause(Math.random() * heartbeatMs, signal);
    let unanswered = 0;
    while (!signal.aborted) {
      const began = performance.now();
      const input = { sessionId, ...(await parts.usage.read(heartbeatMs / 2)) };
      try {
        const { heartbeat } = await connection.request<HeartbeatAnswer>(HEARTBEAT, { input }, heartbeatMs);
        if (!heartbeat) throw new SessionEnded('the session has ended');
        unanswered = 0;
        parts.alive();
      } catch (error) {
        if (!(error instanceof RequestFailed)) throw error;
        // An error says that the control plane is ill, not that it is gone. Silence is another matter.
        unanswered = error.codes.length === 0 ? unanswered + 1 : 0;
        if (unanswered === UNANSWERED_HEARTBEATS) throw error;
        log.warn({ reason: error.message }, 'heartbeat failed');
      }
      await pause(Math.max(0, heartbeatMs - (performance.now() - began)), signal);
    }
  }

  parts.progress.attach(sendProgress);
  try {
    // The loops return only when the connection is lost; which of them notices first doesn't matter.
    await Promise.race([takeCommands(), sendReports(), sendVms(), beat()]);
    throw await connection.lost;
  } finally {
    parts.progress.detach();
    ended.abort();
  }
}
