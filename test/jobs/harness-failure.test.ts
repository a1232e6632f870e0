import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { encodeId } from '../../src/domain/ids.ts';
import type { JobResolution } from '../../src/domain/job-state.ts';
import { resolutionsOf } from '../../src/domain/job-state.ts';
import { ADMIN, assertClean, jobEnded, publicJobId } from '../support/core.ts';
import { type Command, fails, type Script } from '../support/journal-host.ts';
import { accepted, assertHostAgrees, type Bench, CASES, EACH_STEP, openBench, stepsOf, targetState } from './cases.ts';

const CODES = ['QEMU_FAILED', 'TIMEOUT', 'CANCELLED', 'STALE_EPOCH', 'DISK_FULL'];

describe('workflows, a failure at each step', () => {
  let bench: Bench;
  before(async () => {
    bench = await openBench();
  });
  after(() => bench.close());

  /** The step that a command is, by its name. */
  const nameOf = async (command: Command): Promise<string> => {
    const [jobId, seq] = command.commandId.split('.').map(Number);
    return (await stepsOf(bench.core, jobId!)).find((s) => s.seq === seq)!.name;
  };
  const failing =
    (verdicts: Record<string, ReturnType<typeof fails>>): Script =>
    async (command) =>
      verdicts[await nameOf(command)] ?? 'works';

  /** Runs a case with steps that fail, every answer told twice. */
  async function run(c: (typeof CASES)[number], script: Script): Promise<number> {
    const { host } = bench;
    const subject = await c.prepare(bench);
    host.script = script;
    host.reports = 2;
    const jobId = await c.act(bench, subject);
    await jobEnded(bench.core, jobId);
    await host.settled();
    return jobId;
  }
  const heal = (): void => {
    bench.host.script = () => 'works';
    bench.host.reports = 1;
  };

  async function resolve(jobId: number, resolution: JobResolution): Promise<void> {
    const id = await publicJobId(bench.core, jobId);
    accepted(await bench.core.ops.resolveJob(ADMIN, { id, resolution, reason: 'looked at by hand' }));
  }

  it('every step of every case says how its failure ends', () => {
    for (const c of CASES) assert.deepEqual(Object.keys(c.failed).sort(), [...c.steps].sort(), c.title);
  });

  for (const { c, step } of EACH_STEP) {
    for (const code of CODES) {
      it(`${c.kind} (${c.title}) unwinds when ${step} answers ${code}`, async () => {
        const jobId = await run(c, failing({ [step]: fails(code) }));
        heal();
        const cancelled = code === 'CANCELLED';
        const [state, target] = (cancelled && c.cancelled?.[step]) || c.failed[step]!;
        const job = await jobEnded(bench.core, jobId);
        const expected = cancelled && state === 'FAILED' ? 'CANCELLED' : state;
        assert.deepEqual([job.state, await targetState(bench.core, jobId)], [expected, target]);
        assert.deepEqual([job.error_code, job.failed_step], [code, step]);

        const tries = cancelled ? 1 : (c.attempts?.[step] ?? 1);
        const steps = (await stepsOf(bench.core, jobId)).filter((s) => s.command !== null);
        assert.deepEqual(
          steps.filter((s) => s.name === step && s.direction === 'DO').map((s) => [s.attempt, s.state, s.error_code]),
          Array.from({ length: tries }, (_, i) => [i + 1, 'FAILED', code]),
        );
        assert.deepEqual(
          steps.filter((s) => s.direction === 'UNDO').map((s) => [s.name, s.state]),
          (c.undos?.[step] ?? []).map((name) => [name, 'DONE']),
        );
        if (job.state === 'NEEDS_ATTENTION') {
          await resolve(jobId, 'RETRY_STEP');
          assert.equal((await jobEnded(bench.core, jobId)).state, 'SUCCEEDED');
        }
        await bench.host.settled();
        await assertClean(bench.core);
        await assertHostAgrees(bench);
      });
    }
  }

  for (const { c, step } of EACH_STEP.filter(({ c, step }) => (c.attempts?.[step] ?? 1) > 1)) {
    it(`${c.kind} (${c.title}) goes on when ${step} fails once`, async () => {
      const jobId = await run(c, async (command) => {
        const steps = await stepsOf(bench.core, Number.parseInt(command.commandId, 10));
        return steps.at(-1)!.name === step && steps.at(-1)!.attempt === 1 ? fails('QEMU_FAILED') : 'works';
      });
      heal();
      const job = await jobEnded(bench.core, jobId);
      assert.deepEqual([job.state, await targetState(bench.core, jobId)], ['SUCCEEDED', c.succeeded]);
      assert.equal(job.error_code, null);
      await assertClean(bench.core);
      await assertHostAgrees(bench);
    });
  }

  const undos = EACH_STEP.flatMap(({ c, step }) => (c.undos?.[step] ?? []).map((undo) => ({ c, step, undo })));
  for (const { c, step, undo } of undos) {
    for (const resolution of ['RETRY_STEP', 'SKIP_STEP'] as const) {
      it(`${c.kind} (${c.title}) waits for a person when ${undo} fails after ${step}; ${resolution} ends it`, async () => {
        const { core, host } = bench;
        const jobId = await run(c, failing({ [step]: fails('QEMU_FAILED', 'no'), [undo]: fails('INTERNAL', 'stuck') }));
        heal();
        const job = await jobEnded(core, jobId);
        assert.deepEqual([job.state, job.direction], ['NEEDS_ATTENTION', 'UNDO']);
        assert.deepEqual([job.error_code, job.error_message, job.failed_step], ['QEMU_FAILED', 'no', step]);
        const tried = (await stepsOf(core, jobId)).filter((s) => s.name === undo);
        assert.deepEqual(
          tried.map((s) => [s.attempt, s.state, s.error_code]),
          [1, 2, 3].map((n) => [n, 'FAILED', 'INTERNAL']),
        );
        assert.deepEqual(resolutionsOf({ ...job, cancellable: job.cancellable === 1 }), ['RETRY_STEP', 'SKIP_STEP']);
        await assertClean(core);

        await resolve(jobId, resolution);
        const ended = await jobEnded(core, jobId);
        assert.deepEqual([ended.state, await targetState(core, jobId)], c.failed[step]);
        await host.settled();
        await assertClean(core);
        if (resolution === 'RETRY_STEP') await assertHostAgrees(bench);
        // What was skipped is left on the host, as its reason says.
        else forgetOnHost(jobId, await leftovers(bench));
      });
    }
  }

  for (const resolution of ['ROLL_BACK', 'SKIP_STEP'] as const) {
    it(`a step past the point of no return can${resolution === 'ROLL_BACK' ? ' not be rolled back' : ' be skipped'}`, async () => {
      const expunge = CASES.find((c) => c.kind === 'EXPUNGE_VM')!;
      const jobId = await run(expunge, failing({ deleteVolume2: fails('INTERNAL') }));
      heal();
      const id = await publicJobId(bench.core, jobId);
      if (resolution === 'ROLL_BACK') {
        const refused = await bench.core.ops.resolveJob(ADMIN, { id, resolution });
        assert.equal(refused.errors[0]?.code, 'INVALID_STATE');
        assert.deepEqual(refused.errors[0]?.allowedActions, ['RETRY_STEP', 'SKIP_STEP']);
        assert.equal((await bench.core.ops.cancelJob(ADMIN, { id })).errors[0]?.code, 'NOT_CANCELLABLE');
        await resolve(jobId, 'RETRY_STEP');
      } else {
        const unreasoned = await bench.core.ops.resolveJob(ADMIN, { id, resolution, reason: '  ' });
        assert.deepEqual([unreasoned.errors[0]?.code, unreasoned.errors[0]?.path], ['INVALID_INPUT', ['reason']]);
        await resolve(jobId, resolution);
      }
      const job = await jobEnded(bench.core, jobId);
      assert.deepEqual([job.state, await targetState(bench.core, jobId)], ['SUCCEEDED', 'EXPUNGED']);
      await bench.host.settled();
      await assertClean(bench.core);
      forgetOnHost(jobId, await leftovers(bench));
      await assertHostAgrees(bench);
    });
  }

  it('an answer that is told again while a person must decide changes nothing', async () => {
    const { core, host } = bench;
    const expunge = CASES.find((c) => c.kind === 'EXPUNGE_VM')!;
    const jobId = await run(expunge, failing({ deleteVolume: fails('DISK_FULL') }));
    heal();
    const before = [await jobEnded(core, jobId), await stepsOf(core, jobId)];
    const { stale } = core.writer.counts;
    await host.report(core, host.deliveries.at(-1)!.commandId);
    assert.deepEqual([await jobEnded(core, jobId), await stepsOf(core, jobId)], before);
    assert.equal(core.writer.counts.stale, stale, 'it was known to be a repeat without a write');
    await resolve(jobId, 'RETRY_STEP');
    assert.equal((await jobEnded(core, jobId)).state, 'SUCCEEDED');
    await host.settled();
  });

  it('a message of any length is kept as far as it fits', async () => {
    const message = `${'x'.repeat(999)}😀${'y'.repeat(5_000)}`;
    const stop = CASES.find((c) => c.title === 'stops a running VM')!;
    const jobId = await run(stop, failing({ stopVm: fails('QEMU_FAILED', message) }));
    heal();
    const job = await jobEnded(bench.core, jobId);
    assert.equal(job.state, 'FAILED');
    assert.ok(job.error_message!.startsWith('x'.repeat(900)));
    assert.ok(job.error_message!.isWellFormed() && !job.error_message!.includes('\uFFFD'));
    const vm = await bench.core.db.selectFrom('vm').select('state_reason').where('id', '=', job.target_id).execute();
    assert.ok(vm[0]!.state_reason!.startsWith('x'.repeat(900)));
  });

  /** What the host still has that the database does not know of. */
  async function leftovers({ core, host }: Bench): Promise<{ vms: string[]; volumes: string[] }> {
    const placed = await core.db.selectFrom('vm').select('uid').where('host_id', 'is not', null).execute();
    const kept = await core.db.selectFrom('volume').select('uid').where('deleted_at', 'is', null).execute();
    const vmIds = new Set(placed.map((vm) => encodeId('vm', vm.uid)));
    const volumeIds = new Set(kept.map((volume) => encodeId('volume', volume.uid)));
    return {
      vms: [...host.vms.keys()].filter((id) => !vmIds.has(id)),
      volumes: [...host.volumes].filter((id) => !volumeIds.has(id)),
    };
  }
  function forgetOnHost(_jobId: number, { vms, volumes }: { vms: string[]; volumes: string[] }): void {
    for (const id of vms) bench.host.vms.delete(id);
    for (const id of volumes) bench.host.volumes.delete(id);
  }
});
