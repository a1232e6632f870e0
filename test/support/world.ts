import { type Insertable, type Kysely, sql } from 'kysely';
import { newUid } from '../../src/db/ids.ts';
import type {
  ClusterTable,
  Database,
  HostTable,
  JobTable,
  OfferingTable,
  PodTable,
  PrimaryStorageTable,
  TemplateTable,
  VmTable,
  VolumeTable,
  ZoneTable,
} from '../../src/db/tables.ts';
import { type Charge, chargeOfVm, chargeOfVolume, QUOTA, quotaOwners, quotaTable } from '../../src/domain/quota.ts';

/** Both names of a row: the number that tables refer to it by, and what its public id is made of. */
export interface Placed {
  id: number;
  uid: Buffer;
}

/** One of each, beneath one another, and how many hosts and VMs were asked for. */
export interface World {
  zone: Placed;
  pod: Placed;
  cluster: Placed;
  hosts: Placed[];
  storage: Placed;
  offering: Placed;
  template: Placed;
  vms: Placed[];
}

/** Far above what `Ids` hands out in a test, so rows made here never meet rows that the product makes. */
let lastId = 2 ** 40;
export const nextId = (): number => {
  lastId++;
  return lastId;
};

/** A row of each kind that is valid as it is; `overrides` say what matters to the test. */
export const insertZone = (db: Kysely<Database>, overrides: Partial<Insertable<ZoneTable>> = {}): Promise<Placed> =>
  insertRow(db, 'zone', { ...named('zone'), ...overrides });

export const insertPod = (
  db: Kysely<Database>,
  zone: Placed,
  overrides: Partial<Insertable<PodTable>> = {},
): Promise<Placed> => insertRow(db, 'pod', { ...named('pod'), zone_id: zone.id, ...overrides });

export const insertCluster = (
  db: Kysely<Database>,
  { zone, pod }: { zone: Placed; pod: Placed },
  overrides: Partial<Insertable<ClusterTable>> = {},
): Promise<Placed> => insertRow(db, 'cluster', { ...named('cluster'), zone_id: zone.id, pod_id: pod.id, ...overrides });

interface InCluster {
  zone: Placed;
  pod: Placed;
  cluster: Placed;
}
const inCluster = ({ zone, pod, cluster }: InCluster) => ({
  zone_id: zone.id,
  pod_id: pod.id,
  cluster_id: cluster.id,
});

/** Up, enabled, with 64 vCPUs and 256 GiB, all free. */
export const insertHost = (
  db: Kysely<Database>,
  parents: InCluster,
  overrides: Partial<Insertable<HostTable>> = {},
): Promise<Placed> =>
  insertRow(db, 'host', {
    ...named('host'),
    ...inCluster(parents),
    link_state: 'UP',
    hypervisor: 'tcg',
    hostd_version: '0.1.0',
    capabilities: '["x86_64"]',
    vcpus_total: 64,
    vcpus_cap: 64,
    memory_total_mib: 262_144,
    memory_cap_mib: 262_144,
    last_seen_at: new Date(),
    ...overrides,
  });

/** A directory with room for 1 TiB. */
export const insertStorage = (
  db: Kysely<Database>,
  parents: InCluster,
  overrides: Partial<Insertable<PrimaryStorageTable>> = {},
): Promise<Placed> =>
  insertRow(db, 'primary_storage', {
    ...named('storage'),
    ...inCluster(parents),
    path: '/srv/storage',
    bytes_cap: 2 ** 40,
    ...overrides,
  });

/** 1 vCPU, 128 MiB, a disk as large as the template. */
export const insertOffering = (
  db: Kysely<Database>,
  overrides: Partial<Insertable<OfferingTable>> = {},
): Promise<Placed> =>
  insertRow(db, 'offering', { ...named('offering'), vcpus: 1, memory_mib: 128, disk_gib: null, ...overrides });

/** Ready, 64 MiB. */
export const insertTemplate = async (
  db: Kysely<Database>,
  zone: Placed,
  overrides: Partial<Insertable<TemplateTable>> = {},
): Promise<Placed> => {
  const row = {
    ...named('template'),
    zone_id: zone.id,
    state: 'READY' as const,
    format: 'QCOW2' as const,
    file_name: 'tiny-linux.qcow2',
    virtual_bytes: 64 * 2 ** 20,
    file_bytes: 8 * 2 ** 20,
    sha256: '0'.repeat(64),
    ...overrides,
  };
  if (row.account_id != null) await count(db, row, { templates: 1, secondaryBytes: row.file_bytes ?? 0 });
  return insertRow(db, 'template', row);
};

/** Stopped, on no host. */
export const insertVm = async (
  db: Kysely<Database>,
  world: Omit<World, 'hosts' | 'storage' | 'vms'>,
  overrides: Partial<Insertable<VmTable>> = {},
): Promise<Placed> => {
  const row = {
    ...named('vm'),
    ...inCluster(world),
    host_id: null,
    offering_id: world.offering.id,
    template_id: world.template.id,
    description: null,
    state: 'STOPPED' as const,
    vcpus: 1,
    memory_mib: 128,
    epoch: 0,
    active_job_id: null,
    ...overrides,
  };
  await count(db, row, chargeOfVm(row.vcpus, row.memory_mib));
  return insertRow(db, 'vm', row);
};

/** The ready root volume of a VM. */
export const insertVolume = async (
  db: Kysely<Database>,
  world: Pick<World, 'zone' | 'cluster' | 'storage' | 'template'>,
  vm: Placed,
  overrides: Partial<Insertable<VolumeTable>> = {},
): Promise<Placed> => {
  const row = {
    id: nextId(),
    uid: newUid(),
    name: `root-${lastId}`,
    zone_id: world.zone.id,
    cluster_id: world.cluster.id,
    primary_storage_id: world.storage.id,
    vm_id: vm.id,
    template_id: world.template.id,
    role: 'ROOT' as const,
    format: 'QCOW2' as const,
    state: 'READY' as const,
    size_bytes: 64 * 2 ** 20,
    ...overrides,
  };
  await count(db, row, chargeOfVolume(row.size_bytes));
  return insertRow(db, 'volume', row);
};

/** A START_VM that runs its first step. */
export const insertJob = (
  db: Kysely<Database>,
  vm: Placed,
  overrides: Partial<Insertable<JobTable>> = {},
): Promise<Placed> =>
  insertRow(db, 'job', {
    id: nextId(),
    uid: newUid(),
    kind: 'START_VM',
    workflow_version: 1,
    state: 'RUNNING',
    step: 1,
    target_kind: 'vm',
    target_id: vm.id,
    actor: 'root-admin',
    reason: null,
    input: '{}',
    context: null,
    started_at: new Date(),
    ...overrides,
  });

/** One zone, pod, cluster, storage, offering and template, with so many hosts and stopped VMs. */
export async function insertWorld(
  db: Kysely<Database>,
  { hosts = 1, vms = 0 }: { hosts?: number; vms?: number } = {},
): Promise<World> {
  const zone = await insertZone(db);
  const pod = await insertPod(db, zone);
  const cluster = await insertCluster(db, { zone, pod });
  const parents = { zone, pod, cluster };
  const storage = await insertStorage(db, parents);
  const offering = await insertOffering(db);
  const template = await insertTemplate(db, zone);
  await db.insertInto('template_copy').values({ template_id: template.id, primary_storage_id: storage.id }).execute();
  const world: World = { ...parents, storage, offering, template, hosts: [], vms: [] };
  for (let i = 0; i < hosts; i++) world.hosts.push(await insertHost(db, parents));
  for (let i = 0; i < vms; i++) world.vms.push(await insertVm(db, world));
  return world;
}

/** As the product does when it makes such a row: in the quota of its account and of each domain above. */
async function count(
  db: Kysely<Database>,
  { account_id = 1, deleted_at }: { account_id?: number | null | undefined; deleted_at?: unknown },
  charge: Charge,
): Promise<void> {
  if (deleted_at != null) return;
  const { path } = await db
    .selectFrom('account')
    .innerJoin('domain', 'domain.id', 'account.domain_id')
    .select('domain.path')
    .where('account.id', '=', account_id!)
    .executeTakeFirstOrThrow();
  for (const owner of quotaOwners(account_id!, path)) {
    const set = Object.entries(charge).map(([amount, n]) => {
      const { used } = Object.values(QUOTA).find((facts) => facts.amount === amount)!;
      return [used, sql`${sql.ref(used)} + ${n}`];
    });
    await db.updateTable(quotaTable(owner)).set(Object.fromEntries(set)).where('id', '=', owner.id).execute();
  }
}

function named(noun: string): { id: number; uid: Buffer; name: string; generation: number } {
  const id = nextId();
  return { id, uid: newUid(), name: `${noun}-${id}`, generation: 1 };
}

export async function insertRow<T extends keyof Database>(
  db: Kysely<Database>,
  table: T,
  row: Insertable<Database[T]> & Placed,
): Promise<Placed> {
  await db.insertInto(table).values(row).execute();
  return { id: row.id, uid: row.uid };
}
