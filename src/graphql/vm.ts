import { sql } from 'kysely';
import type { VmUsage } from '../db/tables.ts';
import { mayWith } from '../domain/authorize.ts';
import { VirtgraphError } from '../domain/errors.ts';
import { allowedVmActions, verbOfVmAction } from '../domain/vm-state.ts';
import { builder } from './builder.ts';
import { conditionsOn } from './condition.ts';
import { childList, list, rootList } from './connection.ts';
import type { GraphContext } from './context.ts';
import { EventList } from './event.ts';
import { JobList } from './job.ts';
import { loadersOf } from './loaders.ts';
import { idField, lookUp, NodeRef } from './node.ts';
import {
  AccountRef,
  ClusterRef,
  HostRef,
  JobRef,
  OfferingRef,
  PodRef,
  TemplateRef,
  VmRef,
  VolumeRef,
  ZoneRef,
} from './refs.ts';
import { type JobRow, selected, type VmRow, type VolumeRow } from './rows.ts';
import { ObservedVmStateRef, VmActionRef, VmStateRef } from './vm-enums.ts';

const VmObservationRef = builder.objectRef<VmRow>('VmObservation').implement({
  description: 'What a host saw of a VM last. Old observations stay: `at` says how old.',
  fields: (t) => ({
    state: t.expose('observed_state', { type: ObservedVmStateRef, nullable: true, description: 'What it saw.' }),
    reason: t.exposeString('observed_reason', { nullable: true, description: 'Why, where the host knows.' }),
    at: t.expose('observed_at', { type: 'DateTime', nullable: true, description: 'When it was seen so.' }),
    host: t.field({
      type: HostRef,
      nullable: true,
      description: 'Who saw it.',
      resolve: (vm, _args, context) =>
        vm.observed_host_id === null ? null : loadersOf(context).find('host', vm.observed_host_id),
    }),
    epoch: t.exposeInt('observed_epoch', {
      nullable: true,
      description: "Which of the VM's runs it saw; compare with the VM's own `epoch`.",
    }),
  }),
});

const VmUsageRef = builder.objectRef<VmUsage>('VmUsage').implement({
  description: 'What a VM has used since it was started: counters that only grow, and its memory now.',
  fields: (t) => ({
    sampledAt: t.expose('sampled_at', { type: 'DateTime', description: 'When they were read.' }),
    cpuNs: t.expose('cpu_ns', { type: 'BigInt', description: 'Nanoseconds of CPU, all vCPUs together.' }),
    memoryBytes: t.expose('memory_bytes', { type: 'BigInt', description: 'Memory that it occupies on its host.' }),
    diskReadBytes: t.expose('disk_read_bytes', { type: 'BigInt', description: 'Bytes read from its volumes.' }),
    diskWriteBytes: t.expose('disk_write_bytes', { type: 'BigInt', description: 'Bytes written to its volumes.' }),
    networkReceiveBytes: t.expose('network_receive_bytes', {
      type: 'BigInt',
      nullable: true,
      description: 'Bytes received; null without a network.',
    }),
    networkTransmitBytes: t.expose('network_transmit_bytes', {
      type: 'BigInt',
      nullable: true,
      description: 'Bytes sent; null without a network.',
    }),
  }),
});

const inEvent = conditionsOn('event');
const inJob = conditionsOn('job');

VmRef.implement({
  description: 'A virtual machine: what is wanted of it, what was seen of it, and what is being done with it.',
  interfaces: [NodeRef],
  fields: (t) => ({
    id: idField(t, 'vm'),
    name: t.exposeString('name', { description: 'As people call it.' }),
    description: t.exposeString('description', { nullable: true, description: 'What it is for, in free text.' }),
    zone: t.field({
      type: ZoneRef,
      description: 'Where it lives.',
      resolve: (vm, _args, context) => loadersOf(context).get('zone', vm.zone_id),
    }),
    pod: t.field({
      type: PodRef,
      nullable: true,
      description: 'The pod of its cluster. Null for who may not see it.',
      resolve: (vm, _args, context) => loadersOf(context).find('pod', vm.pod_id),
    }),
    cluster: t.field({
      type: ClusterRef,
      nullable: true,
      description: 'Whose hosts can run it. Null for who may not see it.',
      resolve: (vm, _args, context) => loadersOf(context).find('cluster', vm.cluster_id),
    }),
    host: t.field({
      type: HostRef,
      nullable: true,
      description: 'The host that it may run on; null while it is off.',
      resolve: (vm, _args, context) => (vm.host_id === null ? null : loadersOf(context).find('host', vm.host_id)),
    }),
    lastHost: t.field({
      type: HostRef,
      nullable: true,
      description: 'The host that it ran on last.',
      resolve: (vm, _args, context) =>
        vm.last_host_id === null ? null : loadersOf(context).find('host', vm.last_host_id),
    }),
    account: t.field({
      type: AccountRef,
      nullable: true,
      description: 'Whose it is. Null for who may not see it.',
      resolve: (vm, _args, context) => loadersOf(context).find('account', vm.account_id),
    }),
    offering: t.field({
      type: OfferingRef,
      description: 'What its size was taken from.',
      resolve: (vm, _args, context) => loadersOf(context).get('offering', vm.offering_id),
    }),
    template: t.field({
      type: TemplateRef,
      nullable: true,
      description: 'What its root volume was made from. Null for who may not see it.',
      resolve: (vm, _args, context) => loadersOf(context).find('template', vm.template_id),
    }),
    vcpus: t.exposeInt('vcpus', { description: 'How many virtual CPUs it has.' }),
    memoryMib: t.exposeInt('memory_mib', { description: 'How much memory it has, in MiB.' }),
    state: t.expose('state', { type: VmStateRef, description: 'What is wanted of it, or on its way to be.' }),
    stateReason: t.exposeString('state_reason', { nullable: true, description: 'Why it is so, where that is known.' }),
    observed: t.field({
      type: VmObservationRef,
      nullable: true,
      description: 'What a host saw of it last; null while none has.',
      extensions: { ofRow: true },
      resolve: (vm) => (vm.observed_state === null ? null : vm),
    }),
    generation: t.exposeInt('generation', {
      description: 'Grows with each change of what is wanted; for `expectedGeneration`.',
    }),
    epoch: t.exposeInt('epoch', {
      description: 'Grows with each host that is picked for it; hosts refuse orders of an older one.',
    }),
    createdAt: t.expose('created_at', { type: 'DateTime', description: 'When it was created.' }),
    updatedAt: t.expose('updated_at', { type: 'DateTime', description: 'When anything of it changed last.' }),
    startedAt: t.expose('started_at', { type: 'DateTime', nullable: true, description: 'When it was started last.' }),
    destroyedAt: t.expose('destroyed_at', { type: 'DateTime', nullable: true, description: 'When it was destroyed.' }),
    deletedAt: t.expose('deleted_at', {
      type: 'DateTime',
      nullable: true,
      description: 'When it was expunged: no list has it since. Null while it can still be had back.',
    }),
    allowedActions: t.field({
      type: [VmActionRef],
      description: 'What the caller can ask of it in its state.',
      resolve: (vm, _args, context) =>
        allowedVmActions(vm.state).filter((action) =>
          mayWith(context.actor, verbOfVmAction(action), 'vm', vm, context.inventory),
        ),
    }),
    activeJob: t.field({
      type: JobRef,
      nullable: true,
      description: 'What is being done with it; one job at a time.',
      resolve: (vm, _args, context) =>
        vm.active_job_id === null ? null : loadersOf(context).find('job', vm.active_job_id),
    }),
    queuedJobs: t.field({
      type: [JobRef],
      description: 'What will be done after that, in order.',
      extensions: { cost: { own: 1, factor: 5 } },
      resolve: async (vm, _args, context) => {
        const queued = await loadersOf(context).below('vm.queuedJobs', vm.id, (ids) => readQueuedJobs(context, ids));
        return queued.filter((job) => job.id !== vm.active_job_id);
      },
    }),
    volumes: t.field({
      type: [VolumeRef],
      description: 'Its disks, the root volume first.',
      extensions: { cost: { own: 1, factor: 5 } },
      resolve: (vm, _args, context) =>
        loadersOf(context).below('vm.volumes', vm.id, (ids) => readVolumes(context, ids)),
    }),
    usage: t.field({
      type: VmUsageRef,
      nullable: true,
      description: 'What it has used; null until its host has told.',
      resolve: (vm, _args, context) => loadersOf(context).below('vm.usage', vm.id, (ids) => readUsage(context, ids)),
    }),
    serialLog: t.string({
      nullable: true,
      description: 'The end of what it wrote to its serial port, asked of its host; null when it never had one.',
      args: {
        lastBytes: t.arg.int({ defaultValue: 65_536, description: 'How much of it, in bytes; 1 MiB at most.' }),
      },
      extensions: { cost: { own: 50 } },
      resolve: (vm, { lastBytes }, context) => readSerialLog(context, vm, lastBytes ?? 65_536),
    }),
    jobs: childList(t, JobList, 'What was and is being done with it.', 'target_id', {
      name: 'vm',
      condition: inJob.is('target_kind', 'vm')[0]!,
    }),
    events: childList(t, EventList, 'What was done to it.', 'subject_id', {
      name: 'vm',
      condition: inEvent.is('subject_kind', 'vm')[0]!,
    }),
  }),
});

async function readQueuedJobs(context: GraphContext, ids: readonly number[]): Promise<JobRow[][]> {
  const { rows } = await sql<JobRow>`
    select ${selected('job')} from job
    where target_kind = 'vm' and target_id in (${sql.join(ids)}) and state = 'QUEUED' order by created_at, id`.execute(
    context.db,
  );
  return under(rows, ids, (job) => job.target_id);
}

async function readVolumes(context: GraphContext, ids: readonly number[]): Promise<VolumeRow[][]> {
  const { rows } = await sql<VolumeRow>`
    select ${selected('volume')} from volume
    where vm_id in (${sql.join(ids)}) and deleted_at is null order by role desc, id`.execute(context.db);
  loadersOf(context).keep('volume', rows);
  return under(rows, ids, (volume) => volume.vm_id!);
}

async function readUsage(context: GraphContext, ids: readonly number[]): Promise<(VmUsage | null)[]> {
  const rows = await context.db.selectFrom('vm_usage').selectAll().where('vm_id', 'in', ids).execute();
  const usage = new Map(rows.map((row) => [row.vm_id, row]));
  return ids.map((id) => usage.get(id) ?? null);
}

function under<R>(rows: R[], ids: readonly number[], parentOf: (row: R) => number): R[][] {
  const groups = new Map<number, R[]>(ids.map((id) => [id, []]));
  for (const row of rows) groups.get(parentOf(row))!.push(row);
  return ids.map((id) => groups.get(id)!);
}

const MAX_SERIAL_BYTES = 2 ** 20;

/** @throws VirtgraphError INVALID_INPUT */
export function checkLastBytes(lastBytes: number): number {
  if (lastBytes >= 1 && lastBytes <= MAX_SERIAL_BYTES) return lastBytes;
  throw new VirtgraphError({
    code: 'INVALID_INPUT',
    message: `Between 1 and ${MAX_SERIAL_BYTES} bytes.`,
    path: ['lastBytes'],
  });
}

/** The log stays on the host that wrote it, also after the VM has stopped. */
async function readSerialLog(context: GraphContext, vm: VmRow, lastBytes: number): Promise<string | null> {
  checkLastBytes(lastBytes);
  const host = vm.host_id ?? vm.last_host_id;
  return host === null ? null : (await context.agent.serialLog(host, vm.uid, lastBytes)).toString();
}

const VmFilterRef = builder.inputType('VmFilter', {
  description: 'Narrows a list of VMs.',
  fields: (t) => ({
    state: t.field({ type: [VmStateRef], description: 'Only VMs in one of these states.' }),
    name: t.string({ description: 'Only VMs of exactly this name.' }),
    namePrefix: t.string({ description: 'Only VMs whose name begins so.' }),
    accountId: t.id({ description: 'Only VMs of this account.' }),
    zoneId: t.id({ description: 'Only VMs in this zone.' }),
    podId: t.id({ description: 'Only VMs in this pod.' }),
    clusterId: t.id({ description: 'Only VMs in this cluster.' }),
    hostId: t.id({ description: 'Only VMs that this host may run.' }),
    offeringId: t.id({ description: 'Only VMs of this offering.' }),
    templateId: t.id({ description: 'Only VMs made from this template.' }),
  }),
});

const where = conditionsOn('vm');
export const VmList = list({
  table: 'vm',
  ref: VmRef,
  noun: 'Vm',
  filter: VmFilterRef,
  orders: { NAME: { column: 'name', description: 'By name, byte by byte.' } },
  conditions: (filter, actor) => [
    ...where.isOneOf('state', filter.state),
    ...where.is('name', filter.name),
    ...where.startsWith('name', filter.namePrefix),
    ...where.refersTo('account_id', 'account', filter.accountId, 'accountId', actor),
    ...where.refersTo('zone_id', 'zone', filter.zoneId, 'zoneId', actor),
    ...where.refersTo('pod_id', 'pod', filter.podId, 'podId', actor),
    ...where.refersTo('cluster_id', 'cluster', filter.clusterId, 'clusterId', actor),
    ...where.refersTo('host_id', 'host', filter.hostId, 'hostId', actor),
    ...where.refersTo('offering_id', 'offering', filter.offeringId, 'offeringId', actor),
    ...where.refersTo('template_id', 'template', filter.templateId, 'templateId', actor),
  ],
});

builder.queryFields((t) => ({
  vm: lookUp(t, 'vm'),
  vms: rootList(t, VmList, 'The virtual machines of all zones.'),
}));
