import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import type { FakeConfig } from '../../hostd/fake/config.ts';
import type { Core } from '../../src/core.ts';
import { encodeId } from '../../src/domain/ids.ts';
import { QUOTA, QUOTA_RESOURCES, type QuotaRow } from '../../src/domain/quota.ts';
import { WORKFLOWS } from '../../src/jobs/registry.ts';
import { accepted, CASES, type Case, createInput, idOf, type Subject, stepsOf, targetState } from '../jobs/cases.ts';
import { ADMIN, jobEnded, jobRow, publicJobId } from '../support/core.ts';
import { FakeStage } from '../support/fake-stage.ts';
import type { Call, Operation } from '../support/staged-fake.ts';
import { insertTemplate } from '../support/world.ts';

const OPERATION_OF: Record<string, Operation> = {
  inspectImage: 'inspectImage',
  prepareTemplate: 'prepareTemplate',
  createVolume: 'createVolume',
  startVm: 'startVm',
  stopVm: 'stopVm',
  stopAgain: 'stopVm',
  resetVm: 'controlVm',
  pauseVm: 'controlVm',
  resumeVm: 'controlVm',
  removeVm: 'removeVm',
  deleteVolume: 'deleteVolume',
  deleteVolume2: 'deleteVolume',
};
const operations = (steps: string[]): Operation[] => steps.map((step) => OPERATION_OF[step]!);

const createOf = (steps: string[], succeeded: string, act: Case['act']): Omit<Case, 'title'> => ({
  kind: 'CREATE_VM',
  steps,
  attempts: { prepareTemplate: 2 },
  undos: { createVolume: ['deleteVolume'], startVm: ['stopVm', 'removeVm', 'deleteVolume'] },
  succeeded,
  failed: Object.fromEntries(steps.map((step) => [step, ['FAILED', 'ERROR']])),
  prepare: async () => ({ vm: null }),
  act,
});

/** Beside those of the tables: the template there already, the VM started; the other way round. */
const MORE_CREATES: Case[] = [
  {
    ...createOf(
      ['createVolume', 'startVm'],
      'RUNNING',
      async (bench) => accepted(await bench.core.ops.createVm(ADMIN, createInput(bench))).jobId,
    ),
    title: 'creates and starts a VM from a template that is there',
  },
  {
    ...createOf(['prepareTemplate', 'createVolume'], 'STOPPED', async (bench) => {
      const { core, world } = bench;
      const template = await insertTemplate(core.db, world.zone);
      core.inventory.changed([{ kind: 'template', id: template.id }]);
      await core.inventory.refresh();
      const input = createInput(bench, { start: false, templateId: encodeId('template', template.uid) });
      return accepted(await core.ops.createVm(ADMIN, input)).jobId;
    }),
    title: 'creates a VM that is not started, from a template that the storage has no copy of',
  },
];

const ON_HOST = [...CASES.filter((c) => c.steps.length > 0), ...MORE_CREATES];
const EACH_STEP = ON_HOST.flatMap((c) => c.steps.map((step) => ({ c, step })));

/** Which call of its operation a step is, when nothing fails. */
const callOf = (c: Case, step: string): Call => {
  const before = operations(c.steps.slice(0, c.steps.indexOf(step) + 1));
  const operation = OPERATION_OF[step]!;
  return { operation, nth: before.filter((one) => one === operation).length };
};
const same = (a: Call, b: Call): boolean => a.operation === b.operation && a.nth === b.nth;

type Fault = Exclude<NonNullable<FakeConfig['startVm']>, unknown[]>;
/** A fault at one step and no other, on top of what the case needs. */
const faultAt = ({ addedVolumeId }: FakeStage, step: string, fault: Fault): FakeConfig => ({
  [OPERATION_OF[step]!]: { ...fault, ...(step === 'deleteVolume2' ? { volumeId: addedVolumeId! } : {}) },
});

async function prepare(stage: FakeStage, c: Case): Promise<Subject> {
  const subject = await c.prepare(stage);
  stage.settle();
  return subject;
}

/** The job has ended as if nothing had happened, its host did each step in the order of the workflow. */
async function assertEndedWell(stage: FakeStage, c: Case, jobId: number): Promise<void> {
  const job = await jobEnded(stage.core, jobId);
  assert.deepEqual(
    [job.state, await targetState(stage.core, jobId), job.error_code, job.progress],
    ['SUCCEEDED', c.succeeded, null, 100],
    job.error_message ?? '',
  );
  const steps = await commandsOf(stage.core, jobId);
  assert.deepEqual(
    steps.map((s) => [s.name, s.direction, s.attempt, s.state]),
    c.steps.map((name) => [name, 'DO', 1, 'DONE']),
  );
  await stage.assertClean();
}

const commandsOf = async (core: Core, jobId: number) =>
  (await stepsOf(core, jobId)).filter((step) => step.command !== null);

/** The job waits for its host at this step. */
async function assertOpenAt(stage: FakeStage, jobId: number, step: string): Promise<void> {
  const { db } = stage.database;
  const job = await db.selectFrom('job').select('state').where('id', '=', jobId).executeTakeFirstOrThrow();
  const open = await db
    .selectFrom('job_step')
    .select('name')
    .where('job_id', '=', jobId)
    .where('state', '=', 'OPEN')
    .execute();
  assert.deepEqual([job.state, open.map(({ name }) => name)], ['RUNNING', [step]]);
}

const counts = async ({ db }: Core): Promise<number[]> => {
  const rows: QuotaRow[] = [];
  for (const table of ['account_quota', 'domain_quota'] as const)
    rows.push(...(await db.selectFrom(table).selectAll().execute()));
  return rows.flatMap((row) => QUOTA_RESOURCES.map((resource) => row[QUOTA[resource].used]));
};

/** Whatever was killed in the midst of what: once nothing lives, every counter of every quota is back at nothing. */
async function assertUncounted(stage: FakeStage): Promise<void> {
  await stage.restartHostd({});
  const { core } = stage;
  assert.ok((await counts(core)).some((n) => n > 0));
  const vms = await core.db.selectFrom('vm').selectAll().where('deleted_at', 'is', null).execute();
  await Promise.all(
    vms.map(async (vm) => {
      const acts = vm.state === 'DESTROYED' ? (['expungeVm'] as const) : (['destroyVm', 'expungeVm'] as const);
      for (const act of acts) {
        const job = await jobEnded(core, accepted(await core.ops[act](ADMIN, idOf(vm))).jobId);
        assert.equal(job.state, 'SUCCEEDED', job.error_message ?? '');
      }
    }),
  );
  const templates = core.db.selectFrom('template').select('uid').where('account_id', 'is not', null);
  for (const { uid } of await templates.where('deleted_at', 'is', null).execute())
    assert.deepEqual((await core.ops.deleteTemplate(ADMIN, { id: encodeId('template', uid) })).errors, []);
  assert.deepEqual([...new Set(await counts(core))], [0]);
  await stage.assertClean();
}

// Each suite has a stage of its own, so they need not wait for one another; within one, tests do.
describe('workflows on the fake hypervisor', { timeout: 120_000, concurrency: true }, () => {
  it('every step of every workflow that a host does is in the table', () => {
    const volume = { id: 1, publicId: 'vol', storageId: 1, storagePath: '/', format: 'QCOW2', sizeBytes: 1 };
    // A context in which each workflow has all the steps that it can have.
    const context = {
      vm: { id: 1, publicId: 'vm', epoch: 1, vcpus: 1, memoryMib: 1, from: 'RUNNING' },
      hostId: 1,
      storageHostId: 1,
      reserved: true,
      prepare: true,
      start: true,
      stop: { mode: 'FORCE', gracefulTimeoutMs: 0 },
      volume,
      volumes: [volume, volume],
      template: { id: 1, publicId: 'tpl', fileName: 'f', format: 'QCOW2', sha256: '' },
      maxVirtualBytes: 1,
    };
    const known: Record<string, string[]> = {};
    for (const { kind, steps } of ON_HOST) known[kind] = [...new Set([...(known[kind] ?? []), ...steps])].sort();
    const onHost = Object.values(WORKFLOWS).flatMap((workflow): [string, string[]][] => {
      const names = workflow.steps(context).flatMap(({ name, command }) => (command ? [name] : []));
      return names.length > 0 ? [[workflow.kind, names.sort()]] : [];
    });
    assert.deepEqual(known, Object.fromEntries(onHost));
    assert.deepEqual([onHost.length, EACH_STEP.length], [10, 22]);
  });

  describe('each command again and again', { concurrency: 1 }, () => {
    let stage: FakeStage;
    before(async () => {
      stage = await FakeStage.open();
    });
    after(() => stage.close());

    for (const c of ON_HOST) {
      it(`${c.kind} (${c.title}) does each step once`, async () => {
        const { tally } = stage;
        const subject = await prepare(stage, c);
        const openSteps: string[][] = [];
        // As soon as the host is at one, it gets that one again, and with it all that it has done already: what it
        // says of those arrives while another step is open.
        stage.hypervisor.before = async () => {
          const sent = await stage.deliverAgain();
          const times = (index: number): number => sent.length - index + 1;
          await Promise.all(sent.map((id, i) => tally.reached(`heard ${id}`, times(i))));
          await Promise.all(sent.slice(0, -1).map((id, i) => tally.reached(`answered ${id}`, times(i) - 1)));
          const steps = await stepsOf(stage.core, Number.parseInt(sent[0]!, 10));
          openSteps.push(steps.filter(({ state }) => state === 'OPEN').map(({ name }) => name));
        };
        const jobId = await c.act(stage, subject);
        await assertEndedWell(stage, c, jobId);
        assert.deepEqual(
          openSteps,
          c.steps.map((step) => [step]),
          'no answer to one step has ended another',
        );

        // And again when it is long done, as one that has not heard the answer would.
        const ids = (await commandsOf(stage.core, jobId)).map(({ seq }) => `${jobId}.${seq}`);
        const before = await everythingOf(stage.core, jobId);
        const told = ids.map((_, i) => ids.length - i);
        await Promise.all(ids.map((id, i) => tally.reached(`answered ${id}`, told[i])));
        assert.deepEqual(await stage.deliverAgain(jobId), ids);
        await Promise.all(ids.map((id, i) => tally.reached(`answered ${id}`, told[i]! + 1)));
        assert.deepEqual(await everythingOf(stage.core, jobId), before, 'what was told again changed something');

        assert.deepEqual(stage.hypervisor.calls, operations(c.steps));
        assert.deepEqual(
          ids.map((id) => ['heard', 'begun', 'answered'].map((what) => tally.of(`${what} ${id}`))),
          ids.map((_, i) => [told[i]! + 2, 1, told[i]! + 1]),
        );
        await stage.assertClean();
      });
    }
  });

  describe('a failure at each step', { concurrency: 1 }, () => {
    let stage: FakeStage;
    before(async () => {
      stage = await FakeStage.open();
    });
    after(() => stage.close());

    /** The same action once more, as a person would have it. */
    async function again(c: Case, subject: Subject, jobId: number): Promise<number> {
      const { ops } = stage.core;
      const job = await jobRow(stage.core, jobId);
      if (job.kind === 'REGISTER_TEMPLATE') return c.act(stage, subject);
      if (job.kind === 'REBOOT_VM' && job.failed_step === 'startVm') {
        const start = accepted(await ops.startVm(ADMIN, idOf(subject.vm!)));
        assert.equal((await jobEnded(stage.core, start.jobId)).state, 'SUCCEEDED');
        return c.act(stage, subject);
      }
      return accepted(await ops.retryJob(ADMIN, { id: await publicJobId(stage.core, jobId) })).jobId;
    }

    for (const { c, step } of EACH_STEP) {
      for (const code of ['QEMU_FAILED', 'DISK_FULL', 'TIMEOUT'] as const) {
        it(`${c.kind} (${c.title}) unwinds when ${step} fails with ${code}, and works the next time`, async () => {
          const subject = await prepare(stage, c);
          const tries = c.attempts?.[step] ?? 1;
          const message = `no ${step} today`;
          await stage.restartHostd(faultAt(stage, step, { fail: code, failTimes: tries, message }));
          const jobId = await c.act(stage, subject);
          const job = await jobEnded(stage.core, jobId);
          assert.deepEqual([job.state, await targetState(stage.core, jobId)], c.failed[step]);
          assert.deepEqual([job.error_code, job.error_message, job.failed_step], [code, message, step]);
          const done = c.steps.slice(0, c.steps.indexOf(step));
          const tried = Array.from({ length: tries }, () => step);
          const undone = c.undos?.[step] ?? [];
          assert.deepEqual(stage.hypervisor.calls, operations([...done, ...tried, ...undone]));
          await stage.assertClean();

          const next = await jobEnded(stage.core, await again(c, subject, jobId));
          assert.deepEqual([next.state, await targetState(stage.core, next.id)], ['SUCCEEDED', c.succeeded]);
          await stage.assertClean();
        });
      }
    }

    it('all that was made is expunged, and counts in no quota any more', () => assertUncounted(stage));
  });

  describe('the host daemon killed at each step', { concurrency: 1 }, () => {
    let stage: FakeStage;
    before(async () => {
      stage = await FakeStage.open();
    });
    after(() => stage.close());

    for (const { c, step } of EACH_STEP) {
      const call = callOf(c, step);

      it(`${c.kind} (${c.title}) ends as ever when it is killed in the midst of ${step}`, async () => {
        const subject = await prepare(stage, c);
        // Longer than any test: what ends it is the kill.
        await stage.restartHostd(faultAt(stage, step, { delayMs: 3_600_000, failTimes: 1 }));
        const atIt = Promise.withResolvers<void>();
        stage.hypervisor.progressed = (one) => {
          if (same(one, call)) atIt.resolve();
        };
        const jobId = await c.act(stage, subject);
        await atIt.promise;
        await stage.hostd.kill();
        await assertOpenAt(stage, jobId, step);
        await stage.startHostd();
        await assertEndedWell(stage, c, jobId);
        assert.deepEqual(stage.hypervisor.calls, operations(c.steps.slice(c.steps.indexOf(step))));
      });

      it(`${c.kind} (${c.title}) ends as ever when it is killed with ${step} done and not told`, async () => {
        const subject = await prepare(stage, c);
        const done = Promise.withResolvers<void>();
        stage.hypervisor.after = (one) => {
          if (!same(one, call)) return;
          done.resolve();
          return new Promise<never>(() => undefined);
        };
        const jobId = await c.act(stage, subject);
        await done.promise;
        await stage.hostd.kill();
        await assertOpenAt(stage, jobId, step);
        await stage.startHostd();
        await assertEndedWell(stage, c, jobId);
        assert.deepEqual(stage.hypervisor.calls, operations(c.steps.slice(c.steps.indexOf(step))));
      });
    }

    it('all that was made is expunged, and counts in no quota any more', () => assertUncounted(stage));
  });

  describe('the control plane killed at each step', { concurrency: 1 }, () => {
    let stage: FakeStage;
    before(async () => {
      stage = await FakeStage.open();
    });
    after(() => stage.close());

    /** Runs a case up to a step, which its host then holds. */
    async function actUntil(c: Case, step: string) {
      const subject = await prepare(stage, c);
      const call = callOf(c, step);
      const atIt = Promise.withResolvers<void>();
      const go = Promise.withResolvers<void>();
      const done = Promise.withResolvers<void>();
      stage.hypervisor.before = (one) => {
        if (!same(one, call)) return;
        atIt.resolve();
        return go.promise;
      };
      stage.hypervisor.after = (one) => {
        if (same(one, call)) done.resolve();
      };
      const jobId = await c.act(stage, subject);
      await atIt.promise;
      return { jobId, go: go.resolve, done: done.promise };
    }

    async function assertDoneOnce(c: Case, jobId: number): Promise<void> {
      await assertEndedWell(stage, c, jobId);
      assert.deepEqual(stage.hypervisor.calls, operations(c.steps));
      const commands = await commandsOf(stage.core, jobId);
      assert.deepEqual(
        commands.map(({ seq }) => stage.tally.of(`begun ${jobId}.${seq}`)),
        commands.map(() => 1),
      );
    }

    for (const { c, step } of EACH_STEP) {
      it(`${c.kind} (${c.title}) ends as ever when its host ends ${step} while there is none`, async () => {
        const { jobId, go, done } = await actUntil(c, step);
        await stage.killControl();
        go();
        await done;
        await assertOpenAt(stage, jobId, step);
        await stage.startControl();
        await assertDoneOnce(c, jobId);
      });

      it(`${c.kind} (${c.title}) ends as ever when its host ends ${step} once there is another`, async () => {
        const { jobId, go } = await actUntil(c, step);
        await stage.killControl();
        await stage.startControl();
        await stage.relinked();
        await assertOpenAt(stage, jobId, step);
        go();
        await assertDoneOnce(c, jobId);
      });

      it(`${c.kind} (${c.title}) ends as ever when it has heard of the end of ${step} and not written it`, async () => {
        const { jobId, go } = await actUntil(c, step);
        const heard = stage.freezeAtAnswer();
        go();
        await heard;
        await stage.killControl();
        await assertOpenAt(stage, jobId, step);
        await stage.startControl();
        await assertDoneOnce(c, jobId);
      });
    }

    it('all that was made is expunged, and counts in no quota any more', () => assertUncounted(stage));
  });
});

/** Whatever a repeat might change. */
async function everythingOf({ db }: Core, jobId: number) {
  const job = await db.selectFrom('job').selectAll().where('id', '=', jobId).executeTakeFirstOrThrow();
  const target = db
    .selectFrom(job.target_kind as 'vm')
    .select(['state', 'generation', 'active_job_id'])
    .where('id', '=', job.target_id);
  return {
    job,
    target: await target.execute(),
    steps: await db.selectFrom('job_step').selectAll().where('job_id', '=', jobId).orderBy('seq').execute(),
    events: await db.selectFrom('event').selectAll().where('job_id', '=', jobId).orderBy('seq').execute(),
  };
}
