import { builder } from './builder.ts';
import { conditionsOn } from './condition.ts';
import { childList, list, rootList } from './connection.ts';
import { loadersOf } from './loaders.ts';
import { mutation, updateInput, wantedMutations } from './mutation.ts';
import { lookUp, NodeRef } from './node.ts';
import { ClusterRef, PodRef, PrimaryStorageRef, ZoneRef } from './refs.ts';
import { namedFields, WantedStateRef } from './resource.ts';
import { VolumeList } from './volume.ts';

const PrimaryStorageKindRef = builder.enumType('PrimaryStorageKind', {
  description: 'How hosts reach a storage.',
  values: { DIRECTORY: { description: 'A folder that is at the same path on each host of the cluster.' } } as const,
});

PrimaryStorageRef.implement({
  description: 'Where the volumes of the VMs of a cluster are kept.',
  interfaces: [NodeRef],
  fields: (t) => ({
    ...namedFields(t, 'primary_storage'),
    zone: t.field({
      type: ZoneRef,
      description: 'Where it is.',
      resolve: (storage, _args, context) => loadersOf(context).get('zone', storage.zone_id),
    }),
    pod: t.field({
      type: PodRef,
      description: 'The pod of its cluster.',
      resolve: (storage, _args, context) => loadersOf(context).get('pod', storage.pod_id),
    }),
    cluster: t.field({
      type: ClusterRef,
      description: 'Whose hosts reach it.',
      resolve: (storage, _args, context) => loadersOf(context).get('cluster', storage.cluster_id),
    }),
    kind: t.expose('kind', { type: PrimaryStorageKindRef, description: 'How hosts reach it.' }),
    path: t.exposeString('path', { description: 'Where it is on each host.' }),
    capacityBytes: t.expose('bytes_cap', { type: 'BigInt', description: 'How much may be reserved on it.' }),
    reservedBytes: t.expose('bytes_used', {
      type: 'BigInt',
      description: 'How much is: the sizes of its volumes as VMs see them.',
    }),
    volumes: childList(t, VolumeList, 'What is kept on it.', 'primary_storage_id'),
  }),
});

const PrimaryStorageFilterRef = builder.inputType('PrimaryStorageFilter', {
  description: 'Narrows a list of primary storages.',
  fields: (t) => ({
    zoneId: t.id({ description: 'Only storages in this zone.' }),
    podId: t.id({ description: 'Only storages in this pod.' }),
    clusterId: t.id({ description: 'Only storages of this cluster.' }),
    name: t.string({ description: 'Only storages of exactly this name.' }),
    namePrefix: t.string({ description: 'Only storages whose name begins so.' }),
    wantedState: t.field({ type: WantedStateRef, description: 'Only storages that are wanted so.' }),
  }),
});

const where = conditionsOn('primary_storage');
export const PrimaryStorageList = list({
  table: 'primary_storage',
  ref: PrimaryStorageRef,
  noun: 'PrimaryStorage',
  filter: PrimaryStorageFilterRef,
  orders: { NAME: { column: 'name', description: 'By name, byte by byte.' } },
  conditions: (filter, actor) => [
    ...where.refersTo('zone_id', 'zone', filter.zoneId, 'zoneId', actor),
    ...where.refersTo('pod_id', 'pod', filter.podId, 'podId', actor),
    ...where.refersTo('cluster_id', 'cluster', filter.clusterId, 'clusterId', actor),
    ...where.is('name', filter.name),
    ...where.startsWith('name', filter.namePrefix),
    ...where.is('wanted_state', filter.wantedState),
  ],
});

builder.queryFields((t) => ({
  primaryStorage: lookUp(t, 'primary_storage'),
  primaryStorages: rootList(t, PrimaryStorageList, 'The primary storages of all zones.'),
}));

mutation('createPrimaryStorage', 'primary_storage', 'Gives a cluster a storage.', (t) => ({
  clusterId: t.id({ required: true, description: 'Whose hosts reach it.' }),
  name: t.string({ required: true, description: 'As people call it: 1 to 255 characters.' }),
  path: t.string({ required: true, description: 'Where it is on each host: an absolute path.' }),
  capacityGib: t.int({ required: true, description: 'How much may be reserved on it, in GiB.' }),
}));
mutation('updatePrimaryStorage', 'primary_storage', 'Renames a storage or changes how much it takes.', (t) => ({
  ...updateInput(t, 'storage'),
  name: t.string({ description: 'A new name.' }),
  capacityGib: t.int({ description: 'How much may be reserved on it, in GiB; what is reserved stays.' }),
}));
wantedMutations('primary_storage', {
  enable: 'Lets a storage take new volumes.',
  disable: 'Lets a storage take no new volume.',
  delete: 'Deletes a storage that has no volume.',
});
