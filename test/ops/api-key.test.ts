import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { sql } from 'kysely';
import type { Core } from '../../src/core.ts';
import { principalOf } from '../../src/db/principal.ts';
import { secretHash } from '../../src/hosts/identities.ts';
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
import type { Placed } from '../support/world.ts';

describe('API keys', () => {
  let database: TestDatabase;
  let core: Core;
  let account: Placed;
  let readOnly: string;
  before(async () => {
    database = await freshDatabase();
    account = await insertAccount(database.db, await insertDomain(database.db));
    readOnly = await roleId(ROLE.readOnly);
    core = await openCore(database.url);
  });
  after(async () => {
    await core.close();
    await database.close();
  });

  const roleId = async (id: number) =>
    idOf('role', await database.db.selectFrom('role').select('uid').where('id', '=', id).executeTakeFirstOrThrow());
  const ok = <P extends Payload>(payload: P): P => {
    assert.deepEqual(payload.errors, []);
    return payload;
  };
  const rowOf = (id: number | null) =>
    database.db.selectFrom('api_key').selectAll().where('id', '=', id!).executeTakeFirstOrThrow();
  const keyId = async (payload: Payload) => idOf('api_key', await rowOf(payload.id));
  const who = (token: string | null) => principalOf(database.db, secretHash(token!));
  const forUser = (user: Placed, more: object = {}) => ({ userId: idOf('user', user), name: 'key', ...more });

  it('a user makes one for himself, which is told once and kept as a hash', async () => {
    const alice = await insertActor(database.db, account, ROLE.user);
    const made = ok(await core.ops.createApiKey(alice, forUser(alice)));
    assert.match(made.token!, /^vgk_[\w-]{43}$/);
    const row = await rowOf(made.id);
    assert.deepEqual([row.account_id, row.role_id, row.expires_at], [account.id, null, null]);
    assert.ok(row.key_hash.equals(secretHash(made.token!)));
    const actor = await actorOf(database.db, made.token!);
    assert.deepEqual([actor.userId, actor.permissions], [alice.id, alice.permissions]);
    const event = await database.db
      .selectFrom('event')
      .selectAll()
      .where('subject_kind', '=', 'api_key')
      .where('subject_id', '=', made.id!)
      .executeTakeFirstOrThrow();
    assert.deepEqual([event.type, event.account_id, event.actor], ['api_key.created', account.id, alice.name]);
  });

  it('a request that is repeated makes no second one, and tells the first no more', async () => {
    const alice = await insertActor(database.db, account, ROLE.user);
    const input = forUser(alice, { idempotencyKey: 'one key' });
    ok(await core.ops.createApiKey(alice, input));
    const again = await core.ops.createApiKey(alice, input);
    assert.deepEqual([again.id, again.token], [null, null]);
    const { code, path } = refusalOf(again);
    assert.deepEqual([code, path], ['ALREADY_EXISTS', ['idempotencyKey']]);
    const keys = await database.db.selectFrom('api_key').select('id').where('user_id', '=', alice.id).execute();
    assert.equal(keys.length, 2, 'the one that asks, and the one that was made');
  });

  it('ends to work by itself when it was made to, by the clock of the database', async () => {
    const alice = await insertActor(database.db, account, ROLE.user);
    for (const expiresInMs of [1_000, 3_600_000, 315_360_000_000]) {
      const { id } = ok(await core.ops.createApiKey(alice, forUser(alice, { expiresInMs })));
      const { rows } = await sql<{ ms: number }>`
        select timestampdiff(microsecond, created_at, expires_at) / 1000 as ms from api_key where id = ${id}`.execute(
        database.db,
      );
      assert.ok(Math.abs(Number(rows[0]!.ms) - expiresInMs) < 1_000, String(rows[0]!.ms));
    }
  });

  it('of colleagues are for who may change users', async () => {
    const alice = await insertActor(database.db, account, ROLE.user);
    const bob = await insertUser(database.db, account, ROLE.user);
    const bobs = await insertApiKey(database.db, bob);
    for (const payload of [
      core.ops.createApiKey(alice, forUser(bob)),
      core.ops.revokeApiKey(alice, { id: idOf('api_key', bobs) }),
    ])
      assert.match(refusalOf(await payload).message, /^Your role here may not update a user\.$/);
    const admin = await insertActor(database.db, account, ROLE.domainAdmin);
    ok(await core.ops.createApiKey(admin, forUser(bob)));
    ok(await core.ops.revokeApiKey(admin, { id: idOf('api_key', bobs) }));
  });

  it('of strangers are not there', async () => {
    const alice = await insertActor(database.db, account, ROLE.user);
    const stranger = await insertUser(database.db, await insertAccount(database.db, { id: 1 }), ROLE.user);
    const key = await insertApiKey(database.db, stranger);
    const made = refusalOf(await core.ops.createApiKey(alice, forUser(stranger)));
    assert.deepEqual([made.code, made.path], ['NOT_FOUND', ['userId']]);
    const revoked = refusalOf(await core.ops.revokeApiKey(alice, { id: idOf('api_key', key) }));
    assert.deepEqual([revoked.code, revoked.path], ['NOT_FOUND', ['id']]);
  });

  it('of someone who has more are neither made nor revoked', async () => {
    const admin = await insertActor(database.db, account, ROLE.domainAdmin);
    const root = await insertUser(database.db, account, ROLE.rootAdmin, { name: 'root' });
    const key = await insertApiKey(database.db, root, { role_id: ROLE.readOnly });
    for (const payload of [
      core.ops.createApiKey(admin, forUser(root)),
      core.ops.createApiKey(admin, forUser(root, { roleId: readOnly })),
      core.ops.revokeApiKey(admin, { id: idOf('api_key', key) }),
    ]) {
      const { code, message } = refusalOf(await payload);
      assert.equal(code, 'FORBIDDEN');
      assert.match(message, /^The user root has more rights than you: reach ALL, .+ and \d+ more\.$/);
    }
  });

  it('a key makes and revokes none that has more than itself', async () => {
    const { db } = database;
    const role = await insertRole(db, [
      { effect: 'ALLOW', verb: '*', kind: 'api_key' },
      { effect: 'ALLOW', verb: 'read', kind: '*' },
      { effect: 'ALLOW', verb: 'update', kind: 'user' },
    ]);
    const owner = await insertActor(db, account, ROLE.user);
    const narrow = await actorOf(db, (await insertApiKey(db, owner, { role_id: role.id })).token);
    const full = refusalOf(await core.ops.createApiKey(narrow, forUser(owner)));
    assert.deepEqual([full.code, full.path], ['FORBIDDEN', ['userId']]);
    assert.match(full.message, /^The key has more rights than you: create vm, /);
    const wide = refusalOf(await core.ops.createApiKey(narrow, forUser(owner, { roleId: await roleId(ROLE.user) })));
    assert.deepEqual([wide.code, wide.path], ['FORBIDDEN', ['roleId']]);
    assert.match(wide.message, /^The role user has more rights than you: /);
    const main = await rowOf(owner.credential.id);
    assert.equal(refusalOf(await core.ops.revokeApiKey(narrow, { id: idOf('api_key', main) })).message, full.message);
    const equal = ok(await core.ops.createApiKey(narrow, forUser(owner, { roleId: readOnly })));
    assert.deepEqual((await actorOf(db, equal.token!)).permissions.has('read vm'), true);
    ok(await core.ops.revokeApiKey(narrow, { id: await keyId(equal) }));
  });

  it('a key that ends makes none that lasts longer', async () => {
    const { db } = database;
    const owner = await insertActor(db, account, ROLE.user);
    const minute = 60_000;
    const key = await insertApiKey(db, owner, { expires_at: new Date(Date.now() + 10 * minute) });
    const short = await actorOf(db, key.token);
    const longer = refusalOf(await core.ops.createApiKey(short, forUser(owner, { expiresInMs: 11 * minute })));
    assert.deepEqual([longer.code, longer.path], ['FORBIDDEN', ['expiresInMs']]);
    const { expires_at: end } = await rowOf(key.id);
    const same = await rowOf(ok(await core.ops.createApiKey(short, forUser(owner))).id);
    assert.equal(same.expires_at, end);
    const sooner = await rowOf(ok(await core.ops.createApiKey(short, forUser(owner, { expiresInMs: minute }))).id);
    assert.ok(sooner.expires_at! < same.expires_at!);
    assert.equal((await rowOf(ok(await core.ops.createApiKey(owner, forUser(owner))).id)).expires_at, null);
  });

  it('one that was made for somebody else does not grow with him', async () => {
    const admin = await insertActor(database.db, account, ROLE.domainAdmin);
    const bob = await insertUser(database.db, account, ROLE.user);
    const { token } = ok(await core.ops.createApiKey(admin, forUser(bob)));
    ok(await core.ops.updateUser(ADMIN, { id: idOf('user', bob), roleId: await roleId(ROLE.rootAdmin) }));
    const grown = await actorOf(database.db, token!);
    assert.deepEqual([grown.reach, grown.permissions.has('read host')], ['ACCOUNT', false]);
  });

  it('is worth nothing from the moment on at which it is revoked, and is revoked once', async () => {
    const alice = await insertActor(database.db, account, ROLE.user);
    const { id, token } = ok(await core.ops.createApiKey(alice, forUser(alice)));
    const told: unknown[] = [];
    const stop = core.feed.listen((changes) => told.push(...changes));
    ok(await core.ops.revokeApiKey(alice, { id: idOf('api_key', await rowOf(id)) }));
    stop();
    assert.deepEqual(told, [{ kind: 'api_key', id }]);
    assert.deepEqual(await who(token), { kind: 'anonymous' });
    const { code } = refusalOf(await core.ops.revokeApiKey(alice, { id: idOf('api_key', await rowOf(id)) }));
    assert.equal(code, 'NOT_FOUND');
  });

  it('is not made with a role that is deleted meanwhile', async () => {
    const role = await insertRole(database.db);
    const bob = await insertUser(database.db, account, ROLE.user);
    beforeNextWrite(core, async () => ok(await core.ops.deleteRole(ADMIN, { id: idOf('role', role) })));
    const made = await core.ops.createApiKey(ADMIN, forUser(bob, { roleId: idOf('role', role) }));
    assert.equal(made.token, null);
    const { code, path } = refusalOf(made);
    assert.deepEqual([code, path], ['NOT_FOUND', ['roleId']]);
  });
});
