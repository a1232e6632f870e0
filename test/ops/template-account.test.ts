import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import type { Core } from '../../src/core.ts';
import type { Actor } from '../../src/domain/authorize.ts';
import type { Reach, Rule } from '../../src/domain/permission.ts';
import { ADMIN, openCore } from '../support/core.ts';
import { freshDatabase, type TestDatabase } from '../support/database.ts';
import {
  idOf,
  insertAccount,
  insertActor,
  insertDomain,
  insertRole,
  type PlacedDomain,
  ROLE,
  refusalOf,
} from '../support/tenants.ts';
import { insertWorld, type Placed, type World } from '../support/world.ts';

const MAY_CREATE: Rule[] = [
  { effect: 'ALLOW', verb: 'create', kind: 'template' },
  { effect: 'ALLOW', verb: 'read', kind: '*' },
];

describe("a template's account", () => {
  let database: TestDatabase;
  let core: Core;
  let world: World;
  let domain: PlacedDomain;
  let account: Placed;
  before(async () => {
    database = await freshDatabase();
    const { db } = database;
    world = await insertWorld(db);
    domain = await insertDomain(db);
    account = await insertAccount(db, domain);
    core = await openCore(database.url);
  });
  after(async () => {
    await core.close();
    await database.close();
  });

  let made = 0;
  const register = (actor: Actor, more: object = {}) =>
    core.ops.registerTemplate(actor, {
      zoneId: idOf('zone', world.zone),
      name: `image-${++made}`,
      fileName: 'tiny-linux.qcow2',
      format: 'QCOW2',
      ...more,
    });
  async function ownerOf(actor: Actor, more: object = {}): Promise<number | null> {
    const { id, errors } = await register(actor, more);
    assert.deepEqual(errors, []);
    const row = core.db.selectFrom('template').select('account_id').where('id', '=', id!);
    return (await row.executeTakeFirstOrThrow()).account_id;
  }
  const maker = async (reach: Reach) =>
    insertActor(database.db, account, (await insertRole(database.db, MAY_CREATE, { reach })).id);

  it('is everybody’s when an operator names none', async () => {
    assert.equal(await ownerOf(ADMIN), null);
    assert.equal(await ownerOf(await insertActor(database.db, { id: 1 }, ROLE.rootAdmin)), null);
    assert.equal(await ownerOf(await maker('ALL')), null);
  });

  it('is its maker’s own when he names none and does not reach everything', async () => {
    for (const reach of ['ACCOUNT', 'DOMAIN'] as const) assert.equal(await ownerOf(await maker(reach)), account.id);
    const { templates_used } = await database.db
      .selectFrom('account_quota')
      .select('templates_used')
      .where('id', '=', account.id)
      .executeTakeFirstOrThrow();
    assert.equal(templates_used, 2);
  });

  it('is whichever he names and reaches, and no other', async () => {
    const neighbour = await insertAccount(database.db, domain);
    const accountId = idOf('account', neighbour);
    assert.equal(await ownerOf(await maker('DOMAIN'), { accountId }), neighbour.id);
    assert.equal(refusalOf(await register(await maker('ACCOUNT'), { accountId })).code, 'NOT_FOUND');
  });
});
