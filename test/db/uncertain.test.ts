import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { createConnection, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import type { Core } from '../../src/core.ts';
import { Ids } from '../../src/db/ids.ts';
import { ANSWER_WITHIN, openDatabase, openPool } from '../../src/db/pool.ts';
import { emptyTransition, patch, plus, type Transition } from '../../src/db/transition.ts';
import { openCore } from '../support/core.ts';
import { freshDatabase, type TestDatabase } from '../support/database.ts';
import { insertZone } from '../support/world.ts';

/** Between a control plane and its database, so that answers can be lost on the way. */
describe('a database whose answer is lost', () => {
  let database: TestDatabase;
  let folder: string;
  let url: string;
  let core: Core;
  const sockets = new Set<Socket>();
  /** Sees what is sent, before it arrives: true, its answer is lost. */
  let loses: (sent: string | Buffer) => 'connection' | 'answer' | null = () => null;
  const server = createServer((client) => {
    const database = createConnection(socketOf(process.env['DATABASE_URL']!));
    let lose: ReturnType<typeof loses> = null;
    client.on('data', (data) => {
      lose ??= loses(data);
      database.write(data);
    });
    database.on('data', (data) => {
      if (lose === 'connection') client.destroy();
      else if (lose === null) client.write(data);
    });
    for (const [socket, other] of [
      [client, database],
      [database, client],
    ] as const) {
      sockets.add(socket);
      socket.on('error', () => other.destroy());
      socket.on('close', () => other.destroy());
    }
  });
  before(async () => {
    database = await freshDatabase();
    folder = await mkdtemp(join(tmpdir(), 'virtgraph-lost-'));
    server.listen(join(folder, 's'));
    await once(server, 'listening');
    const through = new URL(database.url);
    through.searchParams.set('socket', join(folder, 's'));
    url = through.href;
    core = await openCore(url);
  });
  after(async () => {
    await core.close();
    for (const socket of sockets) socket.destroy();
    server.close();
    await database.close();
    await rm(folder, { recursive: true });
  });

  const socketOf = (address: string): string => new URL(address).searchParams.get('socket')!;
  const losesOnce = (text: string, what: 'connection' | 'answer') => {
    loses = (sent) => {
      if (!sent.includes(text)) return null;
      loses = () => null;
      return what;
    };
  };
  const move = (id: number): Transition => ({
    ...emptyTransition(),
    writes: [patch('zone', id, { generation: 1 }, { generation: plus(1) })],
    changes: [{ kind: 'zone', id }],
  });

  for (const [what, expected] of [
    ['connection', /^stale$/],
    ['answer', /^PROTOCOL_SEQUENCE_TIMEOUT$/],
  ] as const) {
    it(`tells subscribers and the inventory of what was committed, where the ${what} was lost with the commit`, async () => {
      const zone = await insertZone(database.db);
      await core.inventory.load();
      losesOnce(';\nCOMMIT', what);
      const outcome = await core.writer.submit(move(zone.id)).then(
        (written) => written.kind,
        (error: { code: string }) => error.code,
      );
      assert.match(outcome, expected);
      await core.inventory.refresh();
      assert.equal(core.inventory.get('zone', zone.id)?.generation, 2);
    });
  }

  it('is not waited for without end by whoever needs an id', async () => {
    const pool = openPool(url, { connections: 1 });
    const ids = new Ids(openDatabase(pool, ANSWER_WITHIN));
    try {
      losesOnce('id_block', 'answer');
      await assert.rejects(ids.take(), { code: 'PROTOCOL_SEQUENCE_TIMEOUT' });
      assert.ok((await ids.take()) > 0);
    } finally {
      await pool.promise().end();
    }
  });
});
