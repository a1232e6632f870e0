import assert from 'node:assert/strict';
import { request as httpRequest } from 'node:http';
import { suite, test } from 'node:test';
import { auditServer } from 'graphql-http';
import { ADMIN, COLUMNS, outageSchema, startEdge, type TestAnswer } from './http-fixture.ts';

const BEARER = { authorization: 'Bearer secret-token' };
const code = ({ body }: TestAnswer): unknown => body.errors?.[0]?.extensions['code'];

suite('GraphQL over HTTP', () => {
  test('passes every audit of the specification', async () => {
    await using edge = await startEdge();
    const results = await auditServer({
      url: `${edge.server.url}/graphql`,
      fetchFn: (url: string, init: RequestInit = {}) =>
        fetch(url, { ...init, headers: { ...(init.headers as object), ...BEARER } }),
    });
    const failed = results.filter(({ status }) => status !== 'ok');
    assert.deepEqual(
      failed.map((result) => ('reason' in result ? `${result.id} ${result.name}: ${result.reason}` : result.id)),
      [],
    );
    assert.ok(results.length >= 61);
  });

  test('answers a list with its cost, its media type and its request id', async () => {
    await using edge = await startEdge();
    const answer = await edge.ask(`{ rows { ${COLUMNS.join(' ')} } }`);
    assert.equal(answer.status, 200);
    assert.equal((answer.body.data!['rows'] as unknown[]).length, 100);
    assert.deepEqual(answer.body.extensions, { cost: 1 });
    assert.equal(answer.headers.get('content-type'), 'application/json; charset=utf-8');
    assert.match(answer.headers.get('x-request-id')!, /^[\w-]{36}$/);
    assert.equal(answer.headers.get('cache-control'), 'no-store');
  });

  test('answers the same to GET and to POST', async () => {
    await using edge = await startEdge();
    edge.world.set('a', 1);
    const queries = [
      '{ box(id: "a") { id value label } }',
      '{ box(id: "a") { broken } }',
      '{ strictBox { id } }',
      '{ nothing }',
      '{ box(id: "a") { id ',
      '{ box { id } }',
      'query($id: ID!) { box(id: $id) { id } }',
      `{ ${Array.from({ length: 61 }, (_, i) => `a${i}: actor`).join(' ')} }`,
      'query A { actor } query B { actor }',
      'subscription { boxChanged { id } }',
    ];
    for (const accept of ['application/json', 'application/graphql-response+json'])
      for (const query of queries) {
        const posted = await edge.ask(query, {}, { accept, 'x-request-id': 'the-same-id' });
        const got = await fetch(`${edge.server.url}/graphql?${new URLSearchParams({ query })}`, {
          headers: { ...BEARER, accept, 'x-request-id': 'the-same-id' },
        });
        assert.equal(got.status, posted.status, query);
        assert.equal(got.headers.get('content-type'), posted.headers.get('content-type'), query);
        assert.deepEqual(await got.json(), posted.body, query);
      }
  });

  test('executes no mutation on GET', async () => {
    await using edge = await startEdge();
    const query = 'mutation { setBox(id: "a", value: 5) { id } }';
    const response = await fetch(`${edge.server.url}/graphql?${new URLSearchParams({ query })}`, { headers: BEARER });
    assert.equal(response.status, 405);
    assert.equal(response.headers.get('allow'), 'POST');
    assert.equal(edge.world.boxes.size, 0);
    assert.equal((await edge.ask(query)).status, 200);
    assert.equal(edge.world.boxes.get('a')?.value, 5);
  });

  test('streams a subscription as server-sent events and ends its source with the caller', async () => {
    await using edge = await startEdge();
    edge.world.set('a', 1);
    const stop = new AbortController();
    const response = await fetch(`${edge.server.url}/graphql`, {
      method: 'POST',
      headers: { ...BEARER, 'content-type': 'application/json', accept: 'text/event-stream' },
      body: JSON.stringify({ query: 'subscription { boxChangedAlone(id: "a") { value } }' }),
      signal: stop.signal,
    });
    assert.match(response.headers.get('content-type')!, /^text\/event-stream/);
    const text = response.body!.pipeThrough(new TextDecoderStream()).getReader();
    let seen = '';
    const until = async (part: string): Promise<void> => {
      while (!seen.includes(part)) seen += (await text.read()).value ?? assert.fail(`ended before ${part}`);
    };
    await until('{"value":1}');
    edge.world.set('a', 2);
    await until('{"value":2}');
    assert.equal(await edge.metric('virtgraph_subscriptions'), 1);

    const logged = edge.nextLog('"route":"/graphql"');
    stop.abort();
    await logged;
    assert.equal(edge.world.openSources, 0);
    assert.equal(await edge.metric('virtgraph_subscriptions'), 0);
  });

  test('ends an event stream whose token is revoked', async () => {
    await using edge = await startEdge({ limits: { recheckMs: 20 } });
    const response = await fetch(`${edge.server.url}/graphql?query=subscription{boxChangedAlone{id}}`, {
      headers: { ...BEARER, accept: 'text/event-stream' },
    });
    edge.tokens.clear();
    await response.text();
    assert.equal(edge.world.openSources, 0);
  });
});

suite('Who may ask', () => {
  for (const [title, headers] of [
    ['no token', {}],
    ['an unknown token', { authorization: 'Bearer unknown' }],
    ['another scheme', { authorization: 'Basic c2VjcmV0' }],
    ['an empty token', { authorization: 'Bearer ' }],
  ] as const)
    test(`refuses ${title} with 401 and a GraphQL error, before looking at anything else`, async () => {
      await using edge = await startEdge();
      for (const [method, body, type] of [
        ['POST', '{"query":"{ __schema { types { name } } }"}', 'application/json'],
        ['POST', 'not json', 'text/plain'],
        ['GET', undefined, 'application/json'],
        ['DELETE', undefined, 'application/json'],
      ] as const) {
        const response = await fetch(`${edge.server.url}/graphql`, {
          method,
          headers: { 'content-type': type, ...headers },
          ...(body ? { body } : {}),
        });
        assert.equal(response.status, 401);
        assert.equal(response.headers.get('www-authenticate'), 'Bearer');
        const answer = (await response.json()) as TestAnswer['body'];
        assert.equal(answer.errors?.[0]?.extensions['code'], 'UNAUTHENTICATED');
        assert.ok(!('data' in answer));
      }
    });

  test('tells the resolvers who asks', async () => {
    await using edge = await startEdge();
    edge.tokens.set('other', { kind: 'root-admin', tokenId: 2, name: 'night-shift' });
    const answer = await edge.ask('{ actor }', {}, { authorization: 'bearer other' });
    assert.deepEqual(answer.body.data, { actor: 'night-shift' });
  });

  test('lets pages of its own origin and of configured ones ask, and no others', async () => {
    await using edge = await startEdge({ origins: ['https://console.example.com'] });
    const asked = (origin: string): Promise<TestAnswer> => edge.ask('{ actor }', {}, { origin });
    assert.equal((await asked(edge.server.url)).status, 200);
    const configured = await asked('https://console.example.com');
    assert.equal(configured.status, 200);
    assert.equal(configured.headers.get('access-control-allow-origin'), 'https://console.example.com');
    for (const origin of ['https://evil.example', 'null', 'https://console.example.com.evil.example']) {
      const answer = await asked(origin);
      assert.equal(answer.status, 403, origin);
      assert.equal(code(answer), 'INVALID_INPUT');
      assert.equal(answer.headers.get('access-control-allow-origin'), null);
    }
  });

  test('answers the preflight of a configured origin, and refuses that of others', async () => {
    await using edge = await startEdge({ origins: ['https://console.example.com'] });
    const preflight = (origin: string): Promise<Response> =>
      fetch(`${edge.server.url}/graphql`, { method: 'OPTIONS', headers: { origin } });
    const allowed = await preflight('https://console.example.com');
    assert.equal(allowed.status, 204);
    assert.match(allowed.headers.get('access-control-allow-headers')!, /authorization/);
    assert.equal((await preflight('https://evil.example')).status, 403);
  });

  test('says UNAVAILABLE with 503 when the token cannot be looked up', async () => {
    await using edge = await startEdge({
      authenticate: async () => {
        throw Object.assign(new Error('connect ECONNREFUSED'), { errno: -111 });
      },
    });
    const answer = await edge.ask('{ actor }');
    assert.equal(answer.status, 503);
    assert.equal(code(answer), 'UNAVAILABLE');
    assert.equal(answer.headers.get('retry-after'), '1');
  });

  test('looks a known token up once in a while, and one that failed again at once', async () => {
    let lookUps = 0;
    let known = false;
    await using edge = await startEdge({
      authenticate: async () => {
        lookUps++;
        return known ? ADMIN : { kind: 'anonymous' };
      },
      limits: { rememberTokenMs: 60_000 },
    });
    for (let i = 0; i < 2; i++) assert.equal((await edge.ask('{ actor }')).status, 401);
    assert.equal(lookUps, 2);
    known = true;
    for (let i = 0; i < 3; i++) assert.equal((await edge.ask('{ actor }')).status, 200);
    assert.equal(lookUps, 3);
  });

  test('forgets a known token when its time is over', async () => {
    await using edge = await startEdge({ limits: { rememberTokenMs: 0 } });
    assert.equal((await edge.ask('{ actor }')).status, 200);
    edge.tokens.clear();
    assert.equal((await edge.ask('{ actor }')).status, 401);
  });

  test('says UNAVAILABLE when the look-up of the token does not end', async () => {
    await using edge = await startEdge({
      authenticate: () => new Promise(() => undefined),
      limits: { authenticateMs: 30 },
    });
    const answer = await edge.ask('{ actor }');
    assert.equal(answer.status, 503);
    assert.equal(code(answer), 'UNAVAILABLE');
  });
});

suite('The form of a request', () => {
  const refusals: [title: string, status: number, body: string | Buffer, headers: Record<string, string>][] = [
    ['JSON that is cut off', 400, '{"query": "{ actor', {}],
    ['a batch', 400, '[{"query":"{ actor }"}]', {}],
    ['a body that is null', 400, 'null', {}],
    ['a body without a query', 400, '{}', {}],
    ['variables that are a list', 400, '{"query":"{ actor }","variables":[]}', {}],
    ['bytes that are not UTF-8', 400, Buffer.from([0x22, 0xff, 0xfe, 0x22]), {}],
    ['a form', 415, 'query=mutation{fail{id}}', { 'content-type': 'application/x-www-form-urlencoded' }],
    ['a multipart form', 415, '--x--', { 'content-type': 'multipart/form-data; boundary=x' }],
    ['plain text, which needs no preflight', 415, '{"query":"{ actor }"}', { 'content-type': 'text/plain' }],
    ['another charset', 415, '{"query":"{ actor }"}', { 'content-type': 'application/json; charset=latin1' }],
    ['a compressed body', 415, '{"query":"{ actor }"}', { 'content-encoding': 'gzip' }],
    ['a media type that there is not', 406, '{"query":"{ actor }"}', { accept: 'text/html' }],
  ];
  for (const [title, status, body, headers] of refusals)
    test(`refuses ${title} with ${status} and a typed error`, async () => {
      await using edge = await startEdge();
      const answer = await edge.post(body, headers);
      assert.equal(answer.status, status);
      assert.equal(code(answer), 'INVALID_INPUT');
    });

  test('refuses GET with variables that are not JSON', async () => {
    await using edge = await startEdge();
    const response = await fetch(`${edge.server.url}/graphql?query={actor}&variables={`, { headers: BEARER });
    assert.equal(response.status, 400);
    assert.equal(((await response.json()) as TestAnswer['body']).errors?.[0]?.extensions['code'], 'INVALID_INPUT');
  });

  test('takes the quality of media types into account', async () => {
    await using edge = await startEdge();
    const accept = 'application/json;q=0.5, application/graphql-response+json, text/html;q=0.9';
    const answer = await edge.ask('{ actor }', {}, { accept });
    assert.equal(answer.headers.get('content-type'), 'application/graphql-response+json; charset=utf-8');
  });

  test('lives on when a caller goes away in the middle of its body', async () => {
    await using edge = await startEdge({
      authenticate: async () => {
        request.destroy();
        return ADMIN;
      },
    });
    const logged = edge.nextLog('"status":499');
    const request = httpRequest(`${edge.server.url}/graphql`, {
      method: 'POST',
      headers: { ...BEARER, 'content-type': 'application/json', 'content-length': '1000' },
    });
    request.on('error', () => undefined);
    request.write('{"query":');
    await logged;
    assert.ok(!edge.logged.some((line) => line.includes('could not be answered')));
    assert.equal((await fetch(`${edge.server.url}/healthz`)).status, 200);
  });
});

suite('What goes wrong while a request runs', () => {
  test('masks what is not ours to show, with the request id that finds it in the log', async () => {
    await using edge = await startEdge();
    const answer = await edge.ask('{ bug }', {}, { 'x-request-id': 'ticket-4711-a' });
    assert.equal(answer.status, 200);
    assert.equal(answer.headers.get('x-request-id'), 'ticket-4711-a');
    assert.deepEqual(answer.body.errors?.[0]?.extensions, { code: 'INTERNAL', requestId: 'ticket-4711-a' });
    assert.ok(!JSON.stringify(answer.body).includes('canary'));
    const line = edge.logged.find((text) => text.includes('canary-internal-detail'));
    assert.ok(line?.includes('"requestId":"ticket-4711-a"'));
  });

  test('does not take a request id that could forge a log line', async () => {
    await using edge = await startEdge();
    for (const id of ['short', 'a'.repeat(81), 'with spaces in it', '"}{"level":60'])
      assert.notEqual((await edge.ask('{ actor }', {}, { 'x-request-id': id })).headers.get('x-request-id'), id);
  });

  test('is 503 in every media type when an outage left no data, and 200 when there is some', async () => {
    await using edge = await startEdge({ schema: outageSchema() });
    for (const accept of ['application/json', 'application/graphql-response+json']) {
      const nothing = await edge.ask('{ strict }', {}, { accept });
      assert.equal(nothing.status, 503);
      assert.equal(nothing.body.data, null);
      assert.equal(code(nothing), 'UNAVAILABLE');
      const some = await edge.ask('{ strict: hello loose }', {}, { accept });
      assert.equal(some.status, 200);
      assert.equal(code(some), 'UNAVAILABLE');
    }
  });

  test('ends a request that takes too long, and aborts its signal', async () => {
    await using edge = await startEdge({ limits: { requestMs: 50 } });
    const answer = await edge.ask('{ slow }');
    assert.equal(answer.status, 504);
    assert.equal(code(answer), 'TIMEOUT');
    assert.equal(edge.world.aborted, 1);
  });

  test('aborts the signal of a request whose caller is gone', async () => {
    await using edge = await startEdge();
    const stop = new AbortController();
    const reached = new Promise<void>((resolve) => {
      edge.world.reachedSlow = resolve;
    });
    const logged = edge.nextLog('"route":"/graphql"');
    const asked = fetch(`${edge.server.url}/graphql`, {
      method: 'POST',
      headers: { ...BEARER, 'content-type': 'application/json' },
      body: '{"query":"{ slow }"}',
      signal: stop.signal,
    });
    await reached;
    stop.abort();
    await assert.rejects(asked, { name: 'AbortError' });
    assert.match(await logged, /"status":499/);
    assert.equal(edge.world.aborted, 1);
  });

  test('writes no token, query string or body to the log', async () => {
    await using edge = await startEdge();
    await edge.ask('query($id: ID!) { box(id: $id) { id } }', { id: 'canary-variable' });
    await edge.ask('{ actor }', {}, { authorization: 'Bearer canary-token' });
    await edge.post('canary-body');
    await fetch(`${edge.server.url}/graphql?query={actor}&token=canary-query`, { headers: BEARER });
    await fetch(`${edge.server.url}/graphiql?token=canary-page`);
    assert.equal(edge.logged.filter((line) => line.includes('"msg":"request"')).length, 5);
    for (const secret of ['canary', 'secret-token']) assert.ok(!edge.logged.join('').includes(secret), secret);
  });
});
