import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import type { Core } from '../../src/core.ts';
import type { Actor, UserActor } from '../../src/domain/authorize.ts';
import { ADMIN, beforeNextWrite, openCore } from '../support/core.ts';
import { freshDatabase, type TestDatabase } from '../support/database.ts';
import {
  actorOf,
  idOf,
  insertAccount,
  insertActor,
  insertApiKey,
  insertDomain,
  insertMember,
  insertUser,
  type PlacedDomain,
  ROLE,
  refusalOf,
} from '../support/tenants.ts';
import type { Placed } from '../support/world.ts';

const GIB = 2 ** 30;

describe('updateQuota', () => {
  let database: TestDatabase;
  let core: Core;
  let domain: PlacedDomain;
  let below: PlacedDomain;
  let account: Placed;
  let neighbour: Placed;
  let admin: UserActor;
  before(async () => {
    database = await freshDatabase();
    const { db } = database;
    domain = await insertDomain(db);
    below = await insertDomain(db, domain);
    account = await insertAccount(db, domain);
    neighbour = await insertAccount(db, domain);
    admin = await insertActor(db, account, ROLE.domainAdmin);
    core = await openCore(database.url);
  });
  after(async () => {
    await core.close();
    await database.close();
  });

  const ofAccount = (one: Placed, limit: number | null = 5, more: object = {}) => ({
    accountId: idOf('account', one),
    limits: [{ resource: 'VMS' as const, limit }],
    ...more,
  });
  const ofDomain = (one: Placed, limit: number | null = 5) => ({
    domainId: idOf('domain', one),
    limits: [{ resource: 'VMS' as const, limit }],
  });
  const set = async (input: object, actor: Actor = ADMIN): Promise<void> =>
    assert.deepEqual((await core.ops.updateQuota(actor, input)).errors, []);
  const refused = async (input: object, actor: Actor = ADMIN) => {
    const { code, path } = refusalOf(await core.ops.updateQuota(actor, input));
    return [code, path?.join('.')];
  };
  const quota = (of: Placed) =>
    database.db.selectFrom('account_quota').selectAll().where('id', '=', of.id).executeTakeFirstOrThrow();

  it('sets what is named, leaves the rest, tells before and after, and changes nothing twice', async () => {
    const limits = [
      { resource: 'VMS', limit: 10 },
      { resource: 'PRIMARY_GIB', limit: 2 },
    ];
    await set({ accountId: idOf('account', neighbour), limits, reason: 'a new contract' });
    await set(ofAccount(neighbour, null));
    const { generation } = await quota(neighbour);
    await set(ofAccount(neighbour, null));
    const row = await quota(neighbour);
    assert.deepEqual([row.vms_cap, row.primary_bytes_cap, row.vcpus_cap], [null, 2 * GIB, null]);
    assert.equal(row.generation, generation);
    const events = await database.db
      .selectFrom('event')
      .select(['type', 'account_id', 'reason', 'changes'])
      .where('subject_kind', '=', 'account')
      .where('subject_id', '=', neighbour.id)
      .orderBy('seq')
      .execute();
    assert.deepEqual(
      events.map(({ type, account_id, reason, changes }) => [type, account_id, reason, JSON.parse(changes)]),
      [
        [
          'account.updated',
          neighbour.id,
          'a new contract',
          [
            { field: 'quota.VMS', before: null, after: '10' },
            { field: 'quota.PRIMARY_GIB', before: null, after: '2' },
          ],
        ],
        ['account.updated', neighbour.id, null, [{ field: 'quota.VMS', before: '10', after: null }]],
      ],
    );
  });

  it('is refused when another has changed the limits meanwhile', async () => {
    const { generation } = await quota(neighbour);
    await set(ofAccount(neighbour, 3, { expectedGeneration: generation }));
    assert.deepEqual(await refused(ofAccount(neighbour, 4, { expectedGeneration: generation })), [
      'CONFLICT',
      'expectedGeneration',
    ]);
    const input = ofAccount(neighbour, 4, { expectedGeneration: generation + 1 });
    beforeNextWrite(core, () => set(ofAccount(neighbour, 6)));
    assert.deepEqual(await refused(input), ['CONFLICT', 'expectedGeneration']);
    assert.equal((await quota(neighbour)).vms_cap, 6);
  });

  it('is for who administers above, and never for the own account or domain', async () => {
    const root = { id: 1, uid: Buffer.from('00000000000070008000000000000001', 'hex') };
    await set(ofAccount(neighbour, 7), admin);
    await set(ofDomain(below), admin);
    assert.deepEqual(await refused(ofAccount(account), admin), ['FORBIDDEN', 'accountId']);
    assert.deepEqual(await refused(ofDomain(domain), admin), ['FORBIDDEN', 'domainId']);
    assert.deepEqual(await refused(ofDomain(root), admin), ['NOT_FOUND', 'domainId']);
    assert.deepEqual(await refused(ofAccount(root), admin), ['NOT_FOUND', 'accountId']);
    const user = await insertActor(database.db, neighbour, ROLE.user);
    await assert.rejects(core.ops.updateQuota(user, ofAccount(neighbour)), { code: 'FORBIDDEN' });
    const ofAll = await insertActor(database.db, account, ROLE.rootAdmin);
    await set(ofAccount(account, 8), ofAll);
    await set(ofDomain(domain, 8), ofAll);
    await set(ofDomain(root, 100_000));
  });

  it('is not for the members of a project, whatever role they have there', async () => {
    const { db } = database;
    const project = await insertAccount(db, await insertDomain(db), { type: 'PROJECT' });
    const { id } = await insertUser(db, account, ROLE.domainAdmin);
    await insertMember(db, project, { user: { id } }, ROLE.projectAdmin);
    const member = await actorOf(db, (await insertApiKey(db, { id })).token);
    await core.inventory.load();
    assert.deepEqual(await refused(ofAccount(project), member), ['FORBIDDEN', 'accountId']);
    await set(ofAccount(project), ADMIN);
  });

  it('takes whole numbers, each resource once, and one of the two ids', async () => {
    const wrong = (limits: object[]) => refused({ accountId: idOf('account', account), limits });
    assert.deepEqual(await wrong([{ resource: 'VMS', limit: -1 }]), ['INVALID_INPUT', 'limits.0.limit']);
    assert.deepEqual(await wrong([{ resource: 'PRIMARY_GIB', limit: 0.5 }]), ['INVALID_INPUT', 'limits.0.limit']);
    assert.deepEqual(await wrong([{ resource: 'PRIMARY_GIB', limit: 2 ** 23 }]), ['INVALID_INPUT', 'limits.0.limit']);
    assert.deepEqual(await wrong([]), ['INVALID_INPUT', 'limits']);
    assert.deepEqual(await wrong([{ resource: 'VMS' }, { resource: 'VMS', limit: 1 }]), ['INVALID_INPUT', 'limits']);
    assert.deepEqual(await refused({ ...ofAccount(account), ...ofDomain(domain) }), ['INVALID_INPUT', 'domainId']);
    assert.deepEqual(await refused({ limits: ofAccount(account).limits }), ['INVALID_INPUT', 'accountId']);
    await set({ accountId: idOf('account', account), limits: [{ resource: 'PRIMARY_GIB', limit: 2 ** 23 - 1 }] });
    assert.equal((await quota(account)).primary_bytes_cap, 2 ** 53 - GIB);
  });

  it('holds for accounts and domains that are made in the graph, from their beginning', async () => {
    const made = await core.ops.createDomain(ADMIN, { parentId: idOf('domain', domain), name: 'made' });
    const { uid } = await database.db
      .selectFrom('domain')
      .select('uid')
      .where('id', '=', made.id!)
      .executeTakeFirstOrThrow();
    const inside = await core.ops.createAccount(ADMIN, { domainId: idOf('domain', { uid }), name: 'made' });
    await set(ofDomain({ id: made.id!, uid }));
    const rows = await database.db
      .selectFrom('account_quota')
      .select(['vms_used', 'vms_cap'])
      .where('id', '=', inside.id!)
      .execute();
    assert.deepEqual(rows, [{ vms_used: 0, vms_cap: null }]);
  });
});
