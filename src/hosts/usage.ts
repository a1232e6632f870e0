import { type Kysely, sql } from 'kysely';
import type { Database } from '../db/tables.ts';
import { decodeIdOf, encodeId } from '../domain/ids.ts';
import { foreignVms, type VmPlace } from './vm-claims.ts';

export interface HostLoad {
  /** Busy share of all CPUs, 0 to 1. */
  cpuLoad: number;
  memoryUsedMib: number;
}

/** Counters of one VM since its QEMU started. */
export interface VmUsageReport {
  vmId: string;
  cpuNs: number;
  memoryBytes: number;
  diskReadBytes: number;
  diskWriteBytes: number;
  networkReceiveBytes: number | null;
  networkTransmitBytes: number | null;
}

interface Sample extends VmUsageReport {
  hostId: number;
  sampledAt: Date;
}

const ROWS_AT_ONCE = 1_000;

/** A load is news when it differs by so much from what was written, or that is so old. */
const NEWS = { cpuLoad: 0.05, memoryShare: 0.01, ageMs: 300_000 };

interface WrittenLoad extends HostLoad {
  sampledAt: Date;
}

/** The newest load and counters that hosts sent: kept in memory, written for all together now and then. */
export class UsageBoard {
  readonly #db: Kysely<Database>;
  readonly #foreign: (hostId: number, vmIds: string[]) => Promise<unknown>;
  #unwritten = new Map<string, Sample>();
  #loads = new Map<number, WrittenLoad>();
  readonly #written = new Map<number, WrittenLoad>();

  /** @param foreign told of VMs whose counters a host sent although it never had anything to do with them */
  constructor(db: Kysely<Database>, foreign: (hostId: number, vmIds: string[]) => Promise<unknown>) {
    this.#db = db;
    this.#foreign = foreign;
  }

  report(hostId: number, load: HostLoad, vms: VmUsageReport[]): void {
    const sampledAt = new Date();
    const told = { ...load, memoryUsedMib: counter(load.memoryUsedMib), sampledAt };
    if (isNews(told, this.#written.get(hostId))) this.#loads.set(hostId, told);
    // By the host too: what one tells of another's VM must not take the place of what that one tells.
    for (const vm of vms) this.#unwritten.set(`${hostId} ${vm.vmId}`, { ...inRange(vm), hostId, sampledAt });
  }

  /** Counters of VMs that the host they came from does not have are dropped: a host speaks for its own alone. */
  async flush(): Promise<void> {
    await this.#writeLoads();
    const samples = [...this.#unwritten.values()];
    this.#unwritten = new Map();
    for (let from = 0; from < samples.length; from += ROWS_AT_ONCE)
      await this.#write(samples.slice(from, from + ROWS_AT_ONCE));
  }

  async #writeLoads(): Promise<void> {
    const loads = this.#loads;
    this.#loads = new Map();
    if (loads.size === 0) return;
    const rows = [...loads].map(([hostId, load]) => ({
      host_id: hostId,
      sampled_at: load.sampledAt,
      cpu_load: load.cpuLoad,
      memory_used_mib: load.memoryUsedMib,
    }));
    await this.#db
      .insertInto('host_usage')
      .values(rows)
      .onDuplicateKeyUpdate(newValues(rows[0]!, 'host_id') as never)
      .execute();
    for (const [hostId, load] of loads) this.#written.set(hostId, load);
  }

  async #write(samples: Sample[]): Promise<void> {
    const byVmId = Map.groupBy(samples, ({ vmId }) => vmId);
    const uids = [...byVmId.keys()].map((vmId) => decodeIdOf('vm', vmId)).filter((uid) => uid !== null);
    if (uids.length === 0) return;
    const vms = await this.#db
      .selectFrom('vm')
      .select(['id', 'uid', 'host_id', 'last_host_id', 'observed_host_id'])
      .where('uid', 'in', uids)
      .execute();
    const sampled = vms.flatMap((vm) => byVmId.get(encodeId('vm', vm.uid))!.map((sample) => ({ vm, sample })));
    await this.#tellForeign(sampled.filter(({ vm, sample }) => vm.host_id !== sample.hostId));
    const rows = sampled.flatMap(({ vm, sample }) => (vm.host_id === sample.hostId ? [rowOf(vm.id, sample)] : []));
    if (rows.length === 0) return;
    await this.#db
      .insertInto('vm_usage')
      .values(rows)
      .onDuplicateKeyUpdate(newValues(rows[0]!, 'vm_id') as never)
      .execute();
  }

  /** There are none as long as hosts behave, but for a VM that has just left its host. */
  async #tellForeign(others: { vm: VmPlace; sample: Sample }[]): Promise<void> {
    for (const [hostId, ofHost] of Map.groupBy(others, ({ sample }) => sample.hostId)) {
      const foreign = await foreignVms(
        this.#db,
        hostId,
        ofHost.map(({ vm }) => vm),
      );
      if (foreign.size === 0) continue;
      await this.#foreign(
        hostId,
        ofHost.flatMap(({ vm, sample }) => (foreign.has(vm.id) ? [sample.vmId] : [])),
      );
    }
  }
}

/** Written together with what other hosts told: a number that no column holds would keep them all from being written. */
const counter = (told: number): number => Math.min(Math.max(0, told), Number.MAX_SAFE_INTEGER);

const inRange = ({ vmId, networkReceiveBytes, networkTransmitBytes, ...told }: VmUsageReport): VmUsageReport => ({
  vmId,
  cpuNs: counter(told.cpuNs),
  memoryBytes: counter(told.memoryBytes),
  diskReadBytes: counter(told.diskReadBytes),
  diskWriteBytes: counter(told.diskWriteBytes),
  networkReceiveBytes: networkReceiveBytes === null ? null : counter(networkReceiveBytes),
  networkTransmitBytes: networkTransmitBytes === null ? null : counter(networkTransmitBytes),
});

/** Every column but the key takes the value that was to be inserted. */
const newValues = (row: object, key: string) =>
  Object.fromEntries(
    Object.keys(row)
      .filter((column) => column !== key)
      .map((column) => [column, sql`VALUES(${sql.ref(column)})`]),
  );

const isNews = (told: WrittenLoad, written: WrittenLoad | undefined): boolean =>
  written === undefined ||
  Math.abs(told.cpuLoad - written.cpuLoad) >= NEWS.cpuLoad ||
  Math.abs(told.memoryUsedMib - written.memoryUsedMib) >= NEWS.memoryShare * written.memoryUsedMib ||
  told.sampledAt.getTime() - written.sampledAt.getTime() >= NEWS.ageMs;

const rowOf = (vmId: number, sample: Sample) => ({
  vm_id: vmId,
  sampled_at: sample.sampledAt,
  cpu_ns: sample.cpuNs,
  memory_bytes: sample.memoryBytes,
  disk_read_bytes: sample.diskReadBytes,
  disk_write_bytes: sample.diskWriteBytes,
  network_receive_bytes: sample.networkReceiveBytes,
  network_transmit_bytes: sample.networkTransmitBytes,
});
