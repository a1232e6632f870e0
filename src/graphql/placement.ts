import type { PlacementCandidate, PlacementRejection, PlacementVerdict } from '../domain/placement.ts';
import { builder } from './builder.ts';
import { loadersOf } from './loaders.ts';
import { HostRef, PrimaryStorageRef } from './refs.ts';

const PlacementRuleRef = builder.enumType('PlacementRule', {
  description: 'What a host must satisfy to take a VM, in the order in which it is asked.',
  values: {
    ZONE: { description: 'The host is in the zone.' },
    CLUSTER: { description: 'The host is in the cluster that was asked for.' },
    HOST: { description: 'The host is the one that was asked for.' },
    STORAGE_REACH: { description: 'The host reaches the storage that the volumes are on.' },
    ENABLED: { description: 'The host, its cluster, pod and zone are enabled.' },
    CONNECTED: { description: 'The host is connected.' },
    VCPUS: { description: 'The host has enough vCPUs free.' },
    MEMORY: { description: 'The host has enough memory free.' },
    STORAGE: { description: 'A storage of its cluster has room for the volumes.' },
  } as const,
});

export const PlacementRejectionRef = builder.objectRef<PlacementRejection>('PlacementRejection').implement({
  description: 'Why a host may not have the VM, with the numbers where there are any.',
  fields: (t) => ({
    host: t.field({
      type: HostRef,
      nullable: true,
      description: 'The host; null when it was removed meanwhile.',
      resolve: (rejection, _args, context) => loadersOf(context).find('host', rejection.hostId),
    }),
    hostName: t.exposeString('hostName', { description: "The host's name when it was asked." }),
    rule: t.expose('rule', { type: PlacementRuleRef, description: 'The first rule that it breaks.' }),
    message: t.exposeString('message', { description: 'The same in words.' }),
    required: t.exposeFloat('required', { nullable: true, description: 'How much was needed, in `unit`.' }),
    available: t.exposeFloat('available', { nullable: true, description: 'How much was free, in `unit`.' }),
    unit: t.exposeString('unit', { nullable: true, description: 'Of the numbers: `MiB`, `B`, `vCPUs`.' }),
  }),
});

const PlacementCandidateRef = builder.objectRef<PlacementCandidate>('PlacementCandidate').implement({
  description: 'A host that could take the VM.',
  fields: (t) => ({
    host: t.field({
      type: HostRef,
      nullable: true,
      description: 'The host; null when it was removed meanwhile.',
      resolve: (candidate, _args, context) => loadersOf(context).find('host', candidate.hostId),
    }),
    hostName: t.exposeString('hostName', { description: "The host's name when it was asked." }),
    storage: t.field({
      type: PrimaryStorageRef,
      nullable: true,
      description: 'Where its volumes would go; null when it has none to create.',
      resolve: (candidate, _args, context) =>
        candidate.storageId === null ? null : loadersOf(context).find('primary_storage', candidate.storageId),
    }),
    score: t.exposeFloat('score', { description: 'From 0 to 1; the highest is taken.' }),
  }),
});

const PlacementVerdictRef = builder.objectRef<PlacementVerdict>('PlacementVerdict').implement({
  description: 'Which hosts could take a VM, and why the others may not.',
  fields: (t) => ({
    candidates: t.expose('candidates', { type: [PlacementCandidateRef], description: 'Best first.' }),
    rejections: t.expose('rejections', { type: [PlacementRejectionRef], description: 'Each host that may not.' }),
  }),
});

const ExplainPlacementInputRef = builder.inputType('ExplainPlacementInput', {
  description: 'A VM that might be created.',
  fields: (t) => ({
    zoneId: t.id({ required: true, description: 'Where it would live.' }),
    clusterId: t.id({ description: 'Only in this cluster.' }),
    hostId: t.id({ description: 'Only on this host.' }),
    offeringId: t.id({ required: true, description: 'How large it would be.' }),
    templateId: t.id({ description: 'What its root volume would be made from; without one no volume is counted.' }),
  }),
});

builder.queryField('explainPlacement', (t) =>
  t.field({
    type: PlacementVerdictRef,
    nullable: true,
    description: 'Where a VM would go if it were created now, judged by the very rules that creating asks.',
    args: { input: t.arg({ type: ExplainPlacementInputRef, required: true, description: 'What would be created.' }) },
    extensions: { cost: { own: 20 } },
    resolve: (_root, { input }, context) => context.ops.explainPlacement(context.actor, input),
  }),
);
