import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { CredentialUse } from '../../src/db/credential-use.ts';
import type { Credential } from '../../src/domain/authorize.ts';
import { freshDatabase, recordStatements, type TestDatabase } from '../support/database.ts';
import { insertAccount, insertApiKey, insertSession, insertUser, ROLE, ROOT_DOMAIN } from '../support/tenants.ts';
import type { Placed } from '../support/world.ts';

describe('when a key or a session was used last', () => {
  let database: TestDatabase;
  let user: Placed;
  before(async () => {
    database = await freshDatabase();
    user = await insertUser(database.db, await insertAccount(database.db, ROOT_DOMAIN), ROLE.user);
  });
  after(() => database.close());

  const LONG_AGO = '2020-01-01 00:00:00.000000';
  const keyOf = async (): Promise<Credential> => ({
    kind: 'api_key',
    id: (await insertApiKey(database.db, user, { last_used_at: LONG_AGO, updated_at: LONG_AGO })).id,
  });
  const rowOf = ({ kind, id }: Credential) =>
    database.db.selectFrom(kind).select(['last_used_at', 'updated_at']).where('id', '=', id).executeTakeFirstOrThrow();

  it('is written for all together, once a minute for each, and is no change of them', async () => {
    let now = 0;
    const { db, statements } = recordStatements(database.pool);
    const use = new CredentialUse(db, () => now);
    const key = await keyOf();
    const session: Credential = {
      kind: 'session',
      id: (await insertSession(database.db, user, { last_used_at: LONG_AGO })).id,
    };
    const more = await keyOf();
    for (let i = 0; i < 100; i++) for (const one of [key, session, more]) use.used(one);
    await use.flush();
    assert.equal(statements.length, 2);
    for (const one of [key, session, more]) assert.notEqual((await rowOf(one)).last_used_at, LONG_AGO);
    assert.equal((await rowOf(key)).updated_at, LONG_AGO);

    now = 59_999;
    use.used(key);
    await use.flush();
    assert.equal(statements.length, 2);
    now = 60_000;
    use.used(key);
    await use.flush();
    await use.flush();
    assert.equal(statements.length, 3);
  });

  it('is written with the next use when it could not be', async () => {
    const key = await keyOf();
    let broken = true;
    const { db } = database;
    const use = new CredentialUse(
      new Proxy(db, {
        get(target, property) {
          if (broken) throw new Error('no database');
          const value: unknown = Reflect.get(target, property, target);
          return typeof value === 'function' ? value.bind(target) : value;
        },
      }),
    );
    use.used(key);
    await assert.rejects(use.flush(), /no database/);
    broken = false;
    use.used(key);
    await use.flush();
    assert.notEqual((await rowOf(key)).last_used_at, LONG_AGO);
  });
});
