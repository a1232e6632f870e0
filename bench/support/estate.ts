import type { Kysely } from 'kysely';
import { newUid } from '../../src/db/ids.ts';
import type { Database } from '../../src/db/tables.ts';
import { insertCluster, insertHost, insertPod, insertVm, insertWorld, type World } from '../../test/support/world.ts';

/** Rows in one INSERT. */
const AT_ONCE = 1_000;
/** Above the ids that the shared defaults hand out. */
let nextId = 2 ** 45;

type VmPlace = Omit<World, 'hosts' | 'storage' | 'vms'>;
type VmOverrides = NonNullable<Parameters<typeof insertVm>[2]>;

/** So many VMs written straight into the table, the first by the shared default, the rest as copies of its row. */
export async function insertVms(
  db: Kysely<Database>,
  place: VmPlace,
  count: number,
  overrides: VmOverrides = {},
): Promise<void> {
  if (count === 0) return;
  const first = await insertVm(db, place, { description: 'Runs the nightly reports of the team', ...overrides });
  const pattern = await db.selectFrom('vm').selectAll().where('id', '=', first.id).executeTakeFirstOrThrow();
  for (let at = 1; at < count; at += AT_ONCE) {
    const rows = Array.from({ length: Math.min(AT_ONCE, count - at) }, (_, i) => ({
      ...pattern,
      id: nextId++,
      uid: newUid(),
      name: `vm-${String(at + i).padStart(6, '0')}`,
    }));
    await db.insertInto('vm').values(rows).execute();
  }
}

export interface TreeSizes {
  pods: number;
  clusters: number;
  hosts: number;
  vms: number;
}

/** One zone with so many of each below each. */
export async function insertTree(db: Kysely<Database>, sizes: TreeSizes): Promise<void> {
  const world = await insertWorld(db, { hosts: 0 });
  // The pod and cluster of the default world are the first of theirs.
  for (let p = 0; p < sizes.pods; p++) {
    const pod = p === 0 ? world.pod : await insertPod(db, world.zone);
    for (let c = 0; c < sizes.clusters; c++) {
      const isDefault = p === 0 && c === 0;
      const cluster = isDefault ? world.cluster : await insertCluster(db, { zone: world.zone, pod });
      const parents = { zone: world.zone, pod, cluster };
      for (let h = 0; h < sizes.hosts; h++) {
        const host = await insertHost(db, parents);
        await insertVms(db, { ...world, ...parents }, sizes.vms, { host_id: host.id, state: 'RUNNING' });
      }
    }
  }
}
