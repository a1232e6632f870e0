import assert from 'node:assert/strict';
import { mkdir, mkdtemp, readdir, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, test } from 'node:test';
import { createConnection, type RowDataPacket } from 'mysql2/promise';
import { runningMariaDb, startMariaDb } from '../../setup/mariadb.ts';

const folder = await mkdtemp(join(tmpdir(), 'virtgraph-mariadb-'));
after(() => rm(folder, { recursive: true }));

async function query(socketPath: string, sql: string): Promise<RowDataPacket[]> {
  const connection = await createConnection({ socketPath, user: 'root', database: 'virtgraph' });
  try {
    const [rows] = await connection.query<RowDataPacket[]>(sql);
    return rows;
  } finally {
    await connection.end();
  }
}

test('the database is private, durable and in the settings that the product relies on', async (t) => {
  const server = await startMariaDb(join(folder, 'settings'));
  t.after(() => server.stop());
  const [settings] = await query(
    server.socketPath,
    `SELECT @@skip_networking network, @@innodb_flush_log_at_trx_commit flush, @@innodb_autoinc_lock_mode autoinc,
       @@tx_isolation isolation, @@max_allowed_packet packet, @@character_set_database charset,
       @@collation_database collation, @@local_infile inward`,
  );
  assert.deepEqual(settings, {
    network: 1,
    flush: 1,
    autoinc: 2,
    isolation: 'READ-COMMITTED',
    packet: 64 * 2 ** 20,
    charset: 'utf8mb4',
    collation: 'utf8mb4_bin',
    inward: 0,
  });
  assert.equal((await stat(join(folder, 'settings'))).mode & 0o777, 0o700);
  const url = new URL(server.url);
  assert.equal(url.pathname, '/virtgraph');
  assert.equal(url.searchParams.get('socket'), server.socketPath);
});

test('after kill -9 the next start finds what was committed', async () => {
  const home = join(folder, 'killed');
  const first = await startMariaDb(home);
  await query(first.socketPath, 'CREATE TABLE kept (id INT PRIMARY KEY)');
  await query(first.socketPath, 'INSERT INTO kept VALUES (7)');
  process.kill(first.pid, 'SIGKILL');
  await first.ended;
  assert.equal(await runningMariaDb(home), null);

  const second = await startMariaDb(home);
  assert.notEqual(second.pid, first.pid);
  assert.deepEqual(await query(second.socketPath, 'SELECT id FROM kept'), [{ id: 7 }]);
  await second.stop();
  await second.stop();
  await second.ended;
});

test('a server that runs already is taken over, and ends for both when one stops it', async () => {
  const home = join(folder, 'shared');
  const first = await startMariaDb(home);
  const second = await startMariaDb(home);
  assert.equal(second.pid, first.pid);
  await second.stop();
  await first.ended;
  assert.equal(await runningMariaDb(home), null);
});

test('a data path that is too long for a socket gets a short folder of its own', async () => {
  const home = join(folder, 'long-'.repeat(24));
  const server = await startMariaDb(home);
  assert.ok(!server.socketPath.startsWith(home));
  assert.ok(Buffer.byteLength(server.socketPath) < 108);
  assert.deepEqual(await query(server.socketPath, 'SELECT 1 one'), [{ one: 1 }]);
  await server.stop();
  await assert.rejects(stat(dirname(server.socketPath)), { code: 'ENOENT' });
});

test('an interrupted initialisation is begun again', async () => {
  const home = join(folder, 'interrupted');
  await mkdir(join(home, 'data.new', 'mysql'), { recursive: true });
  await writeFile(join(home, 'data.new', 'ibdata1'), 'half');
  const server = await startMariaDb(home);
  await server.stop();
  assert.ok(!(await readdir(home)).includes('data.new'));
});

test('data that the server refuses is an error with the reason from its log', async () => {
  const home = join(folder, 'damaged');
  await mkdir(join(home, 'data'), { recursive: true });
  await writeFile(join(home, 'data', 'ibdata1'), 'not a database');
  await assert.rejects(startMariaDb(home), /MariaDB did not start.\n.*ib_logfile0 was not found/s);
  assert.equal(await runningMariaDb(home), null);
});
