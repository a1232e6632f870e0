import type { Logger } from 'pino';
import type { Host } from '../db/tables.ts';
import type { Answer } from '../domain/job.ts';
import type { LinkedHostAgent } from '../hosts/agent.ts';
import type { HostLinks } from '../hosts/links.ts';
import type { Observations } from '../hosts/observations.ts';
import type { ProgressBoard } from '../hosts/progress.ts';
import type { HostSessions } from '../hosts/sessions.ts';

/** What the host protocol works with. Who speaks is known from the link, never from an argument. */
export interface HostdContext {
  /** Null before the host has joined: only `register` is open then. */
  host: Host | null;
  sessions: HostSessions;
  links: HostLinks;
  agent: LinkedHostAgent;
  observations: Observations;
  progress: ProgressBoard;
  answer: (hostId: number, jobId: number, seq: number, answer: Answer) => Promise<void>;
  log: Logger;
}
