import { builder } from './builder.ts';
import { ClusterList } from './cluster.ts';
import { conditionsOn } from './condition.ts';
import { childList, list, rootList } from './connection.ts';
import { HostList } from './host.ts';
import { mutation, updateInput, wantedMutations } from './mutation.ts';
import { lookUp, NodeRef } from './node.ts';
import { PodList } from './pod.ts';
import { PrimaryStorageList } from './primary-storage.ts';
import { ZoneRef } from './refs.ts';
import { namedFields, WantedStateRef } from './resource.ts';
import { TemplateList } from './template.ts';
import { VmList } from './vm.ts';
import { VolumeList } from './volume.ts';

ZoneRef.implement({
  description: 'A data centre.',
  interfaces: [NodeRef],
  fields: (t) => ({
    ...namedFields(t, 'zone'),
    pods: childList(t, PodList, 'Its racks.', 'zone_id'),
    clusters: childList(t, ClusterList, 'The clusters of its pods.', 'zone_id'),
    hosts: childList(t, HostList, 'The hosts of its clusters.', 'zone_id'),
    primaryStorages: childList(t, PrimaryStorageList, 'The storages of its clusters.', 'zone_id'),
    templates: childList(t, TemplateList, 'What VMs can be made from here.', 'zone_id'),
    vms: childList(t, VmList, 'The VMs of its clusters.', 'zone_id'),
    volumes: childList(t, VolumeList, 'The disks of its VMs.', 'zone_id'),
  }),
});

const ZoneFilterRef = builder.inputType('ZoneFilter', {
  description: 'Narrows a list of zones.',
  fields: (t) => ({
    name: t.string({ description: 'Only the zone of exactly this name.' }),
    namePrefix: t.string({ description: 'Only zones whose name begins so.' }),
    wantedState: t.field({ type: WantedStateRef, description: 'Only zones that are wanted so.' }),
  }),
});

const where = conditionsOn('zone');
const ZoneList = list({
  table: 'zone',
  ref: ZoneRef,
  noun: 'Zone',
  filter: ZoneFilterRef,
  orders: { NAME: { column: 'name', description: 'By name, byte by byte.' } },
  conditions: (filter) => [
    ...where.is('name', filter.name),
    ...where.startsWith('name', filter.namePrefix),
    ...where.is('wanted_state', filter.wantedState),
  ],
});

builder.queryFields((t) => ({
  zone: lookUp(t, 'zone'),
  zones: rootList(t, ZoneList, 'All data centres.'),
}));

mutation('createZone', 'zone', 'Adds a data centre.', (t) => ({
  name: t.string({ required: true, description: 'As people call it: 1 to 255 characters.' }),
}));
mutation('updateZone', 'zone', 'Renames a zone.', (t) => ({
  ...updateInput(t, 'zone'),
  name: t.string({ description: 'A new name.' }),
}));
wantedMutations('zone', {
  enable: 'Lets the hosts of a zone take new VMs.',
  disable: 'Lets the hosts of a zone take no new VM.',
  delete: 'Deletes a zone that has neither pods nor templates.',
});
