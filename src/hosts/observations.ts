import { setImmediate } from 'node:timers';
import DataLoader from 'dataloader';
import type { Kysely } from 'kysely';
import type { Logger } from 'pino';
import type { Database } from '../db/tables.ts';
import { emptyTransition, expect, now, patch, type Transition } from '../db/transition.ts';
import type { Writer } from '../db/writer.ts';
import { decodeIdOf, encodeId } from '../domain/ids.ts';
import type { ObservedVmState, VmState } from '../domain/vm-state.ts';
import { foreignVms } from './vm-claims.ts';

export interface VmObservation {
  vmId: string;
  state: ObservedVmState;
  epoch: number;
  reason: string | null;
}

interface Known {
  id: number;
  uid: Buffer;
  host_id: number | null;
  last_host_id: number | null;
  epoch: number;
  state: VmState;
  active_job_id: number | null;
  observed_state: ObservedVmState | null;
  observed_epoch: number | null;
  observed_host_id: number | null;
}

export interface ObservationsOptions {
  db: Kysely<Database>;
  writer: Writer;
  /** Told of VMs whose observed state changed, after the commit. */
  changed: (vmIds: number[]) => void;
  log: Logger;
}

/** Writes what hosts see of their VMs, and only that: what is wanted is not theirs to say. */
export class Observations {
  readonly #o: ObservationsOptions;
  readonly #known: DataLoader<Buffer, Known | null>;

  constructor(options: ObservationsOptions) {
    this.#o = options;
    this.#known = new DataLoader((uids) => this.#read(uids), { cache: false, batchScheduleFn: setImmediate });
  }

  /**
   * Everything that a host knows of, at the start of a session: what it doesn't name is absent there.
   *
   * @returns as `some`
   */
  async all(hostId: number, sessionId: string, told: VmObservation[]): Promise<string[]> {
    const expected = await this.#o.db
      .selectFrom('vm')
      .select(COLUMNS)
      .where('host_id', '=', hostId)
      .where('deleted_at', 'is', null)
      .execute();
    const named = new Set(told.map((o) => o.vmId));
    const absent = expected
      .filter((vm) => !named.has(encodeId('vm', vm.uid)) && vm.active_job_id === null)
      .map(
        (vm): VmObservation => ({
          vmId: encodeId('vm', vm.uid),
          state: 'ABSENT',
          epoch: vm.epoch,
          reason: 'the host does not know it',
        }),
      );
    return this.some(hostId, sessionId, [...told, ...absent]);
  }

  /** @returns ids of VMs that the host never had anything to do with: of these it has no say, and nothing is written */
  async some(hostId: number, sessionId: string, told: VmObservation[]): Promise<string[]> {
    const uids = told.map((o) => decodeIdOf('vm', o.vmId)).filter((uid) => uid !== null);
    if (uids.length === 0) return [];
    // What many hosts tell at the same time is looked up together.
    const rows = await Promise.all(uids.map((uid) => this.#known.load(uid)));
    const known = rows.filter((row) => row !== null);
    const byPublicId = new Map(known.map((row) => [encodeId('vm', row.uid), row]));
    const moves = told.flatMap((o) => this.#transition(hostId, sessionId, o, byPublicId.get(o.vmId)));
    const outcomes = await Promise.all(moves.map((m) => this.#o.writer.submit(m.transition)));
    const written = moves.filter((_, i) => outcomes[i]!.kind === 'written').map((m) => m.vmId);
    if (written.length > 0) this.#o.changed(written);
    const foreign = await foreignVms(this.#o.db, hostId, known);
    return known.filter(({ id }) => foreign.has(id)).map(({ uid }) => encodeId('vm', uid));
  }

  async #read(uids: readonly Buffer[]): Promise<(Known | null)[]> {
    const rows: Known[] = await this.#o.db
      .selectFrom('vm')
      .select(COLUMNS)
      .where('uid', 'in', [...uids])
      .execute();
    const byUid = new Map(rows.map((row) => [row.uid.toString('hex'), row]));
    return uids.map((uid) => byUid.get(uid.toString('hex')) ?? null);
  }

  #transition(
    hostId: number,
    sessionId: string,
    told: VmObservation,
    vm: Known | undefined,
  ): { vmId: number; transition: Transition }[] {
    const runs = told.state === 'RUNNING' || told.state === 'PAUSED' || told.state === 'STARTING';
    if (!vm || (vm.host_id !== hostId && vm.active_job_id === null)) {
      // Not ours to end: a person must look, for it may be the only copy that runs.
      if (runs)
        this.#o.log.warn({ hostId, vmId: told.vmId, state: told.state }, 'a host runs a VM that is not placed there');
      return [];
    }
    if (vm.host_id !== hostId) return [];
    // While a job is at work, its answer carries the same observation; only an end that it did not ask for is news.
    const ended = told.state === 'CRASHED' || (told.state === 'STOPPED' && vm.state !== 'STOPPING');
    if (vm.active_job_id !== null && !ended) return [];
    if (told.epoch < vm.epoch && vm.active_job_id === null && !runs && told.state !== 'ABSENT') return [];
    if (vm.observed_state === told.state && vm.observed_epoch === told.epoch && vm.observed_host_id === hostId)
      return [];
    const transition: Transition = {
      ...emptyTransition(),
      writes: [
        // A process that was stopped may still hold what a host told it in a session that is over.
        expect('host', hostId, { link_session: sessionId }),
        patch(
          'vm',
          vm.id,
          { host_id: hostId, epoch: vm.epoch },
          {
            observed_state: told.state,
            observed_reason: told.reason?.slice(0, 1024) ?? null,
            observed_at: now,
            observed_host_id: hostId,
            observed_epoch: told.epoch,
          },
        ),
      ],
      changes: [{ kind: 'vm', id: vm.id }],
    };
    return [{ vmId: vm.id, transition }];
  }
}

const COLUMNS = [
  'id',
  'uid',
  'host_id',
  'last_host_id',
  'epoch',
  'state',
  'active_job_id',
  'observed_state',
  'observed_epoch',
  'observed_host_id',
] as const;
