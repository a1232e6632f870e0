import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import type { Core } from '../../src/core.ts';
import type { Rule } from '../../src/domain/permission.ts';
import type { Payload } from '../../src/ops/context.ts';
import { ADMIN, beforeNextWrite, openCore } from '../support/core.ts';
import { freshDatabase, type TestDatabase } from '../support/database.ts';
import {
  actorOf,
  idOf,
  insertAccount,
  insertActor,
  insertApiKey,
  insertDomain,
  insertRole,
  insertUser,
  ROLE,
  refusalOf,
} from '../support/tenants.ts';
import { insertTemplate, insertZone, type Placed } from '../support/world.ts';

const allow = (verb: Rule['verb'], kind: Rule['kind']): Rule => ({ effect: 'ALLOW', verb, kind });

describe('roles', () => {
  let database: TestDatabase;
  let core: Core;
  let account: Placed;
  before(async () => {
    database = await freshDatabase();
    account = await insertAccount(database.db, await insertDomain(database.db));
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
  const rowOf = (id: number) =>
    database.db.selectFrom('role').selectAll().where('id', '=', id).executeTakeFirstOrThrow();
  const roleId = async (id: number) => idOf('role', await rowOf(id));
  const eventsOf = (id: number) =>
    database.db
      .selectFrom('event')
      .select(['type', 'account_id', 'changes'])
      .where('subject_kind', '=', 'role')
      .where('subject_id', '=', id)
      .orderBy('seq')
      .execute();

  it('is made, granted, and holds at once for all who have it when it is changed', async () => {
    const id = ok(
      await core.ops.createRole(ADMIN, { name: 'watcher', reach: 'ACCOUNT', rules: [allow('read', 'vm')] }),
    );
    const user = await insertUser(database.db, account, id);
    const { token } = await insertApiKey(database.db, user);
    const has = async () => {
      const { reach, permissions } = await actorOf(database.db, token);
      return [reach, ...permissions];
    };
    assert.deepEqual(await has(), ['ACCOUNT', 'read vm']);
    const told: unknown[] = [];
    const stop = core.feed.listen((changes) => told.push(...changes));
    const rules = [{ ...allow('read', 'vm'), effect: 'DENY' }, allow('*', 'vm')];
    ok(await core.ops.updateRole(ADMIN, { id: await roleId(id), reach: 'DOMAIN', rules }));
    ok(await core.ops.updateRole(ADMIN, { id: await roleId(id), reach: 'DOMAIN', rules }));
    stop();
    assert.deepEqual(told, [{ kind: 'role', id }]);
    assert.deepEqual(await has(), ['DOMAIN', 'create vm', 'update vm', 'delete vm', 'operate vm']);
    const [created, updated, ...more] = await eventsOf(id);
    assert.deepEqual([created?.type, created?.account_id, more], ['role.created', null, []]);
    assert.deepEqual(JSON.parse(updated!.changes), [
      { field: 'reach', before: 'ACCOUNT', after: 'DOMAIN' },
      { field: 'rules', before: 'ALLOW read vm', after: 'DENY read vm, ALLOW * vm' },
    ]);
  });

  it('none makes what everybody may use anybody’s to change', async () => {
    const { db } = database;
    const role = await insertRole(db, [allow('*', 'template')]);
    const actor = await insertActor(db, account, role.id);
    const zone = await insertZone(db);
    const id = idOf('template', await insertTemplate(db, zone));
    const own = idOf('template', await insertTemplate(db, zone, { account_id: account.id }));
    for (const run of [core.ops.updateTemplate, core.ops.disableTemplate, core.ops.deleteTemplate]) {
      const refused = refusalOf(await run(actor, { id, name: 'mine' }));
      assert.deepEqual([refused.code, refused.path], ['FORBIDDEN', ['id']]);
    }
    ok(await core.ops.updateTemplate(actor, { id: own, name: 'mine' }));
    ok(await core.ops.updateTemplate(ADMIN, { id, name: 'everybody’s' }));
  });

  it('a name is taken once', async () => {
    const input = { name: 'twice', reach: 'ACCOUNT', rules: [] };
    const payloads = await Promise.all([core.ops.createRole(ADMIN, input), core.ops.createRole(ADMIN, input)]);
    const { code, path } = refusalOf(payloads.find(({ errors }) => errors.length > 0)!);
    assert.deepEqual([code, path], ['ALREADY_EXISTS', ['name']]);
  });

  it('those that every installation has stay as they are', async () => {
    for (const role of Object.values(ROLE))
      for (const payload of [
        await core.ops.updateRole(ADMIN, { id: await roleId(role), name: 'x' }),
        await core.ops.deleteRole(ADMIN, { id: await roleId(role) }),
      ])
        assert.equal(refusalOf(payload).code, 'INVALID_STATE');
  });

  it('are arranged by who reaches everything alone', async () => {
    const admin = await insertActor(database.db, account, ROLE.domainAdmin);
    const id = idOf('role', await insertRole(database.db));
    for (const payload of [
      await core.ops.createRole(admin, { name: 'x', reach: 'ACCOUNT', rules: [] }),
      await core.ops.updateRole(admin, { id, name: 'x' }),
      await core.ops.deleteRole(admin, { id }),
    ])
      assert.equal(refusalOf(payload).message, 'Only who reaches everything arranges roles.');
  });

  it('nobody makes one, makes one into one, or takes from one that has more than himself', async () => {
    const own = await insertRole(database.db, [allow('*', 'role'), allow('read', 'vm')], { reach: 'ALL' });
    const keeper = await insertActor(database.db, account, own.id);
    const harmless = await insertRole(database.db);
    const stronger = await insertRole(database.db, [allow('delete', 'vm')], { name: 'stronger' });
    const beyond = [allow('read', 'vm'), allow('delete', 'vm')];
    for (const [payload, path] of [
      [core.ops.createRole(keeper, { name: 'x', reach: 'ACCOUNT', rules: beyond }), 'rules'],
      [core.ops.updateRole(keeper, { id: idOf('role', own), rules: [...beyond, allow('*', 'role')] }), 'rules'],
      [core.ops.updateRole(keeper, { id: idOf('role', stronger), rules: [] }), 'id'],
      [core.ops.deleteRole(keeper, { id: idOf('role', stronger) }), 'id'],
    ] as const) {
      const refusal = refusalOf(await payload);
      assert.deepEqual([refusal.code, refusal.path], ['FORBIDDEN', [path]]);
      assert.match(refusal.message, / has more rights than you: delete vm\.$/);
    }
    ok(
      await core.ops.updateRole(keeper, {
        id: idOf('role', harmless),
        rules: [allow('read', 'vm'), allow('read', 'role')],
      }),
    );
    ok(await core.ops.createRole(keeper, { name: 'y', reach: 'ALL', rules: [allow('read', 'vm')] }));
  });

  it('one that somebody has, or a key, is not deleted', async () => {
    const role = await insertRole(database.db, [], { name: 'in use' });
    const user = await insertUser(database.db, account, role.id, { name: 'carol' });
    const key = await insertApiKey(database.db, user, { role_id: role.id, name: 'build' });
    const id = idOf('role', role);
    const { code, message } = refusalOf(await core.ops.deleteRole(ADMIN, { id }));
    assert.deepEqual([code, message], ['NOT_EMPTY', 'The role in use still has 1 user (carol) and 1 API key (build).']);
    ok(await core.ops.revokeApiKey(ADMIN, { id: idOf('api_key', key) }));
    ok(await core.ops.deleteUser(ADMIN, { id: idOf('user', user) }));
    ok(await core.ops.deleteRole(ADMIN, { id }));
    assert.equal(refusalOf(await core.ops.deleteRole(ADMIN, { id })).code, 'NOT_FOUND');
  });

  it('nobody is given one that is deleted meanwhile, and none is deleted that was given meanwhile', async () => {
    const [late, early] = [await insertRole(database.db), await insertRole(database.db)];
    const input = (role: Placed, name: string) => ({
      accountId: idOf('account', account),
      roleId: idOf('role', role),
      name,
    });
    beforeNextWrite(core, async () => ok(await core.ops.deleteRole(ADMIN, { id: idOf('role', late) })));
    const refused = refusalOf(await core.ops.createUser(ADMIN, input(late, 'dave')));
    assert.deepEqual([refused.code, refused.path], ['NOT_FOUND', ['roleId']]);
    beforeNextWrite(core, async () => ok(await core.ops.createUser(ADMIN, input(early, 'erin'))));
    assert.match(refusalOf(await core.ops.deleteRole(ADMIN, { id: idOf('role', early) })).message, /1 user \(erin\)/);
  });
});
