import { sql } from 'kysely';
import { encodeId } from '../../src/domain/ids.ts';
import { insertWorld, type World } from '../../test/support/world.ts';
import type { Program } from './program.ts';
import type { ControlPlane, Stage } from './stage.ts';

/** Room enough on each fake host that none is ever full. */
const HOST_FACTS = { vcpusTotal: 1_000_000, memoryTotalMib: 1_000_000_000 };
const STORAGE_BYTES = 2 ** 52;

/** A control plane with fake hosts that are linked, and what `createVm` needs. */
export interface FakeCloud {
  control: ControlPlane;
  hostd: Program;
  /** What was written straight into the database: all but the hosts. */
  world: World;
  /** For CreateVmInput. */
  vm: { zoneId: string; offeringId: string; templateId: string };
}

export async function startFakeCloud(
  stage: Stage,
  options: { hosts: number; clients?: number; port?: number },
): Promise<FakeCloud> {
  const world = await insertWorld(stage.db, { hosts: 0 });
  await stage.db.updateTable('primary_storage').set({ bytes_cap: STORAGE_BYTES }).execute();
  const { clients = 1, ...rest } = options;
  const control = await stage.startControl(rest);
  const { token } = await control.api.mutate<{ token: string }>(
    'createHostJoinToken',
    { clusterId: encodeId('cluster', world.cluster.uid), maxHosts: options.hosts },
    'token',
  );
  const hostd = await stage.startHostd(control, token, [
    ...['--name', 'fake', '--hypervisor', 'fake', '--count', String(options.hosts)],
    ...['--fake', JSON.stringify({ facts: HOST_FACTS })],
  ]);
  // Only now: the server closes a connection on which nothing was asked for ten seconds, and many hosts take longer.
  if (clients > 1) control.api = await stage.openApi(control, clients);
  const up = await stage.db
    .selectFrom('host')
    .select(sql<number>`count(*)`.as('count'))
    .where('link_state', '=', 'UP')
    .executeTakeFirstOrThrow();
  if (up.count !== options.hosts) throw new Error(`${up.count} of ${options.hosts} hosts are up`);
  return {
    control,
    hostd,
    world,
    vm: {
      zoneId: encodeId('zone', world.zone.uid),
      offeringId: encodeId('offering', world.offering.uid),
      templateId: encodeId('template', world.template.uid),
    },
  };
}
