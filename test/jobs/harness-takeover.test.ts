import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { assertClean, freeze, jobEnded, openCore } from '../support/core.ts';
import type { Command } from '../support/journal-host.ts';
import { assertHostAgrees, type Bench, EACH_STEP, openBench, stepsOf, targetState } from './cases.ts';

describe('workflows, the control plane lost at each step', () => {
  let bench: Bench;
  before(async () => {
    bench = await openBench();
  });
  after(() => bench.close());

  for (const { c, step } of EACH_STEP) {
    for (const acted of [true, false]) {
      it(`${c.kind} (${c.title}) is ended by another process when its own is lost at ${step}, ${acted ? 'after' : 'before'} the host has acted`, async () => {
        const { core: first, host } = bench;
        const subject = await c.prepare(bench);
        const taken = Promise.withResolvers<Command>();
        host.script = async (command) => {
          if ((await stepsOf(first, Number.parseInt(command.commandId, 10))).at(-1)!.name !== step) return 'works';
          taken.resolve(command);
          return 'silence';
        };
        const jobId = await c.act(bench, subject);
        const command = await taken.promise;
        const thaw = freeze(first);
        if (acted) host.act(command);
        // Lost with the process: whatever it hears now, it will never write.
        const heardByTheLost = acted ? host.report(first, command.commandId) : Promise.resolve();
        await host.unlink();

        const second = await openCore(bench.database.url);
        host.script = () => 'works';
        await host.link(second);
        const job = await jobEnded(second, jobId);
        await host.settled();
        assert.deepEqual([job.state, await targetState(second, jobId)], ['SUCCEEDED', c.succeeded]);
        for (const { seq } of (await stepsOf(second, jobId)).filter((s) => s.command !== null))
          assert.equal(host.effects.get(`${jobId}.${seq}`), 1, 'each command had one effect');

        // The lost one comes back to life with what it remembers of the job, and says late what it was told.
        const before = await jobAndSteps(jobId);
        thaw();
        const { stale } = first.writer.counts;
        await host.report(first, command.commandId);
        assert.deepEqual(await jobAndSteps(jobId), before);
        if (!acted) assert.equal(first.writer.counts.stale, stale + 1, 'its write hit zero rows');
        await assertClean(second);
        await assertHostAgrees({ ...bench, core: second });

        void heardByTheLost;
        await host.unlink();
        await second.close();
        await first.feed.tail();
        await host.link(first);
      });
    }
  }

  async function jobAndSteps(jobId: number) {
    const job = await bench.core.db.selectFrom('job').selectAll().where('id', '=', jobId).executeTakeFirstOrThrow();
    return { job, steps: await stepsOf(bench.core, jobId) };
  }
});
