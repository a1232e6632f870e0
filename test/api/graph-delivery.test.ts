import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { VirtgraphError } from '../../src/domain/errors.ts';
import { Delivery } from '../../src/graphql/delivery.ts';
import { BURST, INTERVAL_MS, Pace } from '../../src/graphql/pace.ts';

const nothing = () => undefined;
const taken = async <T>(delivery: Delivery<T>, count: number): Promise<(T | Error | undefined)[]> => {
  const values: (T | Error | undefined)[] = [];
  for (let i = 0; i < count; i++) values.push((await delivery.next()).value);
  return values;
};

test('a pace lets a burst pass at once, then four a second for ever', () => {
  const pace = new Pace();
  const takenAt = (fromMs: number, toMs: number) => {
    let count = 0;
    for (let ms = fromMs; ms < toMs; ms++) if (pace.take(1, ms)) count++;
    return count;
  };
  assert.equal(takenAt(0, 1), 1);
  assert.equal(takenAt(1, 100), BURST - 1);
  for (let second = 1; second < 10; second++) assert.equal(takenAt(second * 1000, (second + 1) * 1000) <= 4 + 3, true);
  assert.equal(takenAt(10_000, 20_000), 40);
});

test('a pace keeps objects apart and forgets those that are quiet', () => {
  const pace = new Pace();
  for (let i = 0; i < BURST; i++) assert.ok(pace.take(1, 0));
  assert.equal(pace.take(1, 0), false);
  assert.ok(pace.take(2, 0));
  pace.sweep(INTERVAL_MS);
  assert.equal(pace.size, 1);
  pace.sweep(BURST * INTERVAL_MS);
  assert.equal(pace.size, 0);
});

/** A delivery whose time stands still until the test moves it. */
function timed(t: TestContext, onEnd: () => void = nothing) {
  t.mock.timers.enable({ apis: ['setTimeout'] });
  let nowMs = 0;
  const delivery = new Delivery<number>({ onEnd, now: () => nowMs });
  return {
    delivery,
    pass(ms: number) {
      for (let i = 0; i < ms; i += INTERVAL_MS) {
        nowMs += INTERVAL_MS;
        t.mock.timers.tick(INTERVAL_MS);
      }
    },
  };
}

test('a few quick changes arrive at once and in order, many are thinned, and the newest always arrives', async (t) => {
  const { delivery, pass } = timed(t);
  for (let i = 1; i <= 100; i++) delivery.offer(1, i);
  assert.deepEqual(await taken(delivery, BURST), [1, 2, 3, 4]);
  const next = delivery.next();
  pass(INTERVAL_MS);
  assert.equal((await next).value, 100);
  let got = 0;
  const reading = (async () => {
    for await (const value of delivery) {
      got++;
      if (value === 2000) return;
    }
  })();
  for (let second = 0; second < 10; second++) {
    for (let i = 0; i < 100; i++) delivery.offer(1, 1000 + second * 100 + i);
    pass(1000);
    await turn();
  }
  delivery.offer(1, 2000);
  pass(1000);
  await reading;
  assert.ok(got <= 44, `${got} in ten seconds`);
});

test('a subscriber who stalls costs a burst of each object, the newest last', async (t) => {
  const { delivery, pass } = timed(t);
  for (let i = 1; i <= 40; i++) {
    delivery.offer(1, i);
    pass(INTERVAL_MS);
  }
  delivery.finish();
  assert.deepEqual(await taken(delivery, BURST + 1), [1, 2, 3, 40, undefined]);
});

test('a subscriber who stalls before too many objects is let go with an error, and the source ends', async () => {
  let ended = 0;
  const delivery = new Delivery<number>({ onEnd: () => ended++ });
  for (let key = 0; key <= 1_000; key++) delivery.offer(key, key);
  assert.equal(ended, 1);
  const { value } = await delivery.next();
  assert.ok(value instanceof VirtgraphError && value.code === 'LIMIT_EXCEEDED');
  assert.equal((await delivery.next()).done, true);
});

test('too many objects that are held back let a subscriber go too', async () => {
  let ended = 0;
  const delivery = new Delivery<number>({ onEnd: () => ended++, now: () => 0 });
  for (let key = 0; key <= 1_000; key++) {
    for (let i = 0; i <= BURST; i++) delivery.offer(key, i);
    for (let i = 0; i < BURST && ended === 0; i++) await delivery.next();
  }
  assert.equal(ended, 1);
});

test('returning ends the source and a pending next at once', async () => {
  let ended = 0;
  const delivery = new Delivery<number>({ onEnd: () => ended++ });
  const pending = delivery.next();
  await delivery.return();
  assert.deepEqual(await pending, { done: true, value: undefined });
  assert.equal(ended, 1);
  await delivery.return();
  delivery.offer(1, 1);
  delivery.finish();
  delivery.fail(new Error('late'));
  assert.equal((await delivery.next()).done, true);
  assert.equal(ended, 1);
});

test('finishing hands over what is held back, then the end', async () => {
  const delivery = new Delivery<number>({ onEnd: nothing, now: () => 0 });
  for (let i = 1; i <= 10; i++) delivery.offer(1, i);
  delivery.finish();
  assert.deepEqual(await taken(delivery, 6), [1, 2, 3, 4, 10, undefined]);
});

test('the present is read a page at a time, and only while the subscriber waits', async () => {
  let reads = 0;
  const pages = [[1, 2], [3], []];
  const delivery = new Delivery<number>({
    onEnd: nothing,
    present: async () => (pages[reads++] ?? []).map((key) => ({ key, value: key })),
  });
  await turn();
  assert.equal(reads, 0);
  assert.deepEqual(await taken(delivery, 2), [1, 2]);
  assert.equal(reads, 1);
  assert.deepEqual(await taken(delivery, 1), [3]);
  const live = delivery.next();
  await turn();
  assert.equal(reads, 3);
  delivery.offer(9, 9);
  assert.equal((await live).value, 9);
});

test('a change that overtakes the reading of its page is not followed by the older row', async () => {
  const { promise, resolve } = Promise.withResolvers<{ key: number; value: number }[]>();
  const pages = [promise, Promise.resolve([])];
  const delivery = new Delivery<number>({ onEnd: nothing, present: () => pages.shift()! });
  const first = delivery.next();
  delivery.offer(1, 11);
  resolve([
    { key: 1, value: 10 },
    { key: 2, value: 20 },
  ]);
  assert.equal((await first).value, 11);
  assert.equal((await delivery.next()).value, 20);
});

test('a present that can not be read ends the subscription with the error', async () => {
  const delivery = new Delivery<number>({ onEnd: nothing, present: () => Promise.reject(new Error('away')) });
  assert.match(String((await delivery.next()).value), /away/);
  assert.equal((await delivery.next()).done, true);
});
