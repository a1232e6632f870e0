import assert from 'node:assert/strict';
import { once } from 'node:events';
import { type IncomingMessage, request } from 'node:http';
import { suite, test } from 'node:test';
import type { Actor } from '../../src/domain/authorize.ts';
import { ADMIN, startEdge } from './http-fixture.ts';

const KINDS = {
  'a mutation': 'mutation { setBox(id: "a", value: 5) { id } }',
  'a stream': 'subscription { boxChangedAlone { id } }',
};

suite('Whoever sends slowly', () => {
  for (const [what, query] of Object.entries(KINDS))
    test(`is refused ${what} when his token is revoked before he has sent all`, async () => {
      const looked = Promise.withResolvers<void>();
      const tokens = new Map<string | null, Actor>([['a-token', ADMIN]]);
      await using edge = await startEdge({
        authenticate: async (token) => {
          looked.resolve();
          return tokens.get(token) ?? { kind: 'anonymous' };
        },
      });
      const body = JSON.stringify({ query });
      const accept = what === 'a stream' ? 'text/event-stream' : 'application/json';
      const headers = { authorization: 'Bearer a-token', 'content-type': 'application/json', accept };
      const sent = request(`${edge.server.url}/graphql`, {
        method: 'POST',
        headers: { ...headers, 'content-length': Buffer.byteLength(body) },
      });
      sent.write(body.slice(0, 10));
      await looked.promise;
      tokens.clear();
      edge.server.revoke(() => true);
      sent.end(body.slice(10));
      const [response] = (await once(sent, 'response')) as [IncomingMessage];
      let text = '';
      for await (const chunk of response) text += chunk;
      assert.match(text, /UNAUTHENTICATED/);
      assert.equal(edge.world.boxes.size, 0);
      assert.equal(edge.world.openSources, 0);
    });

  test('hears of no event of a stream that was revoked while it was opened', async () => {
    const opening = Promise.withResolvers<void>();
    await using edge = await startEdge();
    const { source } = edge.world;
    edge.world.source = (only) => {
      edge.server.revoke(() => true);
      opening.resolve();
      return source.call(edge.world, only);
    };
    edge.world.set('a', 1);
    const response = await fetch(`${edge.server.url}/graphql`, {
      method: 'POST',
      headers: {
        authorization: 'Bearer secret-token',
        'content-type': 'application/json',
        accept: 'text/event-stream',
      },
      body: JSON.stringify({ query: 'subscription { boxChangedAlone { value } }' }),
      signal: AbortSignal.timeout(10_000),
    });
    await opening.promise;
    assert.doesNotMatch(await response.text(), /"value"/);
    assert.equal(edge.world.openSources, 0);
  });
});
