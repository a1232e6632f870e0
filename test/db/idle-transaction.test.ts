import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { openPool } from '../../src/db/pool.ts';
import { freshDatabase, type TestDatabase } from '../support/database.ts';
import { insertZone } from '../support/world.ts';

describe('a transaction whose author has stopped', () => {
  let database: TestDatabase;

  before(async () => {
    database = await freshDatabase();
  });
  after(() => database.close());

  it('is ended by the server, so that its locks hold nobody up for long', async () => {
    const zone = await insertZone(database.db);
    const stopped = openPool(database.url, { connections: 1 });
    const connection = await stopped.promise().getConnection();
    // What a process leaves behind that is stopped between its guards and its COMMIT.
    await connection.query('START TRANSACTION');
    await connection.query("UPDATE zone SET name = 'held' WHERE id = ?", [zone.id]);

    const from = performance.now();
    for (let tries = 1; ; tries++) {
      try {
        await database.db.updateTable('zone').set({ name: 'free' }).where('id', '=', zone.id).execute();
        break;
      } catch (error) {
        assert.equal((error as { code?: string }).code, 'ER_LOCK_WAIT_TIMEOUT');
        assert.ok(tries < 4, 'the lock is held for ever');
      }
    }
    assert.ok(performance.now() - from < 6_000);
    // It continues, and finds its transaction gone.
    await assert.rejects(connection.query('COMMIT'));
    connection.destroy();
    await stopped.promise().end();
    const { name } = await database.db
      .selectFrom('zone')
      .select('name')
      .where('id', '=', zone.id)
      .executeTakeFirstOrThrow();
    assert.equal(name, 'free');
  });
});
