import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Duplex } from 'node:stream';
import { after, before, describe, it } from 'node:test';
import { WebSocketServer } from 'ws';
import type { Core } from '../../src/core.ts';
import { PeerHostAgent } from '../../src/hosts/peer-agent.ts';
import { openCore } from '../support/core.ts';
import { freshDatabase, type TestDatabase } from '../support/database.ts';
import { insertWorld, type World } from '../support/world.ts';

describe('a control plane that holds the link of a host', () => {
  let database: TestDatabase;
  let world: World;
  let core: Core;
  const sockets = new Set<Duplex>();
  /** How far it comes before it is stopped: 1, the socket is open; 2, so is the session. */
  let speaks = 0;
  const protocol = new WebSocketServer({ noServer: true });
  const server = createServer().on('upgrade', (request, socket, head) => {
    sockets.add(socket);
    if (speaks === 0) return;
    protocol.handleUpgrade(request, socket, head, (opened) => {
      opened.once('message', () => {
        if (speaks === 2) opened.send(JSON.stringify({ type: 'connection_ack' }));
      });
    });
  });
  before(async () => {
    database = await freshDatabase();
    world = await insertWorld(database.db);
    core = await openCore(database.url);
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address() as AddressInfo;
    const id = randomUUID();
    const row = { id, url: `http://127.0.0.1:${port}`, peer_secret: 'x'.repeat(43), seen_at: new Date() };
    await database.db.insertInto('control_process').values(row).execute();
    await database.db.updateTable('host').set({ link_process: id }).execute();
  });
  after(async () => {
    for (const socket of protocol.clients) socket.terminate();
    server.closeAllConnections();
    server.close();
    await core.close();
    await database.close();
  });

  const ask = async (): Promise<void> => {
    const agent = new PeerHostAgent(database.db, core.links, core.linkedAgent, 100);
    await assert.rejects(agent.screenshot(world.hosts[0]!.id, Buffer.alloc(16)), { code: 'HOST_UNREACHABLE' });
    assert.equal(sockets.size, 1, 'it was asked');
    await agent.close();
    sockets.clear();
  };

  for (const [when, answers] of [
    ['when it is called', 0],
    ['when it has been called', 1],
    ['when it is asked', 2],
  ] as const) {
    it(`and says nothing ${when}, as one that was stopped, is not waited for without end`, async () => {
      speaks = answers;
      await ask();
    });
  }
});
