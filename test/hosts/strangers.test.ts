import assert from 'node:assert/strict';
import { once } from 'node:events';
import { type TestContext, test } from 'node:test';
import { WebSocket } from 'ws';
import { CONTROL_PLANE_NAME } from '../../hostd/connection.ts';
import { certificateRequest, newHostKey } from '../../hostd/host-key.ts';
import type { Limits } from '../../src/http/limits.ts';
import { startEdge, testSchema } from '../api/http-fixture.ts';
import { TestAuthority } from '../support/test-authority.ts';

interface Shown {
  key: string;
  cert: string;
}

async function certified(by: TestAuthority): Promise<Shown> {
  const key = await newHostKey();
  return { key, cert: await by.ofHost('host', await certificateRequest(key)) };
}

/** @returns what opens a WebSocket at the port of hosts, with what is shown there, and waits until it is open */
async function aPort(t: TestContext, limits: Partial<Limits>) {
  const authority = await TestAuthority.make();
  const { cert, key } = await authority.ofControlPlane();
  const program = { path: '/hostd', schema: testSchema(), contextFor: async () => ({}) };
  const edge = await startEdge({
    limits: { connectionInitMs: 60_000, ...limits },
    secure: {
      ...{ host: '127.0.0.1', port: 0, programs: [program] },
      ...{ certificate: { cert, key }, authority: authority.certificate },
    },
  });
  t.after(() => edge.server.close());
  const tls = { ca: authority.certificate, servername: CONTROL_PLANE_NAME };
  const open = async (shown?: Shown): Promise<WebSocket> => {
    const url = `${edge.server.secure!.url.replace('https', 'wss')}/hostd`;
    const socket = new WebSocket(url, 'graphql-transport-ws', { ...tls, ...shown });
    await once(socket, 'open');
    return socket;
  };
  return { edge, authority, open };
}

test('who shows no certificate, or that of another authority, gets one of few places, and takes none from hosts', async (t) => {
  const { edge, authority, open } = await aPort(t, { strangers: 2 });
  const other = await certified(await TestAuthority.make());
  const first = await open();
  await open(other);
  for (const shown of [undefined, other]) {
    const told = edge.nextLog('too many connections to the port of hosts show no certificate');
    await assert.rejects(open(shown));
    assert.match(await told, /"address":"127\.0\.0\.1"/);
  }
  const host = await certified(authority);
  for (let n = 0; n < 3; n++) await open(host);
  first.close();
  await once(first, 'close');
  await open();
});

test('who shows no certificate is cut after a while, whatever he does, and a host is not', async (t) => {
  const { authority, open } = await aPort(t, { strangerMs: 200 });
  const host = await open(await certified(authority));
  const stranger = await open();
  const chatter = setInterval(() => stranger.ping(), 20);
  t.after(() => clearInterval(chatter));
  const [code] = await once(stranger, 'close');
  assert.equal(code, 1006);
  // It was there before, so its time would have been over.
  host.ping();
  await once(host, 'pong');
});
