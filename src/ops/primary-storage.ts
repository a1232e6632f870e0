import { hold } from '../db/transition.ts';
import { VirtgraphError } from '../domain/errors.ts';
import { INPUTS } from './inputs.ts';
import { mutation } from './mutation.ts';
import { create, find, switches, update } from './named-resource.ts';

const GIB = 2 ** 30;

export const createPrimaryStorage = mutation(
  'createPrimaryStorage',
  { verb: 'create', kind: 'primary_storage' },
  INPUTS.createPrimaryStorage,
  async (context, input, asker) => {
    const cluster = await find(context, 'cluster', input.clusterId, ['clusterId'], asker.actor);
    const place = await context.db
      .selectFrom('cluster')
      .select(['zone_id', 'pod_id'])
      .where('id', '=', cluster.id)
      .executeTakeFirstOrThrow();
    const { name, path, capacityGib } = input;
    const row = { ...place, cluster_id: cluster.id, name, path, bytes_cap: capacityGib * GIB };
    return create(context, 'primary_storage', asker, row, [hold('cluster', cluster.id)]);
  },
);

export const updatePrimaryStorage = mutation(
  'updatePrimaryStorage',
  { verb: 'update', kind: 'primary_storage' },
  INPUTS.updatePrimaryStorage,
  (context, input, asker) =>
    update(context, 'primary_storage', input, asker, async ({ id }) => {
      if (input.capacityGib == null) return { set: {}, changes: [] };
      const { bytes_cap, bytes_used } = await context.db
        .selectFrom('primary_storage')
        .select(['bytes_cap', 'bytes_used'])
        .where('id', '=', id)
        .executeTakeFirstOrThrow();
      const after = input.capacityGib * GIB;
      if (after === bytes_cap) return { set: {}, changes: [] };
      if (after < bytes_used) {
        throw new VirtgraphError({
          code: 'INVALID_INPUT',
          message: `Its volumes take ${Math.ceil(bytes_used / GIB)} GiB already.`,
          path: ['capacityGib'],
        });
      }
      return {
        set: { bytes_cap: after },
        changes: [{ field: 'capacityGib', before: String(bytes_cap / GIB), after: String(input.capacityGib) }],
      };
    }),
);

export const primaryStorageSwitches = switches('primary_storage', 'PrimaryStorage');
