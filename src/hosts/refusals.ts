import type { Logger } from 'pino';
import { emptyTransition, type NewAudit } from '../db/transition.ts';
import type { Writer } from '../db/writer.ts';
import { VirtgraphError } from '../domain/errors.ts';

/** What a host did, or somebody who would be one, as the audit trail has it; allowed, unless told otherwise. */
export const hostAudit = (
  action: string,
  subject: NewAudit['subject'],
  { certificateId, address }: Partial<HostCaller>,
): NewAudit => ({
  action,
  outcome: 'ALLOWED',
  code: null,
  actor: 'host',
  userId: null,
  credential: certificateId === undefined ? null : `certificate:${certificateId}`,
  address: address ?? null,
  accountId: null,
  subject,
  jobId: null,
  reason: null,
  changes: [],
  requestId: null,
});

const NAMED_AT_MOST = 10;

/** The first of them, and how many more there are. */
export const listed = (ids: readonly string[]): string => {
  const more = ids.length - NAMED_AT_MOST;
  return `${ids.slice(0, NAMED_AT_MOST).join(', ')}${more > 0 ? ` and ${more} more` : ''}`;
};
export const ofOthers = (vmIds: readonly string[]): string => `VMs of others (${listed(vmIds)})`;

const WINDOW_MS = 60_000;
/** Of one source in a window; what it says beyond is only counted. */
const TOLD_AT_MOST = 100;
const SOURCES_AT_MOST = 10_000;

interface Window {
  since: number;
  told: Set<string>;
  /** Not told, because it was told already or was too much. */
  untold: number;
}

/** Who sent a message, and what is known of where from. */
export interface HostCaller {
  id: number;
  certificateId?: number;
  /** Of its certificate. */
  version?: number;
  address?: string | null;
}

interface Refusal {
  type: string;
  reason: string;
  subject: { kind: 'host' | 'cluster'; id: number } | null;
  audit: NewAudit;
}

export interface RefusalsOptions {
  writer: Writer;
  log: Logger;
  monotonicMs?: () => number;
}

/**
 * What was refused to a host, or to somebody who would be one: kept with the events and in the audit, once a minute for
 * each thing and source, so that nobody fills the database by being refused.
 */
export class HostRefusals {
  readonly #o: RefusalsOptions;
  readonly #now: () => number;
  readonly #windows = new Map<string, Window>();

  constructor(options: RefusalsOptions) {
    this.#o = options;
    this.#now = options.monotonicMs ?? (() => performance.now());
  }

  /**
   * A message about what is not the host's. Resolves, once it is kept, with the error for whoever sent it.
   *
   * @param message field of the host protocol
   * @param what it was about, in words
   */
  async message(host: HostCaller, message: string, what: string): Promise<VirtgraphError> {
    this.#o.log.warn({ hostId: host.id, message, what }, 'a host spoke of what is not its own; refused');
    const subject = { kind: 'host' as const, id: host.id };
    await this.#tell(`host ${host.id}`, {
      type: 'host.message_refused',
      reason: `${message}: ${what}`,
      subject,
      audit: { ...hostAudit('hostMessage', subject, host), outcome: 'REFUSED', code: 'FORBIDDEN' },
    });
    return new VirtgraphError({ code: 'FORBIDDEN', message: `Refused, for it is not this host's: ${what}.` });
  }

  /**
   * A join token that does not admit whoever has it.
   *
   * @param token null: there is none of the kind
   * @param address of whoever tried
   */
  async join(token: { cluster_id: number } | null, why: string, address: string | null): Promise<VirtgraphError> {
    this.#o.log.warn({ clusterId: token?.cluster_id, why, address }, 'a join token was refused');
    const subject = token && { kind: 'cluster' as const, id: token.cluster_id };
    await this.#tell(`address ${address}`, {
      type: 'cluster.join_refused',
      reason: `The join token ${why}; it was shown from ${address ?? 'an unknown address'}.`,
      subject,
      audit: { ...hostAudit('register', subject, { address }), outcome: 'REFUSED', code: 'UNAUTHENTICATED' },
    });
    return new VirtgraphError({
      code: 'UNAUTHENTICATED',
      message: 'The join token is unknown, expired or used up.',
    });
  }

  async #tell(source: string, { type, reason, subject, audit }: Refusal): Promise<void> {
    const window = this.#windowOf(source);
    const what = `${subject?.id} ${reason}`;
    if (window.told.has(what) || window.told.size >= TOLD_AT_MOST) {
      window.untold++;
      return;
    }
    window.told.add(what);
    const more = window.untold > 0 ? ` ${window.untold} more were refused before it and not kept one by one.` : '';
    window.untold = 0;
    const whole = `${reason}${more}`.slice(0, 1024);
    const event = { type, jobId: null, actor: 'host', reason: whole, changes: [] };
    try {
      await this.#o.writer.submit({
        ...emptyTransition(),
        // The feed wakes followers of events by changes alone.
        changes: subject ? [subject] : [],
        events: subject ? [{ ...event, subject }] : [],
        audits: [{ ...audit, reason: whole }],
      });
    } catch (error) {
      // It is refused all the same, and the log has it.
      window.told.delete(what);
      this.#o.log.error({ err: error, source, what }, 'a refusal could not be kept');
    }
  }

  #windowOf(source: string): Window {
    const now = this.#now();
    const before = this.#windows.get(source);
    if (before && now - before.since < WINDOW_MS) return before;
    // The oldest stands first: sources that are only counted, like addresses, are as many as somebody likes.
    this.#windows.delete(source);
    if (this.#windows.size >= SOURCES_AT_MOST) this.#windows.delete(this.#windows.keys().next().value!);
    const window: Window = { since: now, told: new Set(), untold: before?.untold ?? 0 };
    this.#windows.set(source, window);
    return window;
  }
}
