import assert from 'node:assert/strict';
import { mkdtemp, open, readdir, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import pino from 'pino';
import { startControl } from '../../src/control.ts';
import { readOrMakeSecret } from '../../src/db/secret-file.ts';
import { freshDatabase } from '../support/database.ts';

test('a secret that is made is on the disk, with its name, before it is used', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'vg-secret-'));
  t.after(() => rm(folder, { recursive: true }));
  const handle = await open(folder);
  const sync = t.mock.method(Object.getPrototypeOf(handle) as typeof handle, 'sync');
  await handle.close();
  const path = join(folder, 'key');
  assert.equal(await readOrMakeSecret(path, () => 'made'), 'made');
  assert.equal(sync.mock.callCount(), 2, 'the file and its folder');
  assert.equal(await readOrMakeSecret(path, () => 'another'), 'made');
  assert.equal((await stat(path)).mode & 0o777, 0o600);
  assert.deepEqual(await readdir(folder), ['key']);
});

test('an admin token file that holds nothing, or hardly anything, starts no control plane and lets nobody in', async (t) => {
  const database = await freshDatabase();
  const folder = await mkdtemp(join(tmpdir(), 'vg-secret-'));
  t.after(async () => {
    await database.close();
    await rm(folder, { recursive: true });
  });
  const adminTokenPath = join(folder, 'admin-token');
  for (const text of ['', '\n', 'root\n']) {
    await writeFile(adminTokenPath, text);
    const log = pino({ level: 'silent' });
    const starting = startControl({ databaseUrl: database.url, host: '127.0.0.1', port: 0, adminTokenPath, log });
    await assert.rejects(starting, /holds no admin token/);
  }
  assert.deepEqual(await database.db.selectFrom('api_token').select('id').execute(), []);
});
