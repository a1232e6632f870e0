import { builder } from './builder.ts';
import { ClusterList } from './cluster.ts';
import { conditionsOn } from './condition.ts';
import { childList, list, rootList } from './connection.ts';
import { HostList } from './host.ts';
import { loadersOf } from './loaders.ts';
import { mutation, updateInput, wantedMutations } from './mutation.ts';
import { lookUp, NodeRef } from './node.ts';
import { PrimaryStorageList } from './primary-storage.ts';
import { PodRef, ZoneRef } from './refs.ts';
import { namedFields, WantedStateRef } from './resource.ts';
import { VmList } from './vm.ts';

PodRef.implement({
  description: 'A rack of a zone.',
  interfaces: [NodeRef],
  fields: (t) => ({
    ...namedFields(t, 'pod'),
    zone: t.field({
      type: ZoneRef,
      description: 'What it belongs to.',
      resolve: (pod, _args, context) => loadersOf(context).get('zone', pod.zone_id),
    }),
    clusters: childList(t, ClusterList, 'Its clusters.', 'pod_id'),
    hosts: childList(t, HostList, 'The hosts of its clusters.', 'pod_id'),
    primaryStorages: childList(t, PrimaryStorageList, 'The storages of its clusters.', 'pod_id'),
    vms: childList(t, VmList, 'The VMs of its clusters.', 'pod_id'),
  }),
});

const PodFilterRef = builder.inputType('PodFilter', {
  description: 'Narrows a list of pods.',
  fields: (t) => ({
    zoneId: t.id({ description: 'Only pods of this zone.' }),
    name: t.string({ description: 'Only pods of exactly this name.' }),
    namePrefix: t.string({ description: 'Only pods whose name begins so.' }),
    wantedState: t.field({ type: WantedStateRef, description: 'Only pods that are wanted so.' }),
  }),
});

const where = conditionsOn('pod');
export const PodList = list({
  table: 'pod',
  ref: PodRef,
  noun: 'Pod',
  filter: PodFilterRef,
  orders: { NAME: { column: 'name', description: 'By name, byte by byte.' } },
  conditions: (filter, actor) => [
    ...where.refersTo('zone_id', 'zone', filter.zoneId, 'zoneId', actor),
    ...where.is('name', filter.name),
    ...where.startsWith('name', filter.namePrefix),
    ...where.is('wanted_state', filter.wantedState),
  ],
});

builder.queryFields((t) => ({
  pod: lookUp(t, 'pod'),
  pods: rootList(t, PodList, 'The pods of all zones.'),
}));

mutation('createPod', 'pod', 'Adds a pod to a zone.', (t) => ({
  zoneId: t.id({ required: true, description: 'What it belongs to.' }),
  name: t.string({ required: true, description: 'As people call it: 1 to 255 characters.' }),
}));
mutation('updatePod', 'pod', 'Renames a pod.', (t) => ({
  ...updateInput(t, 'pod'),
  name: t.string({ description: 'A new name.' }),
}));
wantedMutations('pod', {
  enable: 'Lets the hosts of a pod take new VMs.',
  disable: 'Lets the hosts of a pod take no new VM.',
  delete: 'Deletes a pod that has no cluster.',
});
