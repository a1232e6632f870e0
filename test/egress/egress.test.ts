import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { after, before, describe, it } from 'node:test';
import { allowedProblem, Egress, EgressRefused } from '../../src/egress/egress.ts';
import { FetchLimit, fetchOutside } from '../../src/egress/fetch.ts';

const PUBLIC = [
  '8.8.8.8',
  '1.1.1.1',
  '172.15.255.255',
  '172.32.0.0',
  '100.128.0.0',
  '2606:4700::1111',
  '::ffff:8.8.8.8',
];
const INSIDE = [
  ...['127.0.0.1', '127.8.9.10', '10.0.0.1', '172.16.0.1', '172.31.255.255', '192.168.1.1', '169.254.169.254'],
  ...['100.64.0.1', '0.0.0.0', '224.0.0.1', '255.255.255.255', '198.18.0.1', '192.0.0.1'],
  ...['::1', '::', 'fe80::1', 'fd00::1', 'ff02::1', '::ffff:127.0.0.1', '::ffff:10.0.0.1', '::ffff:a9fe:a9fe'],
  ...['64:ff9b::7f00:1', '2002:7f00:1::', '2001::1', '::7f00:1'],
];

describe('egress', () => {
  it('goes anywhere in public and nowhere inside', () => {
    const egress = new Egress();
    assert.deepEqual(
      PUBLIC.filter((address) => !egress.mayReach(address, 443)),
      [],
    );
    assert.deepEqual(
      INSIDE.filter((address) => egress.mayReach(address, 443)),
      [],
    );
  });

  it('goes inside where the operator says so, at the port that he says', () => {
    const egress = new Egress('127.0.0.1:636, 10.1.0.0/16, [fd00::/8]:443, fe80::1');
    const reached = (address: string, port: number): boolean => egress.mayReach(address, port);
    assert.deepEqual(
      [
        ...[reached('127.0.0.1', 636), reached('10.1.2.3', 22), reached('fd12::1', 443), reached('fe80::1', 80)],
        reached('::ffff:127.0.0.1', 636),
      ],
      [true, true, true, true, true],
    );
    assert.deepEqual(
      [
        ...[reached('127.0.0.1', 637), reached('127.0.0.2', 636), reached('10.2.0.1', 22)],
        ...[reached('fd12::1', 80), reached('fe80::2', 80)],
      ],
      [false, false, false, false, false],
    );
  });

  it('says which part of the list is none', () => {
    for (const good of ['', '127.0.0.1', '10.0.0.0/8:1, ::1', '[::1]:65535', '::/0'])
      assert.equal(allowedProblem(good), null, good);
    for (const bad of [
      'localhost',
      '10.0.0.0/33',
      '10.0.0.0/8/8',
      '10.0.0.1:65536',
      '10.0.0.1:',
      '[::1',
      '::/129',
      'a,b',
      '10.0.0.1:x',
    ])
      assert.match(allowedProblem(bad) ?? '', /neither an address nor a range/, bad);
  });

  it('resolves a name once, and names the address that was vetted', async () => {
    await assert.rejects(new Egress().addressOf('localhost', 80), (error: Error) => {
      assert.ok(error instanceof EgressRefused);
      assert.match(error.message, /localhost:80 is inside: .*VIRTGRAPH_EGRESS_ALLOW/);
      return true;
    });
    assert.match(await new Egress('127.0.0.1, ::1').addressOf('localhost', 80), /^(127\.0\.0\.1|::1)$/);
    assert.equal(await new Egress('::1').addressOf('[::1]', 80), '::1');
  });

  it('takes of the addresses of a name one that may be reached', async () => {
    const asked: string[] = [];
    const egress = new Egress('', async (name) => {
      asked.push(name);
      return ['169.254.169.254', '8.8.8.8'];
    });
    assert.equal(await egress.addressOf('both.example.com', 443), '8.8.8.8');
    assert.deepEqual(asked, ['both.example.com']);
  });
});

describe('a request outside', () => {
  let server: Server;
  let url: string;
  let egress: Egress;
  const asked: string[] = [];
  before(async () => {
    server = createServer((request, response) => {
      asked.push(`${request.method} ${request.url} ${request.headers.host}`);
      if (request.url === '/redirect') response.writeHead(302, { location: 'http://169.254.169.254/' }).end();
      else if (request.url === '/large') response.end('x'.repeat(1_001));
      else if (request.url === '/endless') response.write('x');
      else if (request.url === '/never') return;
      else if (request.url === '/empty') response.writeHead(204).end();
      else request.pipe(response);
    }).listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address() as AddressInfo;
    url = `http://127.0.0.1:${port}`;
    egress = new Egress(`127.0.0.1:${port}`);
  });
  after(() => {
    server.closeAllConnections();
    server.close();
  });

  const limits = { timeoutMs: 5_000, maxBytes: 1_000, caCertificates: null };
  const get = (path: string, more: object = {}) =>
    fetchOutside(egress, url + path, { method: 'GET', headers: {} }, { ...limits, ...more });

  it('is sent with its body, and answered', async () => {
    const request = { method: 'POST', headers: { 'content-type': 'text/plain' }, body: 'héllo' };
    const response = await fetchOutside(egress, `${url}/echo?a=b`, request, limits);
    assert.deepEqual([response.status, await response.text()], [200, 'héllo']);
    assert.equal(asked.at(-1), `POST /echo?a=b ${new URL(url).host}`);
    assert.deepEqual([(await get('/empty')).status], [204]);
  });

  it('follows no redirect', async () => {
    const response = await get('/redirect');
    assert.deepEqual([response.status, response.headers.get('location')], [302, 'http://169.254.169.254/']);
  });

  it('reads no more than it may, and waits no longer', async () => {
    await assert.rejects(get('/large'), FetchLimit);
    await assert.rejects(get('/endless', { timeoutMs: 50 }), FetchLimit);
    await assert.rejects(get('/never', { timeoutMs: 50 }), FetchLimit);
  });

  it('never leaves for an address inside', async () => {
    const before = asked.length;
    await assert.rejects(fetchOutside(new Egress(), `${url}/`, { method: 'GET', headers: {} }, limits), EgressRefused);
    assert.equal(asked.length, before);
  });
});
