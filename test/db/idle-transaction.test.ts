import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { sql } from 'kysely';
import { LOCKS_BEGIN, locking, openDatabase, openPool } from '../../src/db/pool.ts';
import { freshDatabase, type TestDatabase } from '../support/database.ts';
import { insertZone } from '../support/world.ts';

describe('a transaction whose author has stopped', () => {
  let database: TestDatabase;

  before(async () => {
    database = await freshDatabase();
  });
  after(() => database.close());

  /** Tries until nobody holds the row any more. */
  async function free(zone: number): Promise<void> {
    for (let tries = 1; ; tries++) {
      try {
        await database.db
          .updateTable('zone')
          .set({ name: `free-${zone}` })
          .where('id', '=', zone)
          .execute();
        return;
      } catch (error) {
        assert.equal((error as { code?: string }).code, 'ER_LOCK_WAIT_TIMEOUT');
        assert.ok(tries < 4, 'the lock is held for ever');
      }
    }
  }
  const nameOf = async (zone: number): Promise<string> =>
    (await database.db.selectFrom('zone').select('name').where('id', '=', zone).executeTakeFirstOrThrow()).name;

  it('is ended by the server, so that its locks hold nobody up for long', async () => {
    const zone = await insertZone(database.db);
    const stopped = openPool(database.url, { connections: 1 });
    const connection = await stopped.promise().getConnection();
    try {
      // What a process leaves behind that is stopped between its guards and its COMMIT.
      await connection.query(LOCKS_BEGIN);
      await connection.query('START TRANSACTION');
      await connection.query("UPDATE zone SET name = 'held' WHERE id = ?", [zone.id]);

      const from = performance.now();
      await free(zone.id);
      assert.ok(performance.now() - from < 6_000);
      // It continues, and finds its transaction gone.
      await assert.rejects(connection.query('COMMIT'));
      assert.equal(await nameOf(zone.id), `free-${zone.id}`);
    } finally {
      connection.destroy();
      await stopped.promise().end();
    }
  });

  it('is given up the same way beside the writer, and a session is at ease again after it', async () => {
    const zone = await insertZone(database.db);
    const pool = openPool(database.url, { connections: 1 });
    const db = openDatabase(pool);
    try {
      const patience = async (): Promise<number> => {
        const { rows } = await sql<{ seconds: number }>`SELECT @@wait_timeout AS seconds`.execute(db);
        return Number(rows[0]!.seconds);
      };
      const before = await patience();
      await assert.rejects(
        locking(db, async (tx) => {
          await tx.updateTable('zone').set({ name: 'held' }).where('id', '=', zone.id).execute();
          throw new Error('changed its mind');
        }),
        /changed its mind/,
      );
      assert.equal(await patience(), before);

      const late = locking(db, async (tx) => {
        await tx.updateTable('zone').set({ name: 'held' }).where('id', '=', zone.id).execute();
        await free(zone.id);
      });
      await assert.rejects(late);
      assert.equal(await nameOf(zone.id), `free-${zone.id}`);
    } finally {
      await db.destroy();
    }
  });
});
