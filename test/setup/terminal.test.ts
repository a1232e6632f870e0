import assert from 'node:assert/strict';
import { PassThrough } from 'node:stream';
import { test } from 'node:test';
import {
  formatBytes,
  formatDuration,
  formatJob,
  formatStep,
  JobDisplay,
  type JobView,
  plainChanges,
  progressBar,
  redraw,
  type StepView,
} from '../../setup/terminal.ts';

const copying: StepView = {
  name: 'copyTemplate',
  direction: 'DO',
  state: 'OPEN',
  done: 13 * 2 ** 20,
  total: 52 * 2 ** 20,
  unit: 'bytes',
  rate: 6.5 * 2 ** 20,
  etaMs: 6_000,
  message: null,
};
const waiting: StepView = {
  ...copying,
  name: 'startVm',
  done: null,
  total: null,
  unit: null,
  rate: null,
  etaMs: null,
};
const job: JobView = { title: 'Creating', state: 'RUNNING', progressPercent: 25, etaMs: 61_000, steps: [copying] };

test('a bar is as full as its share, and a share outside of it is the nearer end', () => {
  assert.equal(progressBar(0.5, 4), '██░░');
  assert.equal(progressBar(-1, 4), '░░░░');
  assert.equal(progressBar(7, 4), '████');
});

test('bytes and durations are in the unit that a person would choose', () => {
  assert.deepEqual([0, 1023, 1024, 13_631_488, 2 ** 60].map(formatBytes), [
    ...['0 B', '1023 B', '1.0 KiB', '13.0 MiB', '1024.0 PiB'],
  ]);
  assert.deepEqual([0, 1, 59_000, 59_001, 3_725_000].map(formatDuration), [
    '0 s',
    '1 s',
    '59 s',
    '1 min 0 s',
    '1 h 2 min',
  ]);
});

test('a step under way shows its bar, bytes, rate and time left; one that is done shows no rate', () => {
  const line = '▸ copy template          ██████░░░░░░░░░░░░░░░░░░ 13.0 MiB of 52.0 MiB  6.5 MiB/s  6 s left';
  assert.equal(formatStep(copying, false), line);
  const done = formatStep({ ...copying, state: 'DONE', done: copying.total }, false);
  assert.equal(done, '✔ copy template          ████████████████████████ 52.0 MiB of 52.0 MiB');
  assert.equal(
    formatStep({ ...waiting, state: 'FAILED', message: 'disk full' }, false),
    '✘ start VM               disk full',
  );
  assert.equal(formatStep({ ...waiting, direction: 'UNDO' }, false), '▸ undo: start VM');
  assert.equal(formatStep({ ...waiting, state: 'SOMETHING_NEW' }, false), '· start VM');
});

test('a job begins with the whole and has a line for each step', () => {
  assert.deepEqual(formatJob(job, false), [
    'Creating  ██████░░░░░░░░░░░░░░░░░░ 25 %, 1 min 1 s left',
    `  ${formatStep(copying, false)}`,
  ]);
  assert.ok(!formatJob({ ...job, state: 'SUCCEEDED' }, false)[0]!.includes('left'));
  assert.ok(formatJob(job, true)[0]!.includes('\x1b[1m'));
});

test('where nothing can be drawn over, a step has a line when its state changes and at each quarter', () => {
  const at = (done: number): JobView => ({ ...job, steps: [{ ...copying, done }] });
  assert.equal(plainChanges(null, at(0)).length, 1);
  assert.equal(plainChanges(at(0), at(2 ** 20)).length, 0);
  assert.equal(plainChanges(at(0), at(13 * 2 ** 20)).length, 1);
  assert.equal(plainChanges(at(0), { ...job, steps: [{ ...copying, done: 0, state: 'DONE' }] }).length, 1);
});

test('a redraw goes up over what was drawn, and no line is so wide that it wraps', () => {
  assert.equal(redraw(0, ['abc'], 80), '\x1b[Jabc\n');
  assert.equal(redraw(2, ['\x1b[1mabcdef\x1b[22m'], 4), '\x1b[2A\x1b[Jabc\n');
});

function recorded(properties: object): { out: NodeJS.WriteStream; text: () => string } {
  const stream = new PassThrough({ encoding: 'utf8' });
  return {
    out: Object.assign(stream, properties) as unknown as NodeJS.WriteStream,
    text: () => (stream.read() ?? '').replaceAll('\x1b', 'ESC'),
  };
}

test('on a terminal a job is drawn over itself', () => {
  const { out, text } = recorded({ isTTY: true, columns: 200, hasColors: () => false });
  const display = new JobDisplay(out);
  display.show(job);
  text();
  display.show({ ...job, steps: [copying, waiting] });
  assert.match(text(), /^ESC\[2AESC\[JCreating.*\n.*copy template.*\n.*start VM\n$/);
});

test('in a file a job has its title once and no control characters', () => {
  const { out, text } = recorded({});
  const display = new JobDisplay(out);
  display.show(job);
  display.show(job);
  display.show({ ...job, steps: [{ ...copying, state: 'DONE' }] });
  assert.match(text(), /^Creating\n {2}▸ copy [^\nE]*\n {2}✔ copy [^\nE]*\n$/);
});
