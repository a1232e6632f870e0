import { builder } from './builder.ts';
import { conditionsOn } from './condition.ts';
import { childList, list, rootList } from './connection.ts';
import { HostList } from './host.ts';
import { loadersOf } from './loaders.ts';
import { mutation, updateInput, wantedMutations } from './mutation.ts';
import { lookUp, NodeRef } from './node.ts';
import { PrimaryStorageList } from './primary-storage.ts';
import { ClusterRef, PodRef, ZoneRef } from './refs.ts';
import { namedFields, WantedStateRef } from './resource.ts';
import { VmList } from './vm.ts';
import { VolumeList } from './volume.ts';

ClusterRef.implement({
  description: 'Hosts that are alike and share primary storages: a VM can run on any of them.',
  interfaces: [NodeRef],
  fields: (t) => ({
    ...namedFields(t, 'cluster'),
    zone: t.field({
      type: ZoneRef,
      description: 'Where it is.',
      resolve: (cluster, _args, context) => loadersOf(context).get('zone', cluster.zone_id),
    }),
    pod: t.field({
      type: PodRef,
      description: 'What it belongs to.',
      resolve: (cluster, _args, context) => loadersOf(context).get('pod', cluster.pod_id),
    }),
    vcpuOvercommit: t.exposeFloat('vcpu_overcommit', { description: 'vCPUs that VMs may reserve for each CPU.' }),
    memoryOvercommit: t.exposeFloat('memory_overcommit', {
      description: 'Memory that VMs may reserve for each MiB that the hosts have.',
    }),
    hosts: childList(t, HostList, 'The machines that it consists of.', 'cluster_id'),
    primaryStorages: childList(t, PrimaryStorageList, 'Where its volumes are kept.', 'cluster_id'),
    vms: childList(t, VmList, 'VMs that its hosts can run.', 'cluster_id'),
    volumes: childList(t, VolumeList, 'Disks of its VMs.', 'cluster_id'),
  }),
});

const ClusterFilterRef = builder.inputType('ClusterFilter', {
  description: 'Narrows a list of clusters.',
  fields: (t) => ({
    zoneId: t.id({ description: 'Only clusters in this zone.' }),
    podId: t.id({ description: 'Only clusters of this pod.' }),
    name: t.string({ description: 'Only clusters of exactly this name.' }),
    namePrefix: t.string({ description: 'Only clusters whose name begins so.' }),
    wantedState: t.field({ type: WantedStateRef, description: 'Only clusters that are wanted so.' }),
  }),
});

const where = conditionsOn('cluster');
export const ClusterList = list({
  table: 'cluster',
  ref: ClusterRef,
  noun: 'Cluster',
  filter: ClusterFilterRef,
  orders: { NAME: { column: 'name', description: 'By name, byte by byte.' } },
  conditions: (filter, actor) => [
    ...where.refersTo('zone_id', 'zone', filter.zoneId, 'zoneId', actor),
    ...where.refersTo('pod_id', 'pod', filter.podId, 'podId', actor),
    ...where.is('name', filter.name),
    ...where.startsWith('name', filter.namePrefix),
    ...where.is('wanted_state', filter.wantedState),
  ],
});

builder.queryFields((t) => ({
  cluster: lookUp(t, 'cluster'),
  clusters: rootList(t, ClusterList, 'The clusters of all zones.'),
}));

mutation('createCluster', 'cluster', 'Adds a cluster to a pod.', (t) => ({
  podId: t.id({ required: true, description: 'What it belongs to.' }),
  name: t.string({ required: true, description: 'As people call it: 1 to 255 characters.' }),
  vcpuOvercommit: t.float({ description: 'vCPUs that VMs may reserve for each CPU, from 0.1 to 32; 1 unless told.' }),
  memoryOvercommit: t.float({
    description: 'Memory that VMs may reserve for each MiB of the hosts, from 0.1 to 32; 1 unless told.',
  }),
}));
mutation('updateCluster', 'cluster', 'Renames a cluster or changes how far its hosts are overcommitted.', (t) => ({
  ...updateInput(t, 'cluster'),
  name: t.string({ description: 'A new name.' }),
  vcpuOvercommit: t.float({ description: 'vCPUs that VMs may reserve for each CPU, from 0.1 to 32.' }),
  memoryOvercommit: t.float({ description: 'Memory that VMs may reserve for each MiB of the hosts, from 0.1 to 32.' }),
}));
wantedMutations('cluster', {
  enable: 'Lets the hosts of a cluster take new VMs.',
  disable: 'Lets the hosts of a cluster take no new VM.',
  delete: 'Deletes a cluster that has neither hosts nor storages.',
});
