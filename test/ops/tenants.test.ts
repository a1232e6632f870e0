import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { after, before, describe, it } from 'node:test';
import type { Core } from '../../src/core.ts';
import { newUid } from '../../src/db/ids.ts';
import type { Actor, UserActor } from '../../src/domain/authorize.ts';
import type { FieldChange } from '../../src/domain/kinds.ts';
import type { Rule } from '../../src/domain/permission.ts';
import type { Payload } from '../../src/ops/context.ts';
import { ADMIN, beforeNextWrite, follow, openCore } from '../support/core.ts';
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
  type PlacedDomain,
  ROLE,
  ROOT_DOMAIN,
  refusalOf,
} from '../support/tenants.ts';
import { insertTemplate, insertVm, insertVolume, insertWorld, type Placed, type World } from '../support/world.ts';

const EVERYTHING: Rule[] = [{ effect: 'ALLOW', verb: '*', kind: '*' }];
type Tenant = 'domain' | 'account' | 'user';

describe('tenants', () => {
  let database: TestDatabase;
  let core: Core;
  let other: Core;
  let unfollow: () => Promise<void>;
  let world: World;
  let domain: PlacedDomain;
  let below: PlacedDomain;
  let sibling: PlacedDomain;
  let account: Placed;
  let foreign: Placed;
  let admin: UserActor & Placed;
  before(async () => {
    database = await freshDatabase();
    const { db } = database;
    world = await insertWorld(db);
    domain = await insertDomain(db);
    below = await insertDomain(db, domain);
    sibling = await insertDomain(db);
    account = await insertAccount(db, domain);
    foreign = await insertAccount(db, sibling);
    admin = await insertActor(db, account, ROLE.domainAdmin);
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

  const ok = (payload: Payload): number => {
    assert.deepEqual(payload.errors, []);
    return payload.id!;
  };
  const rowOf = <T extends Tenant>(table: T, id: number) =>
    database.db
      .selectFrom(table as 'domain')
      .selectAll()
      .where('id', '=', id)
      .executeTakeFirstOrThrow();
  const eventsOf = async (kind: Tenant, id: number) => {
    const rows = await database.db
      .selectFrom('event')
      .select(['type', 'actor', 'account_id', 'changes'])
      .where('subject_kind', '=', kind)
      .where('subject_id', '=', id)
      .orderBy('seq')
      .execute();
    return rows.map((row) => ({ ...row, changes: JSON.parse(row.changes) as FieldChange[] }));
  };
  const roleId = async (id: number) =>
    idOf('role', await database.db.selectFrom('role').select('uid').where('id', '=', id).executeTakeFirstOrThrow());
  const rootId = async () => idOf('domain', await rowOf('domain', ROOT_DOMAIN.id));

  it('stand below one another as they were made, each with the event that tells of it', async () => {
    const made = ok(await core.ops.createDomain(ADMIN, { parentId: idOf('domain', domain), name: 'acme' }));
    const placed = await rowOf('domain', made);
    assert.deepEqual([placed.parent_id, placed.path], [domain.id, `${domain.path}${made}/`]);
    const accountId = ok(await core.ops.createAccount(admin, { domainId: idOf('domain', placed), name: 'web' }));
    const acme = await rowOf('account', accountId);
    const input = { accountId: idOf('account', acme), roleId: await roleId(ROLE.user), name: 'alice' };
    const userId = ok(await core.ops.createUser(admin, input));
    assert.deepEqual(await eventsOf('domain', made), [
      { type: 'domain.created', actor: 'root-admin', account_id: null, changes: changed('name', null, 'acme') },
    ]);
    const actor = admin.name;
    assert.deepEqual(await eventsOf('account', accountId), [
      { type: 'account.created', actor, account_id: accountId, changes: changed('name', null, 'web') },
    ]);
    assert.deepEqual(await eventsOf('user', userId), [
      { type: 'user.created', actor, account_id: accountId, changes: changed('name', null, 'alice') },
    ]);
    const alice = await actorOf(database.db, (await insertApiKey(database.db, { id: userId })).token);
    assert.deepEqual([alice.accountId, alice.domainPath, alice.reach], [accountId, placed.path, 'ACCOUNT']);
  });

  it('what a domain admin does with a domain is told to its own account', async () => {
    const id = ok(await core.ops.createDomain(admin, { parentId: idOf('domain', domain), name: 'told' }));
    ok(await core.ops.updateDomain(admin, { id: idOf('domain', await rowOf('domain', id)), name: 'renamed' }));
    assert.deepEqual(
      (await eventsOf('domain', id)).map((event) => [event.type, event.account_id]),
      [
        ['domain.created', account.id],
        ['domain.updated', account.id],
      ],
    );
  });

  it('nobody makes, changes or deletes one outside of what he administers', async () => {
    const user = await insertUser(database.db, foreign, ROLE.user);
    const role = await roleId(ROLE.user);
    const refused: [Promise<Payload>, string][] = [
      [core.ops.createDomain(admin, { parentId: idOf('domain', sibling), name: 'x' }), 'parentId'],
      [core.ops.createDomain(admin, { parentId: await rootId(), name: 'x' }), 'parentId'],
      [core.ops.createAccount(admin, { domainId: idOf('domain', sibling), name: 'x' }), 'domainId'],
      [core.ops.createUser(admin, { accountId: idOf('account', foreign), roleId: role, name: 'x' }), 'accountId'],
      [core.ops.updateDomain(admin, { id: idOf('domain', sibling), name: 'x' }), 'id'],
      [core.ops.disableDomain(admin, { id: idOf('domain', sibling) }), 'id'],
      [core.ops.deleteDomain(admin, { id: idOf('domain', sibling) }), 'id'],
      [core.ops.updateAccount(admin, { id: idOf('account', foreign), name: 'x' }), 'id'],
      [core.ops.deleteAccount(admin, { id: idOf('account', foreign) }), 'id'],
      [core.ops.updateUser(admin, { id: idOf('user', user), name: 'x' }), 'id'],
      [core.ops.deleteUser(admin, { id: idOf('user', user) }), 'id'],
    ];
    for (const [payload, path] of refused) {
      const { code, path: at } = refusalOf(await payload);
      assert.deepEqual([code, at], ['NOT_FOUND', [path]]);
    }
  });

  it('a role that reaches an account alone arranges no domain, whatever its rules say', async () => {
    const role = await insertRole(database.db, EVERYTHING);
    const mighty = await insertActor(database.db, account, role.id);
    const own = idOf('domain', domain);
    for (const payload of [
      await core.ops.createDomain(mighty, { parentId: own, name: 'x' }),
      await core.ops.createAccount(mighty, { domainId: own, name: 'x' }),
      await core.ops.updateDomain(mighty, { id: own, name: 'x' }),
      await core.ops.enableDomain(mighty, { id: own }),
      await core.ops.deleteDomain(mighty, { id: own }),
    ])
      assert.match(refusalOf(payload).message, /^Your role reaches no further than your own account\.$/);
  });

  it('siblings never share a name, also when they are made at the same moment by two processes', async () => {
    const role = await roleId(ROLE.user);
    const makers: [string, (of: Core) => Promise<Payload>][] = [
      ['domain', (of) => of.ops.createDomain(ADMIN, { parentId: idOf('domain', below), name: 'twin' })],
      ['account', (of) => of.ops.createAccount(ADMIN, { domainId: idOf('domain', below), name: 'twin' })],
      ['user', (of) => of.ops.createUser(ADMIN, { accountId: idOf('account', account), roleId: role, name: 'twin' })],
    ];
    for (const [what, make] of makers) {
      const payloads = await Promise.all([make(core), make(other), make(core)]);
      const refused = payloads.filter(({ errors }) => errors.length > 0).map(refusalOf);
      assert.deepEqual(
        refused.map(({ code, path }) => [code, path]),
        [
          ['ALREADY_EXISTS', ['name']],
          ['ALREADY_EXISTS', ['name']],
        ],
        what,
      );
    }
    ok(await core.ops.createDomain(ADMIN, { parentId: idOf('domain', domain), name: 'twin' }));
  });

  it('the same request is carried out once', async () => {
    const input = { domainId: idOf('domain', below), name: 'once', idempotencyKey: 'account once' };
    const ids = [await core.ops.createAccount(admin, input), await other.ops.createAccount(admin, input)].map(ok);
    assert.equal(ids[0], ids[1]);
  });

  it('domains stand at most 16 deep in one another', async () => {
    let parent = { ...domain };
    for (let depth = 3; depth <= 16; depth++) {
      const id = ok(await core.ops.createDomain(ADMIN, { parentId: idOf('domain', parent), name: 'deeper' }));
      parent = await rowOf('domain', id);
    }
    assert.ok(parent.path.length <= 255);
    const { code, path } = refusalOf(
      await core.ops.createDomain(ADMIN, { parentId: idOf('domain', parent), name: 'too deep' }),
    );
    assert.deepEqual([code, path], ['INVALID_INPUT', ['parentId']]);
  });

  it('what is in the way of a deletion is named', async () => {
    const { db } = database;
    const full = await insertDomain(db, domain, { name: 'full' });
    const inner = await insertDomain(db, full, { name: 'inner' });
    const shop = await insertAccount(db, full, { name: 'shop' });
    const owned = { account_id: shop.id };
    const user = await insertUser(db, shop, ROLE.user, { name: 'bob' });
    const template = await insertTemplate(db, world.zone, { ...owned, name: 'own image' });
    const vm = await insertVm(db, { ...world, template }, { ...owned, name: 'web' });
    const volume = await insertVolume(db, world, vm, { ...owned, name: 'web root' });
    const said = (payload: Payload) => {
      const { code, path, message } = refusalOf(payload);
      assert.deepEqual([code, path], ['NOT_EMPTY', ['id']]);
      return message;
    };
    assert.equal(
      said(await core.ops.deleteDomain(admin, { id: idOf('domain', full) })),
      'The domain full still has 1 domain (inner) and 1 account (shop).',
    );
    assert.equal(
      said(await core.ops.deleteAccount(admin, { id: idOf('account', shop) })),
      'The account shop still has 1 user (bob), 1 VM (web), 1 volume (web root) and 1 template (own image).',
    );
    ok(await core.ops.deleteUser(admin, { id: idOf('user', user) }));
    const deleted_at = new Date();
    for (const [table, { id }] of Object.entries({ volume, vm, template }))
      await db
        .updateTable(table as 'vm')
        .set({ deleted_at })
        .where('id', '=', id)
        .execute();
    ok(await core.ops.deleteAccount(admin, { id: idOf('account', shop) }));
    ok(await core.ops.deleteDomain(admin, { id: idOf('domain', inner) }));
    ok(await core.ops.deleteDomain(admin, { id: idOf('domain', full) }));
    assert.deepEqual(
      (await eventsOf('account', shop.id)).map((event) => [event.type, event.account_id]),
      [['account.deleted', shop.id]],
    );
  });

  it('nothing is made in what is deleted meanwhile', async () => {
    const { db } = database;
    const [parent, house] = [await insertDomain(db, domain), await insertDomain(db, domain)];
    const shop = await insertAccount(db, domain);
    const user = await insertUser(db, account, ROLE.user);
    const name = 'too late';
    const races: [Tenant, Placed, string, () => Promise<Payload>][] = [
      ['domain', parent, 'parentId', () => core.ops.createDomain(ADMIN, { parentId: idOf('domain', parent), name })],
      ['domain', house, 'domainId', () => core.ops.createAccount(ADMIN, { domainId: idOf('domain', house), name })],
      [
        'account',
        shop,
        'accountId',
        async () =>
          core.ops.createUser(ADMIN, { accountId: idOf('account', shop), roleId: await roleId(ROLE.user), name }),
      ],
      ['user', user, 'userId', () => core.ops.createApiKey(ADMIN, { userId: idOf('user', user), name })],
    ];
    const remove = { domain: other.ops.deleteDomain, account: other.ops.deleteAccount, user: other.ops.deleteUser };
    for (const [kind, row, field, make] of races) {
      beforeNextWrite(core, async () => ok(await remove[kind](ADMIN, { id: idOf(kind, row) })));
      const { code, path } = refusalOf(await make());
      assert.deepEqual([code, path], ['NOT_FOUND', [field]], kind);
    }
  });

  it('a user goes with all its keys, however many, and with one that is made at the same moment', async () => {
    const { db } = database;
    const user = await insertUser(db, account, ROLE.user);
    const { token } = await insertApiKey(db, user);
    const key = await db.selectFrom('api_key').selectAll().where('user_id', '=', user.id).executeTakeFirstOrThrow();
    const more = Array.from({ length: 1_500 }, (_, n) => ({
      ...key,
      id: key.id + 10_000 + n,
      uid: newUid(),
      key_hash: randomBytes(32),
    }));
    await db.insertInto('api_key').values(more).execute();
    let meanwhile = 0;
    beforeNextWrite(core, async () => {
      meanwhile = ok(await other.ops.createApiKey(ADMIN, { userId: idOf('user', user), name: 'just in time' }));
    });
    ok(await core.ops.deleteUser(admin, { id: idOf('user', user) }));
    assert.notEqual(meanwhile, 0);
    const left = await db
      .selectFrom('api_key')
      .select('id')
      .where('user_id', '=', user.id)
      .where('deleted_at', 'is', null)
      .execute();
    assert.deepEqual(left, []);
    await assert.rejects(actorOf(db, token), /of anonymous/);
    const { code, path } = refusalOf(
      await core.ops.createApiKey(ADMIN, { userId: idOf('user', user), name: 'too late' }),
    );
    assert.deepEqual([code, path], ['NOT_FOUND', ['userId']]);
  });

  it('what every installation has is neither disabled nor deleted, by root either', async () => {
    const operator = idOf('account', await rowOf('account', 1));
    const aboveAll = await insertActor(database.db, await insertAccount(database.db, ROOT_DOMAIN), ROLE.rootAdmin);
    for (const actor of [ADMIN, aboveAll] as Actor[])
      for (const payload of [
        await core.ops.disableDomain(actor, { id: await rootId() }),
        await core.ops.deleteDomain(actor, { id: await rootId() }),
        await core.ops.disableAccount(actor, { id: operator }),
        await core.ops.deleteAccount(actor, { id: operator }),
      ]) {
        const { code, message } = refusalOf(payload);
        assert.equal(code, 'INVALID_STATE');
        assert.match(message, /^Every installation has this (domain|account): it can not be (disabled|deleted)\.$/);
      }
    ok(await core.ops.updateAccount(ADMIN, { id: operator, name: 'operators' }));
  });

  it('nobody shuts himself out, by his user, his account or a domain above him', async () => {
    const role = await insertRole(database.db, EVERYTHING, { reach: 'ALL' });
    const one = await insertActor(database.db, account, role.id);
    for (const payload of [
      await core.ops.disableUser(one, { id: idOf('user', one) }),
      await core.ops.deleteUser(one, { id: idOf('user', one) }),
      await core.ops.disableAccount(one, { id: idOf('account', account) }),
      await core.ops.deleteAccount(one, { id: idOf('account', account) }),
      await core.ops.disableDomain(one, { id: idOf('domain', domain) }),
      await core.ops.deleteDomain(one, { id: idOf('domain', domain) }),
    ]) {
      const { code, path } = refusalOf(payload);
      assert.deepEqual([code, path], ['FORBIDDEN', ['id']]);
    }
    ok(await core.ops.disableAccount(one, { id: idOf('account', foreign) }));
    ok(await core.ops.enableAccount(one, { id: idOf('account', foreign) }));
  });

  it('a user is given no role that has more than the giver, and is told what it has more', async () => {
    const spy = await insertRole(
      database.db,
      [
        { effect: 'ALLOW', verb: 'read', kind: 'host' },
        { effect: 'ALLOW', verb: 'read', kind: 'vm' },
      ],
      { name: 'spy' },
    );
    const input = { accountId: idOf('account', account), name: 'spying', roleId: idOf('role', spy) };
    const { code, path, message } = refusalOf(await core.ops.createUser(admin, input));
    assert.deepEqual([code, path], ['FORBIDDEN', ['roleId']]);
    assert.equal(message, 'The role spy has more rights than you: read host.');
    const user = await insertUser(database.db, account, ROLE.user);
    const raised = refusalOf(await core.ops.updateUser(admin, { id: idOf('user', user), roleId: input.roleId }));
    assert.deepEqual(raised, { code, path, message });
    // A role that reaches further is not there for him at all.
    const unseen = refusalOf(await core.ops.createUser(admin, { ...input, roleId: await roleId(ROLE.rootAdmin) }));
    assert.deepEqual([unseen.code, unseen.path], ['NOT_FOUND', ['roleId']]);
    ok(await core.ops.createUser(ADMIN, input));
  });

  it('a user is given another role, and what he has open ends', async () => {
    const user = await insertUser(database.db, account, ROLE.user);
    const told: unknown[] = [];
    const stop = core.feed.listen((changes) => told.push(...changes));
    ok(await core.ops.updateUser(admin, { id: idOf('user', user), roleId: await roleId(ROLE.readOnly) }));
    ok(await core.ops.updateUser(admin, { id: idOf('user', user), roleId: await roleId(ROLE.readOnly) }));
    stop();
    assert.deepEqual(told, [{ kind: 'user', id: user.id }]);
    assert.deepEqual(
      (await eventsOf('user', user.id)).map(({ changes }) => changes),
      [changed('role', 'user', 'read-only')],
    );
  });

  it('nobody acts on someone who has more rights, nor on what he stands in', async () => {
    const { db } = database;
    const auditors = await insertRole(db, [{ effect: 'ALLOW', verb: 'read', kind: '*' }], { name: 'auditor' });
    const house = await insertAccount(db, below);
    const auditor = await insertUser(db, house, auditors.id, { name: 'ann' });
    const id = idOf('user', auditor);
    for (const payload of [
      await core.ops.updateUser(admin, { id, name: 'x' }),
      await core.ops.updateUser(admin, { id, roleId: await roleId(ROLE.readOnly) }),
      await core.ops.disableUser(admin, { id }),
      await core.ops.enableUser(admin, { id }),
      await core.ops.deleteUser(admin, { id }),
      await core.ops.disableAccount(admin, { id: idOf('account', house) }),
      await core.ops.disableDomain(admin, { id: idOf('domain', below) }),
    ]) {
      const { code, message } = refusalOf(payload);
      assert.equal(code, 'FORBIDDEN');
      assert.match(message, / has more rights than you: read pod, read cluster, read host, read primary_storage\.$/);
    }
    ok(await core.ops.disableUser(ADMIN, { id }));
    ok(await core.ops.deleteUser(ADMIN, { id }));
    ok(await core.ops.disableDomain(admin, { id: idOf('domain', below) }));
    ok(await core.ops.enableDomain(admin, { id: idOf('domain', below) }));
  });
});

const changed = (field: string, before: string | null, after: string | null): FieldChange[] => [
  { field, before, after },
];
