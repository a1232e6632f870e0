import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { ERROR_CODES, notFound, VirtgraphError } from '../../src/domain/errors.ts';
import { etaMs, livePercent } from '../../src/domain/job-progress.ts';
import { ENDED_JOB_STATES, isEnded, JOB_STATES } from '../../src/domain/job-state.ts';

const live = (done: number, total = 100, seq = 2) => ({ jobId: 1, seq, done, total, unit: 'bytes', rate: 10 });

describe('progress of a job', () => {
  const job = { progress: 60, step_percent: 30, step: 2 };
  it('is what the row says, plus the share of the open step that its host has told', () => {
    assert.equal(livePercent(job, null), 60);
    assert.equal(livePercent(job, live(50)), 75);
    assert.equal(livePercent(job, live(100)), 90);
  });
  it('does not heed what was told of another step, or of nothing', () => {
    assert.equal(livePercent(job, live(50, 100, 1)), 60);
    assert.equal(livePercent(job, live(5, 0)), 60);
  });
  it('stays between what is done and the whole, whatever the host says', () => {
    assert.equal(livePercent(job, live(-5)), 60);
    assert.equal(livePercent(job, live(900)), 90);
    assert.equal(livePercent({ progress: 95, step_percent: 30, step: 2 }, live(100)), 100);
  });
  it('tells the time that is left at the present rate, where there is one', () => {
    assert.equal(etaMs({ done: 40, total: 100, rate: 10 }), 6_000);
    assert.equal(etaMs({ done: 100, total: 100, rate: 10 }), 0);
    assert.equal(etaMs({ done: 120, total: 100, rate: 10 }), 0);
    assert.equal(etaMs({ done: 40, total: 100, rate: null }), null);
    assert.equal(etaMs({ done: 40, total: 100, rate: 0 }), null);
  });
});

describe('states of a job', () => {
  it('end in three ways; what needs a person has not ended', () => {
    assert.deepEqual(JOB_STATES.filter(isEnded), ENDED_JOB_STATES);
    assert.deepEqual(ENDED_JOB_STATES, ['SUCCEEDED', 'FAILED', 'CANCELLED']);
  });
});

describe('errors', () => {
  it('each have a meaning for their reader, as a sentence', () => {
    for (const [code, { meaning }] of Object.entries(ERROR_CODES)) {
      assert.match(code, /^[A-Z][A-Z_]+$/);
      assert.match(meaning, /^[A-Z].{15,}\.$/s, code);
    }
  });
  it('carry what their reader may see, and the cause for the log', () => {
    const cause = new Error('secret');
    const error = new VirtgraphError({ code: 'CONFLICT', message: 'Read it again.' }, { cause });
    assert.deepEqual(error.data, { code: 'CONFLICT', message: 'Read it again.', path: null });
    assert.equal(error.cause, cause);
    assert.ok(!JSON.stringify(error.data).includes('secret'));
    assert.deepEqual(notFound('zone', ['zoneId']).data, {
      code: 'NOT_FOUND',
      message: 'There is no such zone.',
      path: ['zoneId'],
    });
  });
});
