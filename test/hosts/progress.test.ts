import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import pino from 'pino';
import type { Patch, Transition } from '../../src/db/transition.ts';
import type { Writer } from '../../src/db/writer.ts';
import type { StepProgress } from '../../src/domain/host-agent.ts';
import { ProgressBoard } from '../../src/hosts/progress.ts';

function board() {
  const clock = { ms: 1_000 };
  const written: Patch[] = [];
  const writer = {
    submit: async (t: Transition) => {
      written.push(t.writes[0] as Patch);
      return { kind: 'written' as const };
    },
  } as Writer;
  const told: StepProgress[] = [];
  const progress = new ProgressBoard(writer, pino({ level: 'silent' }), () => clock.ms);
  progress.listen((p) => told.push(p));
  const report = (done: number, { seq = 1, total = 1_000, after = 500 } = {}) => {
    clock.ms += after;
    progress.report(3, 7, seq, { done, total, unit: 'bytes' });
    return progress.of(7)!;
  };
  return { progress, written, told, report };
}

describe('progress of a step', () => {
  it('is told at once, and has a rate from the second report on', () => {
    const { report, told } = board();
    assert.deepEqual([report(100).rate, report(200).rate, report(300).rate], [null, 200, 200]);
    assert.deepEqual(
      told.map((p) => p.done),
      [100, 200, 300],
    );
    const smoothed = report(500).rate!;
    assert.ok(smoothed > 200 && smoothed < 400, 'the newest rate counts, but not alone');
  });

  it('never goes back, and never beyond the whole', () => {
    const { report } = board();
    assert.deepEqual([report(400).done, report(100).done, report(2_000).done], [400, 400, 1_000]);
  });

  it('begins anew with the next step, and a late word of the last one is not heard', () => {
    const { report, told } = board();
    report(900);
    assert.deepEqual([report(10, { seq: 2 }).done, report(950, { seq: 1 }).done], [10, 10]);
    assert.equal(told.length, 2);
  });

  it('is written at most every three seconds', () => {
    const { report, written } = board();
    for (let n = 1; n <= 25; n++) report(n * 10);
    // 25 reports, half a second apart: the first begins the time, then one in six.
    assert.deepEqual(
      written.map((w) => w.set['progress_done']),
      [70, 130, 190, 250],
    );
    for (const { table, id, guard } of written)
      assert.deepEqual([table, id, guard], ['job_step', 7, { seq: 1, state: 'OPEN' }]);
  });

  it('is forgotten with the end of its step, and only then', () => {
    const { report, progress } = board();
    report(10, { seq: 2 });
    progress.settle(7, 1);
    assert.equal(progress.of(7)?.seq, 2);
    progress.settle(7, 2);
    assert.equal(progress.of(7), null);
  });

  it('is forgotten when its host is gone: it may go on elsewhere', () => {
    const { report, progress } = board();
    report(10);
    progress.hostGone(4);
    assert.equal(progress.of(7)?.done, 10);
    progress.hostGone(3);
    assert.equal(progress.of(7), null);
  });

  it('is not told to whoever has stopped listening', () => {
    const { progress } = board();
    let heard = 0;
    const stop = progress.listen(() => heard++);
    progress.report(3, 1, 1, { done: 1, total: 2, unit: 'bytes' });
    stop();
    progress.report(3, 1, 1, { done: 2, total: 2, unit: 'bytes' });
    assert.equal(heard, 1);
  });
});
