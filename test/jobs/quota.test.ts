import assert from 'node:assert/strict';
import { after, before, beforeEach, describe, it } from 'node:test';
import type { Core } from '../../src/core.ts';
import { encodeId } from '../../src/domain/ids.ts';
import type { QuotaOwner, QuotaResource } from '../../src/domain/quota.ts';
import { QUOTA, QUOTA_RESOURCES, quotaTable } from '../../src/domain/quota.ts';
import type { Payload } from '../../src/ops/context.ts';
import {
  ADMIN,
  assertClean,
  beforeNextWrite,
  follow,
  freeze,
  jobEnded,
  openCore,
  publicJobId,
} from '../support/core.ts';
import { freshDatabase, type TestDatabase } from '../support/database.ts';
import { fails, JournalHost, type Verdict } from '../support/journal-host.ts';
import { idOf, insertAccount, insertDomain, type PlacedDomain } from '../support/tenants.ts';
import { insertOffering, insertWorld, type Placed, type World } from '../support/world.ts';
import { accepted, createInput, vmRow } from './cases.ts';

const LIMIT = 10;
const CREATES = 50;
const MIB = 2 ** 20;

describe('quotas', () => {
  let database: TestDatabase;
  let world: World;
  let host: JournalHost;
  let first: Core;
  let second: Core;
  let unfollow: () => Promise<void>;
  let domain: PlacedDomain;
  let account: Placed;
  before(async () => {
    database = await freshDatabase();
    world = await insertWorld(database.db);
    await database.db
      .updateTable('host')
      .set({ vcpus_cap: 4_096, memory_cap_mib: 2 ** 22 })
      .execute();
    first = await openCore(database.url);
    second = await openCore(database.url);
    unfollow = follow(first, second);
    host = new JournalHost(world.hosts[0]!.id);
    await host.link(first);
  });
  after(async () => {
    await host.close();
    await unfollow();
    await first.close();
    await second.close();
    await database.close();
  });
  // Of each test its own, so that what one leaves counts for no other.
  beforeEach(async () => {
    domain = await insertDomain(database.db);
    account = await insertAccount(database.db, domain);
    for (const core of [first, second]) await core.inventory.load();
  });

  const limit = async (
    owner: { accountId: string } | { domainId: string },
    limits: [QuotaResource, number | null][],
  ) => {
    const payload = await first.ops.updateQuota(ADMIN, {
      ...owner,
      limits: limits.map(([resource, n]) => ({ resource, limit: n })),
    });
    assert.deepEqual(payload.errors, []);
  };
  const create = (core: Core, of: Placed = account, more: Record<string, unknown> = {}): Promise<Payload> =>
    core.ops.createVm(ADMIN, createInput({ world }, { accountId: idOf('account', of), start: false, ...more }));
  const used = async ({ kind, id }: QuotaOwner): Promise<Partial<Record<QuotaResource, number>>> => {
    const row = await database.db
      .selectFrom(quotaTable({ kind, id }))
      .selectAll()
      .where('id', '=', id)
      .executeTakeFirstOrThrow();
    const all = QUOTA_RESOURCES.map((resource) => [resource, row[QUOTA[resource].used]] as const);
    return Object.fromEntries(all.filter(([, n]) => n !== 0));
  };
  const both = async () => [
    await used({ kind: 'account', id: account.id }),
    await used({ kind: 'domain', id: domain.id }),
  ];
  const disk = { VOLUMES: 1, PRIMARY_GIB: 64 * MIB };
  const counted = (vms: number) => ({
    VMS: vms,
    VCPUS: vms,
    MEMORY_MIB: vms * 128,
    VOLUMES: vms,
    PRIMARY_GIB: vms * disk.PRIMARY_GIB,
  });
  const refusals = (payloads: Payload[]) => payloads.flatMap(({ errors }) => errors);
  async function expunge(core: Core, vmId: number): Promise<void> {
    const id = { id: encodeId('vm', (await vmRow(core, vmId)).uid) };
    for (const act of ['destroyVm', 'expungeVm'] as const) {
      const job = await jobEnded(core, accepted(await core.ops[act](ADMIN, id)).jobId);
      assert.equal(job.state, 'SUCCEEDED', job.error_message ?? '');
    }
  }

  it('50 creates at once by two control planes at a limit of 10 give 10, and all others are told the numbers', async () => {
    await limit({ accountId: idOf('account', account) }, [['VMS', LIMIT]]);
    const cores = [first, second];
    const payloads = await Promise.all(Array.from({ length: CREATES }, (_, n) => create(cores[n % 2]!)));
    const refused = refusals(payloads);
    assert.equal(refused.length, CREATES - LIMIT);
    for (const { code, quota, message } of refused) {
      assert.deepEqual([code, quota?.owner.id, quota?.limit, quota?.asked], ['QUOTA_EXCEEDED', account.id, LIMIT, 1]);
      assert.match(message, /^Quota of account account-\d+: 10 of 10 VMs; this needs 1 more\.$/);
    }
    assert.deepEqual(await both(), [counted(LIMIT), counted(LIMIT)]);
    for (const { jobId } of payloads) if (jobId !== null) await jobEnded(first, jobId);
    await assertClean(first);
  });

  it('50 creates at once in two accounts give 10 where the domain above them has a limit of 10', async () => {
    const below = await insertDomain(database.db, domain);
    const another = await insertAccount(database.db, below);
    for (const core of [first, second]) await core.inventory.load();
    await limit({ domainId: idOf('domain', domain) }, [['PRIMARY_GIB', 1]]);
    await limit({ domainId: idOf('domain', domain) }, [['VCPUS', LIMIT]]);
    const cores = [first, second];
    const payloads = await Promise.all(
      Array.from({ length: CREATES }, (_, n) => create(cores[n % 2]!, n % 4 < 2 ? account : another)),
    );
    assert.equal(refusals(payloads).length, CREATES - LIMIT);
    assert.deepEqual(
      [...new Set(refusals(payloads).map(({ code, quota }) => `${code} ${quota?.resource} ${quota?.owner.id}`))],
      [`QUOTA_EXCEEDED VCPUS ${domain.id}`],
    );
    assert.deepEqual(await used({ kind: 'domain', id: domain.id }), counted(LIMIT));
    for (const { jobId } of payloads) if (jobId !== null) await jobEnded(first, jobId);
    await assertClean(first);
  });

  it('the guard refuses what a process believes to fit, and the caller is told why', async () => {
    const told = await create(first);
    await jobEnded(first, accepted(told).jobId);
    // Written behind its back, and not in the feed.
    beforeNextWrite(first, () =>
      database.db.updateTable('account_quota').set({ vms_cap: 1 }).where('id', '=', account.id).execute(),
    );
    const { full } = first.writer.counts;
    const [error] = (await create(first)).errors;
    assert.deepEqual([error?.code, error?.quota?.used, error?.quota?.limit], ['QUOTA_EXCEEDED', 1, 1]);
    assert.equal(first.writer.counts.full, full + 1);
    await assertClean(first);
  });

  it('what is refused for want of room holds no quota', async () => {
    await limit({ accountId: idOf('account', account) }, [['VMS', 1]]);
    const offering = await insertOffering(database.db, { vcpus: 5_000 });
    await first.inventory.load();
    const huge = { offeringId: idOf('offering', offering), start: true };
    assert.deepEqual(
      refusals([await create(first, account, huge)]).map(({ code }) => code),
      ['INSUFFICIENT_CAPACITY'],
    );
    await jobEnded(first, accepted(await create(first)).jobId);
    assert.deepEqual(await both(), [counted(1), counted(1)]);
  });

  it('a failed create gives its disk back, counts as a VM until it is expunged, and is tried again on that', async () => {
    await limit({ accountId: idOf('account', account) }, [['VMS', 1]]);
    host.script = ({ __typename }) => (__typename === 'CreateVolumeCommand' ? fails('HOST_REFUSED') : 'works');
    const { id, jobId } = accepted(await create(first));
    assert.equal((await jobEnded(first, jobId)).state, 'FAILED');
    host.script = () => 'works';
    const alone = { VMS: 1, VCPUS: 1, MEMORY_MIB: 128 };
    assert.deepEqual(await both(), [alone, alone]);

    await limit({ accountId: idOf('account', account) }, [['VOLUMES', 0]]);
    const again = { id: await publicJobId(first, jobId) };
    assert.deepEqual(
      refusals([await first.ops.retryJob(ADMIN, again)]).map(({ code, quota }) => [code, quota?.resource]),
      [['QUOTA_EXCEEDED', 'VOLUMES']],
    );
    assert.equal((await vmRow(first, id)).state, 'ERROR');
    await limit({ accountId: idOf('account', account) }, [['VOLUMES', null]]);
    const retried = accepted(await first.ops.retryJob(ADMIN, again));
    assert.equal((await jobEnded(first, retried.jobId)).state, 'SUCCEEDED');
    assert.deepEqual(await both(), [counted(1), counted(1)]);
    await expunge(first, id);
    assert.deepEqual(await both(), [{}, {}]);
    await assertClean(first);
  });

  it('a cancelled create gives everything back', async () => {
    const held = Promise.withResolvers<void>();
    const release = Promise.withResolvers<void>();
    host.script = async () => {
      held.resolve();
      await release.promise;
      return fails('CANCELLED');
    };
    const { jobId } = accepted(await create(first));
    await held.promise;
    assert.deepEqual(await both(), [counted(1), counted(1)]);
    accepted(await first.ops.cancelJob(ADMIN, { id: await publicJobId(first, jobId) }));
    host.script = () => 'works';
    release.resolve();
    assert.equal((await jobEnded(first, jobId)).state, 'CANCELLED');
    await host.settled();
    assert.deepEqual(await both(), [{}, {}]);
    await assertClean(first);
  });

  it('another size takes and gives back the difference, and none that does not fit', async () => {
    const large = await insertOffering(database.db, { vcpus: 4, memory_mib: 512 });
    await first.inventory.load();
    const { id, jobId } = accepted(await create(first));
    await jobEnded(first, jobId);
    const vm = { id: encodeId('vm', (await vmRow(first, id)).uid) };
    await limit({ domainId: idOf('domain', domain) }, [['MEMORY_MIB', 256]]);
    const grow = { ...vm, offeringId: idOf('offering', large) };
    assert.deepEqual(
      refusals([await first.ops.updateVm(ADMIN, grow)]).map(({ quota }) => [quota?.limit, quota?.used, quota?.asked]),
      [[256, 128, 384]],
    );
    assert.deepEqual(await both(), [counted(1), counted(1)]);
    await limit({ domainId: idOf('domain', domain) }, [['MEMORY_MIB', 512]]);
    assert.deepEqual(refusals([await first.ops.updateVm(ADMIN, grow)]), []);
    const grown = { ...counted(1), VCPUS: 4, MEMORY_MIB: 512 };
    assert.deepEqual(await both(), [grown, grown]);
    const off = await insertOffering(database.db, { wanted_state: 'DISABLED' });
    assert.deepEqual(
      refusals([await first.ops.updateVm(ADMIN, { ...vm, offeringId: idOf('offering', off) })]).map(({ code }) => code),
      ['INVALID_STATE'],
    );
    const shrink = { ...vm, offeringId: idOf('offering', world.offering) };
    assert.deepEqual(refusals([await first.ops.updateVm(ADMIN, shrink)]), []);
    assert.deepEqual(await both(), [counted(1), counted(1)]);
    await assertClean(first);
  });

  const register = (more: object = {}) =>
    first.ops.registerTemplate(ADMIN, {
      zoneId: idOf('zone', world.zone),
      accountId: idOf('account', account),
      name: `template-${++templates}`,
      fileName: 'tiny-linux.qcow2',
      format: 'QCOW2',
      ...more,
    });
  let templates = 0;
  const template = async (id: number) =>
    first.db.selectFrom('template').selectAll().where('id', '=', id).executeTakeFirstOrThrow();
  const drop = async (id: number) => first.ops.deleteTemplate(ADMIN, { id: idOf('template', await template(id)) });

  it("an account's template counts with the size of its file, until it is deleted; one for everybody does not", async () => {
    await limit({ accountId: idOf('account', account) }, [['TEMPLATES', 1]]);
    const { id, jobId } = accepted(await register());
    assert.equal((await jobEnded(first, jobId)).state, 'SUCCEEDED');
    const own = { TEMPLATES: 1, SECONDARY_GIB: 8 * MIB };
    assert.deepEqual(await both(), [own, own]);
    assert.deepEqual(
      refusals([await register()]).map(({ quota }) => [quota?.resource, quota?.owner.kind]),
      [['TEMPLATES', 'account']],
    );
    const everybodys = accepted(await register({ accountId: null }));
    assert.equal((await jobEnded(first, everybodys.jobId)).state, 'SUCCEEDED');
    assert.deepEqual(await both(), [own, own]);
    for (const one of [id, everybodys.id]) assert.deepEqual((await drop(one)).errors, []);
    assert.deepEqual((await drop(id)).errors[0]?.code, 'NOT_FOUND');
    assert.deepEqual(await both(), [{}, {}]);
    await assertClean(first);
  });

  it('a template whose file turns out too large fails with the reason and keeps nothing of secondary storage', async () => {
    for (const [owner, reason] of [
      [
        { accountId: idOf('account', account) },
        /^Quota of the account: 0 of 0 GiB of secondary storage; this needs 0\.01 more\.$/,
      ],
      [{ domainId: idOf('domain', domain) }, /^A quota above is reached\.$/],
    ] as const) {
      await limit(owner, [['SECONDARY_GIB', 0]]);
      const { id, jobId } = accepted(await register());
      const job = await jobEnded(first, jobId);
      assert.deepEqual([job.state, job.error_code], ['FAILED', 'QUOTA_EXCEEDED']);
      const { state, state_reason } = await template(id);
      assert.equal(state, 'ERROR');
      assert.match(state_reason!, reason);
      assert.deepEqual(await both(), [{ TEMPLATES: 1 }, { TEMPLATES: 1 }]);
      assert.deepEqual((await drop(id)).errors, []);
      assert.deepEqual(await both(), [{}, {}]);
      await limit(owner, [['SECONDARY_GIB', null]]);
    }
    await assertClean(first);
  });

  it('a template is not deleted while a host looks at it, so that what is given back is what was taken', async () => {
    const held = Promise.withResolvers<void>();
    const release = Promise.withResolvers<void>();
    host.script = async (): Promise<Verdict> => {
      held.resolve();
      await release.promise;
      return 'works';
    };
    const { id, jobId } = accepted(await register());
    await held.promise;
    assert.deepEqual((await drop(id)).errors[0]?.code, 'INVALID_STATE');
    release.resolve();
    await jobEnded(first, jobId);
    host.script = () => 'works';
    assert.deepEqual((await drop(id)).errors, []);
    assert.deepEqual(await both(), [{}, {}]);
    await assertClean(first);
  });

  it('no template is registered for an account that is disabled', async () => {
    assert.deepEqual((await first.ops.disableAccount(ADMIN, { id: idOf('account', account) })).errors, []);
    assert.deepEqual((await register()).errors[0]?.code, 'INVALID_STATE');
    assert.deepEqual(await both(), [{}, {}]);
  });

  it('a control plane that is lost among creates leaves a count that is exact, and 0 once all is expunged', async () => {
    await limit({ domainId: idOf('domain', domain) }, [['VMS', LIMIT]]);
    const lost = await openCore(database.url);
    await host.unlink();
    await host.link(lost);
    const frozen = Promise.withResolvers<() => void>();
    let commands = 0;
    host.script = () => {
      if (++commands === 4) frozen.resolve(freeze(lost));
      return commands < 4 ? 'works' : 'silence';
    };
    // What it would still have answered is lost with it.
    for (let n = 0; n < CREATES; n++) void create(lost);
    await frozen.promise;
    await host.unlink();
    host.script = () => 'works';
    await host.link(first);
    for (const core of [first, second]) await core.feed.catchUp();

    const more = await Promise.all(Array.from({ length: CREATES }, (_, n) => create([first, second][n % 2]!)));
    const vms = await database.db.selectFrom('vm').select('id').where('account_id', '=', account.id).execute();
    assert.deepEqual([vms.length, refusals(more).every(({ code }) => code === 'QUOTA_EXCEEDED')], [LIMIT, true]);
    const jobs = await database.db.selectFrom('job').select('id').where('account_id', '=', account.id).execute();
    for (const { id } of jobs) assert.equal((await jobEnded(first, id)).state, 'SUCCEEDED');
    assert.deepEqual(await both(), [counted(LIMIT), counted(LIMIT)]);
    for (const { id } of vms) await expunge(first, id);
    assert.deepEqual(await both(), [{}, {}]);
    await assertClean(first);
    (await frozen.promise)();
    await lost.close();
  });
});
