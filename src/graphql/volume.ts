import { VOLUME_STATES, type VolumeState } from '../domain/volume-state.ts';
import { builder } from './builder.ts';
import { conditionsOn } from './condition.ts';
import { childList, list, rootList } from './connection.ts';
import { EventList } from './event.ts';
import { loadersOf } from './loaders.ts';
import { idField, lookUp, NodeRef } from './node.ts';
import { AccountRef, ClusterRef, PrimaryStorageRef, TemplateRef, VmRef, VolumeRef, ZoneRef } from './refs.ts';

const STATE_DESCRIPTIONS: Record<VolumeState, string> = {
  CREATING: 'Its room is taken, its file is being made.',
  READY: 'A VM can use it.',
  DELETING: 'Its file is being removed.',
  DELETED: 'Its file is gone and its room free.',
};
const VolumeStateRef = builder.enumType('VolumeState', {
  description: 'What a volume is, as the control plane wants it.',
  values: Object.fromEntries(
    VOLUME_STATES.map((state) => [state, { description: STATE_DESCRIPTIONS[state] }]),
  ) as Record<VolumeState, { description: string }>,
});

const VolumeRoleRef = builder.enumType('VolumeRole', {
  description: 'What a volume is for.',
  values: {
    ROOT: { description: 'The VM boots from it.' },
    DATA: { description: 'The VM keeps data on it.' },
  } as const,
});

export const ImageFormatRef = builder.enumType('ImageFormat', {
  description: 'How an image is written. It is never guessed.',
  values: {
    QCOW2: { description: "QEMU's format: it grows as it is written to." },
    RAW: { description: 'Byte for byte.' },
  } as const,
});

const on = conditionsOn('event');

VolumeRef.implement({
  description: 'A disk of a VM, on a primary storage.',
  interfaces: [NodeRef],
  fields: (t) => ({
    id: idField(t, 'volume'),
    name: t.exposeString('name', { description: 'As people call it.' }),
    role: t.expose('role', { type: VolumeRoleRef, description: 'What it is for.' }),
    format: t.expose('format', { type: ImageFormatRef, description: 'How it is written.' }),
    state: t.expose('state', { type: VolumeStateRef, description: 'What it is.' }),
    sizeBytes: t.expose('size_bytes', {
      type: 'BigInt',
      description: 'As large as the VM sees it; this much is reserved on the storage.',
    }),
    zone: t.field({
      type: ZoneRef,
      description: 'Where it is.',
      resolve: (volume, _args, context) => loadersOf(context).get('zone', volume.zone_id),
    }),
    cluster: t.field({
      type: ClusterRef,
      nullable: true,
      description: 'Whose hosts reach it. Null for who may not see it.',
      resolve: (volume, _args, context) => loadersOf(context).find('cluster', volume.cluster_id),
    }),
    primaryStorage: t.field({
      type: PrimaryStorageRef,
      nullable: true,
      description: 'What it is kept on. Null for who may not see it.',
      resolve: (volume, _args, context) => loadersOf(context).find('primary_storage', volume.primary_storage_id),
    }),
    vm: t.field({
      type: VmRef,
      nullable: true,
      description: 'The VM that has it.',
      resolve: (volume, _args, context) => (volume.vm_id === null ? null : loadersOf(context).find('vm', volume.vm_id)),
    }),
    account: t.field({
      type: AccountRef,
      nullable: true,
      description: 'Whose it is. Null for who may not see it.',
      resolve: (volume, _args, context) => loadersOf(context).find('account', volume.account_id),
    }),
    template: t.field({
      type: TemplateRef,
      nullable: true,
      description: 'What it was made from.',
      resolve: (volume, _args, context) =>
        volume.template_id === null ? null : loadersOf(context).find('template', volume.template_id),
    }),
    createdAt: t.expose('created_at', { type: 'DateTime', description: 'When it was created.' }),
    updatedAt: t.expose('updated_at', { type: 'DateTime', description: 'When anything of it changed last.' }),
    deletedAt: t.expose('deleted_at', {
      type: 'DateTime',
      nullable: true,
      description: 'When it was deleted: no list has it since. Null while it lives.',
    }),
    events: childList(t, EventList, 'What was done to it.', 'subject_id', {
      name: 'volume',
      condition: on.is('subject_kind', 'volume')[0]!,
    }),
  }),
});

const VolumeFilterRef = builder.inputType('VolumeFilter', {
  description: 'Narrows a list of volumes.',
  fields: (t) => ({
    accountId: t.id({ description: 'Only volumes of this account.' }),
    zoneId: t.id({ description: 'Only volumes in this zone.' }),
    clusterId: t.id({ description: 'Only volumes in this cluster.' }),
    primaryStorageId: t.id({ description: 'Only volumes on this storage.' }),
    templateId: t.id({ description: 'Only volumes made from this template.' }),
    vmId: t.id({ description: 'Only volumes of this VM.' }),
  }),
});

const where = conditionsOn('volume');
export const VolumeList = list({
  table: 'volume',
  ref: VolumeRef,
  noun: 'Volume',
  filter: VolumeFilterRef,
  conditions: (filter, actor) => [
    ...where.refersTo('account_id', 'account', filter.accountId, 'accountId', actor),
    ...where.refersTo('zone_id', 'zone', filter.zoneId, 'zoneId', actor),
    ...where.refersTo('cluster_id', 'cluster', filter.clusterId, 'clusterId', actor),
    ...where.refersTo('primary_storage_id', 'primary_storage', filter.primaryStorageId, 'primaryStorageId', actor),
    ...where.refersTo('template_id', 'template', filter.templateId, 'templateId', actor),
    ...where.refersTo('vm_id', 'vm', filter.vmId, 'vmId', actor),
  ],
});

builder.queryFields((t) => ({
  volume: lookUp(t, 'volume'),
  volumes: rootList(t, VolumeList, 'The disks of all VMs.'),
}));
