import assert from 'node:assert/strict';
import { once } from 'node:events';
import { get, type IncomingMessage } from 'node:http';
import { describe, test } from 'node:test';
import { actorName, type UserActor } from '../../src/domain/authorize.ts';
import type { Download } from '../../src/http/download.ts';
import { startEdge } from './http-fixture.ts';

const USER: UserActor = {
  kind: 'user',
  userId: 1,
  credential: { kind: 'api_key', id: 1 },
  accountId: 7,
  domainPath: '/1/',
  name: 'acme/anna',
  roleIds: [],
  reach: 'ACCOUNT',
  projects: new Map(),
  permissions: new Set(),
};
const PIECE = 'x'.repeat(65_536);
const PIECES = 4_000;

/** A long download that tells how much of it was asked for, and when it ends. */
function longOne(fail?: number) {
  const ended = Promise.withResolvers<void>();
  const state = { pulled: 0, ended: ended.promise };
  const download: Download = {
    path: '/long',
    mediaType: 'text/plain',
    fileName: 'long.txt',
    cost: 1,
    async *open() {
      try {
        while (state.pulled < PIECES) {
          if (state.pulled === fail) throw new Error('the database went away');
          state.pulled++;
          yield PIECE;
        }
      } finally {
        ended.resolve();
      }
    },
  };
  return { download, state };
}

const begin = async (url: string): Promise<IncomingMessage> => {
  const request = get(`${url}/long`, { headers: { authorization: 'Bearer secret-token' } });
  const [response] = (await once(request, 'response')) as [IncomingMessage];
  return response;
};

describe('a download', () => {
  test('is read no faster than its client takes it', async () => {
    const { download, state } = longOne();
    await using edge = await startEdge({ downloads: [download] });
    const response = await begin(edge.server.url);
    await once(response, 'readable');
    // Each is a turn of the server's loop, in which it could go on.
    for (let turn = 0; turn < 100; turn++) await (await fetch(`${edge.server.url}/healthz`)).text();
    assert.ok(state.pulled < PIECES / 4, `${state.pulled} pieces were read for a client that takes none`);
    let bytes = 0;
    for await (const piece of response) bytes += (piece as Buffer).length;
    assert.equal(bytes, PIECES * PIECE.length);
  });

  test('ends when its client goes away', async () => {
    const { download, state } = longOne();
    await using edge = await startEdge({ downloads: [download] });
    const response = await begin(edge.server.url);
    response.destroy();
    await state.ended;
    assert.ok(state.pulled < PIECES);
  });

  test('ends when its token is revoked', async () => {
    const { download, state } = longOne();
    await using edge = await startEdge({ downloads: [download] });
    const response = await begin(edge.server.url);
    edge.server.revoke(() => true);
    await state.ended;
    await assert.rejects(async () => {
      for await (const _ of response);
    });
  });

  test('is a use of its token like any other, and paid for', async () => {
    const { download } = longOne();
    const used: string[] = [];
    await using edge = await startEdge({
      downloads: [{ ...download, cost: 3 }],
      limits: { costPerMinute: 5 },
      used: (actor) => used.push(actorName(actor)),
    });
    edge.tokens.set('secret-token', USER);
    const first = await begin(edge.server.url);
    assert.deepEqual([first.statusCode, used], [200, ['acme/anna']]);
    first.destroy();
    const second = await begin(edge.server.url);
    assert.equal(second.statusCode, 429);
    second.resume();
  });

  test('is not begun when its token is revoked while the first piece is being read', async () => {
    const { download, state } = longOne();
    await using edge = await startEdge({
      downloads: [
        {
          ...download,
          async *open(...args) {
            edge.server.revoke(() => true);
            yield* download.open(...args);
          },
        },
      ],
    });
    const response = await begin(edge.server.url);
    assert.equal(response.statusCode, 401);
    response.resume();
    await state.ended;
  });

  test('is cut off, not ended, by a fault on its way, and answered with it before the first line', async () => {
    for (const fail of [3, 0]) {
      const { download, state } = longOne(fail);
      await using edge = await startEdge({ downloads: [download] });
      const response = await begin(edge.server.url);
      if (fail === 0) {
        assert.equal(response.statusCode, 500);
        response.resume();
      } else
        await assert.rejects(async () => {
          for await (const _ of response);
        });
      await state.ended;
    }
  });
});
