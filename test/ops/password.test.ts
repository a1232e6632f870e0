import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import type { Core } from '../../src/core.ts';
import { PasswordHasher } from '../../src/ops/password-hash.ts';
import { signIn } from '../../src/ops/sign-in.ts';
import { ADMIN, beforeNextWrite, openCore } from '../support/core.ts';
import { freshDatabase, type TestDatabase } from '../support/database.ts';
import { actorOf, idOf, insertAccount, insertDomain, insertSession, insertUser, ROLE } from '../support/tenants.ts';
import type { Placed } from '../support/world.ts';

const OLD = 'correct horse battery';
const NEW = 'another horse battery';

describe('a password that is changed', () => {
  let database: TestDatabase;
  let core: Core;
  let account: Placed;
  let hash: string;
  before(async () => {
    database = await freshDatabase();
    core = await openCore(database.url);
    account = await insertAccount(database.db, await insertDomain(database.db, undefined, { name: 'sales' }), {
      name: 'acme',
    });
    hash = await new PasswordHasher().hash(OLD);
  });
  after(async () => {
    await core.close();
    await database.close();
  });

  const someone = (name: string) => insertUser(database.db, account, ROLE.user, { name, password_hash: hash });
  const enter = (user: string, password = OLD) =>
    signIn(
      core.opsContext,
      { domain: 'sales', account: 'acme', user, password },
      { address: null, requestId: 'r', userAgent: null },
    );
  const set = async (user: Placed) => {
    const { errors } = await core.ops.setPassword(ADMIN, { userId: idOf('user', user), password: NEW });
    assert.deepEqual(errors, []);
  };
  const openOf = (user: Placed) =>
    database.db
      .selectFrom('session')
      .select('id')
      .where('user_id', '=', user.id)
      .where('deleted_at', 'is', null)
      .execute();

  it('lets nobody in whose old one was looked at just before', async () => {
    const alice = await someone('alice');
    beforeNextWrite(core, () => set(alice));
    const { token, errors } = await enter('alice');
    assert.deepEqual([token, errors[0]?.code], [null, 'UNAUTHENTICATED']);
    assert.deepEqual(await openOf(alice), []);
    assert.ok((await enter('alice', NEW)).token);
  });

  it('ends a session too that was opened with the old one while it was changed', async () => {
    const bob = await someone('bob');
    let token: string | null = null;
    beforeNextWrite(core, async () => {
      ({ token } = await enter('bob'));
    });
    await set(bob);
    assert.ok(token, 'he was let in');
    assert.deepEqual(await openOf(bob), []);
  });

  it('by oneself keeps the session that is used, and ends what was opened meanwhile', async () => {
    const carl = await someone('carl');
    const own = await insertSession(database.db, carl);
    beforeNextWrite(core, async () => assert.ok((await enter('carl')).token));
    const { errors } = await core.ops.changePassword(await actorOf(database.db, own.token), {
      currentPassword: OLD,
      newPassword: NEW,
    });
    assert.deepEqual(errors, []);
    assert.deepEqual(await openOf(carl), [{ id: own.id }]);
  });

  it('leaves no session of the old one, however many are opened at that moment', async () => {
    const dora = await someone('dora');
    // Whatever comes while a commit is under way is written with the next one.
    await Promise.all([enter('dora'), set(dora), enter('nobody'), enter('dora'), set(dora)]);
    assert.deepEqual(await openOf(dora), []);
  });
});
