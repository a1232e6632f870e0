import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import pino from 'pino';
import type { Transition } from '../../src/db/transition.ts';
import type { Writer } from '../../src/db/writer.ts';
import { HostRefusals } from '../../src/hosts/refusals.ts';

const HOST = { id: 7 };
const CLUSTER = { cluster_id: 3 };

/** @returns what is kept, as its reasons */
function aRecord() {
  const kept: (string | null)[] = [];
  let clock = 0;
  const writer = {
    submit: async ({ audits }: Transition) => {
      kept.push(...audits.map(({ reason }) => reason));
      return { kind: 'written' };
    },
  } as unknown as Writer;
  const refusals = new HostRefusals({ writer, log: pino({ level: 'silent' }), monotonicMs: () => clock });
  return { refusals, kept, after: (ms: number) => (clock += ms) };
}

describe('what is refused to hosts', () => {
  it('is kept once a minute for each thing, and then with how often it was left out', async () => {
    const { refusals, kept, after } = aRecord();
    const again = async (times: number, what: string): Promise<void> => {
      for (let n = 0; n < times; n++) await refusals.message(HOST, 'heartbeat', what);
    };
    await again(20, 'a VM');
    await again(1, 'a log');
    assert.deepEqual(kept, [
      'heartbeat: a VM',
      'heartbeat: a log 19 more were refused before it and not kept one by one.',
    ]);
    after(60_000);
    await again(2, 'a VM');
    assert.deepEqual(kept.slice(2), ['heartbeat: a VM']);
  });

  it('is kept of each source by itself', async () => {
    const { refusals, kept } = aRecord();
    for (const address of ['192.0.2.1', '192.0.2.2', '192.0.2.1']) await refusals.join(CLUSTER, 'has expired', address);
    assert.equal(kept.length, 2);
  });

  it('of more addresses than are remembered forgets the oldest, not the newest', async () => {
    const { refusals, kept } = aRecord();
    const tryFrom = (n: number) => refusals.join(CLUSTER, 'has expired', `2001:db8::${n.toString(16)}`);
    for (let n = 0; n <= 10_000; n++) await tryFrom(n);
    assert.equal(kept.length, 10_001);
    await tryFrom(10_000);
    assert.equal(kept.length, 10_001, 'the newest is remembered');
    await tryFrom(0);
    assert.equal(kept.length, 10_002, 'the oldest is not');
  });
});
