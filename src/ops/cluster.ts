import { hold, patch } from '../db/transition.ts';
import type { FieldChange } from '../domain/kinds.ts';
import type { OpsContext } from './context.ts';
import { INPUTS } from './inputs.ts';
import { mutation } from './mutation.ts';
import { create, find, switches, update } from './named-resource.ts';

export const createCluster = mutation(
  'createCluster',
  { verb: 'create', kind: 'cluster' },
  INPUTS.createCluster,
  async (context, input, asker) => {
    const pod = await find(context, 'pod', input.podId, ['podId'], asker.actor);
    const { zone_id } = await context.db
      .selectFrom('pod')
      .select('zone_id')
      .where('id', '=', pod.id)
      .executeTakeFirstOrThrow();
    const row = {
      zone_id,
      pod_id: pod.id,
      name: input.name,
      vcpu_overcommit: input.vcpuOvercommit ?? 1,
      memory_overcommit: input.memoryOvercommit ?? 1,
    };
    return create(context, 'cluster', asker, row, [hold('pod', pod.id)]);
  },
);

/** Another overcommit changes the capacity of every host of the cluster at once. What runs keeps running, even above it. */
export const updateCluster = mutation(
  'updateCluster',
  { verb: 'update', kind: 'cluster' },
  INPUTS.updateCluster,
  (context, input, asker) =>
    update(context, 'cluster', input, asker, async ({ id }) => {
      const before = await context.db
        .selectFrom('cluster')
        .select(['vcpu_overcommit', 'memory_overcommit'])
        .where('id', '=', id)
        .executeTakeFirstOrThrow();
      const vcpu = input.vcpuOvercommit ?? before.vcpu_overcommit;
      const memory = input.memoryOvercommit ?? before.memory_overcommit;
      const changes: FieldChange[] = [];
      if (vcpu !== before.vcpu_overcommit) changes.push(ratio('vcpuOvercommit', before.vcpu_overcommit, vcpu));
      if (memory !== before.memory_overcommit)
        changes.push(ratio('memoryOvercommit', before.memory_overcommit, memory));
      if (changes.length === 0) return { set: {}, changes };
      return {
        set: { vcpu_overcommit: vcpu, memory_overcommit: memory },
        changes,
        also: await recap(context, id, vcpu, memory),
      };
    }),
);

const ratio = (field: string, before: number, after: number): FieldChange => ({
  field,
  before: String(before),
  after: String(after),
});

async function recap(context: OpsContext, clusterId: number, vcpu: number, memory: number) {
  const hosts = await context.db
    .selectFrom('host')
    .select(['id', 'vcpus_total', 'memory_total_mib'])
    .where('cluster_id', '=', clusterId)
    .where('deleted_at', 'is', null)
    .execute();
  const writes = hosts.map((host) =>
    patch(
      'host',
      host.id,
      // A host that comes back just now, larger or smaller, must not get the caps of what it was.
      { vcpus_total: host.vcpus_total, memory_total_mib: host.memory_total_mib },
      {
        vcpus_cap: Math.floor(host.vcpus_total * vcpu),
        memory_cap_mib: Math.floor(host.memory_total_mib * memory),
      },
    ),
  );
  return { writes, changes: hosts.map((host) => ({ kind: 'host' as const, id: host.id })) };
}

export const clusterSwitches = switches('cluster', 'Cluster');
