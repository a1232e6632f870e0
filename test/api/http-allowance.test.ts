import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { GraphQLError } from 'graphql';
import type { UserActor } from '../../src/domain/authorize.ts';
import { Allowance, type RateLimit } from '../../src/http/allowance.ts';
import type { Limits } from '../../src/http/limits.ts';
import { startEdge, type TestEdge, TestSocket } from './http-fixture.ts';

const user = (userId: number, keyId = userId): UserActor => ({
  kind: 'user',
  userId,
  credential: { kind: 'api_key', id: keyId },
  accountId: 7,
  domainPath: '/1/',
  name: `acme/user-${userId}`,
  roleIds: [3],
  reach: 'ACCOUNT',
  projects: new Map(),
  permissions: new Set(),
});

suite('The allowance of a user', () => {
  const refusal = (spent: RateLimit | GraphQLError | null): unknown =>
    spent instanceof GraphQLError ? spent.extensions : null;

  test('is spent at once or evenly, and fills again with time, up to its limit', () => {
    let now = 0;
    const allowance = new Allowance(60_000, () => now);
    assert.deepEqual(allowance.spend(user(1), 40_000), { limit: 60_000, remaining: 20_000, resetMs: 40_000 });
    now += 10_000;
    assert.deepEqual(allowance.spend(user(1), 0), { limit: 60_000, remaining: 30_000, resetMs: 30_000 });
    now += 3_600_000;
    assert.deepEqual(allowance.spend(user(1), 0), { limit: 60_000, remaining: 60_000, resetMs: 0 });
  });

  test('refuses what is not there, takes nothing for it, and says how long to wait', () => {
    let now = 0;
    const allowance = new Allowance(60_000, () => now);
    allowance.spend(user(1), 59_000);
    const refused = refusal(allowance.spend(user(1), 3_000));
    assert.deepEqual(refused, {
      code: 'RATE_LIMITED',
      retryAfterMs: 2_000,
      rateLimit: { limit: 60_000, remaining: 1_000, resetMs: 59_000 },
    });
    now += 1_999;
    assert.notEqual(refusal(allowance.spend(user(1), 3_000)), null);
    now += 1;
    assert.equal(refusal(allowance.spend(user(1), 3_000)), null);
  });

  test('is one for all keys of a user, apart from that of others, and none for operators', () => {
    const allowance = new Allowance(100, () => 0);
    allowance.spend(user(1, 1), 100);
    assert.notEqual(refusal(allowance.spend(user(1, 2), 1)), null);
    assert.deepEqual(allowance.spend(user(2), 100), { limit: 100, remaining: 0, resetMs: 60_000 });
    assert.equal(allowance.spend({ kind: 'root-admin', tokenId: 1, name: 'root' }, 1_000_000), null);
  });
});

suite('A user who asks too much', () => {
  const edgeOf = async (limits: Partial<Limits>): Promise<TestEdge> => {
    const edge = await startEdge({ limits });
    edge.tokens.set('a', user(1)).set('a2', user(1, 2)).set('b', user(2));
    return edge;
  };
  const as = (token: string) => ({ authorization: `Bearer ${token}` });

  test('is told what is left with each answer, and operators are not', async () => {
    await using edge = await edgeOf({ costPerMinute: 1_000 });
    const { body } = await edge.ask('{ __typename actor }', {}, as('a'));
    const { limit, remaining } = body.extensions!['rateLimit'] as { limit: number; remaining: number };
    assert.deepEqual([limit, remaining], [1_000, 999]);
    assert.equal((await edge.ask('{ actor }')).body.extensions!['rateLimit'], undefined);
  });

  test('gets 429 and when to come again, and nothing is executed', async () => {
    await using edge = await edgeOf({ costPerMinute: 300 });
    const query = 'query ($first: Int) { boxes(first: $first) { id } }';
    assert.equal((await edge.ask(query, { first: 2 }, as('a'))).status, 200);
    for (const token of ['a', 'a2']) {
      const { status, headers, body } = await edge.ask(query, { first: 2 }, as(token));
      assert.equal(status, 429);
      assert.ok(Number(headers.get('retry-after')) >= 20);
      assert.equal(body.errors![0]!.extensions['code'], 'RATE_LIMITED');
      assert.ok(!('data' in body));
    }
    assert.equal((await edge.ask(query, { first: 2 }, as('b'))).status, 200);
  });

  test('is refused over a WebSocket and on an event stream too, while what is open goes on', async () => {
    await using edge = await edgeOf({ costPerMinute: 2 });
    await using socket = await new TestSocket(edge.server.url).signIn({ authorization: 'Bearer a' });
    edge.world.set('a', 1);
    socket.subscribe('1', 'subscription { boxChangedAlone { value } }');
    assert.deepEqual(await socket.next(), { boxChangedAlone: { value: 1 } });
    socket.subscribe('2', '{ actor }');
    assert.equal((await socket.receive()).type, 'next');
    assert.equal((await socket.receive()).type, 'complete');
    for (const query of [
      '{ actor }',
      'subscription { boxChangedAlone { value } }',
      'subscription { boxChanged { id } }',
    ]) {
      socket.subscribe('3', query);
      const { type, payload } = await socket.receive();
      assert.match(JSON.stringify(payload), /RATE_LIMITED/, query);
      if (type === 'next') await socket.receive();
    }
    const stream = await fetch(`${edge.server.url}/graphql`, {
      method: 'POST',
      headers: { ...as('a'), 'content-type': 'application/json', accept: 'text/event-stream' },
      body: JSON.stringify({ query: 'subscription { boxChangedAlone { value } }' }),
    });
    assert.match(await stream.text(), /RATE_LIMITED/);
    edge.world.set('a', 2);
    assert.deepEqual(await socket.next(), { boxChangedAlone: { value: 2 } });
  });

  test('may have so many connections open, with all keys together', async () => {
    await using edge = await edgeOf({ socketsPerUser: 2 });
    const open = (token: string) => new TestSocket(edge.server.url).signIn({ authorization: `Bearer ${token}` });
    await using first = await open('a');
    await using second = await open('a2');
    await using third = await new TestSocket(edge.server.url).open();
    third.send({ type: 'connection_init', payload: as('a') });
    assert.deepEqual(await third.closed, { code: 1013, reason: 'You have 2 connections open' });
    await using other = await open('b');
    first.socket.close();
    await first.closed;
    await using again = await open('a');
    assert.deepEqual(
      [second, other, again].map(({ socket }) => socket.readyState),
      [1, 1, 1],
    );
  });

  test('is asked for little by who has shown no token, whom nobody counts', async () => {
    await using edge = await startEdge({ publicFields: { query: ['boxes'] }, limits: { publicCost: 500 } });
    const ask = async (first: number, headers: Record<string, string> = {}) => {
      const response = await fetch(`${edge.server.url}/graphql`, {
        method: 'POST',
        headers: { 'content-type': 'application/json', ...headers },
        body: JSON.stringify({ query: 'query ($first: Int) { boxes(first: $first) { id } }', variables: { first } }),
      });
      const { errors } = (await response.json()) as { errors?: { extensions: { code: string } }[] };
      return errors?.[0]?.extensions.code;
    };
    assert.equal(await ask(4), undefined);
    assert.equal(await ask(5), 'LIMIT_EXCEEDED');
    assert.equal(await ask(5, { authorization: 'Bearer secret-token' }), undefined);
  });
});
