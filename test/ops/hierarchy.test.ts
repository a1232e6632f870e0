import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import type { Core } from '../../src/core.ts';
import { encodeId, type ResourceKind } from '../../src/domain/ids.ts';
import type { Payload } from '../../src/ops/context.ts';
import { ADMIN, beforeNextWrite, follow, openCore } from '../support/core.ts';
import { freshDatabase, type TestDatabase } from '../support/database.ts';
import {
  insertHost,
  insertVm,
  insertVolume,
  insertWorld,
  insertZone,
  type Placed,
  type World,
} from '../support/world.ts';

describe('the hierarchy', () => {
  let database: TestDatabase;
  let world: World;
  let core: Core;
  let other: Core;
  let unfollow: () => Promise<void>;
  before(async () => {
    database = await freshDatabase();
    world = await insertWorld(database.db, { hosts: 2 });
    core = await openCore(database.url);
    other = await openCore(database.url);
    unfollow = follow(core, other);
  });
  after(async () => {
    await unfollow();
    await other.close();
    await core.close();
    await database.close();
  });

  const idOf = (kind: ResourceKind, row: Placed) => ({ id: encodeId(kind, row.uid) });
  const ok = (payload: Payload): number => {
    assert.deepEqual(payload.errors, []);
    return payload.id!;
  };
  const zoneRow = (id: number) =>
    database.db.selectFrom('zone').selectAll().where('id', '=', id).executeTakeFirstOrThrow();
  const events = (kind: string, id: number) =>
    database.db
      .selectFrom('event')
      .select(['type', 'actor', 'reason', 'changes'])
      .where('subject_kind', '=', kind as 'zone')
      .where('subject_id', '=', id)
      .orderBy('seq')
      .execute();

  it('is not deleted while something is inside, and says what, by name', async () => {
    const vm = await insertVm(database.db, world, { name: 'db 1', host_id: world.hosts[0]!.id, state: 'RUNNING' });
    await insertVolume(database.db, world, vm, { name: 'db 1 root' });
    const names = async (table: 'pod' | 'cluster' | 'template' | 'primary_storage') =>
      (await database.db.selectFrom(table).select('name').execute())[0]!.name;
    const hostNames = (await database.db.selectFrom('host').select('name').orderBy('id').execute())
      .map((h) => h.name)
      .join(', ');
    const expected: [keyof Core['ops'], ResourceKind, Placed, string][] = [
      [
        'deleteZone',
        'zone',
        world.zone,
        `1 pod (${await names('pod')}), 1 template (${await names('template')}) and 1 VM (db 1).`,
      ],
      ['deletePod', 'pod', world.pod, `1 cluster (${await names('cluster')}).`],
      [
        'deleteCluster',
        'cluster',
        world.cluster,
        `2 hosts (${hostNames}), 1 primary storage (${await names('primary_storage')}) and 1 VM (db 1).`,
      ],
      ['deleteHost', 'host', world.hosts[0]!, '1 VM (db 1).'],
      ['deletePrimaryStorage', 'primary_storage', world.storage, '1 volume (db 1 root).'],
      ['deleteOffering', 'offering', world.offering, '1 VM (db 1).'],
      ['deleteTemplate', 'template', world.template, '1 VM (db 1).'],
    ];
    for (const [mutation, kind, row, inside] of expected) {
      const payload = await core.ops[mutation as 'deleteZone'](ADMIN, idOf(kind, row));
      assert.deepEqual([payload.errors[0]?.code, payload.errors[0]?.path], ['NOT_EMPTY', ['id']], mutation);
      assert.ok(payload.errors[0]!.message.endsWith(` still has ${inside}`), payload.errors[0]!.message);
    }
    ok(await core.ops.deleteHost(ADMIN, idOf('host', world.hosts[1]!)));
  });

  it('names the first five of many', async () => {
    const zone = await insertZone(database.db);
    for (let n = 1; n <= 7; n++)
      ok(await core.ops.createPod(ADMIN, { zoneId: idOf('zone', zone).id, name: `rack ${n}` }));
    const { errors } = await core.ops.deleteZone(ADMIN, idOf('zone', zone));
    assert.match(errors[0]!.message, /still has 7 pods \(rack 1, rack 2, rack 3, rack 4, rack 5, …\)\.$/);
  });

  it('forgets the name of what is deleted, and finds it no more', async () => {
    const id = ok(await core.ops.createZone(ADMIN, { name: 'short-lived' }));
    const row = await zoneRow(id);
    ok(await core.ops.deleteZone(ADMIN, { ...idOf('zone', row), reason: 'not needed' }));
    assert.notEqual((await zoneRow(id)).deleted_at, null);
    assert.equal((await core.ops.deleteZone(ADMIN, idOf('zone', row))).errors[0]?.code, 'NOT_FOUND');
    assert.equal((await core.ops.updateZone(ADMIN, { ...idOf('zone', row), name: 'x' })).errors[0]?.code, 'NOT_FOUND');
    assert.notEqual(ok(await core.ops.createZone(ADMIN, { name: 'short-lived' })), id);
    assert.deepEqual(
      (await events('zone', id)).map((e) => [e.type, e.actor, e.reason]),
      [
        ['zone.created', 'root-admin', null],
        ['zone.deleted', 'root-admin', 'not needed'],
      ],
    );
  });

  it('never has a pod in a zone that is deleted at the same moment, by two processes', async () => {
    const outcomes = new Set<string>();
    for (let round = 0; round < 20; round++) {
      const zone = await insertZone(database.db);
      const cores = round % 2 === 0 ? [core, other] : [other, core];
      const [created, deleted] = await Promise.all([
        cores[0]!.ops.createPod(ADMIN, { zoneId: idOf('zone', zone).id, name: 'raced' }),
        cores[1]!.ops.deleteZone(ADMIN, idOf('zone', zone)),
      ]);
      const pods = await database.db.selectFrom('pod').select('id').where('zone_id', '=', zone.id).execute();
      const gone = (await zoneRow(zone.id)).deleted_at !== null;
      assert.equal(pods.length, created.errors.length === 0 ? 1 : 0);
      assert.equal(gone, deleted.errors.length === 0);
      assert.ok(!(gone && pods.length > 0), `round ${round}: a pod in a deleted zone`);
      assert.ok(gone || pods.length > 0, `round ${round}: each was in the way of the other`);
      outcomes.add(created.errors[0]?.code ?? deleted.errors[0]!.code);
    }
    assert.ok(
      [...outcomes].every((code) => ['NOT_FOUND', 'NOT_EMPTY'].includes(code)),
      [...outcomes].join(),
    );
  });

  it('takes no pod when the zone is deleted after it was looked at', async () => {
    const zone = idOf('zone', await insertZone(database.db));
    beforeNextWrite(core, async () => ok(await other.ops.deleteZone(ADMIN, zone)));
    const created = await core.ops.createPod(ADMIN, { zoneId: zone.id, name: 'too late' });
    assert.deepEqual([created.errors[0]?.code, created.errors[0]?.path], ['NOT_FOUND', ['zoneId']]);
    assert.deepEqual(await database.db.selectFrom('pod').select('id').where('name', '=', 'too late').execute(), []);
  });

  it('is not deleted when a pod has come after it was found empty', async () => {
    const zone = await insertZone(database.db);
    const pod = { zoneId: idOf('zone', zone).id, name: 'just in time' };
    beforeNextWrite(core, async () => ok(await other.ops.createPod(ADMIN, pod)));
    const deleted = await core.ops.deleteZone(ADMIN, idOf('zone', zone));
    assert.equal(deleted.errors[0]?.code, 'NOT_EMPTY');
    assert.match(deleted.errors[0]!.message, /1 pod \(just in time\)/);
    assert.equal((await zoneRow(zone.id)).deleted_at, null);
  });

  it('is updated only by who has seen its newest generation, where they say which they saw', async () => {
    const id = ok(await core.ops.createZone(ADMIN, { name: 'generation 1' }));
    const publicId = idOf('zone', await zoneRow(id));
    ok(await core.ops.updateZone(ADMIN, { ...publicId, name: 'generation 2', expectedGeneration: 1 }));
    assert.equal((await zoneRow(id)).generation, 2);
    const late = await core.ops.updateZone(ADMIN, { ...publicId, name: 'lost', expectedGeneration: 1 });
    assert.deepEqual([late.errors[0]?.code, late.errors[0]?.path], ['CONFLICT', ['expectedGeneration']]);
    ok(await core.ops.updateZone(ADMIN, { ...publicId, name: 'generation 3' }));
    assert.deepEqual([(await zoneRow(id)).name, (await zoneRow(id)).generation], ['generation 3', 3]);
    ok(await core.ops.updateZone(ADMIN, { ...publicId, name: 'generation 3' }));
    assert.equal((await zoneRow(id)).generation, 3, 'nothing changed');
    assert.deepEqual(JSON.parse((await events('zone', id))[1]!.changes), [
      { field: 'name', before: 'generation 1', after: 'generation 2' },
    ]);
  });

  it('is updated once by many who saw the same generation', async () => {
    const id = ok(await core.ops.createZone(ADMIN, { name: 'contended' }));
    const publicId = idOf('zone', await zoneRow(id));
    const payloads = await Promise.all(
      Array.from({ length: 10 }, (_, n) =>
        [core, other][n % 2]!.ops.updateZone(ADMIN, { ...publicId, name: `contended ${n}`, expectedGeneration: 1 }),
      ),
    );
    assert.equal(payloads.filter((p) => p.errors.length === 0).length, 1);
    for (const { errors } of payloads) if (errors[0]) assert.equal(errors[0].code, 'CONFLICT');
    assert.equal((await zoneRow(id)).generation, 2);
  });

  it('may not take a name that a sibling has; cousins may have it', async () => {
    const [a, b] = [await insertZone(database.db), await insertZone(database.db)];
    ok(await core.ops.createPod(ADMIN, { zoneId: idOf('zone', a).id, name: 'rack' }));
    ok(await core.ops.createPod(ADMIN, { zoneId: idOf('zone', b).id, name: 'rack' }));
    const taken = await core.ops.createPod(ADMIN, { zoneId: idOf('zone', a).id, name: 'rack' });
    assert.deepEqual([taken.errors[0]?.code, taken.errors[0]?.path], ['ALREADY_EXISTS', ['name']]);
    const second = ok(await core.ops.createPod(ADMIN, { zoneId: idOf('zone', a).id, name: 'Rack' }));
    const row = await database.db.selectFrom('pod').selectAll().where('id', '=', second).executeTakeFirstOrThrow();
    const renamed = await core.ops.updatePod(ADMIN, { ...idOf('pod', row), name: 'rack' });
    assert.equal(renamed.errors[0]?.code, 'ALREADY_EXISTS');
  });

  it('is disabled and enabled, once each, and takes nothing new while it is disabled', async () => {
    const zone = idOf('zone', world.zone);
    ok(await core.ops.disableZone(ADMIN, { ...zone, reason: 'power work' }));
    ok(await core.ops.disableZone(ADMIN, zone));
    const wish = {
      name: 'v',
      zoneId: zone.id,
      offeringId: idOf('offering', world.offering).id,
      templateId: idOf('template', world.template).id,
    };
    await core.inventory.refresh();
    const refused = await core.ops.createVm(ADMIN, wish);
    assert.deepEqual(
      [refused.errors[0]?.code, refused.errors[0]?.path, refused.errors[0]?.state],
      ['INVALID_STATE', ['zoneId'], 'DISABLED'],
    );
    ok(await core.ops.enableZone(ADMIN, zone));
    assert.equal((await zoneRow(world.zone.id)).wanted_state, 'ENABLED');
    const told = await events('zone', world.zone.id);
    assert.deepEqual(
      told.map((e) => [e.reason, JSON.parse(e.changes!)]),
      [
        ['power work', [{ field: 'wantedState', before: 'ENABLED', after: 'DISABLED' }]],
        [null, [{ field: 'wantedState', before: 'DISABLED', after: 'ENABLED' }]],
      ],
    );
    await core.inventory.refresh();
  });

  it('a process that has not heard that a zone is disabled creates nothing in it', async () => {
    const zone = await insertZone(database.db, { wanted_state: 'ENABLED' });
    await core.inventory.load();
    await database.db.updateTable('zone').set({ wanted_state: 'DISABLED' }).where('id', '=', world.zone.id).execute();
    const wish = {
      name: 'unheard',
      zoneId: idOf('zone', world.zone).id,
      offeringId: idOf('offering', world.offering).id,
      templateId: idOf('template', world.template).id,
    };
    const payload = await core.ops.createVm(ADMIN, wish);
    assert.deepEqual([payload.errors[0]?.code, payload.errors[0]?.state], ['INVALID_STATE', 'DISABLED']);
    assert.deepEqual(await database.db.selectFrom('vm').select('id').where('name', '=', 'unheard').execute(), []);
    await database.db.updateTable('zone').set({ wanted_state: 'ENABLED' }).where('id', '=', world.zone.id).execute();
    await core.inventory.load();
    void zone;
  });

  it('another overcommit gives every host of the cluster another capacity, and all processes hear of it', async () => {
    const host = await insertHost(database.db, world, { vcpus_total: 10, memory_total_mib: 1_001 });
    for (const c of [core, other]) await c.inventory.load();
    const cluster = idOf('cluster', world.cluster);
    ok(await core.ops.updateCluster(ADMIN, { ...cluster, vcpuOvercommit: 2.55, memoryOvercommit: 1.5 }));
    await unfollow();
    unfollow = follow(core, other);
    for (const c of [core, other]) {
      await c.inventory.refresh();
      const seen = c.inventory.get('host', host.id)!;
      assert.deepEqual([seen.vcpus_cap, seen.memory_cap_mib], [25, 1_501]);
      assert.equal(c.inventory.get('host', world.hosts[0]!.id)!.vcpus_cap, 163);
    }
    const [event] = (await events('cluster', world.cluster.id)).slice(-1);
    assert.deepEqual(JSON.parse(event!.changes), [
      { field: 'vcpuOvercommit', before: '1', after: '2.55' },
      { field: 'memoryOvercommit', before: '1', after: '1.5' },
    ]);
  });

  it('a storage does not become smaller than its volumes', async () => {
    await database.db
      .updateTable('primary_storage')
      .set({ bytes_used: 3 * 2 ** 30 + 1 })
      .execute();
    const storage = idOf('primary_storage', world.storage);
    const refused = await core.ops.updatePrimaryStorage(ADMIN, { ...storage, capacityGib: 3 });
    assert.deepEqual([refused.errors[0]?.code, refused.errors[0]?.path], ['INVALID_INPUT', ['capacityGib']]);
    assert.match(refused.errors[0]!.message, /4 GiB/);
    ok(await core.ops.updatePrimaryStorage(ADMIN, { ...storage, capacityGib: 4 }));
  });
});
