import type { Kysely } from 'kysely';
import type { Inventory } from '../db/inventory.ts';
import type { Database, Vm } from '../db/tables.ts';
import { VirtgraphError } from '../domain/errors.ts';
import { encodeId } from '../domain/ids.ts';
import { best, evaluate, type PlacementRequest } from '../domain/placement.ts';
import { decideVm, type VmAction } from '../domain/vm-state.ts';
import type { VmContext, VolumeContext } from './vm-context.ts';
import { expungeVm } from './vm-expunge.ts';
import {
  destroyVm,
  pauseVm,
  rebootVm,
  recoverVm,
  resetVm,
  resumeVm,
  startVm,
  stopVm,
  type VmStopContext,
} from './vm-power.ts';
import type { Workflow } from './workflow.ts';

/** What was asked, beyond the action: the inputs of the mutations, ids resolved. */
export interface VmRequest {
  hostId?: number | null;
  clusterId?: number | null;
  force?: boolean | null;
  timeoutMs?: number | null;
  forceAfterTimeout?: boolean | null;
}

export type VmPlan =
  | { kind: 'go'; workflow: Workflow; context: VmContext; settle: (taken: boolean) => void }
  | { kind: 'already' };

export interface PlanDeps {
  db: Kysely<Database>;
  inventory: Inventory;
}

const GRACEFUL_TIMEOUT_MS = 60_000;

const WORKFLOW_OF: Record<Exclude<VmAction, 'UPDATE'>, Workflow> = {
  START: startVm as Workflow,
  STOP: stopVm as Workflow,
  REBOOT: rebootVm as Workflow,
  RESET: resetVm as Workflow,
  PAUSE: pauseVm as Workflow,
  RESUME: resumeVm as Workflow,
  DESTROY: destroyVm as Workflow,
  RECOVER: recoverVm as Workflow,
  EXPUNGE: expungeVm as Workflow,
};

export type PlannedAction = keyof typeof WORKFLOW_OF;
export const ACTION_OF_KIND: Record<string, PlannedAction> = Object.fromEntries(
  Object.entries(WORKFLOW_OF).map(([action, workflow]) => [workflow.kind, action as PlannedAction]),
);
export const workflowForAction = (action: PlannedAction): Workflow => WORKFLOW_OF[action];

/**
 * Resolves what an action on a VM needs, as the VM is now: for a mutation before it writes, for a queued job when its
 * turn has come. Takes nothing: the writes of the workflow's `begin` do, and may be refused.
 *
 * @throws VirtgraphError INVALID_STATE, INSUFFICIENT_CAPACITY, HOST_UNREACHABLE
 */
export async function planVm(deps: PlanDeps, vm: Vm, action: PlannedAction, request: VmRequest): Promise<VmPlan> {
  const decision = decideVm(vm.state, action);
  if (decision.kind === 'already') return { kind: 'already' };
  if (decision.kind === 'deny') throw invalidState(vm, action, decision.allowed);

  if (vm.host_id !== null) mustBeConnected(deps.inventory, vm.host_id);
  const workflow = WORKFLOW_OF[action];
  const base: VmContext = {
    vm: {
      id: vm.id,
      publicId: encodeId('vm', vm.uid),
      epoch: vm.epoch,
      vcpus: vm.vcpus,
      memoryMib: vm.memory_mib,
      from: vm.state,
    },
    hostId: vm.host_id,
    reserved: vm.host_id !== null,
    volumes: [],
  };
  const go = (context: VmContext, settle: (taken: boolean) => void = () => undefined): VmPlan => ({
    kind: 'go',
    workflow,
    context,
    settle,
  });

  switch (action) {
    case 'START':
      return planStart(deps, vm, base, request, go);
    case 'STOP':
      return go({ ...base, stop: stopOf(request) } as VmStopContext);
    case 'REBOOT': {
      const volumes = await volumesOf(deps, vm);
      const mode = request.forceAfterTimeout === false ? 'GRACEFUL' : 'GRACEFUL_THEN_FORCE';
      const stop = { mode, gracefulTimeoutMs: request.timeoutMs ?? GRACEFUL_TIMEOUT_MS } as const;
      return go({ ...base, volumes, vm: { ...base.vm, epoch: vm.epoch + 1 }, stop } as VmStopContext);
    }
    case 'RECOVER':
      if ((await volumesOf(deps, vm)).length === 0) throw neverCreated(vm);
      return go(base);
    case 'EXPUNGE':
      return go(await expungeContext(deps, vm, base));
    default:
      return go(base);
  }
}

const stopOf = (request: VmRequest): VmStopContext['stop'] => {
  if (request.force) return { mode: 'FORCE', gracefulTimeoutMs: 0 };
  return {
    mode: request.forceAfterTimeout ? 'GRACEFUL_THEN_FORCE' : 'GRACEFUL',
    gracefulTimeoutMs: request.timeoutMs ?? GRACEFUL_TIMEOUT_MS,
  };
};

async function planStart(
  deps: PlanDeps,
  vm: Vm,
  base: VmContext,
  request: VmRequest,
  go: (context: VmContext, settle: (taken: boolean) => void) => VmPlan,
): Promise<VmPlan> {
  const volumes = await volumesOf(deps, vm);
  const { hostId, settle } = await placeOrRefuse(deps.inventory, {
    zoneId: vm.zone_id,
    clusterId: request.clusterId ?? null,
    hostId: request.hostId ?? null,
    vcpus: vm.vcpus,
    memoryMib: vm.memory_mib,
    diskBytes: 0,
    storageClusterId: volumes.length > 0 ? vm.cluster_id : null,
  });
  return go({ ...base, vm: { ...base.vm, epoch: vm.epoch + 1 }, hostId, reserved: true, volumes }, settle);
}

/**
 * The best place for a VM, with its room held from the moment of the choice on, so that the next choice sees it taken.
 * Call `settle` once the transaction that takes the room has ended.
 *
 * @throws VirtgraphError INSUFFICIENT_CAPACITY with every host's reason and numbers
 */
export async function placeOrRefuse(
  inventory: Inventory,
  request: PlacementRequest,
): Promise<{ hostId: number; storageId: number | null; settle: (taken: boolean) => void }> {
  const { vcpus, memoryMib, diskBytes } = request;
  const choose = () => {
    const found = best(inventory.placementHosts(), inventory.placementStorages(), request);
    if (!found) return null;
    const { hostId, storageId } = found;
    const settle = inventory.reserve({ host: hostId, storage: storageId }, { vcpus, memoryMib, bytes: diskBytes });
    return { hostId, storageId, settle };
  };
  const believed = choose();
  if (believed) return believed;
  await inventory.recount();
  const counted = choose();
  if (counted) return counted;
  const { rejections } = evaluate(inventory.placementHosts(), inventory.placementStorages(), request);
  const here = rejections.filter((r) => r.rule !== 'ZONE');
  throw new VirtgraphError({
    code: 'INSUFFICIENT_CAPACITY',
    message:
      here.length === 0
        ? 'The zone has no host.'
        : `No host can take it. ${here
            .slice(0, 20)
            .map((r) => `${r.hostName}: ${r.message}`)
            .join(' ')}`,
    rejections: here,
  });
}

async function volumesOf({ db, inventory }: PlanDeps, vm: Vm): Promise<VolumeContext[]> {
  const rows = await db
    .selectFrom('volume')
    .selectAll()
    .where('vm_id', '=', vm.id)
    .where('deleted_at', 'is', null)
    .orderBy('id')
    .execute();
  return rows.map((row) => ({
    id: row.id,
    publicId: encodeId('volume', row.uid),
    storageId: row.primary_storage_id,
    storagePath: inventory.get('primary_storage', row.primary_storage_id)!.path,
    format: row.format,
    sizeBytes: row.size_bytes,
  }));
}

async function expungeContext(deps: PlanDeps, vm: Vm, base: VmContext): Promise<VmContext> {
  const volumes = await volumesOf(deps, vm);
  const last = vm.last_host_id === null ? undefined : deps.inventory.get('host', vm.last_host_id);
  // The last host's runtime folder is worth asking for only while it can answer; the volumes need some host that can.
  const hostId = last?.link_state === 'UP' ? last.id : null;
  const storageHostId = hostId ?? connectedHost(deps.inventory, (host) => host.cluster_id === vm.cluster_id);
  if (volumes.length > 0 && storageHostId === null)
    throw noConnectedHost('No host of its cluster is connected, so its volumes cannot be deleted.');
  return { ...base, hostId, volumes, storageHostId } as VmContext;
}

/** Any host that can be asked. */
export function connectedHost(
  inventory: Inventory,
  fits: (host: { zone_id: number; cluster_id: number }) => boolean,
): number | null {
  for (const host of inventory.all('host')) if (host.link_state === 'UP' && fits(host)) return host.id;
  return null;
}

function mustBeConnected(inventory: Inventory, hostId: number): void {
  const host = inventory.get('host', hostId);
  if (host?.link_state === 'UP') return;
  throw noConnectedHost(
    `Its host ${host?.name ?? ''} is ${host?.link_state ?? 'gone'}, so it cannot be asked. Nothing was changed.`,
  );
}

export const noConnectedHost = (message: string): VirtgraphError =>
  new VirtgraphError({ code: 'HOST_UNREACHABLE', message });

/** A create that failed has left no volume: a VM without one could be started, and would boot nothing. */
const neverCreated = (vm: Vm): VirtgraphError =>
  new VirtgraphError({
    code: 'INVALID_STATE',
    message: 'Its creation failed, so there is nothing to recover.',
    state: vm.state,
    allowedActions: ['EXPUNGE'],
  });

export const invalidState = (vm: Vm, action: VmAction, allowed: VmAction[]): VirtgraphError =>
  new VirtgraphError({
    code: 'INVALID_STATE',
    message: `The VM is ${vm.state}: ${action.toLowerCase()} is not possible now. ${
      allowed.length === 0
        ? 'Wait for what is under way.'
        : `It can: ${allowed.map((a) => a.toLowerCase()).join(', ')}.`
    }`,
    state: vm.state,
    allowedActions: allowed,
  });
