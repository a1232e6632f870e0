import { TEMPLATE_STATES, type TemplateState } from '../domain/volume-state.ts';
import { builder } from './builder.ts';
import { conditionsOn } from './condition.ts';
import { childList, list, rootList } from './connection.ts';
import { JobList } from './job.ts';
import { loadersOf } from './loaders.ts';
import { mutation, updateInput, wantedMutations } from './mutation.ts';
import { lookUp, NodeRef } from './node.ts';
import { AccountRef, JobRef, TemplateRef, ZoneRef } from './refs.ts';
import { namedFields, WantedStateRef } from './resource.ts';
import { VmList } from './vm.ts';
import { ImageFormatRef, VolumeList } from './volume.ts';

const STATE_DESCRIPTIONS: Record<TemplateState, string> = {
  REGISTERING: 'Its image is being looked at.',
  READY: 'VMs can be made from it.',
  ERROR: 'Its image was refused; `stateReason` says why.',
};
const TemplateStateRef = builder.enumType('TemplateState', {
  description: 'Whether VMs can be made from a template.',
  values: Object.fromEntries(
    TEMPLATE_STATES.map((state) => [state, { description: STATE_DESCRIPTIONS[state] }]),
  ) as Record<TemplateState, { description: string }>,
});

TemplateRef.implement({
  description: 'A disk image that root volumes are made from.',
  interfaces: [NodeRef],
  fields: (t) => ({
    ...namedFields(t, 'template'),
    zone: t.field({
      type: ZoneRef,
      description: 'Where it is kept.',
      resolve: (template, _args, context) => loadersOf(context).get('zone', template.zone_id),
    }),
    account: t.field({
      type: AccountRef,
      nullable: true,
      description: 'Whose it is; null: everybody may use it, or the caller may not see who.',
      resolve: (template, _args, context) =>
        template.account_id === null ? null : loadersOf(context).find('account', template.account_id),
    }),
    state: t.expose('state', { type: TemplateStateRef, description: 'Whether VMs can be made from it.' }),
    stateReason: t.exposeString('state_reason', { nullable: true, description: 'Why it was refused.' }),
    format: t.expose('format', { type: ImageFormatRef, description: 'How its file is written.' }),
    fileName: t.exposeString('file_name', { description: "The file in the hosts' folder of images." }),
    virtualBytes: t.expose('virtual_bytes', {
      type: 'BigInt',
      nullable: true,
      description: 'As large as a VM sees it; null until it is looked at.',
    }),
    fileBytes: t.expose('file_bytes', {
      type: 'BigInt',
      nullable: true,
      description: 'Size of the file; null until it is looked at.',
    }),
    sha256: t.exposeString('sha256', { nullable: true, description: 'Of the file, in hexadecimal digits.' }),
    activeJob: t.field({
      type: JobRef,
      nullable: true,
      description: 'What is being done with it.',
      resolve: (template, _args, context) =>
        template.active_job_id === null ? null : loadersOf(context).find('job', template.active_job_id),
    }),
    vms: childList(t, VmList, 'VMs made from it.', 'template_id'),
    volumes: childList(t, VolumeList, 'Volumes made from it.', 'template_id'),
    jobs: childList(t, JobList, 'What was and is being done with it.', 'target_id', {
      name: 'template',
      condition: conditionsOn('job').is('target_kind', 'template')[0]!,
    }),
  }),
});

const TemplateFilterRef = builder.inputType('TemplateFilter', {
  description: 'Narrows a list of templates.',
  fields: (t) => ({
    zoneId: t.id({ description: 'Only templates of this zone.' }),
    accountId: t.id({ description: 'Only templates of this account.' }),
    name: t.string({ description: 'Only templates of exactly this name.' }),
    namePrefix: t.string({ description: 'Only templates whose name begins so.' }),
    state: t.field({ type: [TemplateStateRef], description: 'Only templates in one of these states.' }),
    wantedState: t.field({ type: WantedStateRef, description: 'Only templates that are wanted so.' }),
  }),
});

const where = conditionsOn('template');
export const TemplateList = list({
  table: 'template',
  ref: TemplateRef,
  noun: 'Template',
  filter: TemplateFilterRef,
  orders: { NAME: { column: 'name', description: 'By name, byte by byte.' } },
  conditions: (filter, actor) => [
    ...where.refersTo('zone_id', 'zone', filter.zoneId, 'zoneId', actor),
    ...where.refersTo('account_id', 'account', filter.accountId, 'accountId', actor),
    ...where.is('name', filter.name),
    ...where.startsWith('name', filter.namePrefix),
    ...where.isOneOf('state', filter.state),
    ...where.is('wanted_state', filter.wantedState),
  ],
});

builder.queryFields((t) => ({
  template: lookUp(t, 'template'),
  templates: rootList(t, TemplateList, 'The disk images of all zones.'),
}));

mutation('registerTemplate', 'template', "Makes a template of a file in the hosts' folder of images.", (t) => ({
  zoneId: t.id({ required: true, description: 'Whose hosts have the file.' }),
  accountId: t.id({
    description:
      'Whose it is, who alone may use it, and in whose quota it counts. Unless told, it is of the account of the caller; of one whose role reaches ALL, it is for everybody.',
  }),
  name: t.string({ required: true, description: 'As people call it: 1 to 255 characters.' }),
  fileName: t.string({
    required: true,
    description: "The file's name, without folders: letters, digits, dots, dashes and underscores.",
  }),
  format: t.field({ type: ImageFormatRef, required: true, description: 'How the file is written. It is checked.' }),
}));
mutation('updateTemplate', 'template', 'Renames a template.', (t) => ({
  ...updateInput(t, 'template'),
  name: t.string({ description: 'A new name.' }),
}));
wantedMutations('template', {
  enable: 'Lets new VMs be made from a template.',
  disable: 'Lets no new VM be made from a template.',
  delete: 'Deletes a template that no VM was made from.',
});
