import assert from 'node:assert/strict';
import { once } from 'node:events';
import { suite, test } from 'node:test';
import { WebSocket } from 'ws';
import type { Actor } from '../../src/domain/authorize.ts';
import { startEdge, type TestEdge, TestSocket } from './http-fixture.ts';

const signedIn = (edge: TestEdge, payload?: unknown): Promise<TestSocket> =>
  new TestSocket(edge.server.url).signIn(payload);
const codeOf = (payload: unknown): unknown => (payload as { extensions: { code: string } }[])[0]?.extensions.code;

/** The status with which an upgrade is refused. */
async function refusedUpgrade(url: string, path: string, headers: Record<string, string> = {}): Promise<number> {
  const { socket } = new TestSocket(url, path, headers);
  const [, response] = await once(socket, 'unexpected-response');
  socket.terminate();
  return response.statusCode;
}

suite('Who may open a WebSocket', () => {
  for (const [title, payload] of [
    ['in the payload', { authorization: 'Bearer secret-token' }],
    ['in the payload, capitalised', { Authorization: 'Bearer secret-token' }],
    ['in headers of the payload', { headers: { authorization: 'Bearer secret-token' } }],
  ] as const)
    test(`takes the token ${title} of connection_init`, async () => {
      await using edge = await startEdge();
      await using socket = await signedIn(edge, payload);
      socket.subscribe('1', '{ actor }');
      assert.deepEqual(await socket.next(), { actor: 'admin' });
      assert.deepEqual(await socket.receive(), { id: '1', type: 'complete' });
    });

  test('takes the token of the upgrade', async () => {
    await using edge = await startEdge();
    await using socket = new TestSocket(edge.server.url, '/graphql', { authorization: 'Bearer secret-token' });
    await socket.signIn(undefined);
    socket.subscribe('1', '{ actor }');
    assert.deepEqual(await socket.next(), { actor: 'admin' });
  });

  const refused: [title: string, code: number, send: (socket: TestSocket) => void][] = [
    ['no token', 4403, (s) => s.send({ type: 'connection_init' })],
    ['an unknown token', 4403, (s) => s.send({ type: 'connection_init', payload: { authorization: 'Bearer no' } })],
    ['an operation before connection_init', 4401, (s) => s.subscribe('1', '{ actor }')],
    ['a message that is not JSON', 4400, (s) => s.socket.send('{')],
    ['a message of no known type', 4400, (s) => s.send({ type: 'start' })],
    ['a message above the limit', 1009, (s) => s.socket.send('x'.repeat(256 * 1024 + 1))],
  ];
  for (const [title, code, send] of refused)
    test(`closes with ${code} for ${title}`, async () => {
      await using edge = await startEdge();
      await using socket = await new TestSocket(edge.server.url).open();
      send(socket);
      assert.equal((await socket.closed).code, code);
    });

  test('closes with 4429 for a second connection_init and 4409 for an id in use', async () => {
    await using edge = await startEdge();
    await using twice = await signedIn(edge);
    twice.send({ type: 'connection_init', payload: { authorization: 'Bearer secret-token' } });
    assert.equal((await twice.closed).code, 4429);
    await using sameId = await signedIn(edge);
    for (let i = 0; i < 2; i++) sameId.subscribe('1', 'subscription { boxChangedAlone { id } }');
    assert.equal((await sameId.closed).code, 4409);
  });

  test('closes with 4406 without the subprotocol', async () => {
    await using edge = await startEdge();
    const socket = new WebSocket(`${edge.server.url}/graphql`, []);
    const [code] = await once(socket, 'close');
    assert.equal(code, 4406);
  });

  test('closes with 4408 whoever does not say who it is in time', async () => {
    await using edge = await startEdge({ limits: { connectionInitMs: 20 } });
    await using socket = await new TestSocket(edge.server.url).open();
    assert.equal((await socket.closed).code, 4408);
  });

  test('closes with 1013, not 4403, while tokens cannot be looked up', async () => {
    await using edge = await startEdge({
      authenticate: async () => {
        throw Object.assign(new Error('no database'), { errno: -111 });
      },
    });
    await using socket = await new TestSocket(edge.server.url).open();
    socket.send({ type: 'connection_init', payload: { authorization: 'Bearer secret-token' } });
    assert.equal((await socket.closed).code, 1013);
  });

  test('closes with 4403 when the token is revoked, and not because of an outage', async () => {
    let outage = true;
    let lookedUp = Promise.withResolvers<void>();
    let known: Actor = { kind: 'root-admin', tokenId: 1, name: 'admin' };
    await using edge = await startEdge({
      authenticate: async () => {
        lookedUp.resolve();
        if (outage && edge) throw Object.assign(new Error('no database'), { errno: -111 });
        return known;
      },
      limits: { recheckMs: 10 },
    }).then((started) => {
      outage = false;
      return started;
    });
    await using socket = await signedIn(edge);
    outage = true;
    lookedUp = Promise.withResolvers();
    await lookedUp.promise;
    socket.subscribe('1', '{ __typename }');
    outage = false;
    assert.deepEqual(await socket.next(), { __typename: 'Query' });
    known = { kind: 'anonymous' };
    assert.deepEqual(await socket.closed, { code: 4403, reason: 'Forbidden' });
  });

  test('lets no page of another origin open one', async () => {
    await using edge = await startEdge({ origins: ['https://console.example.com'] });
    const { url } = edge.server;
    assert.equal(await refusedUpgrade(url, '/graphql', { origin: 'https://evil.example' }), 403);
    assert.equal(await refusedUpgrade(url, '/hostd', { origin: 'https://evil.example' }), 403);
    await using own = await new TestSocket(url, '/graphql', { origin: url }).signIn();
    await using configured = await new TestSocket(url, '/graphql', { origin: 'https://console.example.com' }).signIn();
    assert.equal(own.socket.readyState, configured.socket.readyState);
  });

  test('opens none at another path, and no more than the cap', async () => {
    await using edge = await startEdge({ limits: { sockets: 1 } });
    assert.equal(await refusedUpgrade(edge.server.url, '/other'), 404);
    await using first = await signedIn(edge);
    assert.equal(await refusedUpgrade(edge.server.url, '/graphql'), 503);
    first.socket.close();
    await first.closed;
    await using second = await signedIn(edge);
    assert.equal(second.socket.readyState, WebSocket.OPEN);
  });
});

suite('Operations over a WebSocket', () => {
  test('runs queries and mutations, with the errors of HTTP', async () => {
    await using edge = await startEdge();
    await using socket = await signedIn(edge);
    socket.subscribe('m', 'mutation { setBox(id: "a", value: 3) { value } fail { id } }');
    const { payload } = await socket.receive();
    assert.deepEqual((payload as { data: unknown }).data, { setBox: { value: 3 }, fail: null });
    assert.equal(codeOf((payload as { errors: unknown }).errors), 'CONFLICT');
    assert.equal((await socket.receive()).type, 'complete');
  });

  test('refuses what HTTP refuses, and goes on', async () => {
    await using edge = await startEdge();
    await using socket = await signedIn(edge);
    for (const [query, code] of [
      ['{ nothing }', 'INVALID_INPUT'],
      ['{ actor', 'INVALID_INPUT'],
      [`{ ${'{'.repeat(100)}`, 'LIMIT_EXCEEDED'],
      [`{ ${Array.from({ length: 61 }, (_, i) => `a${i}: actor`).join(' ')} }`, 'LIMIT_EXCEEDED'],
    ] as const) {
      socket.subscribe('x', query);
      const message = await socket.receive();
      assert.equal(message.type, 'error');
      assert.equal(codeOf(message.payload), code);
    }
    socket.send({
      id: 'v',
      type: 'subscribe',
      payload: { query: 'query($first: Int) { boxes(first: $first) { id } }', variables: { first: 5_000 } },
    });
    assert.equal(codeOf((await socket.receive()).payload), 'LIMIT_EXCEEDED');
    socket.subscribe('y', '{ actor }');
    assert.deepEqual(await socket.next(), { actor: 'admin' });
  });

  test('says why a subscription cannot be', async () => {
    await using edge = await startEdge();
    await using socket = await signedIn(edge);
    socket.subscribe('1', 'subscription { refused { id } }');
    const { payload } = await socket.receive();
    assert.equal(codeOf((payload as { errors: unknown }).errors), 'NOT_FOUND');
    assert.equal((await socket.receive()).type, 'complete');
  });

  test('refuses one operation more than the cap, and takes it when another has ended', async () => {
    await using edge = await startEdge({ limits: { operationsPerSocket: 2 } });
    await using socket = await signedIn(edge);
    edge.world.set('a', 1);
    for (const id of ['1', '2']) {
      socket.subscribe(id, 'subscription { boxChangedAlone { id } }');
      await socket.next();
    }
    socket.subscribe('3', 'subscription { boxChangedAlone { id } }');
    const message = await socket.receive();
    assert.equal(message.id, '3');
    assert.equal(codeOf(message.payload), 'LIMIT_EXCEEDED');
    socket.send({ id: '1', type: 'complete' });
    socket.subscribe('3', 'subscription { boxChangedAlone { id } }');
    assert.equal((await socket.receive()).type, 'next');
    assert.equal(edge.world.openSources, 2);
  });

  test('gives each event of a subscription a context of its own', async () => {
    const contexts: object[] = [];
    await using edge = await startEdge({
      contextFor: (caller, signal) => {
        const context = { ...caller, signal, world: edge.world };
        contexts.push(context);
        return context;
      },
    });
    await using socket = await signedIn(edge);
    edge.world.set('a', 1);
    socket.subscribe('1', 'subscription { boxChangedAlone { value } }');
    await socket.next();
    edge.world.set('a', 2);
    assert.deepEqual(await socket.next(), { boxChangedAlone: { value: 2 } });
    assert.equal(new Set(contexts).size, 3, 'one for the source, one for each event');
  });

  test('ends the sources, their signals and the counts when the client goes away', async () => {
    const signals: AbortSignal[] = [];
    await using edge = await startEdge({
      contextFor: (caller, signal) => {
        signals.push(signal);
        return { ...caller, signal, world: edge.world };
      },
    });
    await using socket = await signedIn(edge);
    edge.world.set('a', 1);
    for (const field of ['boxChanged', 'boxChangedAlone']) {
      socket.subscribe(field, `subscription { ${field} { id } }`);
      await socket.next();
    }
    assert.equal(await edge.metric('virtgraph_subscriptions'), 2);
    assert.equal(edge.world.openSources, 2);
    socket.socket.terminate();
    await Promise.all(signals.slice(0, 1).map((signal) => signal.aborted || once(signal, 'abort')));
    await new Promise(setImmediate);
    assert.equal(edge.world.openSources, 0);
    assert.equal(await edge.metric('virtgraph_subscriptions'), 0);
    assert.equal(await edge.metric('virtgraph_websocket_connections'), 0);
    assert.ok(signals.every((signal) => signal.aborted));
  });

  for (const field of ['boxChanged', 'boxChangedAlone'])
    test(`closes with 4429 a client that stops reading ${field}, and serves the others`, async () => {
      await using edge = await startEdge({ limits: { stalledMs: 200 } });
      edge.world.padding = 'x'.repeat(50_000);
      await using slow = await signedIn(edge);
      await using quick = await signedIn(edge);
      edge.world.set('a', 0);
      for (const socket of [slow, quick]) {
        socket.subscribe('1', `subscription { ${field} { value label } }`);
        await socket.next();
      }
      slow.socket.pause();
      let value = 0;
      while ((await edge.metric('virtgraph_websocket_closed_total')) === 0) {
        edge.world.set('a', ++value);
        const payload = (await quick.next())[field] as { value: number };
        assert.equal(payload.value, value);
      }
      const { values } = await edge.registry.getSingleMetric('virtgraph_websocket_closed_total')!.get();
      assert.deepEqual(values[0]!.labels, { path: '/graphql', code: '4429' });
      assert.equal(await edge.metric('virtgraph_subscriptions'), 1);
    });
});

suite('The path of hosts', () => {
  const host = (edge: TestEdge): Promise<TestSocket> =>
    new TestSocket(edge.server.url, '/hostd').signIn({ authorization: 'Bearer host' });

  test('serves the schema of hosts with the context of the connection', async () => {
    await using edge = await startEdge();
    await using socket = await host(edge);
    socket.subscribe('1', '{ me }');
    assert.deepEqual(await socket.next(), { me: 'host-1' });
    assert.equal((await socket.receive()).type, 'complete');
    socket.subscribe('2', 'subscription { commands }');
    assert.deepEqual(await socket.next(), { commands: 7 });
    assert.equal((await socket.receive()).type, 'complete');
    socket.subscribe('3', '{ actor }');
    assert.equal((await socket.receive()).type, 'error');
  });

  test('takes larger messages than that of clients, up to its own limit', async () => {
    await using edge = await startEdge();
    await using socket = await host(edge);
    const report = (size: number): void =>
      socket.subscribe('1', 'mutation($list: [Int!]!) { report(list: $list) }', { list: Array(size).fill(1) });
    report(500_000);
    assert.deepEqual(await socket.next(), { report: 500_000 });
    report(2_100_000);
    assert.equal((await socket.closed).code, 1009);
  });

  test('closes with 4403 for a host that is not known, and with 1013 in an outage', async () => {
    await using edge = await startEdge();
    for (const [authorization, code] of [
      ['Bearer nobody', 4403],
      ['Bearer outage', 1013],
    ] as const) {
      await using socket = await new TestSocket(edge.server.url, '/hostd').open();
      socket.send({ type: 'connection_init', payload: { authorization } });
      assert.equal((await socket.closed).code, code);
    }
  });
});

suite('A socket that nobody uses', () => {
  test('is closed with 4408 when it has nothing open and asks for nothing, pings or not', async () => {
    await using edge = await startEdge({ limits: { idleSocketMs: 100 } });
    await using silent = await signedIn(edge);
    await using pinging = await signedIn(edge);
    const ping = setInterval(() => pinging.send({ type: 'ping' }), 20);
    const codes = await Promise.all([silent.closed, pinging.closed]);
    clearInterval(ping);
    assert.deepEqual(
      codes.map(({ code }) => code),
      [4408, 4408],
    );
  });

  test('stays while a subscription is open, however little comes', async () => {
    await using edge = await startEdge({ limits: { idleSocketMs: 100 } });
    await using busy = await signedIn(edge);
    edge.world.set('1', 1);
    busy.subscribe('s', 'subscription { boxChanged(id: "1") { value } }');
    assert.deepEqual(await busy.next(), { boxChanged: { value: 1 } });
    // Two others, one after the other, have come and gone meanwhile.
    for (let i = 0; i < 2; i++) {
      await using idle = await signedIn(edge);
      assert.equal((await idle.closed).code, 4408);
    }
    edge.world.set('1', 2);
    assert.deepEqual(await busy.next(), { boxChanged: { value: 2 } });
  });
});
