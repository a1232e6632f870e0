import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import pino from 'pino';
import type { Core } from '../../src/core.ts';
import { encodeId } from '../../src/domain/ids.ts';
import { HostSessions, unreachableTransition } from '../../src/hosts/sessions.ts';
import { ADMIN, beforeNextWrite, openCore, until } from '../support/core.ts';
import { freshDatabase, type TestDatabase } from '../support/database.ts';
import { insertHost, insertWorld, type World } from '../support/world.ts';

const FACTS = {
  hypervisor: 'FAKE' as const,
  version: '1',
  capabilities: ['vm.start'],
  vcpusTotal: 8,
  memoryTotalMib: 1_024,
  vms: [],
};

describe('sessions of hosts', () => {
  let database: TestDatabase;
  let world: World;
  let core: Core;
  let sessions: HostSessions;
  let clock = 0;
  before(async () => {
    database = await freshDatabase();
    world = await insertWorld(database.db, { hosts: 1 });
    core = await openCore(database.url);
    sessions = new HostSessions({
      ...core,
      log: pino({ level: 'silent' }),
      heartbeatMs: 1_000,
      monotonicMs: () => clock,
    });
  });
  after(async () => {
    await core.close();
    await database.close();
  });

  const host = () => world.hosts[0]!;
  const row = () => database.db.selectFrom('host').selectAll().where('id', '=', host().id).executeTakeFirstOrThrow();
  const isState = (state: string) =>
    until(core, `the host to be ${state}`, async () => ((await row()).link_state === state ? true : null));
  const load = { cpuLoad: 0, memoryUsedMib: 0 } as never;

  it('bring what the host is, times what its cluster may overcommit', async () => {
    await database.db
      .updateTable('cluster')
      .set({ vcpu_overcommit: 2.5, memory_overcommit: 1.5 })
      .where('id', '=', world.cluster.id)
      .execute();
    const { sessionId, hostId } = await sessions.open(host(), { ...FACTS, vcpusTotal: 3, memoryTotalMib: 101 });
    const after = await row();
    assert.equal(hostId, encodeId('host', host().uid));
    assert.deepEqual(
      [after.link_state, after.link_session, after.link_process, after.vcpus_cap, after.memory_cap_mib],
      ['UP', sessionId, core.processId, 7, 151],
    );
    assert.deepEqual(JSON.parse(after.capabilities), ['vm.start']);
  });

  it('are ended by the next one', async () => {
    const first = await sessions.open(host(), FACTS);
    const second = await sessions.open(host(), FACTS);
    assert.equal(sessions.heartbeat(host().id, first.sessionId, load, []), false);
    assert.equal(sessions.heartbeat(host().id, second.sessionId, load, []), true);
    assert.ok(!sessions.isCurrent(host().id, first.sessionId) && sessions.isCurrent(host().id, second.sessionId));
  });

  it('are not ended by the end of the link of the one before', async () => {
    const first = await sessions.open(host(), FACTS);
    const oldLink = core.links.attach(host().id, first.sessionId);
    const second = await sessions.open(host(), FACTS);
    await oldLink.return!(undefined);
    assert.ok(sessions.isCurrent(host().id, second.sessionId));
    assert.equal((await row()).link_state, 'UP');
  });

  it('end with their link; that says nothing of the VMs', async () => {
    const { sessionId } = await sessions.open(host(), FACTS);
    const link = core.links.attach(host().id, sessionId);
    await link.return!(undefined);
    await isState('UNREACHABLE');
    assert.equal(sessions.heartbeat(host().id, sessionId, load, []), false);
    assert.equal(sessions.lastSeenMsAgo(host().id), null);
  });

  for (const attached of [true, false]) {
    it(`end when the host is silent for three heartbeats, ${attached ? 'linked' : 'although it never asked for its commands'}`, async () => {
      const { sessionId } = await sessions.open(host(), FACTS);
      const link = attached ? core.links.attach(host().id, sessionId) : null;
      clock += 3_000;
      sessions.expire();
      assert.ok(sessions.isCurrent(host().id, sessionId), 'exactly three is not yet too long');
      sessions.heartbeat(host().id, sessionId, load, []);
      clock += 3_000;
      sessions.expire();
      assert.ok(sessions.isCurrent(host().id, sessionId));
      clock += 1;
      sessions.expire();
      await isState('UNREACHABLE');
      assert.ok(!sessions.isCurrent(host().id, sessionId));
      if (link) assert.deepEqual(await link.next(), { done: true, value: undefined });
    });
  }

  it('do not make a host unreachable that has come back in another process meanwhile', async () => {
    const { sessionId } = await sessions.open(host(), FACTS);
    const link = core.links.attach(host().id, sessionId);
    const other = await openCore(database.url);
    await other.sessions.open(host(), FACTS);
    await link.return!(undefined);
    await core.writer.drained();
    assert.deepEqual([(await row()).link_state, (await row()).link_process], ['UP', other.processId]);
    await other.close();
  });

  it('end when the database says that they are over, although their link is well: the host must come back', async () => {
    const { sessionId } = await sessions.open(host(), FACTS);
    const link = core.links.attach(host().id, sessionId);
    const other = await openCore(database.url);
    // Another control plane has not heard of this one for longer than its lease.
    const lost = unreachableTransition(host().id, { link_process: core.processId });
    assert.deepEqual(await other.writer.submit(lost), { kind: 'written' });
    await other.close();
    await core.opsContext.catchUp();
    sessions.expire();
    assert.ok(!sessions.isCurrent(host().id, sessionId));
    assert.deepEqual(await link.next(), { done: true, value: undefined });
    const again = await sessions.open(host(), FACTS);
    await core.inventory.refresh();
    sessions.expire();
    assert.ok(sessions.isCurrent(host().id, again.sessionId));
    assert.equal((await row()).link_state, 'UP');
  });

  it('that ended while the database was away are recorded when it is back', async () => {
    const { sessionId } = await sessions.open(host(), FACTS);
    const link = core.links.attach(host().id, sessionId);
    const { submit } = core.writer;
    core.writer.submit = () => Promise.reject(Object.assign(new Error('away'), { code: 'ECONNREFUSED' }));
    await link.return!(undefined);
    core.writer.submit = submit;
    assert.equal((await row()).link_state, 'UP', 'nobody could be told');
    sessions.expire();
    await isState('UNREACHABLE');
  });

  it('have the caps of the ratios that hold when they begin, whoever changes them meanwhile', async () => {
    const cluster = { id: encodeId('cluster', world.cluster.uid) };
    const caps = async () => [(await row()).vcpus_cap, (await row()).memory_cap_mib];
    beforeNextWrite(core, () => core.ops.updateCluster(ADMIN, { ...cluster, vcpuOvercommit: 4, memoryOvercommit: 2 }));
    await sessions.open(host(), FACTS);
    assert.deepEqual(await caps(), [8 * 4, 1_024 * 2]);

    beforeNextWrite(core, () => sessions.open(host(), { ...FACTS, vcpusTotal: 16 }));
    const changed = await core.ops.updateCluster(ADMIN, { ...cluster, vcpuOvercommit: 3 });
    assert.deepEqual(changed.errors, []);
    assert.deepEqual(await caps(), [16 * 3, 1_024 * 2]);
  });

  it('are not opened by a host that was deleted', async () => {
    const deleted = await insertHost(database.db, world, { deleted_at: new Date(), link_state: 'UNREACHABLE' });
    await assert.rejects(sessions.open(deleted, FACTS), { code: 'UNAUTHENTICATED' });
  });

  it('begins none with a certificate that was revoked or replaced since the connection was opened', async () => {
    const { id } = await insertHost(database.db, world);
    const caller = { id, version: 1 };
    await sessions.open(caller, FACTS);
    beforeNextWrite(core, () =>
      database.db.updateTable('host').set({ certificate_floor: 3 }).where('id', '=', id).execute(),
    );
    await assert.rejects(sessions.open(caller, FACTS), { code: 'UNAUTHENTICATED' });
  });
});
