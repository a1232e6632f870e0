import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { after, before, describe, it } from 'node:test';
import { sql } from 'kysely';
import type { Core } from '../../src/core.ts';
import { chargeAccount, emptyTransition, refundAccount } from '../../src/db/transition.ts';
import type { Charge } from '../../src/domain/quota.ts';
import { auditQuotas } from '../../src/loops/quota-audit.ts';
import { openCore } from '../support/core.ts';
import { freshDatabase, type TestDatabase } from '../support/database.ts';
import { insertAccount, insertDomain, type PlacedDomain } from '../support/tenants.ts';
import { insertTemplate, insertVm, insertVolume, insertWorld, type Placed } from '../support/world.ts';

describe('counts of quotas', () => {
  let database: TestDatabase;
  let core: Core;
  let domain: PlacedDomain;
  let account: Placed;
  before(async () => {
    database = await freshDatabase();
    domain = await insertDomain(database.db, await insertDomain(database.db));
    account = await insertAccount(database.db, domain);
    core = await openCore(database.url);
  });
  after(async () => {
    await core.close();
    await database.close();
  });

  const used = async (id: number): Promise<number[]> => {
    const own = await database.db
      .selectFrom('account_quota')
      .select('vms_used')
      .where('id', '=', id)
      .executeTakeFirstOrThrow();
    const { path } = domain;
    const above = await database.db
      .selectFrom('domain_quota')
      .innerJoin('domain', 'domain.id', 'domain_quota.id')
      .select('vms_used')
      .where(sql<boolean>`${path} like concat(domain.path, '%')`)
      .orderBy('domain.id')
      .execute();
    return [own.vms_used, ...above.map((row) => row.vms_used)];
  };
  const charge = (id: number, what: Charge) =>
    core.writer.submit({ ...emptyTransition(), writes: [chargeAccount(id, what)] });
  const refund = (id: number, what: Charge) =>
    core.writer.submit({ ...emptyTransition(), writes: [refundAccount(id, what)] });

  it('are taken at the account and at each domain above, also of an account that this process has not heard of', async () => {
    const strange = await insertAccount(database.db, domain);
    assert.equal(core.inventory.domainPathOf(strange.id), undefined);
    assert.deepEqual(await charge(strange.id, { vms: 2 }), { kind: 'written' });
    assert.deepEqual(await charge(account.id, { vms: 1 }), { kind: 'written' });
    assert.deepEqual(
      [await used(strange.id), await used(account.id)],
      [
        [2, 3, 3, 3],
        [1, 3, 3, 3],
      ],
    );
    assert.deepEqual(await refund(strange.id, { vms: 2 }), { kind: 'written' });
    assert.deepEqual(await refund(account.id, { vms: 1 }), { kind: 'written' });
  });

  it('go up to the limit and no further, at whichever height it stands', async () => {
    await database.db.updateTable('domain_quota').set({ vms_cap: 2 }).where('id', '=', domain.id).execute();
    assert.deepEqual(await charge(account.id, { vms: 2 }), { kind: 'written' });
    assert.deepEqual(await charge(account.id, { vms: 1 }), { kind: 'full' });
    assert.deepEqual(await charge(account.id, { vms: 0, vcpus: 1 }), { kind: 'written' });
    await database.db.updateTable('domain_quota').set({ vms_cap: 1 }).where('id', '=', domain.id).execute();
    assert.deepEqual(await refund(account.id, { vms: 1, vcpus: 1 }), { kind: 'written' }, 'over the limit');
    assert.deepEqual(await charge(account.id, { vms: 1 }), { kind: 'full' });
    assert.deepEqual(await used(account.id), [1, 1, 1, 1]);
    await database.db.updateTable('domain_quota').set({ vms_cap: null }).where('id', '=', domain.id).execute();
  });

  it('that were lost keep nothing from being given back, and never fall below nothing', async () => {
    assert.deepEqual(await refund(account.id, { vms: 5 }), { kind: 'written' });
    assert.deepEqual(await used(account.id), [0, 0, 0, 0]);
  });

  it('are told to other processes with the transition that took them', async () => {
    const other = await openCore(database.url);
    const heard: string[] = [];
    other.feed.listen((changes) => heard.push(...changes.map(({ kind, id }) => `${kind} ${id}`)));
    await charge(account.id, { vms: 1 });
    await other.feed.catchUp();
    const above = domain.path.split('/').filter(Boolean);
    assert.deepEqual(heard.sort(), [`account_quota ${account.id}`, ...above.map((id) => `domain_quota ${id}`)].sort());
    await refund(account.id, { vms: 1 });
    await other.close();
  });

  it('begin with what is there when quotas come, however often that is begun', async () => {
    const { db } = database;
    const world = await insertWorld(db);
    const owned = { account_id: account.id };
    const vm = await insertVm(db, world, { ...owned, vcpus: 3 });
    await insertVolume(db, world, vm, owned);
    await insertVm(db, world, { ...owned, deleted_at: new Date() });
    await insertTemplate(db, world.zone, { ...owned, file_bytes: null });
    await insertTemplate(db, world.zone, owned);
    await insertVm(db, world);
    assert.deepEqual(await auditQuotas(db), []);
    const before = await db.selectFrom('domain_quota').selectAll().orderBy('id').execute();
    const text = await readFile(new URL('../../schema/mysql/0004-quota.sql', import.meta.url), 'utf8');
    const statements = text
      .replace(/--.*$/gm, '')
      .split(';')
      .map((one) => one.trim());
    await db.deleteFrom('account_quota').execute();
    await db.deleteFrom('domain_quota').execute();
    for (const statement of [...statements, ...statements].filter(Boolean)) await sql.raw(statement).execute(db);
    assert.deepEqual(await auditQuotas(db), []);
    assert.deepEqual(await db.selectFrom('domain_quota').selectAll().orderBy('id').execute(), before);
  });

  it('are recounted by the audit, which names what differs', async () => {
    const { db } = database;
    await db.updateTable('account_quota').set({ vcpus_used: 7 }).where('id', '=', account.id).execute();
    await db.deleteFrom('domain_quota').where('id', '=', domain.id).execute();
    const drift = await auditQuotas(db);
    assert.deepEqual(drift[0], { what: 'quota of account: VCPUS', id: account.id, counted: 7, actual: 3 });
    assert.deepEqual(
      drift.slice(1).map(({ id, counted }) => [id, counted]),
      Array(7).fill([domain.id, -1]),
    );
  });
});
