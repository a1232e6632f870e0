import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { auditCounters } from '../../src/loops/audit.ts';
import { freshDatabase, type TestDatabase } from '../support/database.ts';
import { insertVm, insertVolume, insertWorld, type World } from '../support/world.ts';

describe('the audit of counters', () => {
  let database: TestDatabase;
  let world: World;
  before(async () => {
    database = await freshDatabase();
    world = await insertWorld(database.db, { hosts: 1 });
  });
  after(() => database.close());

  it('says what differs from what it counts, and nothing else', async () => {
    const { db } = database;
    assert.deepEqual(await auditCounters(db), []);
    const host = world.hosts[0]!;
    const placed = { state: 'RUNNING', host_id: host.id } as const;
    const [reserved, placeless] = [await insertVm(db, world, placed), await insertVm(db, world, placed)];
    const gone = await insertVm(db, world);
    await db
      .insertInto('reservation')
      .values([reserved, gone].map(({ id }) => ({ vm_id: id, host_id: host.id, vcpus: 2, memory_mib: 128 })))
      .execute();
    await db.updateTable('host').set({ vcpus_used: 3, memory_used_mib: 256 }).execute();
    await insertVolume(db, world, reserved, { size_bytes: 2 ** 30 });
    assert.deepEqual(await auditCounters(db), [
      { what: 'host vCPUs', id: host.id, counted: 3, actual: 4 },
      { what: 'storage bytes', id: world.storage.id, counted: 0, actual: 2 ** 30 },
      { what: 'VMs without reservation', id: placeless.id, counted: 0, actual: 1 },
      { what: 'reservations without VM', id: gone.id, counted: 1, actual: 0 },
    ]);
  });
});
