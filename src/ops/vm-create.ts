import { newUid } from '../db/ids.ts';
import type { Inventory } from '../db/inventory.ts';
import type { Offering, Template, Vm } from '../db/tables.ts';
import { type Hold, holdEnabled } from '../db/transition.ts';
import { type Actor, authorize, authorizeWith, domainsOf, OPERATOR_ACCOUNT, sees } from '../domain/authorize.ts';
import { notFound, VirtgraphError } from '../domain/errors.ts';
import { decodeIdOf, encodeId } from '../domain/ids.ts';
import type { PlacementRequest, PlacementVerdict } from '../domain/placement.ts';
import { evaluate } from '../domain/placement.ts';
import { chargeOfVm, chargeOfVolume, together } from '../domain/quota.ts';
import { begin } from '../jobs/advance.ts';
import { chargeOrRefuse } from '../jobs/quota.ts';
import { type VmCreateContext, createVm as workflow } from '../jobs/vm-create.ts';
import { placeOrRefuse } from '../jobs/vm-plan.ts';
import type { OpsContext } from './context.ts';
import { type ExplainPlacementInput, explainPlacementInput, INPUTS, type Inputs } from './inputs.ts';
import { type Asker, type Decision, mutation } from './mutation.ts';
import { NOUN } from './named-resource.ts';

const GIB = 2 ** 30;

/**
 * The VM, its root volume, its place and the job with its first command: one transaction. All that it needs to know
 * stands in the inventory, so accepting costs no read.
 */
export const createVm = mutation(
  'createVm',
  { verb: 'create', kind: 'vm' },
  INPUTS.createVm,
  async (context, input, asker) => {
    const { inventory } = context;
    const zone = known(inventory, 'zone', input.zoneId, 'zoneId', asker.actor);
    const offering = known(inventory, 'offering', input.offeringId, 'offeringId', asker.actor);
    const template = readyTemplate(inventory, input.templateId, zone.id, asker.actor);
    for (const [row, noun, path] of [
      [zone, 'zone', 'zoneId'],
      [offering, 'offering', 'offeringId'],
      [template, 'template', 'templateId'],
    ] as const)
      mustBeEnabled(row, noun, path);
    return planCreate(context, {
      vmId: await context.ids.take(),
      vmUid: newUid(),
      accountId: accountFor(inventory, input.accountId ?? null, asker),
      epoch: 1,
      zoneId: zone.id,
      ...wantedPlace(inventory, input, asker.actor),
      offering,
      template,
      name: input.name,
      description: input.description ?? null,
      start: input.start ?? true,
      fresh: true,
      actor: asker.name,
      reason: asker.reason,
      input,
      parentId: null,
    });
  },
);

/** @throws VirtgraphError NOT_FOUND, FORBIDDEN */
function accountFor(inventory: Inventory, id: string | null, { actor, verb }: Asker): number {
  const account = id === null ? ownAccount(actor) : known(inventory, 'account', id, 'accountId', actor).id;
  authorizeWith(actor, verb, 'vm', { account_id: account }, inventory);
  return account;
}

const ownAccount = (actor: Actor): number => (actor.kind === 'user' ? actor.accountId : OPERATOR_ACCOUNT);

/** A failed create once more, on the row that is there. */
export function createAgain(
  context: OpsContext,
  vm: Vm,
  actor: Actor,
  job: { id: number; actor: string; reason: string | null; input: unknown },
): Promise<Decision> {
  const input = job.input as Partial<Inputs['createVm']>;
  const offering = context.inventory.get('offering', vm.offering_id);
  const template = context.inventory.get('template', vm.template_id);
  if (!offering) throw notFound('offering');
  if (!template) throw notFound('template');
  return planCreate(context, {
    vmId: vm.id,
    vmUid: vm.uid,
    accountId: vm.account_id,
    epoch: vm.epoch + 1,
    zoneId: vm.zone_id,
    ...wantedPlace(context.inventory, input, actor),
    offering,
    template,
    name: vm.name,
    description: vm.description,
    start: input.start ?? true,
    fresh: false,
    actor: job.actor,
    reason: job.reason,
    input,
    parentId: job.id,
  });
}

/** @throws VirtgraphError NOT_FOUND */
const wantedPlace = (inventory: Inventory, input: Partial<Inputs['createVm']>, actor: Actor) => ({
  hostId: input.hostId == null ? null : known(inventory, 'host', input.hostId, 'hostId', actor).id,
  clusterId: input.clusterId == null ? null : known(inventory, 'cluster', input.clusterId, 'clusterId', actor).id,
});

interface Wish {
  vmId: number;
  vmUid: Buffer;
  accountId: number;
  epoch: number;
  zoneId: number;
  hostId: number | null;
  clusterId: number | null;
  offering: Offering;
  template: Template;
  name: string;
  description: string | null;
  start: boolean;
  fresh: boolean;
  actor: string;
  reason: string | null;
  input: unknown;
  parentId: number | null;
}

async function planCreate(context: OpsContext, wish: Wish): Promise<Decision> {
  const { inventory, ids } = context;
  const { offering, template } = wish;
  const bytes = rootBytes(offering, template);
  const owners = openOwners(inventory, wish.accountId);
  // A VM that is not started takes room for its disk alone.
  const room = wish.start ? { vcpus: offering.vcpus, memoryMib: offering.memory_mib } : { vcpus: 0, memoryMib: 0 };
  const [volumeId, jobId] = [await ids.take(), await ids.take()];
  // A VM that is tried again counts already; its disk was given back.
  const disk = chargeOfVolume(bytes);
  const charge = wish.fresh ? together(chargeOfVm(offering.vcpus, offering.memory_mib), disk) : disk;
  // Last of what is awaited: from here on quota and room are held.
  const uncharge = await chargeOrRefuse(inventory, wish.accountId, charge);
  const place = await placeOrRefuse(inventory, {
    zoneId: wish.zoneId,
    clusterId: wish.clusterId,
    hostId: wish.hostId,
    ...room,
    diskBytes: bytes,
    storageClusterId: null,
  }).catch((error: unknown) => {
    uncharge(false);
    throw error;
  });
  const { hostId, storageId } = place;
  const settle = (taken: boolean): void => {
    uncharge(taken);
    place.settle(taken);
  };
  const host = inventory.get('host', hostId)!;
  const storage = inventory.get('primary_storage', storageId!)!;
  const volumeUid = newUid();
  const volume = {
    id: volumeId,
    uidHex: volumeUid.toString('hex'),
    publicId: encodeId('volume', volumeUid),
    storageId: storage.id,
    storagePath: storage.path,
    format: 'QCOW2' as const,
    sizeBytes: bytes,
    name: `${[...wish.name].slice(0, 240).join('')} root`,
  };
  const createContext: VmCreateContext = {
    vm: {
      id: wish.vmId,
      publicId: encodeId('vm', wish.vmUid),
      epoch: wish.epoch,
      vcpus: offering.vcpus,
      memoryMib: offering.memory_mib,
      from: wish.fresh ? 'CREATING' : 'ERROR',
    },
    hostId,
    reserved: wish.start,
    zoneId: wish.zoneId,
    podId: host.pod_id,
    clusterId: host.cluster_id,
    row: wish.fresh
      ? {
          uidHex: wish.vmUid.toString('hex'),
          offeringId: offering.id,
          templateId: template.id,
          name: wish.name,
          description: wish.description,
        }
      : null,
    volume,
    volumes: [],
    template: {
      id: template.id,
      publicId: encodeId('template', template.uid),
      fileName: template.file_name,
      format: template.format,
      sha256: template.sha256!,
    },
    prepare: !inventory.hasCopy(template.id, storage.id),
    start: wish.start,
  };
  const job = {
    id: jobId,
    uid: newUid(),
    target: { kind: 'vm' as const, id: wish.vmId, accountId: wish.accountId },
    actor: wish.actor,
    reason: wish.reason,
    input: wish.input,
    parentId: wish.parentId,
  };
  const transition = begin(workflow, job, createContext);
  const parents = [
    ...owners,
    holdEnabled('zone', wish.zoneId),
    holdEnabled('offering', offering.id),
    holdEnabled('template', template.id),
  ];
  return {
    kind: 'write',
    id: wish.vmId,
    jobId,
    transition: { ...transition, writes: [...parents, ...transition.writes] },
    settle,
  };
}

/** Every host with its score, or the rule that refuses it and the numbers. @throws VirtgraphError */
export async function explainPlacement(
  context: OpsContext,
  actor: Actor,
  raw: ExplainPlacementInput,
): Promise<PlacementVerdict> {
  authorize(actor, 'read', 'host');
  const parsed = explainPlacementInput.safeParse(raw);
  if (!parsed.success) {
    const issue = parsed.error.issues[0]!;
    throw new VirtgraphError({ code: 'INVALID_INPUT', message: issue.message, path: issue.path.map(String) });
  }
  const input = parsed.data;
  const { inventory } = context;
  await context.catchUp();
  const zone = known(inventory, 'zone', input.zoneId, 'zoneId', actor);
  const offering = known(inventory, 'offering', input.offeringId, 'offeringId', actor);
  const template = input.templateId == null ? null : readyTemplate(inventory, input.templateId, zone.id, actor);
  const request: PlacementRequest = {
    zoneId: zone.id,
    clusterId: input.clusterId == null ? null : known(inventory, 'cluster', input.clusterId, 'clusterId', actor).id,
    hostId: input.hostId == null ? null : known(inventory, 'host', input.hostId, 'hostId', actor).id,
    vcpus: offering.vcpus,
    memoryMib: offering.memory_mib,
    diskBytes: template ? rootBytes(offering, template) : (offering.disk_gib ?? 0) * GIB,
    storageClusterId: null,
  };
  return evaluate(inventory.placementHosts(), inventory.placementStorages(), request);
}

/** @throws VirtgraphError INVALID_INPUT for an offering whose disk the template does not fit */
function rootBytes(offering: Offering, template: Template): number {
  const wanted = offering.disk_gib === null ? template.virtual_bytes! : offering.disk_gib * GIB;
  if (wanted >= template.virtual_bytes!) return wanted;
  throw new VirtgraphError({
    code: 'INVALID_INPUT',
    message: `The offering's disk of ${offering.disk_gib} GiB is smaller than the template, which has ${(template.virtual_bytes! / GIB).toFixed(2)} GiB.`,
    path: ['offeringId'],
  });
}

/** @throws VirtgraphError NOT_FOUND, INVALID_STATE */
function readyTemplate(inventory: Inventory, id: string, zoneId: number, actor: Actor): Template {
  const template = known(inventory, 'template', id, 'templateId', actor);
  if (template.zone_id !== zoneId) throw notFound('template in this zone', ['templateId']);
  if (template.state === 'READY') return template;
  throw new VirtgraphError({
    code: 'INVALID_STATE',
    message: `The template is ${template.state}${template.state_reason ? `: ${template.state_reason}` : '.'}`,
    path: ['templateId'],
    state: template.state,
    allowedActions: [],
  });
}

/**
 * The account and every domain above it, to be held: nothing new is made in what is disabled or deleted meanwhile.
 *
 * @throws VirtgraphError NOT_FOUND, INVALID_STATE
 */
export function openOwners(inventory: Inventory, accountId: number): Hold[] {
  const account = inventory.get('account', accountId);
  const path = inventory.domainPathOf(accountId);
  if (!account || account.deleted_at !== null || path === undefined) throw notFound(NOUN.account, ['accountId']);
  mustBeEnabled(account, NOUN.account, 'accountId');
  const domains = domainsOf(path);
  for (const id of domains) {
    const domain = inventory.get('domain', id);
    if (domain) mustBeEnabled(domain, NOUN.domain, 'accountId');
  }
  return [...domains.map((id) => holdEnabled('domain', id)), holdEnabled('account', accountId)];
}

function known<K extends 'account' | 'zone' | 'cluster' | 'host' | 'offering' | 'template'>(
  inventory: Inventory,
  kind: K,
  id: string,
  path: string,
  actor: Actor,
) {
  const uid = decodeIdOf(kind, id);
  const row = uid && inventory.byUid(kind, uid);
  if (!row || !sees(actor, kind, row, inventory)) throw notFound(NOUN[kind], [path]);
  return row;
}

export function mustBeEnabled(row: { name: string; wanted_state: string }, noun: string, path: string): void {
  if (row.wanted_state === 'ENABLED') return;
  throw new VirtgraphError({
    code: 'INVALID_STATE',
    message: `The ${noun} ${row.name} is disabled.`,
    path: [path],
    state: row.wanted_state,
    allowedActions: ['ENABLE'],
  });
}
