import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { Inventory } from '../../src/db/inventory.ts';
import { hold, takeHost, takeStorage } from '../../src/db/transition.ts';
import { freshDatabase, type TestDatabase } from '../support/database.ts';
import { insertHost, insertWorld, insertZone, type World } from '../support/world.ts';

describe('the inventory', () => {
  let database: TestDatabase;
  let world: World;
  let inventory: Inventory;
  before(async () => {
    database = await freshDatabase();
    world = await insertWorld(database.db);
    inventory = new Inventory(database.db);
    await inventory.load();
  });
  after(() => database.close());

  const host = () => [...inventory.placementHosts()].find((h) => h.id === world.hosts[0]!.id)!;
  const storage = () => [...inventory.placementStorages()][0]!;
  const set = (table: 'host' | 'cluster' | 'zone', id: number, values: Record<string, unknown>) =>
    database.db
      .updateTable(table as 'host')
      .set(values)
      .where('id', '=', id)
      .execute();

  it('holds what is there, by number and by public id', () => {
    assert.equal(inventory.get('zone', world.zone.id)?.id, world.zone.id);
    assert.equal(inventory.byUid('template', world.template.uid)?.id, world.template.id);
    assert.equal(inventory.get('host', 1), undefined);
    assert.ok(inventory.hasCopy(world.template.id, world.storage.id));
    assert.ok(!inventory.hasCopy(world.template.id, 1));
  });

  it('follows changes that it is told of, and only those', async () => {
    const { id } = world.hosts[0]!;
    await set('host', id, { vcpus_used: 4 });
    assert.equal(host().vcpusFree, 64);
    inventory.changed([{ kind: 'host', id }]);
    await inventory.refresh();
    assert.equal(host().vcpusFree, 60);
    await set('host', id, { vcpus_used: 0 });
    inventory.changed([
      { kind: 'host', id },
      { kind: 'vm', id: 1 },
    ]);
    await inventory.refresh();
    assert.equal(host().vcpusFree, 64);
  });

  it('sees what comes and what goes', async () => {
    const fresh = await insertHost(database.db, world);
    inventory.changed([{ kind: 'host', id: fresh.id }]);
    await inventory.refresh();
    assert.ok(inventory.byUid('host', fresh.uid));
    await set('host', fresh.id, { deleted_at: new Date() });
    inventory.changed([{ kind: 'host', id: fresh.id }]);
    await inventory.refresh();
    assert.equal(inventory.get('host', fresh.id), undefined);
    assert.equal(inventory.byUid('host', fresh.uid), undefined);
  });

  it('sees a change that comes while it reads', async () => {
    const { id } = world.hosts[0]!;
    inventory.changed([{ kind: 'host', id }]);
    const first = inventory.refresh();
    await set('host', id, { memory_used_mib: 1_024 });
    inventory.changed([{ kind: 'host', id }]);
    await Promise.all([first, inventory.refresh()]);
    assert.equal(host().memoryFreeMib, 262_144 - 1_024);
    await set('host', id, { memory_used_mib: 0 });
    await inventory.load();
  });

  it('keeps what has come while it read everything anew', async () => {
    const answered = Promise.withResolvers<void>();
    const letGo = Promise.withResolvers<void>();
    let reads = 0;
    const slow = new Inventory(
      database.db.withPlugin({
        transformQuery: ({ node }) => node,
        async transformResult({ result }) {
          // The zones, as they were before.
          if (++reads > 1) return result;
          answered.resolve();
          await letGo.promise;
          return result;
        },
      }),
    );
    const loaded = slow.load();
    await answered.promise;
    const zone = await insertZone(database.db);
    slow.changed([{ kind: 'zone', id: zone.id }]);
    const roundTrips = async () => {
      for (let n = 0; n < 5; n++) await database.db.selectFrom('feed_head').selectAll().execute();
    };
    await Promise.race([slow.refresh(), roundTrips()]);
    letGo.resolve();
    await Promise.all([loaded, slow.refresh()]);
    assert.ok(slow.get('zone', zone.id) && slow.byUid('zone', zone.uid));
  });

  it('knows a host under a disabled parent', async () => {
    for (const [table, { id }] of [
      ['cluster', world.cluster],
      ['zone', world.zone],
    ] as const) {
      await set(table, id, { wanted_state: 'DISABLED' });
      inventory.changed([{ kind: table, id }]);
      await inventory.refresh();
      assert.equal(host().parentsEnabled, false, table);
      await set(table, id, { wanted_state: 'ENABLED' });
      inventory.changed([{ kind: table, id }]);
      await inventory.refresh();
      assert.equal(host().parentsEnabled, true, table);
    }
  });

  it('counts room that is about to be taken, and gives it back when it was not', () => {
    const room = { vcpus: 2, memoryMib: 256, bytes: 2 ** 30 };
    const free = [host().vcpusFree, host().memoryFreeMib, storage().bytesFree] as const;
    const settle = inventory.reserve({ host: world.hosts[0]!.id, storage: world.storage.id }, room);
    const taken = [free[0] - 2, free[1] - 256, free[2] - 2 ** 30];
    assert.deepEqual([host().vcpusFree, host().memoryFreeMib, storage().bytesFree], taken);
    settle(false);
    assert.deepEqual([host().vcpusFree, host().memoryFreeMib, storage().bytesFree], free);
    inventory.reserve({ host: world.hosts[0]!.id, storage: world.storage.id }, room)(true);
    assert.deepEqual(
      [host().vcpusFree, host().memoryFreeMib, storage().bytesFree],
      taken,
      'until the row is read anew',
    );
  });

  it('reads anew what a refused transition relied on, although nobody has told of it', async () => {
    await inventory.load();
    await set('host', world.hosts[0]!.id, { vcpus_used: 64 });
    await set('zone', world.zone.id, { wanted_state: 'DISABLED' });
    await inventory.doubt([
      takeHost(world.hosts[0]!.id, 1, 1),
      takeStorage(world.storage.id, 1),
      hold('zone', world.zone.id),
    ]);
    assert.equal(host().vcpusFree, 0);
    assert.equal(inventory.get('zone', world.zone.id)?.wanted_state, 'DISABLED');
    await set('host', world.hosts[0]!.id, { vcpus_used: 63 });
    await inventory.recount();
    assert.equal(host().vcpusFree, 1);
  });

  it('keeps what it could not read, and reads it with the next call', async () => {
    const { id } = world.hosts[0]!;
    await set('host', id, { vcpus_used: 7 });
    const name = `${database.url.slice(database.url.lastIndexOf('/test_') + 1).split('?')[0]}`;
    await database.pool.promise().query(`RENAME TABLE ${name}.host TO ${name}.host_away`);
    inventory.changed([{ kind: 'host', id }]);
    await inventory.refresh();
    await database.pool.promise().query(`RENAME TABLE ${name}.host_away TO ${name}.host`);
    assert.equal(host().vcpusFree, 1);
    await inventory.refresh();
    assert.equal(host().vcpusFree, 57);
  });
});
