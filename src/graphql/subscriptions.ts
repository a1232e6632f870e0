import { mustBeKnown } from '../domain/authorize.ts';
import { notFound, VirtgraphError } from '../domain/errors.ts';
import type { ResourceKind } from '../domain/ids.ts';
import { audienceOf } from './audience.ts';
import { builder } from './builder.ts';
import type { GraphContext } from './context.ts';
import { forgetRead, loadersOf } from './loaders.ts';
import { parseId, uidOf } from './public-id.ts';
import { ownerOf } from './quota.ts';
import { pathOf, type QuotaView } from './quota-read.ts';
import { EventRef, HostRef, JobRef, QuotaRef, VmRef } from './refs.ts';
import type { Row } from './rows.ts';
import { shareable } from './shareable.ts';
import { checkLastBytes } from './vm.ts';
import type { SetColumn } from './watch.ts';

/** Each message is answered from what is committed by then, to one who may still see it. */
function fresh<V>(message: V | Error, context: GraphContext): V {
  if (message instanceof Error) throw message;
  mustBeKnown(context.actor);
  forgetRead(context);
  return message;
}

async function idOf(context: GraphContext, kind: ResourceKind, id: string, argument: string): Promise<number> {
  const row = await loadersOf(context).findByUid(kind, uidOf(kind, id, [argument]));
  if (!row) throw notFound(NOUNS[kind] ?? kind, [argument]);
  return (row as { id: number }).id;
}
const NOUNS: Partial<Record<ResourceKind, string>> = { vm: 'VM' };

/** Sets that can be watched, by the argument that names them. */
const SETS: Record<string, { kind: ResourceKind; column: SetColumn }> = {
  zoneId: { kind: 'zone', column: 'zone_id' },
  clusterId: { kind: 'cluster', column: 'cluster_id' },
  hostId: { kind: 'host', column: 'host_id' },
};

type WatchArgs = Record<string, string | null | undefined>;

async function watched<K extends 'vm' | 'host'>(
  context: GraphContext,
  kind: K,
  args: WatchArgs,
): Promise<AsyncIterable<Row<K> | Error>> {
  const given = Object.entries(args).filter((entry): entry is [string, string] => entry[1] != null);
  const [argument, id] = given[0] ?? [];
  if (argument === undefined || id === undefined || given.length > 1)
    throw new VirtgraphError({ code: 'INVALID_INPUT', message: 'Give exactly one of the ids.' });
  const set = SETS[argument];
  if (!set) return context.watch.object(kind, await idOf(context, kind, id, argument));
  const parent = await idOf(context, set.kind, id, argument);
  return context.watch.set(kind, set.column, parent, audienceOf(context, kind));
}

const AFTER_SEQ = /^\d{1,15}$/;

function parseSeq(afterSeq: string | null | undefined): number | null {
  if (afterSeq == null) return null;
  if (AFTER_SEQ.test(afterSeq)) return Number(afterSeq);
  throw new VirtgraphError({ code: 'INVALID_INPUT', message: 'The `seq` of an event.', path: ['afterSeq'] });
}

async function appended(
  context: GraphContext,
  afterSeq: string | null | undefined,
  subjectId: string | null | undefined,
) {
  mustBeKnown(context.actor);
  const seq = parseSeq(afterSeq);
  const audience = audienceOf(context, 'event');
  if (subjectId == null) return context.watch.events.follow(seq, null, audience);
  const { kind } = parseId(subjectId, ['subjectId']);
  if (kind === 'job')
    throw new VirtgraphError({ code: 'INVALID_INPUT', message: 'No event is about a job.', path: ['subjectId'] });
  return context.watch.events.follow(seq, { kind, id: await idOf(context, kind, subjectId, 'subjectId') }, audience);
}

async function quotaUsage(context: GraphContext, args: WatchArgs): Promise<AsyncIterable<QuotaView | Error>> {
  const owner = await ownerOf(context, args);
  const argument = args['accountId'] == null ? 'domainId' : 'accountId';
  if (!owner) throw notFound(argument === 'accountId' ? 'account' : 'domain with a quota for you to see', [argument]);
  return context.watch.quotas.quota(await pathOf(context, owner));
}

interface SerialChunk {
  offset: number;
  text: string;
}

const SerialChunkRef = builder.objectRef<SerialChunk>('SerialChunk').implement({
  description: 'A piece of what a VM writes to its serial port.',
  fields: (t) => ({
    offset: t.expose('offset', {
      type: 'BigInt',
      description: 'Where in all that it wrote the piece begins, in bytes.',
    }),
    text: t.exposeString('text', { description: 'The piece. What is no UTF-8 is replaced by U+FFFD.' }),
  }),
});

async function serialOutput(
  context: GraphContext,
  vmId: string,
  lastBytes: number,
): Promise<AsyncIterable<SerialChunk | Error>> {
  checkLastBytes(lastBytes);
  const vm = await loadersOf(context).findByUid('vm', uidOf('vm', vmId, ['vmId']));
  if (!vm) throw notFound('VM', ['vmId']);
  if (vm.host_id === null)
    throw new VirtgraphError({ code: 'INVALID_STATE', message: 'The VM is off: it writes nothing.', path: ['vmId'] });
  return asText(context.agent.watchSerial(vm.host_id, vm.uid, lastBytes));
}

/** A character may lie across two pieces: its first bytes wait for the rest. */
function asText(
  source: AsyncIterableIterator<{ offset: number; bytes: Buffer }>,
): AsyncIterableIterator<SerialChunk | Error> {
  const decoder = new TextDecoder();
  let failed = false;
  return {
    async next() {
      if (failed) return { done: true, value: undefined };
      try {
        const { done, value } = await source.next();
        if (done) return { done: true, value: undefined };
        return { done: false, value: { offset: value.offset, text: decoder.decode(value.bytes, { stream: true }) } };
      } catch (error) {
        failed = true;
        return { done: false, value: error as Error };
      }
    },
    // Straight to the source: behind a pending `next` it would wait for output that may never come.
    async return() {
      await source.return?.();
      return { done: true, value: undefined };
    },
    [Symbol.asyncIterator]() {
      return this;
    },
  };
}

builder.subscriptionType({ description: 'What can be watched: the present first, then each change.' });

builder.subscriptionFields((t) => ({
  jobProgress: t.field({
    type: JobRef,
    description: 'A job as it is, then as it goes on, at most 4 times a second; ends with the job.',
    args: { id: t.arg.id({ required: true, description: 'The id of the job.' }) },
    extensions: { shareable: shareable(JobRef.name) },
    subscribe: async (_root, { id }, context) => context.watch.job(await idOf(context, 'job', id, 'id')),
    resolve: (message, _args, context) => {
      const job = fresh(message, context);
      loadersOf(context).keep('job', [job]);
      return job;
    },
  }),
  vmChanged: t.field({
    type: VmRef,
    description:
      'A VM, or all of a zone, cluster or host, as they are, then each that changes, at most 4 times a second each. ' +
      'One that leaves is told of once more. Give exactly one argument.',
    args: {
      id: t.arg.id({ description: 'Only this VM.' }),
      zoneId: t.arg.id({ description: 'All VMs of this zone.' }),
      clusterId: t.arg.id({ description: 'All VMs of this cluster.' }),
      hostId: t.arg.id({ description: 'All VMs that this host may run.' }),
    },
    extensions: { shareable: shareable(VmRef.name) },
    subscribe: (_root, args, context) => watched(context, 'vm', args) as never,
    resolve: (message, _args, context) => {
      const vm = fresh(message as Row<'vm'> | Error, context);
      loadersOf(context).keep('vm', [vm]);
      return vm;
    },
  }),
  hostChanged: t.field({
    type: HostRef,
    description:
      'A host, or all of a zone or cluster, as they are, then each that changes, at most 4 times a second each. ' +
      'One that leaves is told of once more. Give exactly one argument.',
    args: {
      id: t.arg.id({ description: 'Only this host.' }),
      zoneId: t.arg.id({ description: 'All hosts of this zone.' }),
      clusterId: t.arg.id({ description: 'All hosts of this cluster.' }),
    },
    extensions: { shareable: shareable(HostRef.name) },
    subscribe: (_root, args, context) => watched(context, 'host', args) as never,
    resolve: (message, _args, context) => {
      const host = fresh(message as Row<'host'> | Error, context);
      loadersOf(context).keep('host', [host]);
      return host;
    },
  }),
  quotaUsage: t.field({
    type: QuotaRef,
    description:
      'The quota of an account or domain as it is, then as it changes, with what is left above it, at most 4 times a ' +
      'second. Give exactly one argument.',
    args: {
      accountId: t.arg.id({ description: 'That of this account.' }),
      domainId: t.arg.id({ description: 'That of this domain, with all below it.' }),
    },
    subscribe: (_root, args, context) => quotaUsage(context, args) as never,
    resolve: (message, _args, context) => fresh(message as QuotaView | Error, context),
  }),
  eventAppended: t.field({
    type: EventRef,
    description: 'Every event after a number, or from now on, without a gap. LOG_TRIMMED when the number is too old.',
    args: {
      afterSeq: t.arg.string({ description: 'The `seq` of the last event that is known; without it from now on.' }),
      subjectId: t.arg.id({ description: 'Only what happens to this object.' }),
    },
    subscribe: (_root, { afterSeq, subjectId }, context) => appended(context, afterSeq, subjectId) as never,
    resolve: (message, _args, context) => fresh(message as Row<'event'> | Error, context),
  }),
  vmSerialOutput: t.field({
    type: SerialChunkRef,
    description: 'The end of what a VM wrote to its serial port, then all that it writes.',
    args: {
      vmId: t.arg.id({ required: true, description: 'The id of the VM.' }),
      lastBytes: t.arg.int({ defaultValue: 4_096, description: 'How much of the past, in bytes; 1 MiB at most.' }),
    },
    extensions: { cost: { own: 50 } },
    subscribe: (_root, { vmId, lastBytes }, context) => serialOutput(context, vmId, lastBytes ?? 4_096) as never,
    resolve: (message, _args, context) => fresh(message as SerialChunk | Error, context),
  }),
}));
