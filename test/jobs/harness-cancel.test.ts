import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import type { Core } from '../../src/core.ts';
import { ADMIN, assertClean, jobEnded, publicJobId } from '../support/core.ts';
import { fails, type Verdict } from '../support/journal-host.ts';
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

const pointOfNoReturn = (c: Case, step: string): boolean => c.failed[step]![0] === 'NEEDS_ATTENTION';

describe('workflows, a cancel at each step', () => {
  let bench: Bench;
  before(async () => {
    bench = await openBench();
  });
  after(() => bench.close());

  const cancel = async (core: Core, jobId: number) => core.ops.cancelJob(ADMIN, { id: await publicJobId(core, jobId) });

  /**
   * Runs a case up to a step, which its host then holds, and cancels the job there.
   *
   * @param release what the host says once it has heard of the cancel
   */
  async function cancelAt(c: Case, step: string, release: Verdict): Promise<number> {
    const { core, host } = bench;
    const subject = await c.prepare(bench);
    const atStep = Promise.withResolvers<void>();
    const verdict = Promise.withResolvers<Verdict>();
    host.script = async (command): Promise<Verdict> => {
      const open = (await stepsOf(core, Number.parseInt(command.commandId, 10))).at(-1)!;
      if (open.name !== step || open.direction === 'UNDO') return 'works';
      atStep.resolve();
      return verdict.promise;
    };
    const jobId = await c.act(bench, subject);
    await atStep.promise;
    const heard = Promise.withResolvers<void>();
    host.onCancel = () => heard.resolve();
    accepted(await cancel(core, jobId));
    await heard.promise;
    assert.ok(host.cancels.at(-1)!.startsWith(`${jobId}.`));
    assert.deepEqual((await cancel(core, jobId)).errors, [], 'a second cancel is satisfied already');
    verdict.resolve(release);
    await jobEnded(core, jobId);
    await host.settled();
    host.script = () => 'works';
    return jobId;
  }

  for (const { c, step } of EACH_STEP) {
    if (pointOfNoReturn(c, step)) {
      it(`${c.kind} (${c.title}) can not be cancelled at ${step}`, async () => {
        const { core, host } = bench;
        const subject = await c.prepare(bench);
        const atStep = Promise.withResolvers<void>();
        const cancelled = Promise.withResolvers<void>();
        host.script = async (command): Promise<Verdict> => {
          if ((await stepsOf(core, Number.parseInt(command.commandId, 10))).at(-1)!.name === step) {
            atStep.resolve();
            await cancelled.promise;
          }
          return 'works';
        };
        const jobId = await c.act(bench, subject);
        await atStep.promise;
        assert.equal((await cancel(core, jobId)).errors[0]?.code, 'NOT_CANCELLABLE');
        cancelled.resolve();
        assert.equal((await jobEnded(core, jobId)).state, 'SUCCEEDED');
        await host.settled();
        host.script = () => 'works';
      });
      continue;
    }

    it(`${c.kind} (${c.title}) is undone when a cancel reaches the host during ${step}`, async () => {
      const jobId = await cancelAt(c, step, fails('CANCELLED', 'ended on request'));
      const [state, target] = c.cancelled?.[step] ?? ['CANCELLED', c.failed[step]![1]];
      const job = await jobEnded(bench.core, jobId);
      assert.deepEqual([job.state, await targetState(bench.core, jobId)], [state, target]);
      assert.equal(job.error_code, 'CANCELLED');
      await assertClean(bench.core);
      await assertHostAgrees(bench);
    });

    it(`${c.kind} (${c.title}) tells the truth when a cancel comes too late for ${step}`, async () => {
      const jobId = await cancelAt(c, step, 'works');
      const job = await jobEnded(bench.core, jobId);
      const next = c.steps[c.steps.indexOf(step) + 1];
      // Nothing was left to be stopped, or what follows was.
      const [state, target] = next
        ? (c.cancelled?.[next] ?? ['CANCELLED', c.failed[next]![1]])
        : ['SUCCEEDED', c.succeeded];
      const expected = c.kind === 'EXPUNGE_VM' ? ['CANCELLED', 'DESTROYED'] : [state, target];
      assert.deepEqual([job.state, await targetState(bench.core, jobId)], expected);
      await assertClean(bench.core);
      // The host's runtime folder went with the first step of an expunge; nothing else did.
      await assertHostAgrees(bench);
    });
  }

  it('a cancel while a step is being undone is refused', async () => {
    const { core, host } = bench;
    const start = CASES.find((c) => c.kind === 'START_VM')!;
    const subject = await start.prepare(bench);
    const undoing = Promise.withResolvers<void>();
    const asked = Promise.withResolvers<void>();
    host.script = async (command): Promise<Verdict> => {
      if (command.__typename === 'StartVmCommand') return fails('QEMU_FAILED');
      undoing.resolve();
      await asked.promise;
      return 'works';
    };
    const jobId = await start.act(bench, subject);
    await undoing.promise;
    assert.equal((await cancel(core, jobId)).errors[0]?.code, 'NOT_CANCELLABLE');
    asked.resolve();
    assert.equal((await jobEnded(core, jobId)).state, 'FAILED');
    assert.equal((await cancel(core, jobId)).errors[0]?.code, 'NOT_CANCELLABLE');
    await host.settled();
    host.script = () => 'works';
    await assertClean(core);
  });

  it('a cancel that reaches the host only by its next link still reaches it', async () => {
    const { core, host } = bench;
    const start = CASES.find((c) => c.kind === 'START_VM')!;
    const subject = await start.prepare(bench);
    const taken = Promise.withResolvers<void>();
    host.script = () => {
      taken.resolve();
      return 'silence';
    };
    const jobId = await start.act(bench, subject);
    await taken.promise;
    await host.unlink();
    accepted(await cancel(core, jobId));
    const heard = Promise.withResolvers<void>();
    host.onCancel = () => heard.resolve();
    host.script = async (command): Promise<Verdict> => {
      if (command.__typename !== 'StartVmCommand') return 'works';
      await heard.promise;
      return fails('CANCELLED');
    };
    await host.link(core);
    assert.equal((await jobEnded(core, jobId)).state, 'CANCELLED');
    await host.settled();
    host.script = () => 'works';
    await assertClean(core);
    await assertHostAgrees(bench);
  });
});
