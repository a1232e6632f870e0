import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import pino from 'pino';
import { type Hostd, startHostd } from '../../hostd/daemon.ts';
import { ensureEstate, HOST } from '../../setup/first-run.ts';
import { ControlApi } from '../../setup/graphql.ts';
import { startControl } from '../../src/control.ts';
import { freshDatabase } from '../support/database.ts';

test('a first run that ended as its host joined is completed by the next, with the same host', async (t) => {
  const database = await freshDatabase();
  const folder = await mkdtemp(join(tmpdir(), 'vg-first-'));
  const adminTokenPath = join(folder, 'admin-token');
  const log = pino({ level: 'silent' });
  const control = await startControl({ databaseUrl: database.url, host: '127.0.0.1', port: 0, adminTokenPath, log });
  const token = (await readFile(adminTokenPath, 'utf8')).trim();
  const api = new ControlApi(control.http.url, token, new AbortController().signal);
  const hostd = (joinToken: string | null): Promise<Hostd> =>
    startHostd({
      urls: [control.http.secure!.url],
      name: HOST,
      hypervisor: 'fake',
      dataPath: join(folder, 'hostd'),
      joinToken: joinToken ?? undefined,
    });
  t.after(async () => {
    await api.close();
    await control.close();
    await database.close();
    await rm(folder, { recursive: true });
  });

  const { identities } = control.core;
  const register = identities.register.bind(identities);
  const written = Promise.withResolvers<void>();
  identities.register = async (...args) => {
    await register(...args);
    written.resolve();
    return new Promise(() => undefined);
  };
  const first = await hostd((await ensureEstate(api, folder)).joinToken);
  await written.promise;
  await first.kill();
  identities.register = register;

  const second = await hostd((await ensureEstate(api, folder)).joinToken);
  await second.linked();
  await second.close();
  const hosts = await control.core.db.selectFrom('host').select('name').execute();
  assert.deepEqual(hosts, [{ name: HOST }]);

  const { joinToken } = await ensureEstate(api, folder);
  assert.equal(joinToken, null);
  const third = await hostd(joinToken);
  await third.linked();
  await third.close();
});
