import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { ADMIN, assertClean, jobEnded, jobIs, makeDue, publicJobId, until } from '../support/core.ts';
import type { Command } from '../support/journal-host.ts';
import {
  accepted,
  assertHostAgrees,
  type Bench,
  CASES,
  type Case,
  EACH_STEP,
  openBench,
  stepsOf,
  targetState,
} from './cases.ts';

const LONG_AGO_MS = 24 * 3_600_000;

describe('workflows, a host that falls silent at each step', () => {
  let bench: Bench;
  before(async () => {
    bench = await openBench();
  });
  after(() => bench.close());

  /** Runs a case up to a step, whose command the host takes and never answers. */
  async function silentAt(c: Case, step: string): Promise<{ jobId: number; command: Command }> {
    const { core, host } = bench;
    const subject = await c.prepare(bench);
    const taken = Promise.withResolvers<Command>();
    host.script = async (command) => {
      if ((await stepsOf(core, Number.parseInt(command.commandId, 10))).at(-1)!.name !== step) return 'works';
      taken.resolve(command);
      return 'silence';
    };
    const jobId = await c.act(bench, subject);
    return { jobId, command: await taken.promise };
  }

  async function hostIsGone(): Promise<void> {
    const { core, host } = bench;
    await host.unlink();
    await until(core, 'the host to be unreachable', async () => {
      await core.inventory.refresh();
      return core.inventory.get('host', host.id)?.link_state === 'UNREACHABLE';
    });
  }

  async function hostIsBack(): Promise<void> {
    bench.host.script = () => 'works';
    await bench.host.link(bench.core);
  }

  async function stuckAt(c: Case, step: string): Promise<{ jobId: number; command: Command }> {
    const at = await silentAt(c, step);
    await hostIsGone();
    await makeDue(bench.core, at.jobId, LONG_AGO_MS);
    await bench.core.engine.claimDue();
    const job = await jobIs(bench.core, at.jobId, 'NEEDS_ATTENTION');
    assert.deepEqual([job.error_code, job.failed_step, job.due_at], ['HOST_UNREACHABLE', step, null]);
    await assertClean(bench.core);
    return at;
  }

  for (const { c, step } of EACH_STEP) {
    it(`${c.kind} (${c.title}) goes on when its answer to ${step} was lost and it is asked again`, async () => {
      const { core, host } = bench;
      const { jobId, command } = await silentAt(c, step);
      host.act(command);
      await makeDue(core, jobId);
      assert.equal(await core.engine.claimDue(), 1);
      const job = await jobEnded(core, jobId);
      assert.deepEqual([job.state, await targetState(core, jobId)], ['SUCCEEDED', c.succeeded]);
      await host.settled();
      host.script = () => 'works';
      assert.equal(host.deliveries.filter((d) => d.commandId === command.commandId).length, 2);
      assert.equal(host.effects.get(command.commandId), 1);
      await assertClean(core);
      await assertHostAgrees(bench);
    });

    it(`${c.kind} (${c.title}) waits for a person when nobody knows of ${step}, and goes on when the host is back`, async () => {
      const { core, host } = bench;
      const { jobId, command } = await stuckAt(c, step);
      host.act(command);
      await hostIsBack();
      const job = await jobIs(core, jobId, 'SUCCEEDED');
      assert.deepEqual([job.error_code, await targetState(core, jobId)], [null, c.succeeded]);
      await host.settled();
      assert.equal(host.effects.get(command.commandId), 1);
      await assertClean(core);
      await assertHostAgrees(bench);
    });

    const past = c.failed[step]![0] === 'NEEDS_ATTENTION';
    for (const resolution of past
      ? (['RETRY_STEP', 'SKIP_STEP'] as const)
      : (['RETRY_STEP', 'SKIP_STEP', 'ROLL_BACK'] as const)) {
      it(`${c.kind} (${c.title}) stuck at ${step} ends cleanly by ${resolution}`, async () => {
        const { core, host } = bench;
        const { jobId, command } = await stuckAt(c, step);
        // Who skips a step says that it is done, by whatever hand.
        if (resolution === 'SKIP_STEP') host.act(command);
        const id = await publicJobId(core, jobId);
        accepted(await core.ops.resolveJob(ADMIN, { id, resolution, reason: 'looked at by hand' }));
        await hostIsBack();
        const job = await jobEnded(core, jobId);
        await host.settled();
        const expected = {
          RETRY_STEP: ['SUCCEEDED', c.succeeded],
          // No VM can be made of an image that nobody has looked at.
          SKIP_STEP: ['SUCCEEDED', c.kind === 'REGISTER_TEMPLATE' ? 'ERROR' : c.succeeded],
          ROLL_BACK: c.failed[step]!,
        }[resolution];
        assert.deepEqual([job.state, await targetState(core, jobId)], expected);
        await assertClean(core);
        await assertHostAgrees(bench);
      });
    }
  }

  it('a cancel of a stuck job rolls it back', async () => {
    const { core } = bench;
    const start = CASES.find((c) => c.kind === 'START_VM')!;
    const { jobId } = await stuckAt(start, 'startVm');
    accepted(await core.ops.cancelJob(ADMIN, { id: await publicJobId(core, jobId) }));
    await hostIsBack();
    await jobEnded(core, jobId);
    assert.equal(await targetState(core, jobId), 'STOPPED');
    await assertClean(core);
    await assertHostAgrees(bench);
  });

  it('a cancel that the host never heard of is asked for once more when its job is stuck', async () => {
    const { core } = bench;
    const start = CASES.find((c) => c.kind === 'START_VM')!;
    const { jobId } = await silentAt(start, 'startVm');
    const cancel = async () => accepted(await core.ops.cancelJob(ADMIN, { id: await publicJobId(core, jobId) }));
    await cancel();
    await hostIsGone();
    await makeDue(core, jobId, LONG_AGO_MS);
    await core.engine.claimDue();
    await jobIs(core, jobId, 'NEEDS_ATTENTION');
    await cancel();
    await hostIsBack();
    assert.equal((await jobEnded(core, jobId)).state, 'CANCELLED');
    assert.equal(await targetState(core, jobId), 'STOPPED');
    await assertClean(core);
    await assertHostAgrees(bench);
  });

  it('a cancel of a stuck create leaves nothing, as that of any other does', async () => {
    const { core } = bench;
    const create = CASES.find((c) => c.kind === 'CREATE_VM')!;
    const { jobId } = await silentAt(create, 'startVm');
    await hostIsGone();
    await makeDue(core, jobId, LONG_AGO_MS);
    await core.engine.claimDue();
    await jobIs(core, jobId, 'NEEDS_ATTENTION');
    accepted(await core.ops.cancelJob(ADMIN, { id: await publicJobId(core, jobId) }));
    await hostIsBack();
    assert.equal((await jobEnded(core, jobId)).state, 'CANCELLED');
    assert.equal(await targetState(core, jobId), 'EXPUNGED');
    await assertClean(core);
    await assertHostAgrees(bench);
  });

  it('a connected host that says nothing gets more time, then its job waits as TIMEOUT', async () => {
    const { core, host } = bench;
    const stop = CASES.find((c) => c.title === 'stops a running VM')!;
    const { jobId, command } = await silentAt(stop, 'stopVm');
    await makeDue(core, jobId, command.timeoutMs + 120_000);
    await core.engine.claimDue();
    assert.equal(
      (await core.db.selectFrom('job').select('state').where('id', '=', jobId).executeTakeFirst())?.state,
      'RUNNING',
    );
    await makeDue(core, jobId, command.timeoutMs + 1_000_000);
    await core.engine.claimDue();
    const job = await jobIs(core, jobId, 'NEEDS_ATTENTION');
    assert.equal(job.error_code, 'TIMEOUT');
    host.script = () => 'works';
    accepted(await core.ops.retryJob(ADMIN, { id: await publicJobId(core, jobId) }));
    assert.equal((await jobIs(core, jobId, 'SUCCEEDED')).error_code, null);
    await host.settled();
    await assertClean(core);
    await assertHostAgrees(bench);
  });
});
