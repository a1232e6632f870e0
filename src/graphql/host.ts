import type { HostCertificate, HostUsage } from '../db/tables.ts';
import { HOST_LINK_STATES, type HostLinkState } from '../domain/host-state.ts';
import { builder } from './builder.ts';
import { conditionsOn } from './condition.ts';
import { childList, list, rootList } from './connection.ts';
import type { GraphContext, JoinTokenPayload } from './context.ts';
import { loadersOf } from './loaders.ts';
import { answer, errorsField, idInput, inputOf, mutation, updateInput, wantedMutations } from './mutation.ts';
import { lookUp, NodeRef } from './node.ts';
import { ClusterRef, HostRef, PodRef, ZoneRef } from './refs.ts';
import { namedFields, WantedStateRef } from './resource.ts';
import { VmList } from './vm.ts';

const LINK_DESCRIPTIONS: Record<HostLinkState, string> = {
  CONNECTING: 'It was never heard of since it joined.',
  UP: 'It is connected and answers.',
  UNREACHABLE: 'Nothing is heard of it. That says nothing about its VMs.',
  DOWN: 'It is proven to be off.',
};
const HostLinkStateRef = builder.enumType('HostLinkState', {
  description: 'What is known of the link to a host.',
  values: Object.fromEntries(
    HOST_LINK_STATES.map((state) => [state, { description: LINK_DESCRIPTIONS[state] }]),
  ) as Record<HostLinkState, { description: string }>,
});

const HostUsageRef = builder.objectRef<HostUsage>('HostUsage').implement({
  description: 'How busy a host is, as it told last.',
  fields: (t) => ({
    sampledAt: t.expose('sampled_at', { type: 'DateTime', description: 'When it told.' }),
    cpuLoad: t.exposeFloat('cpu_load', { description: 'Busy share of all its CPUs, 0 to 1.' }),
    memoryUsedMib: t.exposeInt('memory_used_mib', { description: 'Memory in use by everything on it, in MiB.' }),
  }),
});

type CertificateData = Pick<HostCertificate, 'host_id' | 'serial' | 'not_before' | 'not_after'> & {
  revoked_at: string | null;
};
const HostCertificateRef = builder.objectRef<CertificateData>('HostCertificate').implement({
  description: 'What a host is known by. It renews it by itself when two thirds of its time are over.',
  fields: (t) => ({
    serial: t.string({ description: 'In hexadecimal.', resolve: ({ serial }) => serial.toString('hex') }),
    notBefore: t.expose('not_before', { type: 'DateTime', description: 'From when on it holds.' }),
    notAfter: t.expose('not_after', { type: 'DateTime', description: 'Until when it holds, unless it is renewed.' }),
    revokedAt: t.expose('revoked_at', {
      type: 'DateTime',
      nullable: true,
      description: 'When it was revoked: the host is not heard since, until it joins again. Null while it is not.',
    }),
  }),
});

HostRef.implement({
  description: 'A machine that runs VMs.',
  interfaces: [NodeRef],
  fields: (t) => ({
    ...namedFields(t, 'host'),
    zone: t.field({
      type: ZoneRef,
      description: 'Where it is.',
      resolve: (host, _args, context) => loadersOf(context).get('zone', host.zone_id),
    }),
    pod: t.field({
      type: PodRef,
      description: 'The pod of its cluster.',
      resolve: (host, _args, context) => loadersOf(context).get('pod', host.pod_id),
    }),
    cluster: t.field({
      type: ClusterRef,
      description: 'What it belongs to.',
      resolve: (host, _args, context) => loadersOf(context).get('cluster', host.cluster_id),
    }),
    linkState: t.expose('link_state', { type: HostLinkStateRef, description: 'What is known of the link to it.' }),
    lastSeenAt: t.expose('last_seen_at', {
      type: 'DateTime',
      nullable: true,
      description: 'When it was heard of last; null: never.',
    }),
    hypervisor: t.exposeString('hypervisor', {
      nullable: true,
      description: 'What runs its VMs: `kvm`, `tcg` or `fake`; null until it has told.',
    }),
    usage: t.field({
      type: HostUsageRef,
      nullable: true,
      description: 'How busy it is; null until it has told.',
      resolve: (host, _args, context) =>
        loadersOf(context).below('host.usage', host.id, (ids) => readUsage(context, ids)),
    }),
    certificate: t.field({
      type: HostCertificateRef,
      nullable: true,
      description:
        'The newest that was issued to it; null for a host that joined before there were any: it joins again.',
      resolve: (host, _args, context) =>
        loadersOf(context).below('host.certificate', host.id, (ids) => readCertificates(context, ids)),
    }),
    hostdVersion: t.exposeString('hostd_version', {
      nullable: true,
      description: 'Of its daemon; null until it has told.',
    }),
    capabilities: t.stringList({
      description: 'What it can do besides, in words of its daemon.',
      resolve: (host) => JSON.parse(host.capabilities) as string[],
    }),
    vcpusTotal: t.exposeInt('vcpus_total', { description: 'CPUs that the machine has.' }),
    vcpusCapacity: t.exposeInt('vcpus_cap', { description: 'vCPUs that VMs may reserve, with overcommit.' }),
    vcpusReserved: t.exposeInt('vcpus_used', { description: 'vCPUs that VMs have reserved.' }),
    memoryTotalMib: t.exposeInt('memory_total_mib', { description: 'Memory that the machine has, in MiB.' }),
    memoryCapacityMib: t.exposeInt('memory_cap_mib', {
      description: 'Memory that VMs may reserve, in MiB, with overcommit.',
    }),
    memoryReservedMib: t.exposeInt('memory_used_mib', { description: 'Memory that VMs have reserved, in MiB.' }),
    vms: childList(t, VmList, 'VMs that it may run.', 'host_id'),
  }),
});

const HostFilterRef = builder.inputType('HostFilter', {
  description: 'Narrows a list of hosts.',
  fields: (t) => ({
    zoneId: t.id({ description: 'Only hosts in this zone.' }),
    podId: t.id({ description: 'Only hosts in this pod.' }),
    clusterId: t.id({ description: 'Only hosts of this cluster.' }),
    name: t.string({ description: 'Only hosts of exactly this name.' }),
    namePrefix: t.string({ description: 'Only hosts whose name begins so.' }),
    linkState: t.field({ type: [HostLinkStateRef], description: 'Only hosts whose link is in one of these states.' }),
    wantedState: t.field({ type: WantedStateRef, description: 'Only hosts that are wanted so.' }),
  }),
});

const where = conditionsOn('host');
export const HostList = list({
  table: 'host',
  ref: HostRef,
  noun: 'Host',
  filter: HostFilterRef,
  orders: { NAME: { column: 'name', description: 'By name, byte by byte.' } },
  conditions: (filter, actor) => [
    ...where.refersTo('zone_id', 'zone', filter.zoneId, 'zoneId', actor),
    ...where.refersTo('pod_id', 'pod', filter.podId, 'podId', actor),
    ...where.refersTo('cluster_id', 'cluster', filter.clusterId, 'clusterId', actor),
    ...where.is('name', filter.name),
    ...where.startsWith('name', filter.namePrefix),
    ...where.isOneOf('link_state', filter.linkState),
    ...where.is('wanted_state', filter.wantedState),
  ],
});

builder.queryFields((t) => ({
  host: lookUp(t, 'host'),
  hosts: rootList(t, HostList, 'The hosts of all zones.'),
}));

mutation('updateHost', 'host', 'Renames a host.', (t) => ({
  ...updateInput(t, 'host'),
  name: t.string({ description: 'A new name.' }),
}));
wantedMutations('host', {
  enable: 'Lets a host take new VMs.',
  disable: 'Lets a host take no new VM. Those that it has run on.',
  delete: 'Forgets a host that runs no VM.',
});

mutation(
  'revokeHostCertificate',
  'host',
  'Ends what a host is known by, and its link. Its VMs run on; it joins again with a token made for it.',
  (t) => idInput(t, 'host'),
);

const CreateHostJoinTokenPayloadRef = builder.objectRef<JoinTokenPayload>('CreateHostJoinTokenPayload').implement({
  description: 'What became of `createHostJoinToken`.',
  fields: (t) => ({
    token: t.exposeString('token', {
      nullable: true,
      description: 'For hostd. It is shown this once and kept nowhere; null when it was refused, or was shown before.',
    }),
    expiresAt: t.expose('expiresAt', {
      type: 'DateTime',
      nullable: true,
      description: 'Until when hosts can join with it.',
    }),
    errors: errorsField(t as never),
  }),
});

builder.mutationField('createHostJoinToken', (t) =>
  t.field({
    type: CreateHostJoinTokenPayloadRef,
    description: 'Makes a token with which hosts join a cluster, or with which one that is there joins again.',
    args: {
      input: t.arg({
        type: inputOf('createHostJoinToken', (fields) => ({
          clusterId: fields.id({ description: 'What new hosts will belong to. Either this or `hostId`.' }),
          hostId: fields.id({
            description:
              'A host that is there and has lost its certificate, or whose certificate was revoked: what it had before is over once it joins.',
          }),
          maxHosts: fields.int({ description: 'How many may join with it, from 1 to 10,000; one unless told.' }),
          expiresInMs: fields.int({
            description: 'How long they may, in milliseconds, from a second to a week; an hour unless told.',
          }),
        })),
        required: true,
        description: 'Which hosts, and until when.',
      }),
    },
    extensions: { cost: { own: 10 } },
    resolve: (_root, args, context) =>
      answer(
        context.ops.createHostJoinToken(
          context.actor,
          args.input as Parameters<typeof context.ops.createHostJoinToken>[1],
          context,
        ),
        (errors) => ({ id: null, jobId: null, errors, token: null, expiresAt: null }),
      ),
  }),
);

async function readUsage(context: GraphContext, ids: readonly number[]): Promise<(HostUsage | null)[]> {
  const rows = await context.db.selectFrom('host_usage').selectAll().where('host_id', 'in', ids).execute();
  const usage = new Map(rows.map((row) => [row.host_id, row]));
  return ids.map((id) => usage.get(id) ?? null);
}

async function readCertificates(context: GraphContext, ids: readonly number[]): Promise<(CertificateData | null)[]> {
  const newest = context.db
    .selectFrom('host_certificate')
    .select((eb) => ['host_id', eb.fn.max('version').as('version')])
    .where('host_id', 'in', ids)
    .groupBy('host_id')
    .as('n');
  const rows = await context.db
    .selectFrom('host_certificate as c')
    .innerJoin(newest, (join) => join.onRef('n.host_id', '=', 'c.host_id').onRef('n.version', '=', 'c.version'))
    .innerJoin('host as h', 'h.id', 'c.host_id')
    .select(['c.host_id', 'c.serial', 'c.not_before', 'c.not_after'])
    .select('h.certificate_revoked_at as revoked_at')
    .execute();
  const certificates = new Map(rows.map((row) => [row.host_id, row]));
  return ids.map((id) => certificates.get(id) ?? null);
}
