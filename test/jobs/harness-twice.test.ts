import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { WORKFLOWS } from '../../src/jobs/registry.ts';
import { assertClean, jobEnded, takenUp } from '../support/core.ts';
import { assertHostAgrees, type Bench, CASES, openBench, stepsOf, targetState } from './cases.ts';

describe('workflows, each step twice', () => {
  let bench: Bench;
  before(async () => {
    bench = await openBench();
  });
  after(() => bench.close());

  it('the harness knows every workflow, and names its steps', () => {
    const known = new Set(CASES.map((c) => c.kind));
    assert.deepEqual([...known].sort(), Object.keys(WORKFLOWS).sort());
  });

  for (const c of CASES) {
    it(`${c.kind} ${c.title}, one command for each step`, async () => {
      const { core, host } = bench;
      const subject = await c.prepare(bench);
      const jobId = await c.act(bench, subject);
      const job = await jobEnded(core, jobId);
      assert.deepEqual(
        [job.state, await targetState(core, jobId)],
        ['SUCCEEDED', c.succeeded],
        job.error_message ?? '',
      );
      assert.equal(job.progress, 100);
      assert.equal(job.due_at, null);
      await host.settled();
      const steps = await stepsOf(core, jobId);
      assert.deepEqual(
        steps.filter((s) => s.command !== null).map((s) => [s.name, s.state]),
        c.steps.map((name) => [name, 'DONE']),
      );
      const taken = host.deliveries.filter((d) => d.commandId.startsWith(`${jobId}.`));
      assert.equal(taken.length, c.steps.length);
      await assertClean(core);
      await assertHostAgrees(bench);
    });

    it(`${c.kind} ${c.title}, the same when every command comes twice and every answer three times`, async () => {
      const { core, host } = bench;
      const subject = await c.prepare(bench);
      const asked = new Set<string>();
      host.reports = 2;
      host.script = async (command) => {
        if (asked.has(command.commandId)) return 'works';
        asked.add(command.commandId);
        // As if the first answer had been lost: the effect is there, and the control plane asks again.
        await takenUp(core, Number.parseInt(command.commandId, 10));
        return 'silence';
      };
      const jobId = await c.act(bench, subject);
      const job = await jobEnded(core, jobId);
      await host.settled();
      host.script = () => 'works';
      host.reports = 1;
      assert.deepEqual(
        [job.state, await targetState(core, jobId)],
        ['SUCCEEDED', c.succeeded],
        job.error_message ?? '',
      );

      const before = await everythingOf(bench, jobId);
      for (const commandId of asked) await host.report(core, commandId);
      assert.deepEqual(await everythingOf(bench, jobId), before, 'late repeats changed something');

      const steps = await stepsOf(core, jobId);
      assert.deepEqual(
        steps.filter((s) => s.command !== null).map((s) => [s.name, s.attempt]),
        c.steps.map((name) => [name, 1]),
      );
      for (const { seq } of steps.filter((s) => s.command !== null)) {
        const id = `${jobId}.${seq}`;
        assert.equal(host.deliveries.filter((d) => d.commandId === id).length, 2, `${id} was delivered twice`);
        assert.equal(host.effects.get(id), 1, `${id} had one effect`);
      }
      await assertNoEventTwice(bench, jobId);
      await assertClean(core);
      await assertHostAgrees(bench);
    });
  }
});

/** Whatever a repeat might change. */
async function everythingOf({ core }: Bench, jobId: number) {
  const { db } = core;
  const job = await db.selectFrom('job').selectAll().where('id', '=', jobId).executeTakeFirstOrThrow();
  return {
    job,
    target: await db
      .selectFrom(job.target_kind as 'vm')
      .selectAll()
      .where('id', '=', job.target_id)
      .execute(),
    steps: await stepsOf(core, jobId),
    events: await db.selectFrom('event').selectAll().where('job_id', '=', jobId).orderBy('seq').execute(),
    head: await db.selectFrom('feed_head').selectAll().execute(),
  };
}

async function assertNoEventTwice({ core }: Bench, jobId: number): Promise<void> {
  const events = await core.db
    .selectFrom('event')
    .select(['type', 'changes'])
    .where('job_id', '=', jobId)
    .orderBy('seq')
    .execute();
  const texts = events.map((e) => `${e.type} ${e.changes}`);
  assert.deepEqual(texts, [...new Set(texts)]);
}
