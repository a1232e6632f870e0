import assert from 'node:assert/strict';
import type { Core } from '../../src/core.ts';
import type { JobStep, Vm } from '../../src/db/tables.ts';
import { OPERATOR_ACCOUNT } from '../../src/domain/authorize.ts';
import { encodeId } from '../../src/domain/ids.ts';
import type { JobState } from '../../src/domain/job-state.ts';
import type { Payload } from '../../src/ops/context.ts';
import { ADMIN, jobEnded, jobRow, openCore, until } from '../support/core.ts';
import { freshDatabase, type TestDatabase } from '../support/database.ts';
import { JournalHost } from '../support/journal-host.ts';
import { insertTemplate, insertVolume, insertWorld, type Placed, type World } from '../support/world.ts';

/** A control plane on a database of its own, and one host that does what it is told. */
export interface Bench {
  database: TestDatabase;
  core: Core;
  host: JournalHost;
  world: World;
  close(): Promise<void>;
}

export async function openBench(): Promise<Bench> {
  const database = await freshDatabase();
  const world = await insertWorld(database.db);
  const core = await openCore(database.url);
  const host = new JournalHost(world.hosts[0]!.id);
  await host.link(core);
  return {
    database,
    core,
    host,
    world,
    async close() {
      await host.close();
      await core.close();
      await database.close();
    },
  };
}

/** What a case acts on, once it is in the state that the case begins with. */
export interface Subject {
  vm: Placed | null;
}

/** One way to run one workflow. The tables are the specification: a workflow that changes must change them. */
export interface Case {
  kind: string;
  title: string;
  /** Names of the steps that a host does, in order. */
  steps: string[];
  /** Those that are tried again by themselves. */
  attempts?: Record<string, number>;
  /** Undos, in order, when this step fails. */
  undos?: Record<string, string[]>;
  /** State of its target at the end. */
  succeeded: string;
  /** By the step that failed for good: how the job ends, and where its target is then. */
  failed: Record<string, [job: JobState, target: string]>;
  /** The same when a person cancelled, where that differs. */
  cancelled?: Record<string, [job: JobState, target: string]>;
  prepare(bench: Bench): Promise<Subject>;
  /** @returns id of the job */
  act(bench: Bench, subject: Subject): Promise<number>;
}

let made = 0;
const newName = (): string => `case-${++made}`;

export const accepted = (payload: Payload): { id: number; jobId: number } => {
  assert.deepEqual(payload.errors, []);
  return { id: payload.id!, jobId: payload.jobId! };
};

export const createInput = ({ world }: Pick<Bench, 'world'>, more: Record<string, unknown> = {}) => ({
  name: newName(),
  zoneId: encodeId('zone', world.zone.uid),
  offeringId: encodeId('offering', world.offering.uid),
  templateId: encodeId('template', world.template.uid),
  ...more,
});

export const vmRow = (core: Core, id: number): Promise<Vm> =>
  core.db.selectFrom('vm').selectAll().where('id', '=', id).executeTakeFirstOrThrow();

export const stepsOf = (core: Core, jobId: number): Promise<JobStep[]> =>
  core.db.selectFrom('job_step').selectAll().where('job_id', '=', jobId).orderBy('seq').execute();

/** The state of what a job is about. */
export async function targetState(core: Core, jobId: number): Promise<string> {
  const { target_kind, target_id } = await jobRow(core, jobId);
  const { state } = await core.db
    .selectFrom(target_kind as 'vm')
    .select('state')
    .where('id', '=', target_id)
    .executeTakeFirstOrThrow();
  return state;
}

const succeed = async (bench: Bench, payload: Payload): Promise<void> => {
  const job = await jobEnded(bench.core, accepted(payload).jobId);
  assert.equal(job.state, 'SUCCEEDED', job.error_message ?? '');
};

/** A VM that runs, or one on its way from there. */
async function newVm(bench: Bench, start = true): Promise<Placed> {
  const payload = await bench.core.ops.createVm(ADMIN, createInput(bench, { start }));
  await succeed(bench, payload);
  const { uid } = await vmRow(bench.core, payload.id!);
  return { id: payload.id!, uid };
}

export const idOf = (vm: Placed): { id: string } => ({ id: encodeId('vm', vm.uid) });

const running = async (bench: Bench): Promise<Subject> => ({ vm: await newVm(bench) });
const stopped = async (bench: Bench): Promise<Subject> => ({ vm: await newVm(bench, false) });
async function paused(bench: Bench): Promise<Subject> {
  const vm = await newVm(bench);
  await succeed(bench, await bench.core.ops.pauseVm(ADMIN, idOf(vm)));
  return { vm };
}
async function destroyed(bench: Bench): Promise<Subject> {
  const vm = await newVm(bench);
  await succeed(bench, await bench.core.ops.destroyVm(ADMIN, idOf(vm)));
  return { vm };
}
/** Another volume, so that one can be gone while the next is not. */
async function destroyedWithTwoVolumes(bench: Bench): Promise<Subject> {
  const { vm } = await destroyed(bench);
  const volume = await insertVolume(bench.core.db, bench.world, vm!, { role: 'DATA', size_bytes: 2 ** 20 });
  bench.host.volumes.add(encodeId('volume', volume.uid));
  await bench.core.db
    .updateTable('primary_storage')
    .set((eb) => ({ bytes_used: eb('bytes_used', '+', 2 ** 20) }))
    .where('id', '=', bench.world.storage.id)
    .execute();
  return { vm };
}
const none = async (): Promise<Subject> => ({ vm: null });

type VmMutation =
  | 'startVm'
  | 'stopVm'
  | 'rebootVm'
  | 'resetVm'
  | 'pauseVm'
  | 'resumeVm'
  | 'destroyVm'
  | 'recoverVm'
  | 'expungeVm';
const by =
  (mutation: VmMutation, more: Record<string, unknown> = {}) =>
  async (bench: Bench, { vm }: Subject): Promise<number> =>
    accepted(await bench.core.ops[mutation](ADMIN, { ...idOf(vm!), ...more })).jobId;

const creating = (more: Record<string, unknown>) => async (bench: Bench) =>
  accepted(await bench.core.ops.createVm(ADMIN, createInput(bench, more))).jobId;

/** The storage has no copy of a template that is new. */
async function createFromNewTemplate(bench: Bench): Promise<number> {
  const template = await insertTemplate(bench.core.db, bench.world.zone);
  bench.core.inventory.changed([{ kind: 'template', id: template.id }]);
  await bench.core.inventory.refresh();
  return creating({ templateId: encodeId('template', template.uid) })(bench);
}

async function settle(bench: Bench, { vm }: Subject): Promise<number> {
  const { core, host } = bench;
  const { vmId, epoch } = { vmId: encodeId('vm', vm!.uid), epoch: (await vmRow(core, vm!.id)).epoch };
  host.vms.set(vmId, { state: 'CRASHED', epoch });
  await core.observations.some(host.id, host.sessionId, [
    { vmId, state: 'CRASHED', epoch, reason: 'killed by a signal' },
  ]);
  const job = await until(core, 'a job that settles the VM', () =>
    core.db
      .selectFrom('job')
      .select('id')
      .where('kind', '=', 'SETTLE_VM')
      .where('target_id', '=', vm!.id)
      .executeTakeFirst()
      .then((row) => row ?? null),
  );
  return job.id;
}

/** Of an account, so that it counts. */
const registering = async ({ core, world }: Bench): Promise<number> =>
  accepted(
    await core.ops.registerTemplate(ADMIN, {
      zoneId: encodeId('zone', world.zone.uid),
      accountId: encodeId('account', core.inventory.get('account', OPERATOR_ACCOUNT)!.uid),
      name: newName(),
      fileName: 'tiny-linux.qcow2',
      format: 'QCOW2',
    }),
  ).jobId;

const FAILED_CREATE: [JobState, string] = ['FAILED', 'ERROR'];
const CANCELLED_CREATE: [JobState, string] = ['CANCELLED', 'EXPUNGED'];
const all = <T>(steps: string[], value: T): Record<string, T> => Object.fromEntries(steps.map((s) => [s, value]));

const CREATE_STEPS = ['prepareTemplate', 'createVolume', 'startVm'];

export const CASES: Case[] = [
  {
    kind: 'CREATE_VM',
    title: 'creates and starts a VM from a template that the storage has no copy of',
    steps: CREATE_STEPS,
    attempts: { prepareTemplate: 2 },
    undos: { createVolume: ['deleteVolume'], startVm: ['stopVm', 'removeVm', 'deleteVolume'] },
    succeeded: 'RUNNING',
    failed: all(CREATE_STEPS, FAILED_CREATE),
    cancelled: all(CREATE_STEPS, CANCELLED_CREATE),
    prepare: none,
    act: createFromNewTemplate,
  },
  {
    kind: 'CREATE_VM',
    title: 'creates a VM that is not started',
    steps: ['createVolume'],
    undos: { createVolume: ['deleteVolume'] },
    succeeded: 'STOPPED',
    failed: { createVolume: FAILED_CREATE },
    cancelled: { createVolume: CANCELLED_CREATE },
    prepare: none,
    act: creating({ start: false }),
  },
  {
    kind: 'START_VM',
    title: 'starts a stopped VM',
    steps: ['startVm'],
    undos: { startVm: ['stopVm'] },
    succeeded: 'RUNNING',
    failed: { startVm: ['FAILED', 'STOPPED'] },
    prepare: stopped,
    act: by('startVm'),
  },
  {
    kind: 'STOP_VM',
    title: 'stops a running VM',
    steps: ['stopVm'],
    succeeded: 'STOPPED',
    failed: { stopVm: ['FAILED', 'RUNNING'] },
    prepare: running,
    act: by('stopVm'),
  },
  {
    kind: 'STOP_VM',
    title: 'stops a paused VM by force',
    steps: ['stopVm'],
    succeeded: 'STOPPED',
    failed: { stopVm: ['FAILED', 'PAUSED'] },
    prepare: paused,
    act: by('stopVm', { force: true }),
  },
  {
    kind: 'REBOOT_VM',
    title: 'reboots a running VM',
    steps: ['stopVm', 'startVm'],
    attempts: { startVm: 2 },
    undos: { startVm: ['stopAgain'] },
    succeeded: 'RUNNING',
    failed: { stopVm: ['FAILED', 'RUNNING'], startVm: ['FAILED', 'STOPPED'] },
    prepare: running,
    act: by('rebootVm'),
  },
  {
    kind: 'RESET_VM',
    title: 'resets a running VM',
    steps: ['resetVm'],
    succeeded: 'RUNNING',
    failed: { resetVm: ['FAILED', 'RUNNING'] },
    prepare: running,
    act: by('resetVm'),
  },
  {
    kind: 'RESET_VM',
    title: 'resets a paused VM, which stays paused',
    steps: ['resetVm'],
    succeeded: 'PAUSED',
    failed: { resetVm: ['FAILED', 'PAUSED'] },
    prepare: paused,
    act: by('resetVm'),
  },
  {
    kind: 'PAUSE_VM',
    title: 'pauses a running VM',
    steps: ['pauseVm'],
    succeeded: 'PAUSED',
    failed: { pauseVm: ['FAILED', 'RUNNING'] },
    prepare: running,
    act: by('pauseVm'),
  },
  {
    kind: 'RESUME_VM',
    title: 'resumes a paused VM',
    steps: ['resumeVm'],
    succeeded: 'RUNNING',
    failed: { resumeVm: ['FAILED', 'PAUSED'] },
    prepare: paused,
    act: by('resumeVm'),
  },
  {
    kind: 'DESTROY_VM',
    title: 'destroys a running VM',
    steps: ['stopVm'],
    succeeded: 'DESTROYED',
    failed: { stopVm: ['FAILED', 'RUNNING'] },
    prepare: running,
    act: by('destroyVm'),
  },
  {
    kind: 'DESTROY_VM',
    title: 'destroys a stopped VM without asking a host',
    steps: [],
    succeeded: 'DESTROYED',
    failed: {},
    prepare: stopped,
    act: by('destroyVm'),
  },
  {
    kind: 'RECOVER_VM',
    title: 'recovers a destroyed VM',
    steps: [],
    succeeded: 'STOPPED',
    failed: {},
    prepare: destroyed,
    act: by('recoverVm'),
  },
  {
    kind: 'EXPUNGE_VM',
    title: 'expunges a VM with two volumes',
    steps: ['removeVm', 'deleteVolume', 'deleteVolume2'],
    attempts: { removeVm: 2, deleteVolume: 3, deleteVolume2: 3 },
    succeeded: 'EXPUNGED',
    failed: {
      removeVm: ['FAILED', 'DESTROYED'],
      // The point of no return: what fails from here on waits for a person.
      deleteVolume: ['NEEDS_ATTENTION', 'EXPUNGING'],
      deleteVolume2: ['NEEDS_ATTENTION', 'EXPUNGING'],
    },
    cancelled: { removeVm: ['CANCELLED', 'DESTROYED'] },
    prepare: destroyedWithTwoVolumes,
    act: by('expungeVm'),
  },
  {
    kind: 'SETTLE_VM',
    title: 'settles a VM whose host saw it end',
    steps: [],
    succeeded: 'STOPPED',
    failed: {},
    prepare: running,
    act: settle,
  },
  {
    kind: 'REGISTER_TEMPLATE',
    title: 'registers a template',
    steps: ['inspectImage'],
    succeeded: 'READY',
    failed: { inspectImage: ['FAILED', 'ERROR'] },
    cancelled: { inspectImage: ['CANCELLED', 'ERROR'] },
    prepare: none,
    act: registering,
  },
];

/** Every step of every case that a host does, as a test each. */
export const EACH_STEP = CASES.flatMap((c) => c.steps.map((step) => ({ c, step })));

/** The database and the host say the same of every VM that rests and of every volume. */
export async function assertHostAgrees({ core, host }: Bench): Promise<void> {
  const vms = await core.db
    .selectFrom('vm')
    .select(['uid', 'state', 'host_id'])
    .where('active_job_id', 'is', null)
    .execute();
  const wanted = new Map(vms.map((vm) => [encodeId('vm', vm.uid), vm.host_id === host.id ? vm.state : 'STOPPED']));
  const seen = [...host.vms].filter(([, vm]) => vm.state === 'RUNNING' || vm.state === 'PAUSED');
  assert.deepEqual(
    Object.fromEntries(seen.filter(([id]) => wanted.has(id)).map(([id, vm]) => [id, vm.state])),
    Object.fromEntries([...wanted].filter(([, state]) => state === 'RUNNING' || state === 'PAUSED')),
    'VMs that run',
  );
  const volumes = await core.db.selectFrom('volume').select('uid').where('deleted_at', 'is', null).execute();
  assert.deepEqual([...host.volumes].sort(), volumes.map((v) => encodeId('volume', v.uid)).sort(), 'volumes');
}
