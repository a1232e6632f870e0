import { randomUUID } from 'node:crypto';
import type { Kysely } from 'kysely';
import type { Logger } from 'pino';
import type { Inventory } from '../db/inventory.ts';
import type { Database } from '../db/tables.ts';
import { emptyTransition, expect, now, patch, type Transition } from '../db/transition.ts';
import type { Writer } from '../db/writer.ts';
import { VirtgraphError } from '../domain/errors.ts';
import { encodeId } from '../domain/ids.ts';
import { hostEvent, notAccepted } from './identities.ts';
import type { HostLinks } from './links.ts';
import type { Observations, VmObservation } from './observations.ts';
import { type HostCaller, type HostRefusals, ofOthers } from './refusals.ts';
import type { HostLoad, UsageBoard, VmUsageReport } from './usage.ts';

export interface HostFacts {
  hypervisor: 'KVM' | 'TCG' | 'FAKE';
  version: string;
  capabilities: string[];
  vcpusTotal: number;
  memoryTotalMib: number;
  vms: VmObservation[];
}

interface Session {
  id: string;
  hostId: number;
  beatAt: number;
}

export interface SessionsOptions {
  db: Kysely<Database>;
  writer: Writer;
  inventory: Inventory;
  links: HostLinks;
  observations: Observations;
  usage: UsageBoard;
  refusals: HostRefusals;
  /** This process. */
  processId: string;
  log: Logger;
  heartbeatMs?: number;
  monotonicMs?: () => number;
}

/** Heartbeats that may stay away before a host counts as unreachable. */
const BEATS_MISSED = 3;
const OPEN_TRIES = 5;

/** The sessions of hosts that are linked to this process. */
export class HostSessions {
  readonly #o: SessionsOptions;
  readonly #now: () => number;
  readonly #byHost = new Map<number, Session>();
  /** Their links have ended, which the database could not be told yet. */
  #unrecorded = new Set<Session>();
  readonly heartbeatMs: number;
  #leaving = false;

  constructor(options: SessionsOptions) {
    this.#o = options;
    this.#now = options.monotonicMs ?? (() => performance.now());
    this.heartbeatMs = options.heartbeatMs ?? 10_000;
    options.links.onGone((hostId, sessionId) => this.#linkEnded(hostId, sessionId));
  }

  /**
   * Begins a session, which ends any earlier one of the host, here or elsewhere.
   *
   * @throws VirtgraphError UNAUTHENTICATED for a host that was deleted, or whose certificate is not accepted any more
   */
  async open(host: HostCaller, facts: HostFacts): Promise<{ sessionId: string; heartbeatMs: number; hostId: string }> {
    const session: Session = { id: randomUUID(), hostId: host.id, beatAt: this.#now() };
    let uid = await this.#begin(host, session, facts);
    for (let tries = 1; uid === null; tries++) {
      if (tries === OPEN_TRIES)
        throw new VirtgraphError({ code: 'CONFLICT', message: 'The host is changed at the same time. Try again.' });
      uid = await this.#begin(host, session, facts);
    }
    this.#byHost.set(host.id, session);
    const foreign = await this.#o.observations.all(host.id, session.id, facts.vms);
    // The session is well all the same: a machine that was another host before may still have what was that one's.
    if (foreign.length > 0) await this.#o.refusals.message(host, 'openSession', ofOthers(foreign));
    return { sessionId: session.id, heartbeatMs: this.heartbeatMs, hostId: encodeId('host', uid) };
  }

  /** @returns uid of the host; null when it, or what its cluster may overcommit, has changed while it was read */
  async #begin({ version }: HostCaller, session: Session, facts: HostFacts): Promise<Buffer | null> {
    const row = await this.#o.db
      .selectFrom('host')
      .selectAll()
      .where('id', '=', session.hostId)
      .where('deleted_at', 'is', null)
      .executeTakeFirst();
    if (!row) throw new VirtgraphError({ code: 'UNAUTHENTICATED', message: 'This host was deleted.' });
    // What was said before a revocation may be heard after it: no session begins then.
    if (version !== undefined && version !== row.certificate_floor) throw notAccepted();
    const cluster = await this.#o.db
      .selectFrom('cluster')
      .select(['generation', 'vcpu_overcommit', 'memory_overcommit'])
      .where('id', '=', row.cluster_id)
      .executeTakeFirstOrThrow();
    const outcome = await this.#o.writer.submit({
      ...emptyTransition(),
      writes: [
        // Looked at once the host is locked: whoever changes the cluster writes to its hosts too.
        expect('cluster', row.cluster_id, { generation: cluster.generation }),
        patch(
          'host',
          row.id,
          { deleted_at: null, certificate_floor: row.certificate_floor },
          {
            link_state: 'UP',
            link_process: this.#o.processId,
            link_session: session.id,
            last_seen_at: now,
            hypervisor: facts.hypervisor,
            hostd_version: facts.version.slice(0, 32),
            capabilities: JSON.stringify(facts.capabilities),
            vcpus_total: facts.vcpusTotal,
            memory_total_mib: facts.memoryTotalMib,
            vcpus_cap: Math.floor(facts.vcpusTotal * cluster.vcpu_overcommit),
            memory_cap_mib: Math.floor(facts.memoryTotalMib * cluster.memory_overcommit),
          },
        ),
      ],
      changes: [{ kind: 'host', id: row.id }],
      events:
        row.link_state === 'UP'
          ? []
          : [hostEvent(row.id, 'host.link', [{ field: 'linkState', before: row.link_state, after: 'UP' }])],
    });
    return outcome.kind === 'written' ? row.uid : null;
  }

  /** @returns false when the session is not (or no more) this host's: it must open another */
  isCurrent(hostId: number, sessionId: string): boolean {
    return this.#byHost.get(hostId)?.id === sessionId;
  }

  /** Whether it is the session of another host, which nobody else can know by chance. */
  isAnothers(hostId: number, sessionId: string): boolean {
    for (const session of this.#byHost.values()) if (session.id === sessionId) return session.hostId !== hostId;
    for (const host of this.#o.inventory.all('host')) if (host.link_session === sessionId) return host.id !== hostId;
    return false;
  }

  /** Costs no write: only silence is worth one. */
  heartbeat(hostId: number, sessionId: string, load: HostLoad, vms: VmUsageReport[]): boolean {
    const session = this.#byHost.get(hostId);
    if (session?.id !== sessionId) return false;
    session.beatAt = this.#now();
    this.#o.usage.report(hostId, load, vms);
    return true;
  }

  lastSeenMsAgo(hostId: number): number | null {
    const session = this.#byHost.get(hostId);
    return session ? this.#now() - session.beatAt : null;
  }

  /** Cuts the links of hosts that have been silent for too long, and of those whose session is over for all others. */
  expire(): void {
    const unrecorded = this.#unrecorded;
    this.#unrecorded = new Set();
    for (const session of unrecorded) this.#recordLost(session);
    const before = this.#now() - BEATS_MISSED * this.heartbeatMs;
    for (const { id, hostId, beatAt } of this.#byHost.values()) {
      if (beatAt >= before && !this.#isOver(hostId, id)) continue;
      this.#o.links.cut(hostId);
      // A session whose host never asked for its commands has no link that could end.
      this.#linkEnded(hostId, id);
    }
  }

  /**
   * A process that was away from the database for longer than its lease has lost its hosts there, although their links
   * are well. Nothing would say so to a host that is content: it must come back and open another session.
   */
  #isOver(hostId: number, sessionId: string): boolean {
    const { inventory } = this.#o;
    return inventory.isFresh && inventory.get('host', hostId)?.link_session !== sessionId;
  }

  /** From now on links end because this process does: its hosts go to another, and only silence there is news. */
  leave(): void {
    this.#leaving = true;
  }

  #linkEnded(hostId: number, sessionId: string): void {
    const session = this.#byHost.get(hostId);
    // The host has opened another session already; this was the link of the one before.
    if (session?.id !== sessionId) return;
    this.#byHost.delete(hostId);
    if (this.#leaving) return;
    this.#recordLost(session);
  }

  #recordLost(session: Session): void {
    this.#markUnreachable(session).catch((error: unknown) => {
      // Nobody else can find it: this process lives, so its links are not nobody's. Tried again with the next round.
      this.#unrecorded.add(session);
      this.#o.log.warn({ err: error, hostId: session.hostId }, 'a lost link could not be recorded yet');
    });
  }

  /** Guarded by the session: a host that has come back meanwhile, here or elsewhere, stays up. */
  async #markUnreachable(session: Session): Promise<void> {
    await this.#o.writer.submit(unreachableTransition(session.hostId, { link_session: session.id }));
  }
}

/** Contact is lost, which says nothing about the host's VMs: only what is known of the link changes. */
export function unreachableTransition(
  hostId: number,
  guard: { link_session?: string; link_process?: string | null },
): Transition {
  return {
    ...emptyTransition(),
    writes: [
      patch(
        'host',
        hostId,
        { ...guard, link_state: 'UP' },
        { link_state: 'UNREACHABLE', link_process: null, link_session: null, last_seen_at: now },
      ),
    ],
    changes: [{ kind: 'host', id: hostId }],
    events: [hostEvent(hostId, 'host.link', [{ field: 'linkState', before: 'UP', after: 'UNREACHABLE' }])],
  };
}
