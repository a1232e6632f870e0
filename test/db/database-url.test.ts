import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { createInterface } from 'node:readline';
import { text } from 'node:stream/consumers';
import { after, before, describe, it } from 'node:test';
import { databaseUrlProblem } from '../../src/db/database-url.ts';
import { freshDatabase } from '../support/database.ts';

const MAIN = resolve(import.meta.dirname, '../../src/main.ts');

describe('the URL of the database', () => {
  let folder: string;
  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'vg-url-'));
  });
  after(() => rm(folder, { recursive: true }));

  function control(databaseUrl: string): ChildProcess & { stdout: NonNullable<ChildProcess['stdout']> } {
    const env = { ...process.env, DATABASE_URL: databaseUrl, VIRTGRAPH_DATA: folder };
    return spawn(process.execPath, [MAIN, '--port', '0'], { env, stdio: ['ignore', 'pipe', 'pipe'] });
  }

  it('is that of a MariaDB or MySQL, under either name', () => {
    for (const url of ['mysql://root@localhost/x?socket=/s', 'mariadb://a:b@db.example:3306/virtgraph'])
      assert.equal(databaseUrlProblem('DATABASE_URL', url), null, url);
    for (const url of ['postgres://a:secret@b/c', 'http://a:secret@b', 'a:secret@b/c', 'secret', ''])
      assert.match(
        databaseUrlProblem('DATABASE_URL', url)!,
        /^DATABASE_URL is not the URL of .*: mysql:(?!.*secret)/,
        url,
      );
  });

  it('of another database ends the control plane with 2 at once', async () => {
    const refused = control('postgres://root:secret@localhost/x');
    const [out, complaints, [code]] = await Promise.all([
      text(refused.stdout),
      text(refused.stderr!),
      once(refused, 'exit'),
    ]);
    assert.deepEqual([code, out], [2, '']);
    assert.match(complaints, /^DATABASE_URL is not the URL of a MariaDB or MySQL: mysql:.*\n\nUsage: /);
    assert.ok(!complaints.includes('secret'));
  });

  it('may say mariadb', async (t) => {
    const database = await freshDatabase();
    t.after(() => database.close());
    const served = control(database.url.replace(/^mysql:/, 'mariadb:'));
    t.after(() => served.kill('SIGKILL'));
    const exit = once(served, 'exit');
    const complaints = text(served.stderr!);
    const { value } = await createInterface({ input: served.stdout })[Symbol.asyncIterator]().next();
    assert.match(String(value), /^\{"ready":true/, value === undefined ? await complaints : '');
    served.kill('SIGTERM');
    assert.deepEqual(await exit, [0, null]);
  });
});
