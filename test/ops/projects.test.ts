import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import type { Core } from '../../src/core.ts';
import { newUid } from '../../src/db/ids.ts';
import type { UserActor } from '../../src/domain/authorize.ts';
import { VirtgraphError } from '../../src/domain/errors.ts';
import type { Payload } from '../../src/ops/context.ts';
import { MEMBERS_MAX, PROJECTS_MAX } from '../../src/ops/membership-bounds.ts';
import { ADMIN, beforeNextWrite, openCore } from '../support/core.ts';
import { freshDatabase, type TestDatabase } from '../support/database.ts';
import {
  actorOf,
  idOf,
  insertAccount,
  insertApiKey,
  insertDomain,
  insertMember,
  insertRole,
  insertUser,
  type PlacedDomain,
  ROLE,
  refusalOf,
} from '../support/tenants.ts';
import { insertJob, insertVm, insertWorld, nextId, type Placed, type World } from '../support/world.ts';

describe('a project', () => {
  let database: TestDatabase;
  let core: Core;
  let world: World;
  let domain: PlacedDomain;
  let acme: Placed;
  let globex: Placed;
  before(async () => {
    database = await freshDatabase();
    const { db } = database;
    world = await insertWorld(db);
    domain = await insertDomain(db);
    acme = await insertAccount(db, domain, { name: 'acme' });
    globex = await insertAccount(db, await insertDomain(db), { name: 'globex' });
    core = await openCore(database.url);
  });
  after(async () => {
    await core.close();
    await database.close();
  });

  const ok = (payload: Payload): number => {
    assert.deepEqual(payload.errors, []);
    return payload.id!;
  };
  /** For want of a right altogether it is thrown; for want of one with this object it is in the payload. */
  const refused = (work: Promise<Payload>) =>
    work.then(refusalOf, (error: unknown) => {
      assert.ok(error instanceof VirtgraphError);
      return error.data;
    });
  /** Someone of an account, who is asked for anew each time: what he may do follows what is written. */
  async function someone(account: Placed, role: number, key = {}) {
    const user = await insertUser(database.db, account, role);
    const { token } = await insertApiKey(database.db, user, key);
    return { ...user, now: (): Promise<UserActor> => actorOf(database.db, token) };
  }
  async function projectOf(...members: [who: Parameters<typeof insertMember>[2], role: number][]): Promise<Placed> {
    const project = await insertAccount(database.db, domain, { type: 'PROJECT' });
    for (const [who, role] of members) await insertMember(database.db, project, who, role);
    await core.inventory.load();
    return project;
  }
  const role = async (id: number) =>
    idOf('role', await database.db.selectFrom('role').select('uid').where('id', '=', id).executeTakeFirstOrThrow());
  const wish = (account: Placed) => ({
    name: 'v',
    accountId: idOf('account', account),
    zoneId: idOf('zone', world.zone),
    offeringId: idOf('offering', world.offering),
    templateId: idOf('template', world.template),
  });
  const membership = (account_id: number) => ({
    id: nextId(),
    uid: newUid(),
    account_id,
    member_account_id: null,
    member_user_id: null,
    role_id: ROLE.readOnly,
  });
  const rename = (vm: Placed) => ({ id: idOf('vm', vm), name: 'renamed' });

  it('is made as an account is, and has no users of its own', async () => {
    const input = { domainId: idOf('domain', domain), name: 'shared', type: 'PROJECT' };
    const id = ok(await core.ops.createAccount(ADMIN, input));
    const row = await database.db.selectFrom('account').selectAll().where('id', '=', id).executeTakeFirstOrThrow();
    assert.equal(row.type, 'PROJECT');
    const user = { accountId: idOf('account', row), roleId: await role(ROLE.user), name: 'alice' };
    const { code, path } = await refused(core.ops.createUser(ADMIN, user));
    assert.deepEqual([code, path], ['INVALID_INPUT', ['accountId']]);
  });

  it('is absent for whoever does not share it', async () => {
    const project = await projectOf();
    const vm = await insertVm(database.db, world, { account_id: project.id });
    const stranger = await (await someone(acme, ROLE.user)).now();
    assert.equal((await refused(core.ops.updateVm(stranger, rename(vm)))).code, 'NOT_FOUND');
    assert.equal((await refused(core.ops.createVm(stranger, wish(project)))).code, 'NOT_FOUND');
  });

  it('is worked in with the role there, whatever the role at home', async () => {
    const reader = await someone(globex, ROLE.readOnly);
    const project = await projectOf([{ user: reader }, ROLE.user]);
    const theirs = await insertVm(database.db, world, { account_id: project.id });
    const own = await insertVm(database.db, world, { account_id: globex.id });
    ok(await core.ops.updateVm(await reader.now(), rename(theirs)));
    const vmId = ok(await core.ops.createVm(await reader.now(), wish(project)));
    const vm = await database.db.selectFrom('vm').selectAll().where('id', '=', vmId).executeTakeFirstOrThrow();
    assert.equal(vm.account_id, project.id);
    assert.equal((await refused(core.ops.updateVm(await reader.now(), rename(own)))).code, 'FORBIDDEN');
    const { accountId: _, ...home } = wish(project);
    assert.equal((await refused(core.ops.createVm(await reader.now(), home))).code, 'FORBIDDEN');
  });

  it('says nothing of keys and users, which are of no project, whatever the role there', async () => {
    const looking = (await insertRole(database.db, [{ effect: 'ALLOW', verb: 'read', kind: '*' }])).id;
    const everything = (await insertRole(database.db, [{ effect: 'ALLOW', verb: '*', kind: '*' }])).id;
    const [member, peer] = [await someone(acme, looking), await insertUser(database.db, acme, looking)];
    await projectOf([{ user: member }, everything]);
    const peers = await insertApiKey(database.db, peer);
    const own = await insertApiKey(database.db, member);
    const now = await member.now();
    const key = (user: Placed) => ({ userId: idOf('user', user), name: 'key' });
    for (const work of [
      () => core.ops.createApiKey(now, key(peer)),
      () => core.ops.createApiKey(now, key(member)),
      () => core.ops.revokeApiKey(now, { id: idOf('api_key', peers) }),
      () => core.ops.revokeApiKey(now, { id: idOf('api_key', own) }),
      () => core.ops.setPassword(now, { userId: idOf('user', peer), password: 'correct horse battery' }),
      () => core.ops.removeTotp(now, { userId: idOf('user', peer) }),
    ])
      assert.equal((await refused(work())).code, 'FORBIDDEN', String(work));
  });

  it('is only looked at by a member who has no more there', async () => {
    const user = await someone(globex, ROLE.user);
    const project = await projectOf([{ user }, ROLE.readOnly]);
    const vm = await insertVm(database.db, world, { account_id: project.id });
    const { code, message } = await refused(core.ops.updateVm(await user.now(), rename(vm)));
    assert.deepEqual([code, message], ['FORBIDDEN', 'Your role in this project may not update a vm.']);
    assert.equal((await refused(core.ops.createVm(await user.now(), wish(project)))).code, 'FORBIDDEN');
  });

  it('gives the users of a whole account no more than they have at home', async () => {
    const [user, reader] = [await someone(acme, ROLE.user), await someone(acme, ROLE.readOnly)];
    const project = await projectOf([{ account: acme }, ROLE.user]);
    const vm = await insertVm(database.db, world, { account_id: project.id });
    ok(await core.ops.updateVm(await user.now(), rename(vm)));
    assert.equal((await refused(core.ops.updateVm(await reader.now(), rename(vm)))).code, 'FORBIDDEN');
  });

  it('counts a member by name before one by his account', async () => {
    const reader = await someone(acme, ROLE.readOnly);
    const project = await projectOf([{ user: reader }, ROLE.user], [{ account: acme }, ROLE.readOnly]);
    const vm = await insertVm(database.db, world, { account_id: project.id });
    ok(await core.ops.updateVm(await reader.now(), rename(vm)));
  });

  it('is reached by an API key with no more than the key has', async () => {
    const narrow = await insertRole(database.db);
    const user = await someone(globex, ROLE.user, { role_id: narrow.id });
    const project = await projectOf([{ user }, ROLE.user]);
    const vm = await insertVm(database.db, world, { account_id: project.id });
    assert.deepEqual([...(await user.now()).projects.get(project.id)!.permissions], ['read vm']);
    assert.equal((await refused(core.ops.updateVm(await user.now(), rename(vm)))).code, 'FORBIDDEN');
  });

  it('lets nobody make at home what his role there allows in it', async () => {
    const { db } = database;
    const all = await insertRole(db, [{ effect: 'ALLOW', verb: '*', kind: '*' }]);
    const reading = await insertRole(db, [{ effect: 'ALLOW', verb: 'read', kind: '*' }], { reach: 'DOMAIN' });
    const user = await someone(acme, reading.id);
    const other = await insertUser(db, acme, ROLE.readOnly);
    const key = await insertApiKey(db, other);
    const vm = await insertVm(db, world, { account_id: acme.id });
    const job = await insertJob(db, vm, { account_id: acme.id, state: 'FAILED' });
    await projectOf([{ user }, all.id]);
    const [accountId, domainId, roleId] = [idOf('account', acme), idOf('domain', domain), await role(ROLE.readOnly)];
    const name = 'mine';
    const oidc = { issuer: 'https://login.example.com', clientId: 'virtgraph' };
    const inputs = {
      createUser: { accountId, roleId, name },
      createAccount: { domainId, name },
      createDomain: { parentId: domainId, name },
      createIdentityProvider: { accountId, name, oidc, roleMapping: [{ group: '*', roleId }] },
      createApiKey: { userId: idOf('user', user), name },
      revokeApiKey: { id: idOf('api_key', key) },
      retryJob: { id: idOf('job', job) },
      registerTemplate: { zoneId: idOf('zone', world.zone), name, fileName: 'a.qcow2', format: 'QCOW2' },
      updateQuota: { accountId, limits: [{ resource: 'VMS', limit: 1 }] },
    } as const;
    for (const [mutation, input] of Object.entries(inputs))
      assert.equal(
        (await refused(core.ops[mutation as keyof typeof inputs](await user.now(), input))).code,
        'FORBIDDEN',
        mutation,
      );
  });

  it('has its failed jobs done again by those alone who might do the same themselves', async () => {
    const { db } = database;
    const operator = await insertRole(db, [
      { effect: 'ALLOW', verb: 'operate', kind: 'job' },
      { effect: 'ALLOW', verb: 'operate', kind: 'vm' },
      { effect: 'ALLOW', verb: 'read', kind: '*' },
    ]);
    const user = await someone(globex, ROLE.readOnly);
    const project = await projectOf([{ user }, operator.id]);
    const retry = async (kind: string, state: 'STOPPED' | 'ERROR', actor: UserActor) => {
      const vm = await insertVm(db, world, { account_id: project.id, state });
      const job = await insertJob(db, vm, { account_id: project.id, state: 'FAILED', kind });
      return core.ops.retryJob(actor, { id: idOf('job', job) });
    };
    const actor = await user.now();
    ok(await retry('START_VM', 'STOPPED', actor));
    for (const [kind, state, verb] of [
      ['DESTROY_VM', 'STOPPED', 'delete'],
      ['EXPUNGE_VM', 'STOPPED', 'delete'],
      ['CREATE_VM', 'ERROR', 'create'],
    ] as const) {
      const { code, message } = await refused(retry(kind, state, actor));
      assert.deepEqual([code, message], ['FORBIDDEN', `Your role in this project may not ${verb} a vm.`], kind);
    }
  });

  it('is nobody’s while it, or a domain above it, is disabled', async () => {
    const user = await someone(globex, ROLE.user);
    const project = await projectOf([{ user }, ROLE.user]);
    const { db } = database;
    for (const [table, id] of [
      ['account', project.id],
      ['domain', domain.id],
    ] as const) {
      const turn = (wanted_state: 'ENABLED' | 'DISABLED') =>
        db
          .updateTable(table as 'account')
          .set({ wanted_state })
          .where('id', '=', id)
          .execute();
      await turn('DISABLED');
      assert.equal((await user.now()).projects.size, 0, table);
      await turn('ENABLED');
      assert.equal((await user.now()).projects.size, 1, table);
    }
  });

  describe('has members', () => {
    it('whom its admin adds among those that he sees, gives another role, and removes', async () => {
      const [boss, colleague] = [await someone(acme, ROLE.user), await someone(acme, ROLE.readOnly)];
      const project = await projectOf([{ user: boss }, ROLE.projectAdmin]);
      const vm = await insertVm(database.db, world, { account_id: project.id });
      const member = { projectId: idOf('account', project), userId: idOf('user', colleague) };
      const added = { ...member, roleId: await role(ROLE.readOnly) };
      const id = ok(await core.ops.addProjectMember(await boss.now(), added));
      assert.equal((await refused(core.ops.updateVm(await colleague.now(), rename(vm)))).code, 'FORBIDDEN');
      const twice = await refused(core.ops.addProjectMember(await boss.now(), added));
      assert.deepEqual([twice.code, twice.message], ['ALREADY_EXISTS', 'It is there already.']);
      const row = await database.db
        .selectFrom('project_member')
        .selectAll()
        .where('id', '=', id)
        .executeTakeFirstOrThrow();
      const memberId = { id: idOf('project_member', row) };
      ok(await core.ops.updateProjectMember(await boss.now(), { ...memberId, roleId: await role(ROLE.user) }));
      ok(await core.ops.updateVm(await colleague.now(), rename(vm)));
      ok(await core.ops.removeProjectMember(await boss.now(), memberId));
      assert.equal((await refused(core.ops.updateVm(await colleague.now(), rename(vm)))).code, 'FORBIDDEN');
      assert.equal((await colleague.now()).projects.has(project.id), false);
      const gone = await refused(core.ops.removeProjectMember(await boss.now(), memberId));
      assert.equal(gone.code, 'NOT_FOUND');
    });

    it('whom nobody adds that has no right to, nor with more than he has himself', async () => {
      const [user, custom] = [await someone(acme, ROLE.user), await someone(acme, ROLE.user)];
      const inviter = await insertRole(database.db, [
        { effect: 'ALLOW', verb: '*', kind: 'project_member' },
        { effect: 'ALLOW', verb: 'read', kind: '*' },
      ]);
      const project = await projectOf([{ user }, ROLE.user], [{ user: custom }, inviter.id]);
      const input = { projectId: idOf('account', project), accountId: idOf('account', acme) };
      const add = async (who: UserActor, as: number) =>
        await refused(core.ops.addProjectMember(who, { ...input, roleId: await role(as) }));
      assert.equal((await add(await user.now(), ROLE.readOnly)).code, 'FORBIDDEN');
      const { code, message } = await add(await custom.now(), ROLE.user);
      assert.equal(code, 'FORBIDDEN');
      assert.match(message, /more rights than you: .*vm/);
    });

    it('who have a role for a project alone, and are an account or a user', async () => {
      const project = await projectOf();
      const projectId = idOf('account', project);
      const whyNot = async (input: object) => {
        const { code, path } = await refused(core.ops.addProjectMember(ADMIN, { projectId, ...input }));
        return [code, ...(path ?? [])];
      };
      const [accountId, roleId] = [idOf('account', acme), await role(ROLE.user)];
      const userId = idOf('user', await insertUser(database.db, acme, ROLE.user));
      const other = idOf('account', await projectOf());
      assert.deepEqual(await whyNot({ accountId, roleId: await role(ROLE.domainAdmin) }), ['INVALID_INPUT', 'roleId']);
      assert.deepEqual(await whyNot({ roleId }), ['INVALID_INPUT', 'userId']);
      assert.deepEqual(await whyNot({ roleId, accountId, userId }), ['INVALID_INPUT', 'userId']);
      assert.deepEqual(await whyNot({ roleId, accountId: other }), ['INVALID_INPUT', 'accountId']);
      const plain = { projectId: accountId, roleId, userId };
      assert.equal((await refused(core.ops.addProjectMember(ADMIN, plain))).code, 'INVALID_INPUT');
    });

    it('who go with the user, the account and the project, and keep a role from being deleted', async () => {
      const { db } = database;
      const custom = await insertRole(db);
      const leaving = await insertAccount(db, domain);
      const user = await insertUser(db, acme, ROLE.user);
      const project = await projectOf([{ user }, custom.id], [{ account: leaving }, ROLE.user]);
      const inUse = await refused(core.ops.deleteRole(ADMIN, { id: idOf('role', custom) }));
      assert.deepEqual([inUse.code, inUse.message], ['NOT_EMPTY', inUse.message]);
      assert.match(inUse.message, /still has 1 project member\.$/);
      const living = async () =>
        (
          await db
            .selectFrom('project_member')
            .select('id')
            .where('account_id', '=', project.id)
            .where('deleted_at', 'is', null)
            .execute()
        ).length;
      ok(await core.ops.deleteUser(ADMIN, { id: idOf('user', user) }));
      assert.equal(await living(), 1);
      ok(await core.ops.deleteAccount(ADMIN, { id: idOf('account', leaving) }));
      assert.equal(await living(), 0);
      await insertMember(db, project, { account: acme }, ROLE.user);
      ok(await core.ops.deleteAccount(ADMIN, { id: idOf('account', project) }));
      assert.equal(await living(), 0);
    });

    it('of whom there are only so many, however many are added at once', async () => {
      const { db } = database;
      const roleId = await role(ROLE.readOnly);
      const users = await Promise.all([1, 2, 3, 4].map(() => insertUser(db, acme, ROLE.user)));
      const project = await projectOf();
      const accounts = Array.from({ length: MEMBERS_MAX - 1 }, () => nextId());
      await db
        .insertInto('account')
        .values(accounts.map((id) => ({ id, uid: newUid(), domain_id: domain.id, name: `many-${id}` })))
        .execute();
      const members = accounts.map((id) => ({ ...membership(project.id), member_account_id: id }));
      await db.insertInto('project_member').values(members).execute();
      const add = (to: Placed, user: Placed) =>
        core.ops.addProjectMember(ADMIN, { projectId: idOf('account', to), userId: idOf('user', user), roleId });
      const answers = await Promise.all(users.map((user) => add(project, user)));
      assert.equal(answers.filter(({ errors }) => errors.length === 0).length, 1);
      for (const answer of answers.filter(({ errors }) => errors.length > 0))
        assert.deepEqual([refusalOf(answer).code, refusalOf(answer).path], ['INVALID_INPUT', ['projectId']]);
    });

    it('who share only so many projects, however many they are added to at once', async () => {
      const { db } = database;
      const roleId = await role(ROLE.readOnly);
      const user = await insertUser(db, acme, ROLE.user);
      const ids = Array.from({ length: PROJECTS_MAX - 1 }, () => nextId());
      await db
        .insertInto('account')
        .values(
          ids.map((id) => ({ id, uid: newUid(), domain_id: domain.id, name: `p-${id}`, type: 'PROJECT' as const })),
        )
        .execute();
      const members = ids.map((id) => ({ ...membership(id), member_user_id: user.id }));
      await db.insertInto('project_member').values(members).execute();
      const projects = [await projectOf(), await projectOf(), await projectOf()];
      const userId = idOf('user', user);
      const answers = await Promise.all(
        projects.map((to) => core.ops.addProjectMember(ADMIN, { projectId: idOf('account', to), userId, roleId })),
      );
      const refusals = answers.filter(({ errors }) => errors.length > 0).map(refusalOf);
      assert.deepEqual(
        refusals.map(({ code, path }) => [code, path]),
        [
          ['INVALID_INPUT', ['userId']],
          ['INVALID_INPUT', ['userId']],
        ],
      );
      assert.match(refusals[0]!.message, /^user-\d+ shares 100 projects: there can be no more\.$/);
    });

    it('and none is left in a project that is deleted at the same time', async () => {
      const project = await projectOf();
      const input = { projectId: idOf('account', project), accountId: idOf('account', acme) };
      const added = { ...input, roleId: await role(ROLE.user) };
      beforeNextWrite(core, () => core.ops.deleteAccount(ADMIN, { id: idOf('account', project) }));
      assert.equal((await refused(core.ops.addProjectMember(ADMIN, added))).code, 'NOT_FOUND');
    });
  });
});
