import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { request as httpRequest, type IncomingHttpHeaders } from 'node:http';
import { suite, test } from 'node:test';
import { brotliDecompressSync, gunzipSync } from 'node:zlib';
import { buildSchema, Kind, parse, validate } from 'graphql';
import { Gauge } from 'prom-client';
import { DEFAULT_QUERY } from '../../src/http/graphiql.ts';
import { startEdge, TestSocket } from './http-fixture.ts';

const FILES = [
  'start.js',
  'graphiql.js',
  'graphiql.css',
  'graphql-worker.js',
  'json-worker.js',
  'editor-worker.js',
  'icon.svg',
];

/** Without the decompression that fetch does. */
function get(
  url: string,
  headers: Record<string, string> = {},
): Promise<{ status: number; headers: IncomingHttpHeaders; body: Buffer }> {
  return new Promise((resolve, reject) => {
    httpRequest(url, { headers }, async (response) => {
      const body = Buffer.concat(await response.toArray());
      resolve({ status: response.statusCode!, headers: response.headers, body });
    })
      .on('error', reject)
      .end();
  });
}

suite('GraphiQL', () => {
  test('is served from our own files, with headers that keep everything else out', async () => {
    await using edge = await startEdge();
    const page = await get(`${edge.server.url}/graphiql`);
    assert.equal(page.status, 200);
    assert.equal(page.headers['content-type'], 'text/html; charset=utf-8');
    const policy = String(page.headers['content-security-policy']);
    for (const rule of ["default-src 'none'", "script-src 'self'", "frame-ancestors 'none'"])
      assert.ok(policy.includes(rule));
    assert.ok(!/script-src[^;]*unsafe/.test(policy));
    assert.equal(page.headers['referrer-policy'], 'no-referrer');
    assert.equal(page.headers['x-content-type-options'], 'nosniff');
    const text = page.body.toString();
    assert.ok(!/(?:src|href)="(?!\/graphiql\/)/.test(text), 'nothing from elsewhere');
    for (const file of FILES) assert.equal((await get(`${edge.server.url}/graphiql/${file}`)).status, 200, file);
    assert.equal((await get(`${edge.server.url}/graphiql/other.js`)).status, 404);
  });

  test('compresses each file once, and not again for who has it', async () => {
    await using edge = await startEdge();
    const url = `${edge.server.url}/graphiql/graphiql.css`;
    const plain = await get(url);
    const brotli = await get(url, { 'accept-encoding': 'gzip, br' });
    const gzip = await get(url, { 'accept-encoding': 'gzip' });
    assert.equal(brotli.headers['content-encoding'], 'br');
    assert.equal(gzip.headers['content-encoding'], 'gzip');
    assert.deepEqual(brotliDecompressSync(brotli.body), plain.body);
    assert.deepEqual(gunzipSync(gzip.body), plain.body);
    assert.ok(brotli.body.length < gzip.body.length && gzip.body.length < plain.body.length * 0.8);
    const again = await get(url, { 'accept-encoding': 'gzip, br', 'if-none-match': brotli.headers.etag! });
    assert.equal(again.status, 304);
    assert.equal(again.body.length, 0);
    assert.equal((await get(url, { 'if-none-match': brotli.headers.etag! })).status, 200, 'another encoding');
  });

  test('begins with queries that the schema takes', async () => {
    const schema = buildSchema(await readFile(new URL('../../schema/control.graphql', import.meta.url), 'utf8'));
    const commented = DEFAULT_QUERY.replace(/^# ( *(?:mutation|subscription|[\w"{}(].*[{}]$|\w+$|}$).*)$/gm, '$1');
    const document = parse(commented);
    assert.deepEqual(
      document.definitions.map((node) => node.kind === Kind.OPERATION_DEFINITION && node.operation),
      ['query', 'mutation', 'subscription'],
    );
    assert.deepEqual(validate(schema, document), []);
  });

  test('answers HEAD and refuses what would change something', async () => {
    await using edge = await startEdge();
    const head = await fetch(`${edge.server.url}/graphiql`, { method: 'HEAD' });
    assert.equal(head.status, 200);
    assert.equal((await fetch(`${edge.server.url}/graphiql`, { method: 'POST' })).status, 405);
  });
});

suite('What is around the graph', () => {
  test('the root leads to GraphiQL, and an unknown path is 404 in JSON', async () => {
    await using edge = await startEdge();
    const root = await fetch(edge.server.url, { redirect: 'manual' });
    assert.equal(root.status, 302);
    assert.equal(root.headers.get('location'), '/graphiql');
    for (const path of ['/nothing', '/graphql/', '/hostd', '//', '/%2e%2e/etc/passwd']) {
      const response = await fetch(`${edge.server.url}${path}`);
      assert.equal(response.status, 404, path);
      assert.equal(((await response.json()) as { error: { code: string } }).error.code, 'NOT_FOUND');
    }
  });

  test('everything that is no page of ours may load nothing, be framed by no one and be read by no other site', async () => {
    await using edge = await startEdge();
    for (const path of ['/healthz', '/metrics', '/nowhere', '/graphql']) {
      const { headers } = await get(`${edge.server.url}${path}`);
      assert.equal(headers['content-security-policy'], "default-src 'none'; frame-ancestors 'none'", path);
      assert.equal(headers['x-content-type-options'], 'nosniff', path);
      assert.equal(headers['referrer-policy'], 'no-referrer', path);
      assert.equal(headers['cross-origin-resource-policy'], 'same-origin', path);
    }
  });

  test('health says that the process lives, readiness what is missing', async () => {
    await using edge = await startEdge();
    const ready = async (): Promise<[number, unknown]> => {
      const response = await fetch(`${edge.server.url}/readyz`);
      return [response.status, await response.json()];
    };
    assert.deepEqual(await ready(), [200, { status: 'ready', reasons: [] }]);
    edge.reasons.push('The database does not answer.');
    assert.deepEqual(await ready(), [503, { status: 'not ready', reasons: ['The database does not answer.'] }]);
    assert.equal((await fetch(`${edge.server.url}/healthz`)).status, 200);
  });

  test('a readiness check that fails is a reason', async () => {
    await using edge = await startEdge({
      ready: async () => {
        throw new Error('pool is closed');
      },
    });
    const response = await fetch(`${edge.server.url}/readyz`);
    assert.equal(response.status, 503);
    assert.match(await response.text(), /pool is closed/);
  });

  test('metrics count requests, sockets and deliveries, beside those of others', async () => {
    await using edge = await startEdge();
    new Gauge({ name: 'of_someone_else', help: 'x', registers: [edge.registry] }).set(4);
    await edge.ask('{ actor }');
    edge.world.set('a', 1);
    await using socket = await new TestSocket(edge.server.url).signIn();
    socket.subscribe('1', 'subscription { boxChanged { id } }');
    await socket.next();
    const text = await (await fetch(`${edge.server.url}/metrics`)).text();
    for (const line of [
      'virtgraph_http_requests_total{route="/graphql",status="200"} 1',
      'virtgraph_http_request_duration_seconds_count{route="/graphql"} 1',
      'virtgraph_websocket_connections{path="/graphql"} 1',
      'virtgraph_subscriptions 1',
      'virtgraph_subscription_deliveries_total 1',
      'of_someone_else 4',
    ])
      assert.ok(text.includes(line), line);
    assert.match(text, /nodejs_eventloop_lag_seconds/);
  });

  test('paths that nobody knows make no label of their own', async () => {
    await using edge = await startEdge();
    for (let i = 0; i < 5; i++) await fetch(`${edge.server.url}/made-up-${i}`);
    const text = await edge.registry.metrics();
    assert.match(text, /requests_total\{route="other",status="404"\} 5/);
    assert.ok(!text.includes('made-up'));
  });
});
