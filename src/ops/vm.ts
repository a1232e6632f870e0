import { newUid } from '../db/ids.ts';
import type { Vm } from '../db/tables.ts';
import {
  chargeAccount,
  emptyTransition,
  holdEnabled,
  patch,
  plus,
  type Settable,
  type Write,
} from '../db/transition.ts';
import type { Actor } from '../domain/authorize.ts';
import { VirtgraphError } from '../domain/errors.ts';
import type { FieldChange } from '../domain/kinds.ts';
import type { Verb } from '../domain/permission.ts';
import { decideVm } from '../domain/vm-state.ts';
import { begin, enqueue } from '../jobs/advance.ts';
import { chargeOrRefuse } from '../jobs/quota.ts';
import { invalidState, type PlannedAction, planVm, type VmRequest, workflowForAction } from '../jobs/vm-plan.ts';
import type { OpsContext } from './context.ts';
import { INPUTS } from './inputs.ts';
import { type Asker, type Decision, mutation } from './mutation.ts';
import { find, mustBeGeneration, NOUN } from './named-resource.ts';
import { mustHaveRightWith } from './rights.ts';
import { mustBeEnabled } from './vm-create.ts';

/** Jobs that may wait for one VM. */
const QUEUE_MAX = 16;

/** @throws VirtgraphError NOT_FOUND, FORBIDDEN */
async function findVm(context: OpsContext, id: string, asker: Asker): Promise<Vm> {
  const vm = await find(context, 'vm', id, ['id'], asker.actor);
  await mustHaveRightWith(context, asker, 'vm', vm);
  return vm;
}

interface ActionInput {
  id: string;
  hostId?: string | null | undefined;
  clusterId?: string | null | undefined;
  force?: boolean | null | undefined;
  timeoutMs?: number | null | undefined;
  forceAfterTimeout?: boolean | null | undefined;
}

/** What an action is to rights. */
export const verbOf = (act: PlannedAction): Verb => (act === 'DESTROY' || act === 'EXPUNGE' ? 'delete' : 'operate');

/** One action on a VM: begins at once, or waits its turn behind the job that holds the VM. */
const action = <
  K extends
    | 'startVm'
    | 'stopVm'
    | 'rebootVm'
    | 'resetVm'
    | 'pauseVm'
    | 'resumeVm'
    | 'destroyVm'
    | 'recoverVm'
    | 'expungeVm',
>(
  name: K,
  act: PlannedAction,
) =>
  mutation(name, { verb: verbOf(act), kind: 'vm' }, INPUTS[name], async (context, input: ActionInput, asker) => {
    const vm = await findVm(context, input.id, asker);
    return actOn(context, vm, act, await requestOf(context, input, asker.actor), asker, null);
  });

export async function actOn(
  context: OpsContext,
  vm: Vm,
  act: PlannedAction,
  request: VmRequest,
  asker: Pick<Asker, 'name' | 'reason'>,
  parentId: number | null,
): Promise<Decision> {
  const jobId = await context.ids.take();
  const job = {
    id: jobId,
    uid: newUid(),
    target: { kind: 'vm' as const, id: vm.id, accountId: vm.account_id },
    actor: asker.name,
    reason: asker.reason,
    input: request,
    parentId,
  };
  // Also between two jobs: whoever waits already comes first.
  const waiting = await countQueued(context, vm);
  if (vm.active_job_id !== null || waiting > 0) {
    if (waiting >= QUEUE_MAX) throw queueFull(waiting);
    return { kind: 'write', id: vm.id, jobId, transition: enqueue(workflowForAction(act), job) };
  }
  const plan = await planVm(context, vm, act, request);
  if (plan.kind === 'already') return { kind: 'already', id: vm.id };
  return { kind: 'write', id: vm.id, jobId, transition: begin(plan.workflow, job, plan.context), settle: plan.settle };
}

async function requestOf(context: OpsContext, input: ActionInput, actor: Actor): Promise<VmRequest> {
  const { force = null, timeoutMs = null, forceAfterTimeout = null } = input;
  const hostId = input.hostId == null ? null : (await find(context, 'host', input.hostId, ['hostId'], actor)).id;
  const clusterId =
    input.clusterId == null ? null : (await find(context, 'cluster', input.clusterId, ['clusterId'], actor)).id;
  return { hostId, clusterId, force, timeoutMs, forceAfterTimeout };
}

async function countQueued(context: OpsContext, vm: Vm): Promise<number> {
  const { n } = await context.db
    .selectFrom('job')
    .select((eb) => eb.fn.countAll<number>().as('n'))
    .where('target_kind', '=', 'vm')
    .where('target_id', '=', vm.id)
    .where('state', '=', 'QUEUED')
    .executeTakeFirstOrThrow();
  return Number(n);
}

const queueFull = (waiting: number): VirtgraphError =>
  new VirtgraphError({ code: 'QUEUE_FULL', message: `${waiting} jobs wait for this VM already.`, path: ['id'] });

export const startVm = action('startVm', 'START');
export const stopVm = action('stopVm', 'STOP');
export const rebootVm = action('rebootVm', 'REBOOT');
export const resetVm = action('resetVm', 'RESET');
export const pauseVm = action('pauseVm', 'PAUSE');
export const resumeVm = action('resumeVm', 'RESUME');
export const destroyVm = action('destroyVm', 'DESTROY');
export const recoverVm = action('recoverVm', 'RECOVER');
export const expungeVm = action('expungeVm', 'EXPUNGE');

/** Name and description at any time, the size while it is stopped. Takes effect with the answer; there is no job. */
export const updateVm = mutation(
  'updateVm',
  { verb: 'update', kind: 'vm' },
  INPUTS.updateVm,
  async (context, input, asker) => {
    const vm = await findVm(context, input.id, asker);
    mustBeGeneration(vm, input.expectedGeneration);
    const decision = decideVm(vm.state, 'UPDATE');
    if (decision.kind === 'deny') throw invalidState(vm, 'UPDATE', decision.allowed);
    const set: Settable<'vm'> = {};
    const changes: FieldChange[] = [];
    let also: Write[] = [];
    let settle: ((taken: boolean) => void) | undefined;
    if (input.name != null && input.name !== vm.name) {
      set.name = input.name;
      changes.push({ field: 'name', before: vm.name, after: input.name });
    }
    if (input.description != null && input.description !== (vm.description ?? '')) {
      set.description = input.description === '' ? null : input.description;
      changes.push({ field: 'description', before: vm.description, after: set.description });
    }
    // Last of what is awaited: from here on the quota is held.
    if (input.offeringId != null)
      ({ writes: also, settle } = await resize(context, vm, input.offeringId, set, changes, asker.actor));
    if (changes.length === 0) return { kind: 'already', id: vm.id };
    return {
      kind: 'write',
      id: vm.id,
      jobId: null,
      ...(settle ? { settle } : {}),
      transition: {
        ...emptyTransition(),
        writes: [
          patch(
            'vm',
            vm.id,
            { generation: vm.generation, state: vm.state, active_job_id: vm.active_job_id },
            { ...set, generation: plus(1) },
          ),
          ...also,
        ],
        changes: [{ kind: 'vm', id: vm.id }],
        events: [
          {
            type: 'vm.updated',
            subject: { kind: 'vm', id: vm.id },
            accountId: vm.account_id,
            jobId: null,
            actor: asker.name,
            reason: asker.reason,
            changes,
          },
        ],
      },
    };
  },
);

async function resize(
  context: OpsContext,
  vm: Vm,
  offeringId: string,
  set: Settable<'vm'>,
  changes: FieldChange[],
  actor: Actor,
): Promise<{ writes: Write[]; settle?: (taken: boolean) => void }> {
  const wanted = await find(context, 'offering', offeringId, ['offeringId'], actor);
  const { id, name } = wanted;
  if (id === vm.offering_id) return { writes: [] };
  mustBeEnabled(wanted, NOUN.offering, 'offeringId');
  if (vm.state !== 'STOPPED' || vm.active_job_id !== null) {
    throw new VirtgraphError({
      code: 'INVALID_STATE',
      message: `The VM is ${vm.state}; its size can change only while it is stopped and no job is at work on it.`,
      path: ['offeringId'],
      state: vm.state,
      allowedActions: [],
    });
  }
  const offering = await context.db
    .selectFrom('offering')
    .select(['vcpus', 'memory_mib'])
    .where('id', '=', id)
    .executeTakeFirstOrThrow();
  set.offering_id = id;
  set.vcpus = offering.vcpus;
  set.memory_mib = offering.memory_mib;
  const before = context.inventory.get('offering', vm.offering_id)?.name ?? null;
  changes.push({ field: 'offering', before, after: name });
  const growth = { vcpus: offering.vcpus - vm.vcpus, memoryMib: offering.memory_mib - vm.memory_mib };
  const settle = await chargeOrRefuse(context.inventory, vm.account_id, growth);
  return { writes: [holdEnabled('offering', id), chargeAccount(vm.account_id, growth)], settle };
}
