import type { Logger } from 'pino';
import type { Answer } from '../domain/job.ts';
import type { LinkedHostAgent } from '../hosts/agent.ts';
import type { CommandOwners } from '../hosts/command-owners.ts';
import type { HostIdentities, KnownHost } from '../hosts/identities.ts';
import type { HostLinks } from '../hosts/links.ts';
import type { Observations } from '../hosts/observations.ts';
import type { ProgressBoard } from '../hosts/progress.ts';
import type { HostRefusals } from '../hosts/refusals.ts';
import type { HostSessions } from '../hosts/sessions.ts';

/** The parts of a control plane that the host protocol works with. */
export interface HostdParts {
  identities: HostIdentities;
  sessions: HostSessions;
  links: HostLinks;
  agent: LinkedHostAgent;
  observations: Observations;
  progress: ProgressBoard;
  refusals: HostRefusals;
  commandOwners: CommandOwners;
  answer: (hostId: number, jobId: number, seq: number, answer: Answer) => Promise<'taken' | 'repeat' | 'foreign'>;
  log: Logger;
}

/** Who speaks is known from the certificate of the connection, never from an argument. */
export interface HostdContext extends HostdParts {
  /** Null without a certificate: only `register` is open then. */
  host: KnownHost | null;
  /** Where the connection comes from. */
  address: string | null;
}
