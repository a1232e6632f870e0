import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import type { Core } from '../../src/core.ts';
import { encodeId } from '../../src/domain/ids.ts';
import type { Payload } from '../../src/ops/context.ts';
import {
  ADMIN,
  assertClean,
  beforeNextWrite,
  freeze,
  jobEnded,
  jobIs,
  jobRow,
  openCore,
  publicJobId,
  takenUp,
} from '../support/core.ts';
import { fails, type Verdict } from '../support/journal-host.ts';
import {
  idOf,
  insertAccount,
  insertActor,
  insertApiKey,
  insertDomain,
  insertIdentityProvider,
  insertRole,
  insertUser,
  type PlacedDomain,
  ROLE,
  refusalOf,
} from '../support/tenants.ts';
import { insertTemplate, type Placed } from '../support/world.ts';
import { accepted, type Bench, createInput, openBench, stepsOf, vmRow } from './cases.ts';

describe('with all that is inside', () => {
  let bench: Bench;
  before(async () => {
    bench = await openBench();
  });
  after(() => bench.close());

  interface Tenant {
    domain: PlacedDomain;
    account: Placed;
    below: PlacedDomain;
    vms: number[];
  }
  /** Two running VMs in an account, a stopped one in an account of a domain below, a user with a key in each. */
  async function tenant(): Promise<Tenant> {
    const { core, database } = bench;
    const { db } = database;
    const domain = await insertDomain(db);
    const below = await insertDomain(db, domain);
    const account = await insertAccount(db, domain);
    const other = await insertAccount(db, below);
    for (const one of [account, other]) await insertApiKey(db, await insertUser(db, one, ROLE.user));
    const provider = await insertIdentityProvider(db, { domain, account, role: { id: ROLE.user } });
    await insertUser(db, account, ROLE.user, { identity_provider_id: provider.id, external_subject: 'one' });
    await core.inventory.load();
    const vms = [];
    for (const [of, start] of [
      [account, true],
      [account, true],
      [other, false],
    ] as const) {
      const made = accepted(
        await core.ops.createVm(ADMIN, createInput(bench, { accountId: idOf('account', of), start })),
      );
      assert.equal((await jobEnded(core, made.jobId)).state, 'SUCCEEDED');
      vms.push(made.id);
    }
    return { domain, account, below, vms };
  }
  const states = async (core: Core, vms: number[]) => Promise.all(vms.map(async (id) => (await vmRow(core, id)).state));
  const row = (table: 'account' | 'domain', id: number) =>
    bench.database.db
      .selectFrom(table as 'account')
      .selectAll()
      .where('id', '=', id)
      .executeTakeFirstOrThrow();
  const living = async (table: 'account' | 'domain', id: number) => (await row(table, id)).deleted_at === null;
  const planned = (scope: { kind: 'account' | 'domain'; id: number }) => bench.core.ops.deletionPlan(scope);

  it('a dry run tells what would be deleted and does nothing', async () => {
    const { core } = bench;
    const { domain, vms } = await tenant();
    const { id, jobId, errors } = await core.ops.deleteDomain(ADMIN, { id: idOf('domain', domain), dryRun: true });
    assert.deepEqual([id, jobId, errors], [domain.id, null, []]);
    assert.deepEqual(await planned({ kind: 'domain', id: domain.id }), [
      { kind: 'vm', count: 3 },
      { kind: 'volume', count: 3 },
      { kind: 'api_key', count: 2 },
      { kind: 'user', count: 3 },
      { kind: 'identity_provider', count: 1 },
      { kind: 'account', count: 2 },
      { kind: 'domain', count: 2 },
    ]);
    assert.equal((await row('domain', domain.id)).wanted_state, 'ENABLED');
    assert.deepEqual(await states(core, vms), ['RUNNING', 'RUNNING', 'STOPPED']);
  });

  it('a domain is deleted: its VMs first, then accounts and domains, each job a part of the one', async () => {
    const { core } = bench;
    const { domain, account, below, vms } = await tenant();
    const input = { id: idOf('domain', domain), cascade: true, reason: 'left us' };
    const { jobId } = accepted(await core.ops.deleteDomain(ADMIN, input));
    assert.equal((await row('domain', domain.id)).wanted_state, 'DISABLED');
    const job = await jobEnded(core, jobId);
    assert.deepEqual([job.state, job.progress, job.error_message], ['SUCCEEDED', 100, null]);
    assert.deepEqual(
      (await stepsOf(core, jobId)).map(({ name, state }) => [name, state]),
      [
        ['vms', 'DONE'],
        ['rest', 'DONE'],
      ],
    );
    assert.deepEqual(await states(core, vms), ['EXPUNGED', 'EXPUNGED', 'EXPUNGED']);
    assert.ok(!(await living('account', account.id)));
    for (const { id } of [domain, below]) assert.ok(!(await living('domain', id)));
    assert.deepEqual(await planned({ kind: 'domain', id: domain.id }), []);
    const children = await core.db
      .selectFrom('job')
      .select(['kind', 'reason'])
      .where('parent_id', '=', jobId)
      .execute();
    assert.equal(children.length, 6);
    for (const { reason } of children) assert.equal(reason, 'left us');
    await assertClean(core);
  });

  it('an account is deleted, and nothing beside it', async () => {
    const { core } = bench;
    const { domain, account, vms } = await tenant();
    const { jobId } = accepted(await core.ops.deleteAccount(ADMIN, { id: idOf('account', account), cascade: true }));
    assert.equal((await jobEnded(core, jobId)).state, 'SUCCEEDED');
    assert.deepEqual(await states(core, vms), ['EXPUNGED', 'EXPUNGED', 'STOPPED']);
    assert.ok(!(await living('account', account.id)));
    assert.ok(await living('domain', domain.id));
  });

  it('what cannot be deleted is named, the rest is gone, and another try goes on from there', async () => {
    const { core, host } = bench;
    const { account, vms } = await tenant();
    host.script = (command): Verdict =>
      command['vmId'] === encodeId('vm', victim) ? fails('INTERNAL', 'The disk is busy.') : 'works';
    const victim = (await vmRow(core, vms[0]!)).uid;
    const input = { id: idOf('account', account), cascade: true };
    const { jobId } = accepted(await core.ops.deleteAccount(ADMIN, input));
    const job = await jobEnded(core, jobId);
    assert.equal(job.state, 'FAILED');
    assert.match(job.error_message!, /^1 VM could not be deleted\. case-\d+: The disk is busy\.$/);
    assert.equal((await vmRow(core, vms[1]!)).state, 'EXPUNGED');
    assert.ok(await living('account', account.id));
    assert.equal((await row('account', account.id)).wanted_state, 'DISABLED');
    host.script = () => 'works';
    const again = accepted(await core.ops.deleteAccount(ADMIN, input));
    assert.equal((await jobEnded(core, again.jobId)).state, 'SUCCEEDED');
    assert.ok(!(await living('account', account.id)));
  });

  it('ends at its second step where something beside VMs cannot be deleted, and another try goes on', async () => {
    const { core, world } = bench;
    const account = await insertAccount(core.db, await insertDomain(core.db));
    const template = await insertTemplate(core.db, world.zone, { account_id: account.id, active_job_id: 1 });
    await core.inventory.load();
    const input = { id: idOf('account', account), cascade: true };
    const { jobId } = accepted(await core.ops.deleteAccount(ADMIN, input));
    const { state, error_code, failed_step } = await jobEnded(core, jobId);
    assert.deepEqual([state, error_code, failed_step], ['FAILED', 'INVALID_STATE', 'rest']);
    assert.deepEqual(
      (await stepsOf(core, jobId)).map((step) => [step.name, step.state]),
      [
        ['vms', 'DONE'],
        ['rest', 'FAILED'],
      ],
    );
    await core.db.updateTable('template').set({ active_job_id: null }).where('id', '=', template.id).execute();
    const again = accepted(await core.ops.deleteAccount(ADMIN, input));
    assert.equal((await jobEnded(core, again.jobId)).state, 'SUCCEEDED');
  });

  it('tells those inside of no host that could not be asked', async () => {
    const { core, world, database } = bench;
    const { account } = await tenant();
    const turn = async (link_state: 'UP' | 'UNREACHABLE') => {
      await database.db.updateTable('host').set({ link_state }).where('id', '=', world.hosts[0]!.id).execute();
      await core.inventory.load();
    };
    await turn('UNREACHABLE');
    const { jobId } = accepted(await core.ops.disableAccount(ADMIN, { id: idOf('account', account), stopVms: true }));
    const { state, error_message } = await jobEnded(core, jobId);
    await turn('UP');
    assert.equal(state, 'FAILED');
    assert.match(error_message!, /^2 VMs could not be stopped\. case-\d+: What it runs on cannot be asked/);
    assert.doesNotMatch(error_message!, /host-/);
  });

  it('disabling stops no VM unless told so', async () => {
    const { core } = bench;
    const { domain, vms } = await tenant();
    const id = idOf('domain', domain);
    assert.equal((await core.ops.disableDomain(ADMIN, { id })).jobId, null);
    assert.deepEqual(await states(core, vms), ['RUNNING', 'RUNNING', 'STOPPED']);
    const { jobId } = accepted(await core.ops.disableDomain(ADMIN, { id, stopVms: true }));
    const job = await jobEnded(core, jobId);
    assert.deepEqual([job.kind, job.state], ['STOP_DOMAIN', 'SUCCEEDED']);
    assert.deepEqual(await states(core, vms), ['STOPPED', 'STOPPED', 'STOPPED']);
  });

  it('a cancelled one leaves what has not begun', async () => {
    const { core, host } = bench;
    const { account, vms } = await tenant();
    const [held, gate] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
    host.script = async (): Promise<Verdict> => {
      held.resolve();
      await gate.promise;
      return 'works';
    };
    const { jobId } = accepted(await core.ops.deleteAccount(ADMIN, { id: idOf('account', account), cascade: true }));
    await held.promise;
    accepted(await core.ops.cancelJob(ADMIN, { id: await publicJobId(core, jobId) }));
    assert.equal((await jobRow(core, jobId)).state, 'CANCELLED');
    host.script = () => 'works';
    gate.resolve();
    const children = await core.db.selectFrom('job').select('id').where('parent_id', '=', jobId).execute();
    for (const child of children) await jobEnded(core, child.id);
    assert.ok(!(await states(core, vms)).includes('EXPUNGED'));
    assert.ok(await living('account', account.id));
    await assertClean(core);
  });

  it('goes on at another control plane after the one that began it is gone', async () => {
    const { core, database } = bench;
    const { account, vms } = await tenant();
    const other = await openCore(database.url);
    const { submit } = other.writer;
    // It commits the beginning, and nothing after it.
    other.writer.submit = (transition) => {
      freeze(other);
      return submit.call(other.writer, transition);
    };
    try {
      const payload = await other.ops.deleteAccount(ADMIN, { id: idOf('account', account), cascade: true });
      const { jobId } = accepted(payload);
      await takenUp(core, jobId);
      assert.equal((await jobEnded(core, jobId)).state, 'SUCCEEDED');
      assert.deepEqual(await states(core, vms), ['EXPUNGED', 'EXPUNGED', 'STOPPED']);
    } finally {
      await other.close();
    }
  });

  it('is begun once at a time', async () => {
    const { core, host } = bench;
    const { account } = await tenant();
    const gate = Promise.withResolvers<void>();
    host.script = async (): Promise<Verdict> => {
      await gate.promise;
      return 'works';
    };
    const input = { id: idOf('account', account), cascade: true };
    const { jobId } = accepted(await core.ops.deleteAccount(ADMIN, input));
    await jobIs(core, jobId, 'RUNNING');
    assert.equal(refusalOf(await core.ops.deleteAccount(ADMIN, input)).code, 'CONFLICT');
    assert.equal(refusalOf(await core.ops.disableAccount(ADMIN, { id: input.id, stopVms: true })).code, 'CONFLICT');
    gate.resolve();
    host.script = () => 'works';
    assert.equal((await jobEnded(core, jobId)).state, 'SUCCEEDED');
  });

  it('is begun once by two who ask at the same moment, also of what is disabled already', async () => {
    const { core, host } = bench;
    for (const disabled of [false, true]) {
      const { account } = await tenant();
      const input = { id: idOf('account', account), cascade: true };
      if (disabled) assert.deepEqual((await core.ops.disableAccount(ADMIN, { id: input.id })).errors, []);
      const gate = Promise.withResolvers<void>();
      host.script = async (): Promise<Verdict> => {
        await gate.promise;
        return 'works';
      };
      const [others, meanwhile] = [Promise.withResolvers<Payload>(), () => core.ops.deleteAccount(ADMIN, input)];
      beforeNextWrite(core, async () => others.resolve(await meanwhile()));
      assert.equal(refusalOf(await core.ops.deleteAccount(ADMIN, input)).code, 'CONFLICT');
      const { jobId } = accepted(await others.promise);
      gate.resolve();
      host.script = () => 'works';
      assert.equal((await jobEnded(core, jobId)).state, 'SUCCEEDED');
    }
  });

  it('is for who may delete each, and never for what an installation or the asker stands on', async () => {
    const { core, database } = bench;
    const { account, domain } = await tenant();
    const narrow = await insertRole(
      database.db,
      [
        { effect: 'ALLOW', verb: 'delete', kind: 'account' },
        { effect: 'ALLOW', verb: 'update', kind: 'account' },
        { effect: 'ALLOW', verb: 'read', kind: '*' },
      ],
      { reach: 'ALL' },
    );
    const home = await insertAccount(database.db, await insertDomain(database.db));
    const janitor = await insertActor(database.db, home, narrow.id);
    const id = idOf('account', account);
    for (const how of [{ cascade: true }, { dryRun: true }])
      assert.equal(refusalOf(await core.ops.deleteAccount(janitor, { id, ...how })).code, 'FORBIDDEN');
    const admin = await insertActor(database.db, account, ROLE.domainAdmin);
    await core.inventory.load();
    // Nobody is in it who has more, but VMs may be.
    const vacant = { id: idOf('account', await insertAccount(database.db, domain)) };
    for (const how of [{ cascade: true }, { dryRun: true }])
      assert.equal(refusalOf(await core.ops.deleteAccount(janitor, { ...vacant, ...how })).code, 'FORBIDDEN');
    assert.equal(
      refusalOf(await core.ops.disableAccount(janitor, { ...vacant, stopVms: true })).message,
      'Your role here may not operate a vm.',
    );
    assert.deepEqual((await core.ops.disableAccount(janitor, vacant)).errors, []);
    for (const how of [{ cascade: true }, { dryRun: true }]) {
      assert.equal(refusalOf(await core.ops.deleteAccount(admin, { id, ...how })).code, 'FORBIDDEN');
      const own = { id: idOf('domain', domain), ...how };
      assert.equal(refusalOf(await core.ops.deleteDomain(admin, own)).code, 'FORBIDDEN');
      const root = { uid: Buffer.from('00000000000070008000000000000001', 'hex') };
      const kept = refusalOf(await core.ops.deleteDomain(ADMIN, { id: idOf('domain', root), ...how }));
      assert.equal(kept.code, 'INVALID_STATE');
    }
  });
});
