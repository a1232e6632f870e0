import assert from 'node:assert/strict';
import type { IncomingMessage } from 'node:http';
import { describe, test } from 'node:test';
import { WebSocket } from 'ws';
import { addressOf, canonical, trustedProxies } from '../../src/http/address.ts';
import { startEdge, type TestContext } from './http-fixture.ts';

const asked = (peer: string, forwarded?: string, networks: string[] = []): string | null =>
  addressOf(
    {
      socket: { remoteAddress: peer },
      headers: forwarded === undefined ? {} : { 'x-forwarded-for': forwarded },
    } as unknown as IncomingMessage,
    trustedProxies(networks).proxies,
  );

describe('where a request comes from', () => {
  test('is its peer, whatever it writes, as long as no proxy is trusted', () => {
    assert.equal(asked('203.0.113.9', '198.51.100.1'), '203.0.113.9');
    assert.equal(asked('203.0.113.9', '198.51.100.1', ['10.0.0.0/8']), '203.0.113.9', 'who asks is none of them');
    assert.equal(asked('10.1.2.3', undefined, ['10.0.0.0/8']), '10.1.2.3', 'the proxy itself');
  });

  test('is what the nearest trusted proxy has seen, not what the caller wrote before it', () => {
    const networks = ['10.0.0.0/8', 'fd00::/8', '192.0.2.7'];
    assert.equal(asked('10.1.2.3', '198.51.100.1', networks), '198.51.100.1');
    assert.equal(asked('10.1.2.3', '127.0.0.1, 10.9.9.9, 198.51.100.1', networks), '198.51.100.1');
    assert.equal(asked('10.1.2.3', '1.1.1.1, 198.51.100.1, 192.0.2.7,fd00::5', networks), '198.51.100.1');
    assert.equal(asked('10.1.2.3', '10.4.4.4, 10.5.5.5', networks), '10.4.4.4', 'all are ours: the farthest');
  });

  test('stops at what is no address', () => {
    for (const forged of ['unknown', '198.51.100.1, ', '198.51.100.1, _hidden', "1.2.3.4'; drop table vm", '0x7f.1'])
      assert.equal(asked('10.1.2.3', forged, ['10.0.0.0/8']), '10.1.2.3', forged);
    assert.equal(asked('10.1.2.3', '198.51.100.1, junk, 10.7.7.7', ['10.0.0.0/8']), '10.7.7.7');
  });

  test('has one text per address', () => {
    assert.equal(asked('::ffff:203.0.113.9'), '203.0.113.9');
    assert.equal(asked('::ffff:10.0.0.1', '2001:DB8:0::0:1', ['10.0.0.0/8']), '2001:db8::1');
    assert.equal(canonical('fe80::1%eth0'), 'fe80::1');
    assert.equal(canonical('192.0.2.7:1234'), '192.0.2.7');
    assert.equal(canonical('[2001:db8::1]:443'), '2001:db8::1');
    assert.equal(canonical('::FFFF:c000:0207'), '192.0.2.7');
    assert.equal(canonical(''), null);
  });

  test('is null once the connection has ended', () => {
    assert.equal(asked(undefined as unknown as string, '198.51.100.1', ['0.0.0.0/0']), null);
  });

  test('takes networks and single addresses of both families, and tells what is none', () => {
    const { wrong } = trustedProxies([
      '10.0.0.0/8',
      '0.0.0.0/0',
      '::/0',
      'fd00::1',
      '10.0.0.0/33',
      'proxy',
      '1.2.3.4/',
      '',
    ]);
    assert.deepEqual(wrong, ['10.0.0.0/33', 'proxy', '1.2.3.4/', '']);
  });
});

describe('the address in the context of what is asked', () => {
  const seenWith = async (networks: string[], forwarded: string) => {
    const addresses: (string | null)[] = [];
    const edge = await startEdge({
      trustedProxies: networks,
      contextFor: (caller, signal): TestContext => {
        addresses.push(caller.address);
        return { ...caller, signal, world: edge.world };
      },
    });
    const query = '{ __typename requestId }';
    await edge.ask(query, {}, { 'x-forwarded-for': forwarded });
    await fetch(`${edge.server.url}/graphql?query=${encodeURIComponent(query)}`, {
      headers: { authorization: 'Bearer secret-token', 'x-forwarded-for': forwarded },
    });
    await overSocket(edge.server.url, query, forwarded);
    await edge[Symbol.asyncDispose]();
    return addresses;
  };

  test('is the same for POST, GET and WebSocket, and a forged header changes nothing', async () => {
    assert.deepEqual(await seenWith([], '198.51.100.1'), ['127.0.0.1', '127.0.0.1', '127.0.0.1']);
  });

  test('is the client behind a trusted proxy, of the upgrade for a WebSocket', async () => {
    assert.deepEqual(await seenWith(['127.0.0.0/8'], '10.0.0.1, 198.51.100.1'), Array(3).fill('198.51.100.1'));
  });

  test('is not served at all with a network that is none', async () => {
    await assert.rejects(startEdge({ trustedProxies: ['everybody'] }), /everybody/);
  });
});

/** Asks once over a socket whose upgrade carries the header. */
async function overSocket(url: string, query: string, forwarded: string): Promise<void> {
  const socket = new WebSocket(`${url.replace('http', 'ws')}/graphql`, 'graphql-transport-ws', {
    headers: { authorization: 'Bearer secret-token', 'x-forwarded-for': forwarded },
  });
  const answered = Promise.withResolvers<void>();
  socket.on('error', answered.reject);
  socket.on('open', () => socket.send(JSON.stringify({ type: 'connection_init' })));
  socket.on('message', (data) => {
    const { type } = JSON.parse(String(data)) as { type: string };
    if (type === 'connection_ack') socket.send(JSON.stringify({ id: '1', type: 'subscribe', payload: { query } }));
    if (type === 'next') answered.resolve();
    if (type === 'error') answered.reject(new Error(String(data)));
  });
  await answered.promise;
  socket.terminate();
}
