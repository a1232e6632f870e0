import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import type { Core } from '../../src/core.ts';
import type { IdentityProvider } from '../../src/db/tables.ts';
import type { ExternalIdentity } from '../../src/domain/identity-provider.ts';
import { admitExternal } from '../../src/ops/external-user.ts';
import { ADMIN, beforeNextWrite, openCore } from '../support/core.ts';
import { freshDatabase, type TestDatabase } from '../support/database.ts';
import {
  idOf,
  insertAccount,
  insertDomain,
  insertIdentityProvider,
  insertRole,
  insertUser,
} from '../support/tenants.ts';
import type { Placed } from '../support/world.ts';

describe('somebody whom a provider knows', () => {
  let database: TestDatabase;
  let core: Core;
  let account: Placed;
  let staff: Placed;
  let admins: Placed;
  let provider: IdentityProvider;
  before(async () => {
    database = await freshDatabase();
    core = await openCore(database.url);
    const domain = await insertDomain(database.db);
    account = await insertAccount(database.db, domain);
    staff = await insertRole(database.db);
    admins = await insertRole(database.db);
    provider = await insertProvider([
      { group: 'admins', roleId: admins.id },
      { group: 'staff', roleId: staff.id },
    ]);
  });
  after(async () => {
    await core.close();
    await database.close();
  });

  async function insertProvider(mapping: object[]): Promise<IdentityProvider> {
    const domain = await database.db
      .selectFrom('account')
      .select('domain_id')
      .where('id', '=', account.id)
      .executeTakeFirstOrThrow();
    const row = { domain: { id: domain.domain_id }, account, role: staff };
    const { id } = await insertIdentityProvider(database.db, row, { role_mapping: JSON.stringify(mapping) });
    return database.db.selectFrom('identity_provider').selectAll().where('id', '=', id).executeTakeFirstOrThrow();
  }
  let last = 0;
  const identity = (more: Partial<ExternalIdentity> = {}): ExternalIdentity => ({
    subject: `subject ${last++}`,
    name: 'anna',
    groups: ['staff'],
    secondFactor: false,
    ...more,
  });
  const admit = (who: ExternalIdentity, by = provider) =>
    admitExternal(core.opsContext, by, who, { address: '192.0.2.7', requestId: 'r' });
  const userRow = (id: number) =>
    database.db.selectFrom('user').selectAll().where('id', '=', id).executeTakeFirstOrThrow();
  const audits = () =>
    database.db
      .selectFrom('audit')
      .select(['action', 'outcome', 'code', 'actor', 'subject_kind', 'subject_id', 'address'])
      .orderBy('seq')
      .execute();

  it('becomes a user of its account, with the role of the first group that fits, and the next time is the same', async () => {
    const who = identity({ groups: ['other', 'staff', 'admins'] });
    const { userId } = await admit(who);
    const row = await userRow(userId);
    assert.deepEqual(
      [row.account_id, row.role_id, row.name, row.identity_provider_id, row.external_subject],
      [account.id, admins.id, 'anna', provider.id, who.subject],
    );
    assert.deepEqual(await admit(who), { userId });
    assert.equal((await userRow(userId)).generation, 1);
    assert.deepEqual((await audits()).at(-1), {
      action: 'signIn',
      outcome: 'ALLOWED',
      code: null,
      actor: `identity provider ${provider.name}`,
      subject_kind: 'user',
      subject_id: userId,
      address: '192.0.2.7',
    });
  });

  it('is known by his subject, and never by a name', async () => {
    const local = await insertUser(database.db, account, admins.id, { name: 'root' });
    const { userId } = await admit(identity({ name: 'root' }));
    assert.notEqual(userId, local.id);
    assert.equal((await userRow(userId)).name, 'root-2');
    const second = await admit(identity({ name: 'root' }));
    assert.equal((await userRow(second.userId)).name, 'root-3');
    const same = identity({ name: 'carl' });
    const { userId: carl } = await admit(same);
    assert.deepEqual(await admit({ ...same, name: 'somebody else' }), { userId: carl });
    // Another provider's same subject is another person.
    const other = await insertProvider([{ group: '*', roleId: staff.id }]);
    assert.notEqual((await admit(same, other)).userId, carl);
  });

  it('has a name in the form that names have here', async () => {
    for (const [given, expected] of [
      ['  zoë\n', 'zoë'],
      ['a\u0000b', 'a b'],
      ['\u2028', 'user'],
      ['x'.repeat(400), 'x'.repeat(235)],
      ['half \ud800', 'half \ufffd'],
      // What is there to look like another's: Cyrillic, unseen, full-width, with a slash, of two scripts.
      ['\u0430\u0441\u0435', 'user-2'],
      ['ad\u200bmin', 'admin'],
      ['\uff41bc', 'abc'],
      ['acme/root', 'acme-root'],
      ['\u0430dmin', 'user-3'],
    ] as const)
      assert.equal(
        (await userRow((await admit(identity({ name: given }))).userId)).name,
        expected,
        JSON.stringify(given),
      );
  });

  it('gets another role with his groups, at once for all that he has open', async () => {
    const who = identity({ groups: ['admins'] });
    const { userId } = await admit(who);
    const told: unknown[] = [];
    const stop = core.feed.listen((changes) => told.push(...changes));
    await admit({ ...who, groups: ['staff'] });
    stop();
    assert.equal((await userRow(userId)).role_id, staff.id);
    assert.deepEqual(told, [{ kind: 'user', id: userId }]);
  });

  it('is refused without a group that has a role, which is on the trail, by group and by a role that is no more', async () => {
    const who = identity();
    await admit(who);
    for (const groups of [[], ['Staff'], ['staff ', 'x'], ['*']]) {
      await assert.rejects(admit({ ...who, groups }), { code: 'FORBIDDEN', message: /none of your groups/ });
      const { outcome, code, subject_kind, subject_id } = (await audits()).at(-1)!;
      assert.deepEqual(
        [outcome, code, subject_kind, subject_id],
        ['REFUSED', 'FORBIDDEN', 'identity_provider', provider.id],
      );
    }
    const gone = await insertRole(database.db, undefined, { deleted_at: new Date() });
    const dangling = await insertProvider([
      { group: 'staff', roleId: gone.id },
      { group: '*', roleId: staff.id },
    ]);
    await assert.rejects(admit(identity(), dangling), { code: 'FORBIDDEN' });
  });

  it('of a directory is in a group whose DN is written in another way', async () => {
    const ldap = {
      ...(await insertProvider([{ group: 'CN=Staff, ou=Groups,dc=example,dc=com', roleId: staff.id }])),
      type: 'LDAP' as const,
    };
    const { userId } = await admit(identity({ groups: ['cn=staff,ou=groups,DC=example,DC=com'] }), ldap);
    assert.equal((await userRow(userId)).role_id, staff.id);
    await assert.rejects(admit(identity({ groups: ['cn=staff\\, ou=groups,dc=example,dc=com'] }), ldap), {
      code: 'FORBIDDEN',
    });
  });

  it('is one user though he comes twice at once, and two who are called the same are two', async () => {
    const who = identity({ name: 'twice' });
    const both = await Promise.all([admit(who), admit(who), admit(identity({ name: 'twice' }))]);
    assert.equal(both[0].userId, both[1].userId);
    assert.notEqual(both[0].userId, both[2].userId);
  });

  it('is not made by a provider that is switched off, or for an account that is, at the same moment', async () => {
    const other = await insertProvider([{ group: '*', roleId: staff.id }]);
    beforeNextWrite(core, async () => {
      await core.ops.disableIdentityProvider(ADMIN, { id: idOf('identity_provider', other) });
    });
    await assert.rejects(admit(identity(), other), { code: 'CONFLICT' });
    const made = await database.db
      .selectFrom('user')
      .select('id')
      .where('identity_provider_id', '=', other.id)
      .execute();
    assert.deepEqual(made, []);
  });
});
