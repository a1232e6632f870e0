import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import type { Core } from '../../src/core.ts';
import { chargeAccount, emptyTransition, refundAccount, type Write } from '../../src/db/transition.ts';
import type { UserActor } from '../../src/domain/authorize.ts';
import type { Payload } from '../../src/ops/context.ts';
import { accepted, type Bench, createInput, openBench } from '../jobs/cases.ts';
import { ADMIN, assertClean, beforeNextWrite, follow, jobEnded, openCore } from '../support/core.ts';
import {
  actorOf,
  idOf,
  insertAccount,
  insertActor,
  insertApiKey,
  insertDomain,
  insertUser,
  type PlacedDomain,
  ROLE,
  refusalOf,
} from '../support/tenants.ts';
import type { Placed } from '../support/world.ts';

describe('a move', () => {
  let bench: Bench;
  let core: Core;
  let other: Core;
  let unfollow: () => Promise<void>;
  before(async () => {
    bench = await openBench();
    ({ core } = bench);
    other = await openCore(bench.database.url);
    unfollow = follow(core, other);
  });
  after(async () => {
    await unfollow();
    await other.close();
    await bench.close();
  });

  const ok = (payload: Payload): void => assert.deepEqual(payload.errors, []);
  /** a/b with an account that has a VM, and c beside a. */
  async function tree() {
    const { db } = bench.database;
    const [a, c] = [await insertDomain(db), await insertDomain(db)];
    const b = await insertDomain(db, a);
    const account = await insertAccount(db, b);
    for (const one of [core, other]) await one.inventory.load();
    const vmId = await create(account);
    return { a, b, c, account, vmId };
  }
  async function create(account: Placed): Promise<number> {
    const made = accepted(await core.ops.createVm(ADMIN, createInput(bench, { accountId: idOf('account', account) })));
    assert.equal((await jobEnded(core, made.jobId)).state, 'SUCCEEDED');
    return made.id;
  }
  const vmsIn = async (...domains: PlacedDomain[]) =>
    Promise.all(
      domains.map(async ({ id }) => {
        const row = await core.db
          .selectFrom('domain_quota')
          .select('vms_used')
          .where('id', '=', id)
          .executeTakeFirstOrThrow();
        return row.vms_used;
      }),
    );
  const pathOf = async ({ id }: Placed) =>
    (await core.db.selectFrom('domain').select('path').where('id', '=', id).executeTakeFirstOrThrow()).path;
  const expunge = async (vmId: number) => {
    const { uid } = await core.db.selectFrom('vm').select('uid').where('id', '=', vmId).executeTakeFirstOrThrow();
    for (const op of ['destroyVm', 'expungeVm'] as const) {
      const { jobId } = accepted(await core.ops[op](ADMIN, { id: idOf('vm', { uid }) }));
      assert.equal((await jobEnded(core, jobId)).state, 'SUCCEEDED');
    }
  };

  it('of an account takes what it has out of the domains above and into others', async () => {
    const { a, b, c, account, vmId } = await tree();
    assert.deepEqual(await vmsIn(a, b, c), [1, 1, 0]);
    ok(await core.ops.moveAccount(ADMIN, { id: idOf('account', account), domainId: idOf('domain', c) }));
    assert.deepEqual(await vmsIn(a, b, c), [0, 0, 1]);
    await create(account);
    assert.deepEqual(await vmsIn(a, b, c), [0, 0, 2]);
    await expunge(vmId);
    assert.deepEqual(await vmsIn(a, b, c), [0, 0, 1]);
    await assertClean(core);
  });

  it('of a domain takes all below it along', async () => {
    const { a, b, c, account } = await tree();
    ok(await core.ops.moveDomain(ADMIN, { id: idOf('domain', a), parentId: idOf('domain', c) }));
    assert.deepEqual(await vmsIn(a, b, c), [1, 1, 1]);
    assert.equal(await pathOf(a), `${c.path}${a.id}/`);
    assert.equal(await pathOf(b), `${c.path}${a.id}/${b.id}/`);
    await create(account);
    assert.deepEqual(await vmsIn(a, b, c), [2, 2, 2]);
    await assertClean(core);
  });

  it('that another control plane has not heard of yet counts nothing where it was', async () => {
    const { a, b, c, account } = await tree();
    await unfollow();
    try {
      ok(await core.ops.moveAccount(ADMIN, { id: idOf('account', account), domainId: idOf('domain', c) }));
      assert.equal(other.inventory.domainPathOf(account.id), b.path, 'it knows the old place');
      const submit = (write: Write) => other.writer.submit({ ...emptyTransition(), writes: [write] });
      assert.equal((await submit(chargeAccount(account.id, { vms: 2 }))).kind, 'written');
      assert.deepEqual(await vmsIn(a, b, c), [0, 0, 3]);
      ok(await core.ops.moveDomain(ADMIN, { id: idOf('domain', c), parentId: idOf('domain', a) }));
      assert.equal((await submit(refundAccount(account.id, { vms: 2 }))).kind, 'written');
      assert.deepEqual(await vmsIn(a, b, c), [1, 0, 1]);
    } finally {
      unfollow = follow(core, other);
    }
    await assertClean(core);
  });

  it('and creates at the same time lose no count', async () => {
    const { a, b, c, account } = await tree();
    const asked = createInput(bench, { accountId: idOf('account', account) });
    const work = Array.from({ length: 10 }, (_, n) =>
      [core, other][n % 2]!.ops.createVm(ADMIN, { ...asked, name: `n${n}` }),
    );
    const there = core.ops.moveAccount(ADMIN, { id: idOf('account', account), domainId: idOf('domain', c) });
    const made = await Promise.all(work);
    ok(await there);
    for (const payload of made) assert.equal((await jobEnded(core, accepted(payload).jobId)).state, 'SUCCEEDED');
    assert.deepEqual(await vmsIn(a, b, c), [0, 0, 11]);
    await assertClean(core);
  });

  it('into a domain that has no room is refused, and nothing has moved', async () => {
    const { a, b, c, account } = await tree();
    const limits = [{ resource: 'VMS', limit: 0 }];
    ok(await core.ops.updateQuota(ADMIN, { domainId: idOf('domain', c), limits }));
    const into = { id: idOf('account', account), domainId: idOf('domain', c) };
    assert.equal(refusalOf(await core.ops.moveAccount(ADMIN, into)).code, 'QUOTA_EXCEEDED');
    const all = { id: idOf('domain', a), parentId: idOf('domain', c) };
    assert.equal(refusalOf(await core.ops.moveDomain(ADMIN, all)).code, 'QUOTA_EXCEEDED');
    assert.deepEqual(await vmsIn(a, b, c), [1, 1, 0]);
    assert.equal(await pathOf(b), b.path);
  });

  it('decides what users see from then on', async () => {
    const { db } = bench.database;
    const { a, b, c, account } = await tree();
    const { token } = await insertApiKey(db, await insertUser(db, account, ROLE.user));
    const above = await insertActor(db, await insertAccount(db, a), ROLE.domainAdmin);
    const beside = await insertActor(db, await insertAccount(db, c), ROLE.domainAdmin);
    const rename = (by: UserActor) =>
      core.ops.updateAccount(by, { id: idOf('account', account), name: `by ${by.userId}` });
    ok(await rename(above));
    assert.equal(refusalOf(await rename(beside)).code, 'NOT_FOUND');
    ok(await core.ops.moveDomain(ADMIN, { id: idOf('domain', b), parentId: idOf('domain', c) }));
    assert.equal(refusalOf(await rename(above)).code, 'NOT_FOUND');
    ok(await rename(beside));
    assert.equal((await actorOf(db, token)).domainPath, `${c.path}${b.id}/`);
  });

  it('of a domain into itself, too deep, or of what stays is refused', async () => {
    const { db } = bench.database;
    const { a, b } = await tree();
    const move = async (id: string, parentId: string) => refusalOf(await core.ops.moveDomain(ADMIN, { id, parentId }));
    const [idOfA, idOfB] = [idOf('domain', a), idOf('domain', b)];
    assert.equal((await move(idOfA, idOfB)).code, 'INVALID_INPUT');
    assert.equal((await move(idOfA, idOfA)).code, 'INVALID_INPUT');
    let deep = await insertDomain(db);
    for (let depth = 2; depth < 15; depth++) deep = await insertDomain(db, deep);
    // a and b would be the 16th and the 17th.
    assert.equal((await move(idOfA, idOf('domain', deep))).code, 'INVALID_INPUT');
    ok(await core.ops.moveDomain(ADMIN, { id: idOfB, parentId: idOf('domain', deep) }));
    const root = idOf('domain', { uid: Buffer.from('00000000000070008000000000000001', 'hex') });
    assert.equal((await move(root, idOfA)).code, 'INVALID_STATE');
    const operator = idOf('account', { uid: Buffer.from('00000000000070008000000000000001', 'hex') });
    assert.equal(refusalOf(await core.ops.moveAccount(ADMIN, { id: operator, domainId: idOfA })).code, 'INVALID_STATE');
  });

  it('is for who administers both places, and never of where he stands himself', async () => {
    const { db } = bench.database;
    const { a, b, c, account } = await tree();
    const admin = await insertActor(db, await insertAccount(db, a), ROLE.domainAdmin);
    const inside = await insertActor(db, account, ROLE.domainAdmin);
    const into = (domain: Placed) => ({ id: idOf('account', account), domainId: idOf('domain', domain) });
    assert.equal(refusalOf(await core.ops.moveAccount(admin, into(c))).code, 'NOT_FOUND');
    assert.equal(refusalOf(await core.ops.moveAccount(inside, into(b))).code, 'FORBIDDEN');
    const own = { id: idOf('domain', a), parentId: idOf('domain', b) };
    assert.equal(refusalOf(await core.ops.moveDomain(admin, own)).code, 'FORBIDDEN');
    ok(await core.ops.moveAccount(admin, into(a)));
  });

  it('of a domain while something is made in it leaves nothing with the old path', async () => {
    const { a, b, c } = await tree();
    const made = {
      domain: { parentId: idOf('domain', b), name: 'late' },
      account: { domainId: idOf('domain', b), name: 'late' },
    };
    const away = () => core.ops.moveDomain(ADMIN, { id: idOf('domain', a), parentId: idOf('domain', c) });
    beforeNextWrite(other, away);
    ok(await other.ops.createDomain(ADMIN, made.domain));
    const rows = await core.db.selectFrom('domain').select('path').where('parent_id', '=', b.id).execute();
    assert.ok(
      rows.every(({ path }) => path.startsWith(`${c.path}${a.id}/${b.id}/`)),
      JSON.stringify(rows),
    );
    const back = () => core.ops.moveDomain(ADMIN, { id: idOf('domain', a), parentId: rootId });
    const rootId = idOf('domain', { uid: Buffer.from('00000000000070008000000000000001', 'hex') });
    beforeNextWrite(other, back);
    ok(await other.ops.createAccount(ADMIN, made.account));
    await assertClean(core);
    const { path } = await core.db
      .selectFrom('account_quota')
      .innerJoin('account', 'account.id', 'account_quota.id')
      .select('path')
      .where('account.domain_id', '=', b.id)
      .where('account.name', '=', 'late')
      .executeTakeFirstOrThrow();
    assert.equal(path, await pathOf(b));
  });
});
