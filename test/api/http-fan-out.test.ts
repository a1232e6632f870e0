import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import type { Actor } from '../../src/domain/authorize.ts';
import { startEdge, type TestEdge, TestSocket } from './http-fixture.ts';

const WATCH = 'subscription { boxChanged { id value } }';
const signedIn = (edge: TestEdge, token = 'secret-token'): Promise<TestSocket> =>
  new TestSocket(edge.server.url).signIn({ authorization: `Bearer ${token}` });

async function watching(edge: TestEdge, query = WATCH, variables?: Record<string, unknown>): Promise<TestSocket> {
  const socket = await signedIn(edge);
  socket.subscribe('w', query, variables);
  return socket;
}

/** The next payloads, as `id=value`. */
async function values(socket: TestSocket, count: number): Promise<string[]> {
  const seen: string[] = [];
  while (seen.length < count) {
    const [box] = Object.values(await socket.next()) as { id: string; value: number }[];
    seen.push(`${box!.id}=${box!.value}`);
  }
  return seen;
}

suite('Identical subscriptions', () => {
  test('share one source and one execution per change', async () => {
    await using edge = await startEdge();
    edge.world.set('a', 1);
    await using one = await watching(edge);
    await using two = await watching(edge);
    await using three = await watching(edge);
    for (const socket of [one, two, three]) assert.deepEqual(await values(socket, 1), ['a=1']);
    const before = edge.world.executions;
    edge.world.set('a', 2);
    for (const socket of [one, two, three]) assert.deepEqual(await values(socket, 1), ['a=2']);
    assert.equal(edge.world.executions - before, 1);
    assert.equal(edge.world.openSources, 1);
    assert.equal(await edge.metric('virtgraph_subscriptions'), 3);
    assert.equal(await edge.metric('virtgraph_subscription_executions'), 1);
  });

  test('are told apart by text, variables and what their actors may see', async () => {
    await using edge = await startEdge();
    edge.tokens.set('other', { kind: 'tenant', name: 'tenant' } as unknown as Actor);
    edge.tokens.set('colleague', { kind: 'root-admin', tokenId: 9, name: 'colleague' });
    edge.world.set('a', 1);
    const byId = 'subscription($id: ID) { boxChanged(id: $id) { id value } }';
    const sockets: TestSocket[] = [];
    const watch = async (token: string, query: string, variables?: Record<string, unknown>): Promise<number> => {
      const socket = await signedIn(edge, token);
      sockets.push(socket);
      socket.subscribe('w', query, variables);
      assert.deepEqual(await values(socket, 1), ['a=1']);
      return edge.world.openSources;
    };
    assert.equal(await watch('secret-token', WATCH), 1);
    assert.equal(await watch('colleague', WATCH), 1, 'the same scope');
    assert.equal(await watch('other', WATCH), 2, 'another scope');
    assert.equal(await watch('secret-token', byId, { id: 'a' }), 3);
    assert.equal(await watch('secret-token', byId, { id: 'a' }), 3);
    assert.equal(await watch('secret-token', byId), 4);
    assert.equal(await watch('secret-token', 'subscription { boxChanged { value id } }'), 5);
    for (const socket of sockets) await socket[Symbol.asyncDispose]();
  });

  test('are not shared for a field that is not shareable', async () => {
    await using edge = await startEdge();
    edge.world.set('a', 1);
    const alone = 'subscription { boxChangedAlone { id value } }';
    await using one = await watching(edge, alone);
    await using two = await watching(edge, alone);
    for (const socket of [one, two]) assert.deepEqual(await values(socket, 1), ['a=1']);
    assert.equal(edge.world.openSources, 2);
  });

  test('are not shared when what they select changes without their objects', async () => {
    await using edge = await startEdge();
    edge.world.set('a', 1);
    const query = 'subscription { boxChanged { id value children { id } } }';
    await using one = await watching(edge, query);
    await using two = await watching(edge, query);
    for (const socket of [one, two]) assert.deepEqual(await values(socket, 1), ['a=1']);
    assert.equal(edge.world.openSources, 2);
  });

  test('are never found shareable behind a fragment, so they run alone', async () => {
    await using edge = await startEdge();
    edge.world.set('a', 1);
    const query = 'subscription { ...S } fragment S on Subscription { boxChanged { id value } }';
    await using one = await watching(edge, query);
    await using two = await watching(edge, query);
    for (const socket of [one, two]) assert.deepEqual(await values(socket, 1), ['a=1']);
    assert.equal(edge.world.openSources, 2);
  });

  test('end their source with the last of them, and begin anew after', async () => {
    await using edge = await startEdge();
    edge.world.set('a', 1);
    await using one = await watching(edge);
    await using two = await watching(edge);
    for (const socket of [one, two]) await values(socket, 1);
    one.send({ id: 'w', type: 'complete' });
    edge.world.set('a', 2);
    assert.deepEqual(await values(two, 1), ['a=2']);
    two.send({ id: 'w', type: 'complete' });
    two.subscribe('q', '{ __typename }');
    await two.next();
    assert.equal(edge.world.openSources, 0);
    assert.equal(await edge.metric('virtgraph_subscriptions'), 0);
    await using three = await watching(edge);
    assert.deepEqual(await values(three, 1), ['a=2']);
  });
});

suite('Who joins late', () => {
  test('gets the present of every object first, without an execution, then each change', async () => {
    await using edge = await startEdge();
    for (const id of ['a', 'b', 'c']) edge.world.set(id, 1);
    await using first = await watching(edge);
    await values(first, 3);
    edge.world.set('b', 2);
    edge.world.set('d', 1);
    await values(first, 2);
    const before = edge.world.executions;
    await using late = await watching(edge);
    assert.deepEqual((await values(late, 4)).sort(), ['a=1', 'b=2', 'c=1', 'd=1']);
    assert.equal(edge.world.executions, before);
    edge.world.set('a', 2);
    assert.deepEqual(await values(late, 1), ['a=2']);
  });

  test('hears nothing of objects that are gone', async () => {
    await using edge = await startEdge();
    for (const id of ['a', 'b']) edge.world.set(id, 1);
    await using first = await watching(edge);
    await values(first, 2);
    edge.world.remove('a');
    assert.deepEqual(await values(first, 1), ['a=-1']);
    await using late = await watching(edge);
    assert.deepEqual(await values(late, 1), ['b=1']);
    edge.world.set('b', 2);
    assert.deepEqual(await values(late, 1), ['b=2']);
  });

  test('runs alone, once a payload had errors: what it was cannot be the present', async () => {
    await using edge = await startEdge();
    edge.world.set('a', 1);
    const query = 'subscription { boxChanged { id value broken @include(if: true) } }';
    await using first = await watching(edge, query);
    const { payload } = await first.receive();
    assert.ok((payload as { errors?: unknown }).errors);
    await using late = await watching(edge, query);
    await late.receive();
    assert.equal(edge.world.openSources, 2);
    edge.world.set('a', 2);
    for (const socket of [first, late]) assert.equal((await socket.receive()).type, 'next');
  });

  test('runs alone, where events do not say which object they are of', async () => {
    await using edge = await startEdge();
    edge.world.set('a', 1);
    const query = 'subscription { boxChangedNamed { id value } }';
    await using first = await watching(edge, query);
    await first.receive();
    await using late = await watching(edge, query);
    assert.equal((await late.receive()).type, 'next');
    assert.equal(edge.world.openSources, 2);
  });

  test('runs alone, where the present is too large to be remembered', async () => {
    await using edge = await startEdge();
    edge.world.padding = 'x'.repeat(1_000_000);
    const query = 'subscription { boxChanged { id value label } }';
    for (let i = 0; i < 9; i++) edge.world.set(`box-${i}`, 1);
    await using first = await watching(edge, query);
    await values(first, 9);
    await using late = await watching(edge, query);
    await values(late, 9);
    assert.equal(edge.world.openSources, 2);
  });

  test('misses nothing and sees nothing older after newer, whenever it joins', async () => {
    await using edge = await startEdge();
    const ids = Array.from({ length: 20 }, (_, i) => `box-${i}`);
    for (const id of ids) edge.world.set(id, 0);
    const ROUNDS = 200;
    /** Follows until it has seen the last value of each object. */
    const follow = async (socket: TestSocket): Promise<void> => {
      const seen = new Map<string, number>();
      while (ids.some((id) => seen.get(id) !== ROUNDS)) {
        const { id, value } = (await socket.next())['boxChanged'] as { id: string; value: number };
        assert.ok(value >= (seen.get(id) ?? 0), `${id} went from ${seen.get(id)} to ${value}`);
        seen.set(id, value);
      }
    };
    const sockets = await Promise.all(Array.from({ length: 20 }, () => signedIn(edge)));
    const followers: Promise<void>[] = [];
    for (let round = 1; round <= ROUNDS; round++) {
      for (const id of ids) edge.world.set(id, round);
      if (round % 10 === 0) {
        const socket = sockets[round / 10 - 1]!;
        socket.subscribe('w', WATCH);
        followers.push(follow(socket));
      }
      // One turn of the loop for each round, so that joining falls between executions.
      await new Promise(setImmediate);
    }
    await Promise.all(followers);
    assert.equal(edge.world.openSources, 1);
    for (const socket of sockets) await socket[Symbol.asyncDispose]();
  });
});

suite('Who lags', () => {
  test('gets the newest of each object instead of everything in between', async () => {
    await using edge = await startEdge({ limits: { stalledMs: 60_000 } });
    edge.world.padding = 'x'.repeat(100_000);
    const query = 'subscription { boxChanged { id value label } }';
    await using quick = await watching(edge, query);
    await using slow = await watching(edge, query);
    edge.world.set('a', 0);
    await values(quick, 1);
    await values(slow, 1);
    slow.socket.pause();
    const LAST = 200;
    for (let value = 1; value <= LAST; value++) {
      edge.world.set('a', value);
      edge.world.set('b', value);
      await values(quick, 2);
    }
    slow.socket.resume();
    let received = 0;
    const last = new Map<string, number>();
    while (last.get('a') !== LAST || last.get('b') !== LAST) {
      const { id, value } = (await slow.next())['boxChanged'] as { id: string; value: number };
      assert.ok(value > (last.get(id) ?? -1));
      last.set(id, value);
      received++;
    }
    assert.ok(received < LAST, `${received} of ${2 * LAST} payloads`);
  });
});
