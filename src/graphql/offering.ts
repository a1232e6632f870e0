import { builder } from './builder.ts';
import { conditionsOn } from './condition.ts';
import { childList, list, rootList } from './connection.ts';
import { mutation, updateInput, wantedMutations } from './mutation.ts';
import { lookUp, NodeRef } from './node.ts';
import { OfferingRef } from './refs.ts';
import { namedFields, WantedStateRef } from './resource.ts';
import { VmList } from './vm.ts';

OfferingRef.implement({
  description: 'A size that VMs come in.',
  interfaces: [NodeRef],
  fields: (t) => ({
    ...namedFields(t, 'offering'),
    vcpus: t.exposeInt('vcpus', { description: 'How many virtual CPUs.' }),
    memoryMib: t.exposeInt('memory_mib', { description: 'How much memory, in MiB.' }),
    diskGib: t.exposeInt('disk_gib', {
      nullable: true,
      description: 'Size of the root volume, in GiB; null: as large as the template.',
    }),
    vms: childList(t, VmList, 'VMs of this size.', 'offering_id'),
  }),
});

const OfferingFilterRef = builder.inputType('OfferingFilter', {
  description: 'Narrows a list of offerings.',
  fields: (t) => ({
    name: t.string({ description: 'Only the offering of exactly this name.' }),
    namePrefix: t.string({ description: 'Only offerings whose name begins so.' }),
    wantedState: t.field({ type: WantedStateRef, description: 'Only offerings that are wanted so.' }),
  }),
});

const where = conditionsOn('offering');
const OfferingList = list({
  table: 'offering',
  ref: OfferingRef,
  noun: 'Offering',
  filter: OfferingFilterRef,
  orders: { NAME: { column: 'name', description: 'By name, byte by byte.' } },
  conditions: (filter) => [
    ...where.is('name', filter.name),
    ...where.startsWith('name', filter.namePrefix),
    ...where.is('wanted_state', filter.wantedState),
  ],
});

builder.queryFields((t) => ({
  offering: lookUp(t, 'offering'),
  offerings: rootList(t, OfferingList, 'The sizes that VMs come in.'),
}));

mutation('createOffering', 'offering', 'Offers another size.', (t) => ({
  name: t.string({ required: true, description: 'As people call it: 1 to 255 characters.' }),
  vcpus: t.int({ required: true, description: 'How many virtual CPUs: 1 to 256.' }),
  memoryMib: t.int({ required: true, description: 'How much memory, in MiB, from 64.' }),
  diskGib: t.int({ description: 'Size of the root volume, in GiB; without it as large as the template.' }),
}));
mutation('updateOffering', 'offering', 'Renames an offering. Its size stays: VMs were promised it.', (t) => ({
  ...updateInput(t, 'offering'),
  name: t.string({ description: 'A new name.' }),
}));
wantedMutations('offering', {
  enable: 'Lets new VMs be of this size.',
  disable: 'Lets no new VM be of this size.',
  delete: 'Deletes an offering that no VM is of.',
});
