import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import pino from 'pino';
import type { Core } from '../../src/core.ts';
import { decodeIdOf, encodeId } from '../../src/domain/ids.ts';
import { HostSessions, unreachableTransition } from '../../src/hosts/sessions.ts';
import { ADMIN, openCore, until } from '../support/core.ts';
import { freshDatabase, type TestDatabase } from '../support/database.ts';
import { insertCluster, insertHost, insertWorld, type World } from '../support/world.ts';

const FACTS = {
  hypervisor: 'FAKE' as const,
  version: '1',
  capabilities: ['vm.start'],
  vcpusTotal: 8,
  memoryTotalMib: 1_024,
  vms: [],
};

describe('hosts that join', () => {
  let database: TestDatabase;
  let world: World;
  let core: Core;
  before(async () => {
    database = await freshDatabase();
    world = await insertWorld(database.db);
    core = await openCore(database.url);
  });
  after(async () => {
    await core.close();
    await database.close();
  });

  async function newToken(more: Record<string, unknown> = {}, cluster = world.cluster): Promise<string> {
    const payload = await core.ops.createHostJoinToken(ADMIN, { clusterId: encodeId('cluster', cluster.uid), ...more });
    assert.deepEqual(payload.errors, []);
    return payload.token!;
  }
  const hostRow = (publicId: string) =>
    database.db
      .selectFrom('host')
      .selectAll()
      .where('uid', '=', decodeIdOf('host', publicId)!)
      .executeTakeFirstOrThrow();

  it('get an id and a credential for a token, once', async () => {
    const joinToken = await newToken();
    const joined = await core.sessions.register({ name: 'once', joinToken });
    const row = await hostRow(joined.hostId);
    assert.deepEqual([row.name, row.link_state, row.cluster_id], ['once', 'CONNECTING', world.cluster.id]);
    assert.equal((await core.sessions.authenticate(joined.credential))?.id, row.id);
    assert.equal(await core.sessions.authenticate(`${joined.credential}x`), null);
    assert.ok(!JSON.stringify(row).includes(joined.credential), 'only its hash is kept');
    await assert.rejects(core.sessions.register({ name: 'twice', joinToken }), { code: 'UNAUTHENTICATED' });
  });

  it('get a token with an event whose followers are woken, as by everything that is written', async () => {
    const told: string[] = [];
    const stop = core.feed.listen((changes) => told.push(...changes.map(({ kind, id }) => `${kind} ${id}`)));
    await newToken();
    stop();
    assert.deepEqual(told, [`cluster ${world.cluster.id}`]);
  });

  it('race for the last place of a token: one gets it', async () => {
    const joinToken = await newToken();
    const other = await openCore(database.url);
    const results = await Promise.allSettled(
      Array.from({ length: 10 }, (_, n) => [core, other][n % 2]!.sessions.register({ name: `racer-${n}`, joinToken })),
    );
    await other.close();
    assert.equal(results.filter((r) => r.status === 'fulfilled').length, 1);
    for (const r of results) if (r.status === 'rejected') assert.equal(r.reason.code, 'UNAUTHENTICATED');
    const rows = await database.db.selectFrom('host').select('id').where('name', 'like', 'racer-%').execute();
    assert.equal(rows.length, 1);
  });

  it('are refused with a token that is unknown or expired', async () => {
    await assert.rejects(core.sessions.register({ name: 'x', joinToken: 'guess' }), { code: 'UNAUTHENTICATED' });
    const joinToken = await newToken({ maxHosts: 5 });
    await database.db
      .updateTable('host_join_token')
      .set({ expires_at: new Date(Date.now() - 1_000) })
      .execute();
    await assert.rejects(core.sessions.register({ name: 'late', joinToken }), { code: 'UNAUTHENTICATED' });
    assert.deepEqual(await database.db.selectFrom('host').select('id').where('name', '=', 'late').execute(), []);
  });

  it('may not take the name of a host that has been seen, and leave the token as it was', async () => {
    const joinToken = await newToken({ maxHosts: 2 });
    const { hostId } = await core.sessions.register({ name: 'taken', joinToken });
    await core.sessions.open(await hostRow(hostId), FACTS);
    await assert.rejects(core.sessions.register({ name: 'taken', joinToken }), { code: 'ALREADY_EXISTS' });
    await core.sessions.register({ name: 'free', joinToken });
  });

  it('that never heard their answer register again under the same name; the first credential is void', async () => {
    const joinToken = await newToken();
    const unheard = await core.sessions.register({ name: 'unheard', joinToken });
    const heard = await core.sessions.register({ name: 'unheard', joinToken });
    assert.equal(heard.hostId, unheard.hostId);
    assert.equal(await core.sessions.authenticate(unheard.credential), null);
    assert.ok(await core.sessions.authenticate(heard.credential));
  });

  it('never end up in a cluster that is deleted at the same moment', async () => {
    for (let round = 0; round < 20; round++) {
      const cluster = await insertCluster(database.db, world);
      const joinToken = await newToken({}, cluster);
      const [joined, deleted] = await Promise.allSettled([
        core.sessions.register({ name: 'raced', joinToken }),
        core.ops.deleteCluster(ADMIN, { id: encodeId('cluster', cluster.uid) }),
      ]);
      const row = await database.db
        .selectFrom('cluster')
        .select('deleted_at')
        .where('id', '=', cluster.id)
        .executeTakeFirstOrThrow();
      const inside = await database.db.selectFrom('host').select('id').where('cluster_id', '=', cluster.id).execute();
      assert.equal(inside.length, joined.status === 'fulfilled' ? 1 : 0);
      assert.ok(row.deleted_at === null || inside.length === 0, `round ${round}: a host in a deleted cluster`);
      assert.equal(deleted.status, 'fulfilled');
    }
  });
});

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
      ids: core.opsContext.ids,
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
    /** Lets `first` happen between what the next writer has read and what it writes. */
    const before = (first: () => Promise<unknown>): void => {
      const { submit } = core.writer;
      core.writer.submit = async (transition) => {
        core.writer.submit = submit;
        await first();
        return core.writer.submit(transition);
      };
    };
    const caps = async () => [(await row()).vcpus_cap, (await row()).memory_cap_mib];
    before(() => core.ops.updateCluster(ADMIN, { ...cluster, vcpuOvercommit: 4, memoryOvercommit: 2 }));
    await sessions.open(host(), FACTS);
    assert.deepEqual(await caps(), [8 * 4, 1_024 * 2]);

    before(() => sessions.open(host(), { ...FACTS, vcpusTotal: 16 }));
    const changed = await core.ops.updateCluster(ADMIN, { ...cluster, vcpuOvercommit: 3 });
    assert.deepEqual(changed.errors, []);
    assert.deepEqual(await caps(), [16 * 3, 1_024 * 2]);
  });

  it('are not opened by a host that was deleted', async () => {
    const deleted = await insertHost(database.db, world, { deleted_at: new Date(), link_state: 'UNREACHABLE' });
    await assert.rejects(sessions.open(deleted, FACTS), { code: 'UNAUTHENTICATED' });
  });
});
