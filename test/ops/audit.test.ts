import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import type { Insertable } from 'kysely';
import type { Core } from '../../src/core.ts';
import type { AuditTable, VmTable } from '../../src/db/tables.ts';
import type { Actor, UserActor } from '../../src/domain/authorize.ts';
import { encodeId } from '../../src/domain/ids.ts';
import type { FieldChange } from '../../src/domain/kinds.ts';
import type { Payload } from '../../src/ops/context.ts';
import type { Ops } from '../../src/ops/ops.ts';
import { ADMIN, beforeNextWrite, openCore, publicJobId } from '../support/core.ts';
import { freshDatabase, type TestDatabase } from '../support/database.ts';
import {
  idOf,
  insertAccount,
  insertActor,
  insertApiKey,
  insertDomain,
  insertIdentityProvider,
  insertMember,
  insertRole,
  insertSession,
  insertUser,
  type PlacedDomain,
  ROLE,
} from '../support/tenants.ts';
import {
  insertCluster,
  insertHost,
  insertJob,
  insertOffering,
  insertPod,
  insertStorage,
  insertTemplate,
  insertVm,
  insertVolume,
  insertWorld,
  insertZone,
  type Placed,
  type World,
} from '../support/world.ts';

type Name = Exclude<keyof Ops, 'explainPlacement' | 'deletionPlan'>;
type Run = (
  actor: Actor,
  input: unknown,
  via?: { address: string | null; requestId: string | null },
) => Promise<Payload>;
const VIA = { address: '203.0.113.9', requestId: 'request-1' };

/** What anybody may to what is his own, or has no key: apart from the rest, and in test/api/sign-in.test.ts. */
const OF_ONESELF = [
  'signIn',
  // The end of it is recorded: test/ops/external-user.test.ts.
  'beginOidcSignIn',
  'signOut',
  'revokeSession',
  'setPassword',
  'changePassword',
  'beginTotp',
  'confirmTotp',
  'removeTotp',
] as const;

describe('the audit trail', () => {
  let database: TestDatabase;
  let core: Core;
  let world: World;
  let domain: PlacedDomain;
  let account: Placed;
  let reader: UserActor & Placed;
  let user: UserActor & Placed;
  let domainAdmin: UserActor & Placed;
  let stranger: UserActor & Placed;
  let runs = 0;

  before(async () => {
    database = await freshDatabase();
    const { db } = database;
    world = await insertWorld(db);
    domain = await insertDomain(db);
    account = await insertAccount(db, domain);
    reader = await insertActor(db, account, ROLE.readOnly);
    user = await insertActor(db, account, ROLE.user);
    domainAdmin = await insertActor(db, account, ROLE.domainAdmin);
    stranger = await insertActor(db, await insertAccount(db, await insertDomain(db)), ROLE.user);
    core = await openCore(database.url);
  });
  after(async () => {
    await core.close();
    await database.close();
  });

  const name = (): string => `new ${++runs}`;
  /** What a mutation leaves behind, and what it answers. */
  async function trail(work: () => Promise<Payload>): Promise<{ records: Row[]; payload: Payload | Error }> {
    const { audit_seq: from } = await core.db.selectFrom('feed_head').select('audit_seq').executeTakeFirstOrThrow();
    const payload = await work().catch((error: Error) => error);
    const rows = await core.db.selectFrom('audit').selectAll().where('seq', '>', from).orderBy('seq').execute();
    return { records: rows as unknown as Row[], payload };
  }
  type Row = Insertable<AuditTable>;
  const ask = (mutation: Name, actor: Actor, input: unknown) =>
    trail(() => (core.ops[mutation] as Run)(actor, input, VIA));
  const changesOf = (row: Row): FieldChange[] => JSON.parse(row.changes) as FieldChange[];

  const vm = async (state: VmTable['state'], more: Partial<Insertable<VmTable>> = {}) => {
    const onHost = state === 'RUNNING' || state === 'PAUSED' ? { host_id: world.hosts[0]!.id } : {};
    const placed = await insertVm(core.db, world, { state, account_id: account.id, ...onHost, ...more });
    await insertVolume(core.db, world, placed, { account_id: account.id });
    return placed;
  };
  const vmId = async (state: VmTable['state']) => ({ id: idOf('vm', await vm(state)) });
  const stuckJob = async () => {
    const { jobId } = await core.ops.startVm(ADMIN, await vmId('STOPPED'));
    await core.db.updateTable('job').set({ state: 'NEEDS_ATTENTION' }).where('id', '=', jobId!).execute();
    core.engine.forget([{ kind: 'job', id: jobId! }]);
    return publicJobId(core, jobId!);
  };
  const off = { wanted_state: 'DISABLED' as const };
  const kinds = {
    Zone: (more = {}) => insertZone(core.db, more).then((row) => idOf('zone', row)),
    Pod: (more = {}) => insertPod(core.db, world.zone, more).then((row) => idOf('pod', row)),
    Cluster: (more = {}) => insertCluster(core.db, world, more).then((row) => idOf('cluster', row)),
    Host: (more = {}) => insertHost(core.db, world, more).then((row) => idOf('host', row)),
    PrimaryStorage: (more = {}) => insertStorage(core.db, world, more).then((row) => idOf('primary_storage', row)),
    Offering: (more = {}) => insertOffering(core.db, more).then((row) => idOf('offering', row)),
    Template: (more = {}) => insertTemplate(core.db, world.zone, more).then((row) => idOf('template', row)),
    Domain: (more = {}) => insertDomain(core.db, domain, more).then((row) => idOf('domain', row)),
    Account: (more = {}) => insertAccount(core.db, domain, more).then((row) => idOf('account', row)),
    IdentityProvider: (more = {}) =>
      insertIdentityProvider(core.db, { domain, account, role: { id: ROLE.user } }, more).then((row) =>
        idOf('identity_provider', row),
      ),
    User: (more = {}) => insertUser(core.db, account, ROLE.user, more).then((row) => idOf('user', row)),
  };
  type Noun = keyof typeof kinds;
  const arranged = <N extends Noun>(noun: N) =>
    ({
      [`update${noun}`]: async () => ({ id: await kinds[noun](), name: name() }),
      [`enable${noun}`]: async () => ({ id: await kinds[noun](off) }),
      [`disable${noun}`]: async () => ({ id: await kinds[noun]() }),
      [`delete${noun}`]: async () => ({ id: await kinds[noun]() }),
    }) as Record<`${'update' | 'enable' | 'disable' | 'delete'}${N}`, () => Promise<object>>;

  /** What each does, asked by the root admin. A mutation without a row here does not compile. */
  const ALLOWED: Record<Exclude<Name, (typeof OF_ONESELF)[number]>, () => Promise<object>> = {
    createZone: async () => ({ name: name() }),
    ...arranged('Zone'),
    createPod: async () => ({ zoneId: idOf('zone', world.zone), name: name() }),
    ...arranged('Pod'),
    createCluster: async () => ({ podId: idOf('pod', world.pod), name: name() }),
    ...arranged('Cluster'),
    createHostJoinToken: async () => ({ clusterId: idOf('cluster', world.cluster) }),
    ...arranged('Host'),
    revokeHostCertificate: async () => ({ id: await kinds.Host() }),
    createPrimaryStorage: async () => ({
      clusterId: idOf('cluster', world.cluster),
      name: name(),
      path: `/srv/${++runs}`,
      capacityGib: 1,
    }),
    ...arranged('PrimaryStorage'),
    createOffering: async () => ({ name: name(), vcpus: 1, memoryMib: 128 }),
    ...arranged('Offering'),
    registerTemplate: async () => ({
      zoneId: idOf('zone', world.zone),
      name: name(),
      fileName: 'tiny-linux.qcow2',
      format: 'QCOW2',
    }),
    ...arranged('Template'),
    createDomain: async () => ({ parentId: idOf('domain', domain), name: name() }),
    ...arranged('Domain'),
    moveDomain: async () => ({ id: await kinds.Domain(), parentId: await kinds.Domain() }),
    createAccount: async () => ({ domainId: idOf('domain', domain), name: name() }),
    ...arranged('Account'),
    moveAccount: async () => ({ id: await kinds.Account(), domainId: await kinds.Domain() }),
    createUser: async () => ({
      accountId: idOf('account', account),
      roleId: encodeId('role', await roleUid()),
      name: name(),
    }),
    ...arranged('User'),
    createIdentityProvider: async () => ({
      accountId: idOf('account', account),
      name: name(),
      oidc: { issuer: 'https://login.example.com', clientId: 'virtgraph' },
      roleMapping: [{ group: '*', roleId: encodeId('role', await roleUid()) }],
    }),
    ...arranged('IdentityProvider'),
    createApiKey: async () => ({ userId: await kinds.User(), name: name() }),
    revokeApiKey: async () => ({ id: idOf('api_key', await insertApiKey(core.db, reader)) }),
    createRole: async () => ({ name: name(), reach: 'ACCOUNT', rules: [] }),
    updateRole: async () => ({ id: idOf('role', await insertRole(core.db)), name: name() }),
    deleteRole: async () => ({ id: idOf('role', await insertRole(core.db)) }),
    updateQuota: async () => ({
      accountId: idOf('account', account),
      limits: [{ resource: 'VMS', limit: 100 + ++runs }],
    }),
    addProjectMember: async () => ({
      projectId: idOf('account', await project()),
      userId: idOf('user', user),
      roleId: encodeId('role', await roleUid()),
    }),
    updateProjectMember: async () => ({ id: await member(), roleId: encodeId('role', await roleUid()) }),
    removeProjectMember: async () => ({ id: await member() }),
    createVm: async () => ({
      name: `vm-${++runs}`,
      accountId: idOf('account', account),
      zoneId: idOf('zone', world.zone),
      offeringId: idOf('offering', world.offering),
      templateId: idOf('template', world.template),
    }),
    updateVm: async () => ({ ...(await vmId('STOPPED')), name: `vm-${++runs}` }),
    startVm: () => vmId('STOPPED'),
    stopVm: () => vmId('RUNNING'),
    rebootVm: () => vmId('RUNNING'),
    resetVm: () => vmId('RUNNING'),
    pauseVm: () => vmId('RUNNING'),
    resumeVm: () => vmId('PAUSED'),
    destroyVm: () => vmId('STOPPED'),
    recoverVm: () => vmId('DESTROYED'),
    expungeVm: () => vmId('DESTROYED'),
    cancelJob: async () => ({ id: idOf('job', await insertJob(core.db, await vm('STOPPED'), { state: 'QUEUED' })) }),
    retryJob: async () => ({ id: idOf('job', await insertJob(core.db, await vm('STOPPED'), { state: 'FAILED' })) }),
    resolveJob: async () => ({ id: await stuckJob(), resolution: 'RETRY_STEP' }),
  };
  const project = () => insertAccount(core.db, domain, { type: 'PROJECT' });
  const member = async () =>
    idOf('project_member', await insertMember(core.db, await project(), { user }, ROLE.readOnly));
  /** What it is about: mostly `id`. */
  const askedIdOf = (mutation: string, input: object): string | null =>
    (input as Record<string, string>)[mutation === 'updateQuota' ? 'accountId' : 'id'] ?? null;
  const roleUid = async (): Promise<Buffer> =>
    (await core.db.selectFrom('role').select('uid').where('id', '=', ROLE.user).executeTakeFirstOrThrow()).uid;

  it('knows every mutation that there is', () => {
    const { explainPlacement: _, deletionPlan: __, ...mutations } = core.ops;
    assert.deepEqual([...Object.keys(ALLOWED), ...OF_ONESELF].sort(), Object.keys(mutations).sort());
  });

  it('has one record of a session that is revoked and of a password that is set, without the password', async () => {
    const ends = { revokeSession: { id: idOf('session', await insertSession(core.db, reader)) } };
    const password = 'correct horse battery';
    for (const [mutation, input] of Object.entries({
      ...ends,
      setPassword: { userId: await kinds.User(), password },
    })) {
      const { records } = await ask(mutation as Name, ADMIN, input);
      assert.deepEqual(
        records.map(({ outcome, action }) => [outcome, action]),
        [['ALLOWED', mutation]],
      );
      assert.ok(!JSON.stringify(records).includes(password));
    }
  });

  for (const mutation of Object.keys(ALLOWED) as (keyof typeof ALLOWED)[]) {
    it(`has one record of a ${mutation} that is allowed, and none of the same once more with its key`, async () => {
      const input = { ...(await ALLOWED[mutation]()), idempotencyKey: name(), reason: 'because' };
      const { records, payload } = await ask(mutation, ADMIN, input);
      assert.ok(!(payload instanceof Error) && payload.errors.length === 0, JSON.stringify(payload));
      assert.equal(records.length, 1);
      const { outcome, code, action, actor, address, reason, request_id, subject_id, job_id, credential } = records[0]!;
      assert.deepEqual(
        { outcome, code, action, actor, address, reason, request_id, subject_id, job_id, credential },
        {
          outcome: 'ALLOWED',
          code: null,
          action: mutation,
          actor: 'root-admin',
          address: '203.0.113.9',
          reason: 'because',
          request_id: 'request-1',
          subject_id: payload.id,
          job_id: payload.jobId,
          credential: 'admin-token:1',
        },
      );
      assert.deepEqual((await ask(mutation, ADMIN, input)).records, []);
    });

    it(`has one record of a ${mutation} that the role does not allow`, async () => {
      const input = { ...(await ALLOWED[mutation]()), reason: 'because' };
      const { records, payload } = await ask(mutation, reader, input);
      assert.equal((payload as Error & { code?: string }).code, 'FORBIDDEN');
      assert.equal(records.length, 1);
      const { outcome, code, action, user_id, credential, asked_id, reason, changes } = records[0]!;
      assert.deepEqual(
        { outcome, code, action, user_id, credential, asked_id, reason, changes },
        {
          outcome: 'REFUSED',
          code: 'FORBIDDEN',
          action: mutation,
          user_id: reader.userId,
          credential: `api-key:${reader.credential.id}`,
          asked_id: askedIdOf(mutation, input),
          reason: 'because',
          changes: '[]',
        },
      );
    });

    it(`has one record of a ${mutation} whose input is none`, async () => {
      const { records } = await ask(mutation, ADMIN, { name: 7, id: 'an API key by mistake', reason: 7 });
      assert.deepEqual(
        records.map(({ outcome, code, asked_id, reason }) => ({ outcome, code, asked_id, reason })),
        [{ outcome: 'REFUSED', code: 'INVALID_INPUT', asked_id: null, reason: null }],
      );
    });
  }

  it('tells before and after, and of what is created its name', async () => {
    const renamed = await ask('updateVm', user, {
      id: idOf('vm', await vm('STOPPED', { name: 'old' })),
      name: 'newer',
    });
    assert.deepEqual(changesOf(renamed.records[0]!), [{ field: 'name', before: 'old', after: 'newer' }]);
    const created = await ask('createZone', ADMIN, { name: 'a new zone' });
    assert.deepEqual(changesOf(created.records[0]!), [{ field: 'name', before: null, after: 'a new zone' }]);
    const started = await ask('startVm', user, await vmId('STOPPED'));
    assert.deepEqual(changesOf(started.records[0]!), [{ field: 'state', before: 'STOPPED', after: 'STARTING' }]);
  });

  it('has a record without changes of what is so already, with a key and without', async () => {
    const id = await kinds.Zone();
    for (const more of [{}, { idempotencyKey: 'already' }]) {
      const { records } = await ask('enableZone', ADMIN, { id, ...more });
      assert.deepEqual(
        records.map(({ outcome, changes }) => [outcome, changes]),
        [['ALLOWED', '[]']],
      );
    }
    assert.deepEqual((await ask('enableZone', ADMIN, { id, idempotencyKey: 'already' })).records, []);
  });

  it('names whose quota was asked about, be it changed, so already, refused or of nobody', async () => {
    const limits = (limit: number | null) => [{ resource: 'VMS', limit }];
    const place = await insertDomain(core.db, domain);
    const [domainId, accountId] = [idOf('domain', place), idOf('account', account)];
    const unknown = encodeId('domain', Buffer.alloc(16, 7));
    const about = async (actor: Actor, input: object) => {
      const { records } = await ask('updateQuota', actor, input);
      return records.map(({ outcome, subject_kind, subject_id, asked_id, account_id }) => {
        assert.equal(account_id, actor.kind === 'user' ? account.id : subject_kind === 'account' ? account.id : null);
        return [outcome, subject_kind, subject_id, asked_id];
      })[0];
    };
    const ofDomain = (limit: number | null) => ({ domainId, limits: limits(limit) });
    assert.deepEqual(await about(ADMIN, ofDomain(5)), ['ALLOWED', 'domain', place.id, domainId]);
    assert.deepEqual(await about(ADMIN, ofDomain(5)), ['ALLOWED', 'domain', place.id, domainId]);
    assert.deepEqual(await about(ADMIN, ofDomain(-1)), ['REFUSED', 'domain', place.id, domainId]);
    assert.deepEqual(await about(reader, ofDomain(6)), ['REFUSED', 'domain', place.id, domainId]);
    const nothing = { domainId: unknown, limits: limits(5) };
    assert.deepEqual(await about(domainAdmin, nothing), ['REFUSED', null, null, unknown]);
    const own = { accountId, limits: limits(5) };
    assert.deepEqual(await about(domainAdmin, own), ['REFUSED', 'account', account.id, accountId]);
    assert.deepEqual(await about(ADMIN, own), ['ALLOWED', 'account', account.id, accountId]);
    assert.deepEqual(await about(ADMIN, own), ['ALLOWED', 'account', account.id, accountId]);
  });

  it('names the user whose password or second factor was not to be touched', async () => {
    const userId = await kinds.User();
    for (const [mutation, input] of [
      ['setPassword', { userId, password: 'correct horse battery' }],
      ['removeTotp', { userId }],
    ] as const) {
      const { records } = await ask(mutation, reader, input);
      assert.deepEqual(
        records.map(({ outcome, subject_kind, asked_id }) => [outcome, subject_kind, asked_id]),
        [['REFUSED', 'user', userId]],
      );
    }
  });

  it('has a record of a key that was used with other arguments', async () => {
    await ask('createZone', ADMIN, { name: name(), idempotencyKey: 'reused' });
    const { records } = await ask('createZone', ADMIN, { name: name(), idempotencyKey: 'reused' });
    assert.deepEqual(
      records.map(({ outcome, code }) => [outcome, code]),
      [['REFUSED', 'IDEMPOTENCY_KEY_REUSED']],
    );
  });

  it('has one record of what had to be tried again', async () => {
    const zone = await insertZone(core.db);
    beforeNextWrite(core, () =>
      core.db.updateTable('zone').set({ generation: 7 }).where('id', '=', zone.id).executeTakeFirstOrThrow(),
    );
    const { records } = await ask('disableZone', ADMIN, { id: idOf('zone', zone) });
    assert.deepEqual(
      records.map(({ outcome, subject_id }) => [outcome, subject_id]),
      [['ALLOWED', zone.id]],
    );
  });

  describe('belongs', () => {
    const owner = async (mutation: Name, actor: Actor, input: unknown) => {
      const { records } = await ask(mutation, actor, input);
      return records.map(({ account_id, subject_id }) => ({ account_id, subject_id }))[0];
    };

    it('to the account that owns what was changed, whoever asked', async () => {
      const placed = await vm('STOPPED');
      const its = { account_id: account.id, subject_id: placed.id };
      const input = { id: idOf('vm', placed), name: 'renamed by the operator' };
      assert.deepEqual(await owner('updateVm', ADMIN, input), its);
      assert.deepEqual(await owner('updateVm', ADMIN, input), its, 'so already');
      assert.deepEqual(await owner('updateVm', ADMIN, { ...input, expectedGeneration: 99 }), its, 'refused');
      const job = await insertJob(core.db, placed, { state: 'QUEUED', account_id: account.id });
      assert.deepEqual(await owner('cancelJob', ADMIN, { id: idOf('job', job) }), {
        account_id: account.id,
        subject_id: job.id,
      });
    });

    it('to nobody but operators where an operator changes what is no tenant’s', async () => {
      const zone = await insertZone(core.db);
      const input = { id: idOf('zone', zone) };
      assert.deepEqual(await owner('disableZone', ADMIN, input), { account_id: null, subject_id: zone.id });
    });

    it('to the account of who asked, where there is no owner or he may not know of it', async () => {
      const placed = await vm('STOPPED');
      assert.deepEqual(await owner('startVm', stranger, { id: idOf('vm', placed) }), {
        account_id: stranger.accountId,
        subject_id: placed.id,
      });
      assert.deepEqual(await owner('createZone', domainAdmin, { name: 'mine' }), {
        account_id: account.id,
        subject_id: null,
      });
    });
  });

  it('has a record of what failed by a fault of ours', async () => {
    const { ids } = core.opsContext;
    const { take } = ids;
    ids.take = () => Promise.reject(new TypeError('a fault'));
    try {
      const { records, payload } = await ask('createZone', ADMIN, { name: name() });
      assert.equal((payload as Error).message, 'a fault');
      assert.deepEqual(
        records.map(({ outcome, code }) => [outcome, code]),
        [['REFUSED', 'INTERNAL']],
      );
    } finally {
      ids.take = take;
    }
  });

  it('refuses with UNAVAILABLE where no record can be written', async () => {
    const { submit } = core.writer;
    core.writer.submit = () => Promise.reject(Object.assign(new Error('away'), { code: 'ECONNREFUSED' }));
    try {
      for (const input of [{ name: 7 }, {}])
        await assert.rejects(core.ops.createZone(ADMIN, input), { code: 'UNAVAILABLE' });
      await assert.rejects(core.ops.createZone(reader, { name: 'forbidden' }), { code: 'UNAVAILABLE' });
    } finally {
      core.writer.submit = submit;
    }
  });
});
