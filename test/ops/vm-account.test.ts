import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import type { Core } from '../../src/core.ts';
import type { UserActor } from '../../src/domain/authorize.ts';
import type { Payload } from '../../src/ops/context.ts';
import { ADMIN, beforeNextWrite, follow, openCore } from '../support/core.ts';
import { freshDatabase, type TestDatabase } from '../support/database.ts';
import {
  idOf,
  insertAccount,
  insertActor,
  insertDomain,
  type PlacedDomain,
  ROLE,
  refusalOf,
} from '../support/tenants.ts';
import { insertWorld, type Placed, type World } from '../support/world.ts';

describe("a VM's account", () => {
  let database: TestDatabase;
  let core: Core;
  let other: Core;
  let unfollow: () => Promise<void>;
  let world: World;
  let below: PlacedDomain;
  let account: Placed;
  let foreign: Placed;
  let admin: UserActor;
  before(async () => {
    database = await freshDatabase();
    const { db } = database;
    world = await insertWorld(db);
    const domain = await insertDomain(db);
    below = await insertDomain(db, domain);
    account = await insertAccount(db, domain);
    foreign = await insertAccount(db, await insertDomain(db));
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
  /** Accounts that were put into the database are heard of. */
  const loaded = async () => {
    for (const one of [core, other]) await one.inventory.load();
  };
  const wish = (more: object = {}) => ({
    name: 'v',
    zoneId: idOf('zone', world.zone),
    offeringId: idOf('offering', world.offering),
    templateId: idOf('template', world.template),
    ...more,
  });
  const ownerOf = async (id: number) =>
    (await database.db.selectFrom('vm').select('account_id').where('id', '=', id).executeTakeFirstOrThrow()).account_id;

  it("a VM is its maker's account's, or of one that he administers", async () => {
    const customer = await insertAccount(database.db, below);
    await loaded();
    assert.equal(await ownerOf(ok(await core.ops.createVm(ADMIN, wish()))), 1);
    assert.equal(await ownerOf(ok(await core.ops.createVm(admin, wish()))), account.id);
    const given = wish({ accountId: idOf('account', customer) });
    assert.equal(await ownerOf(ok(await core.ops.createVm(admin, given))), customer.id);
    const plain = await insertActor(database.db, account, ROLE.user);
    for (const [actor, whose] of [
      [admin, foreign],
      [plain, customer],
    ] as const) {
      const { code, path } = refusalOf(await core.ops.createVm(actor, wish({ accountId: idOf('account', whose) })));
      assert.deepEqual([code, path], ['NOT_FOUND', ['accountId']]);
    }
  });

  it('nothing new is made in an account that is disabled, nor in one of a disabled domain', async () => {
    const house = await insertDomain(database.db, below);
    const customer = await insertAccount(database.db, house);
    await loaded();
    const given = wish({ accountId: idOf('account', customer) });
    for (const [kind, row] of [
      ['Account', customer],
      ['Domain', house],
      ['Domain', below],
    ] as const) {
      const id = { id: idOf(kind === 'Account' ? 'account' : 'domain', row) };
      ok(await other.ops[`disable${kind}`](admin, id));
      const { errors } = await core.ops.createVm(admin, given);
      assert.deepEqual(
        errors.map(({ code, path, state }) => [code, path, state]),
        [['INVALID_STATE', ['accountId'], 'DISABLED']],
      );
      ok(await other.ops[`enable${kind}`](admin, id));
      ok(await core.ops.createVm(admin, given));
    }
  });

  it('a process that has not heard of it makes nothing there either', async () => {
    const house = await insertDomain(database.db, below);
    const customer = await insertAccount(database.db, house);
    await loaded();
    const given = wish({ accountId: idOf('account', customer), name: 'unheard' });
    for (const [table, row] of [
      ['account', customer],
      ['domain', house],
    ] as const) {
      const set = (wanted_state: 'ENABLED' | 'DISABLED') =>
        database.db
          .updateTable(table as 'domain')
          .set({ wanted_state })
          .where('id', '=', row.id)
          .execute();
      await set('DISABLED');
      assert.equal(refusalOf(await core.ops.createVm(admin, given)).code, 'INVALID_STATE');
      await set('ENABLED');
      await loaded();
    }
    assert.deepEqual(await database.db.selectFrom('vm').select('id').where('name', '=', 'unheard').execute(), []);
  });

  it('no account is deleted while a VM is made in it, by two processes', async () => {
    const outcomes = new Set<string>();
    for (let round = 0; round < 20; round++) {
      const customer = await insertAccount(database.db, below);
      await loaded();
      const id = idOf('account', customer);
      const [first, second] = round % 2 === 0 ? [core, other] : [other, core];
      const [made, deleted] = await Promise.all([
        first.ops.createVm(admin, wish({ accountId: id, name: 'raced' })),
        second.ops.deleteAccount(admin, { id }),
      ]);
      const vms = await database.db.selectFrom('vm').select('id').where('account_id', '=', customer.id).execute();
      const { deleted_at } = await database.db
        .selectFrom('account')
        .select('deleted_at')
        .where('id', '=', customer.id)
        .executeTakeFirstOrThrow();
      const gone = deleted_at !== null;
      assert.deepEqual([vms.length > 0, gone], [made.errors.length === 0, deleted.errors.length === 0]);
      assert.notEqual(gone, vms.length > 0, `round ${round}`);
      outcomes.add(refusalOf(gone ? made : deleted).code);
    }
    assert.ok([...outcomes].every((code) => ['NOT_FOUND', 'NOT_EMPTY'].includes(code)));
  });

  it('a VM comes too late for an account that was deleted meanwhile, and in time for one that was not yet', async () => {
    const [late, early] = [await insertAccount(database.db, below), await insertAccount(database.db, below)];
    await loaded();
    beforeNextWrite(core, async () => ok(await other.ops.deleteAccount(admin, { id: idOf('account', late) })));
    const { code, path } = refusalOf(await core.ops.createVm(admin, wish({ accountId: idOf('account', late) })));
    assert.deepEqual([code, path], ['NOT_FOUND', ['accountId']]);
    beforeNextWrite(core, async () =>
      ok(await other.ops.createVm(admin, wish({ accountId: idOf('account', early), name: 'just in time' }))),
    );
    const refused = refusalOf(await core.ops.deleteAccount(admin, { id: idOf('account', early) }));
    assert.match(refused.message, /1 VM \(just in time\) and 1 volume/);
  });
});
