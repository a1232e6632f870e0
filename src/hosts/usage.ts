import { type Kysely, sql } from 'kysely';
import type { Database } from '../db/tables.ts';
import { decodeIdOf } from '../domain/ids.ts';

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

/** The newest counters that hosts sent: kept in memory, written for all VMs together now and then. */
export class UsageBoard {
  readonly #db: Kysely<Database>;
  #unwritten = new Map<string, Sample>();

  constructor(db: Kysely<Database>) {
    this.#db = db;
  }

  report(hostId: number, vms: VmUsageReport[]): void {
    const sampledAt = new Date();
    for (const vm of vms) this.#unwritten.set(vm.vmId, { ...vm, hostId, sampledAt });
  }

  /** Counters of VMs that the host they came from does not have are dropped: a host speaks for its own alone. */
  async flush(): Promise<void> {
    const samples = [...this.#unwritten.values()];
    this.#unwritten = new Map();
    for (let from = 0; from < samples.length; from += ROWS_AT_ONCE)
      await this.#write(samples.slice(from, from + ROWS_AT_ONCE));
  }

  async #write(samples: Sample[]): Promise<void> {
    const byUid = new Map<string, Sample>();
    for (const sample of samples) {
      const uid = decodeIdOf('vm', sample.vmId);
      if (uid) byUid.set(uid.toString('hex'), sample);
    }
    if (byUid.size === 0) return;
    const uids = [...byUid.keys()].map((hex) => Buffer.from(hex, 'hex'));
    const vms = await this.#db.selectFrom('vm').select(['id', 'uid', 'host_id']).where('uid', 'in', uids).execute();
    const rows = vms.flatMap((vm) => {
      const sample = byUid.get(vm.uid.toString('hex'))!;
      return vm.host_id === sample.hostId ? [rowOf(vm.id, sample)] : [];
    });
    if (rows.length === 0) return;
    const columns = Object.keys(rows[0]!).filter((column) => column !== 'vm_id');
    await this.#db
      .insertInto('vm_usage')
      .values(rows)
      .onDuplicateKeyUpdate(
        Object.fromEntries(columns.map((column) => [column, sql`VALUES(${sql.ref(column)})`])) as never,
      )
      .execute();
  }
}

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
