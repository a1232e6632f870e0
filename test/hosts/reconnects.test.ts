import assert from 'node:assert/strict';
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import pino from 'pino';
import { startHostd } from '../../hostd/daemon.ts';
import { startControl } from '../../src/control.ts';
import { encodeId } from '../../src/domain/ids.ts';
import { ADMIN } from '../support/core.ts';
import { freshDatabase } from '../support/database.ts';
import { insertWorld } from '../support/world.ts';

const WARM_UP = 50;
const RECONNECTS = 200;
/** A fiftieth of a MiB for each: what is kept by mistake grows with every reconnect, and noise does not. */
const GROWTH_AT_MOST = 4 * 1024 * 1024;

setFlagsFromString('--expose-gc');
const collect = runInNewContext('gc') as () => void;

test('a host that comes back again and again leaves neither handles nor memory behind, on either side', async (t) => {
  const database = await freshDatabase();
  const world = await insertWorld(database.db, { hosts: 0 });
  const folder = await mkdtemp(join(tmpdir(), 'vg-reconnects-'));
  const control = await startControl({
    databaseUrl: database.url,
    host: '127.0.0.1',
    port: 0,
    adminTokenPath: join(folder, 'admin-token'),
    log: pino({ level: 'silent' }),
  });
  const { core } = control;
  const clusterId = encodeId('cluster', world.cluster.uid);
  const { token } = await core.ops.createHostJoinToken(ADMIN, { clusterId });
  // Silence is longer than the test: every session ends because its link is cut, and the next begins at once.
  const hostd = await startHostd({
    urls: [control.http.secure!.url],
    name: 'again',
    joinToken: token!,
    hypervisor: 'fake',
    timing: { backoff: { minMs: 0, maxMs: 0 } },
  });
  t.after(async () => {
    await hostd.close();
    await control.close();
    await database.close();
    await rm(folder, { recursive: true });
  });
  await hostd.linked();
  const { id } = await core.db.selectFrom('host').select('id').executeTakeFirstOrThrow();
  const warnings: Error[] = [];
  const warned = (warning: Error): void => void warnings.push(warning);
  process.on('warning', warned);
  t.after(() => process.off('warning', warned));

  async function reconnect(times: number): Promise<void> {
    for (let i = 0; i < times; i++) {
      const { promise, resolve } = Promise.withResolvers<void>();
      const { attach } = core.links;
      core.links.attach = (...args) => {
        core.links.attach = attach;
        const link = attach.apply(core.links, args);
        resolve();
        return link;
      };
      core.links.cut(id);
      await promise;
    }
  }
  async function held(): Promise<{ handles: number; heap: number }> {
    // What was closed a moment ago is gone a turn of the loop later.
    await core.feed.catchUp();
    await new Promise((resolve) => setImmediate(resolve));
    collect();
    return { handles: (await readdir('/proc/self/fd')).length, heap: process.memoryUsage().heapUsed };
  }

  await reconnect(WARM_UP);
  const before = await held();
  await reconnect(RECONNECTS);
  const after = await held();
  assert.ok(after.handles - before.handles < 20, `${before.handles} handles became ${after.handles}`);
  const grown = after.heap - before.heap;
  assert.ok(grown < GROWTH_AT_MOST, `${Math.round(grown / 1024)} KiB more after ${RECONNECTS} reconnects`);
  assert.equal(core.links.size, 1);
  assert.deepEqual(warnings, []);
});
