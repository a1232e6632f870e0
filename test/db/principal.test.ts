import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { sql } from 'kysely';
import { principalOf } from '../../src/db/principal.ts';
import type { Actor, UserActor } from '../../src/domain/authorize.ts';
import { SESSION_IDLE_MS } from '../../src/domain/session.ts';
import { secretHash } from '../../src/hosts/identities.ts';
import { freshDatabase, recordStatements, type TestDatabase } from '../support/database.ts';
import {
  insertAccount,
  insertApiKey,
  insertDomain,
  insertMember,
  insertSession,
  insertUser,
  type PlacedDomain,
  ROLE,
} from '../support/tenants.ts';
import { nextId, type Placed } from '../support/world.ts';

describe('who a token belongs to', () => {
  let database: TestDatabase;
  let above: PlacedDomain;
  let domain: PlacedDomain;
  let account: Placed;
  let user: Placed;
  let key: Placed & { token: string };
  before(async () => {
    database = await freshDatabase();
    above = await insertDomain(database.db);
    domain = await insertDomain(database.db, above);
    account = await insertAccount(database.db, domain, { name: 'acme' });
    user = await insertUser(database.db, account, ROLE.user, { name: 'alice' });
    key = await insertApiKey(database.db, user);
  });
  after(() => database.close());

  const who = (token = key.token): Promise<Actor> => principalOf(database.db, secretHash(token));
  const known = async (token?: string): Promise<UserActor> => {
    const actor = await who(token);
    assert.equal(actor.kind, 'user');
    return actor as UserActor;
  };

  it('is a user of an account in a domain, with what its role allows', async () => {
    const { permissions, ...actor } = await known();
    assert.deepEqual(actor, {
      kind: 'user',
      userId: user.id,
      credential: { kind: 'api_key', id: key.id },
      accountId: account.id,
      domainPath: domain.path,
      name: 'acme/alice',
      roleIds: [ROLE.user],
      reach: 'ACCOUNT',
      projects: new Map(),
    });
    assert.ok(permissions.has('create vm'));
    assert.ok(!permissions.has('read host'));
  });

  it('takes one read more of who is a member of a project, by name or by his account, and of nobody else', async () => {
    const { db } = database;
    const of = async (token: string): Promise<number> => {
      const { db: recorded, statements } = recordStatements(database.pool);
      await principalOf(recorded, secretHash(token));
      return statements.length;
    };
    const alone = await of(key.token);
    const other = await insertAccount(db, domain);
    const { token } = await insertApiKey(db, await insertUser(db, other, ROLE.user));
    assert.equal(await of(token), alone);
    const project = await insertAccount(db, domain, { type: 'PROJECT' });
    await insertMember(db, project, { account: other }, ROLE.user);
    assert.equal(await of(token), alone + 1, 'by the account');
    const named = await insertUser(db, account, ROLE.user);
    const namedKey = await insertApiKey(db, named);
    const member = await insertMember(db, project, { user: named }, ROLE.user);
    assert.equal(await of(namedKey.token), alone + 1, 'by name');
    await db.updateTable('project_member').set({ deleted_at: sql`now(6)` }).where('id', '=', member.id).execute();
    assert.equal(await of(namedKey.token), alone, 'and not when it is over');
    assert.equal(await of(key.token), alone, 'nor what is of a colleague');
  });

  it('is nobody when it is no token', async () => {
    for (const token of ['', 'x', key.token.slice(0, -1), key.token.toUpperCase()])
      assert.deepEqual(await who(token), { kind: 'anonymous' });
  });

  it('is nobody while its key, user, account or any domain above is switched off or gone', async () => {
    const { db } = database;
    const rows = { api_key: key.id, user: user.id, account: account.id, domain: domain.id };
    for (const [table, id] of [...Object.entries(rows), ['domain', above.id] as const]) {
      const column = { deleted_at: sql`now(6)` };
      const switches = table === 'api_key' ? [column] : [column, { wanted_state: 'DISABLED' }];
      for (const set of switches) {
        await db
          .updateTable(table as 'user')
          .set(set as never)
          .where('id', '=', id)
          .execute();
        assert.deepEqual(await who(), { kind: 'anonymous' }, `${table} ${Object.keys(set)[0]}`);
        const back = 'deleted_at' in set ? { deleted_at: null } : { wanted_state: 'ENABLED' as const };
        await db
          .updateTable(table as 'user')
          .set(back)
          .where('id', '=', id)
          .execute();
        await known();
      }
    }
  });

  it('is nobody from the moment on at which the key expires', async () => {
    const expired = await insertApiKey(database.db, user, { expires_at: new Date(Date.now() - 1_000) });
    const lasting = await insertApiKey(database.db, user, { expires_at: new Date(Date.now() + 60_000) });
    assert.deepEqual(await who(expired.token), { kind: 'anonymous' });
    await known(lasting.token);
  });

  it('is who has signed in, while the session is neither ended, old nor idle', async () => {
    const session = await insertSession(database.db, user);
    const { credential } = await known(session.token);
    assert.deepEqual(credential, { kind: 'session', id: session.id });
    const ago = (ms: number): Date => new Date(Date.now() - ms);
    for (const over of [
      { deleted_at: ago(0) },
      { expires_at: ago(1_000) },
      { last_used_at: ago(SESSION_IDLE_MS + 60_000) },
    ]) {
      const { token } = await insertSession(database.db, user, over);
      assert.deepEqual(await who(token), { kind: 'anonymous' }, JSON.stringify(over));
    }
    await known((await insertSession(database.db, user, { last_used_at: ago(SESSION_IDLE_MS - 60_000) })).token);
  });

  it('may do nothing yet where a domain above asks for a second factor, and the session has none', async () => {
    const { db } = database;
    const inside = await insertDomain(db, await insertDomain(db, undefined, { require_second_factor: 1 }));
    const someone = await insertUser(db, await insertAccount(db, inside), ROLE.user);
    const without = await known((await insertSession(db, someone)).token);
    assert.deepEqual([without.enrolling, [...without.permissions], without.reach], [true, [], 'ACCOUNT']);
    for (const { token } of [await insertSession(db, someone, { second_factor: 1 }), await insertApiKey(db, someone)]) {
      const full = await known(token);
      assert.ok(!('enrolling' in full) && full.permissions.has('create vm'));
    }
  });

  it('has no more than its key allows, nor than its user has', async () => {
    const rules = JSON.stringify([
      { effect: 'ALLOW', verb: '*', kind: 'host' },
      { effect: 'ALLOW', verb: 'read', kind: 'vm' },
    ]);
    const id = nextId();
    const role = { id, uid: Buffer.alloc(16, 9), name: 'watcher', reach: 'ALL' as const, rules };
    await database.db.insertInto('role').values(role).execute();
    const narrow = await insertApiKey(database.db, user, { role_id: id });
    const actor = await known(narrow.token);
    assert.deepEqual([...actor.permissions], ['read vm']);
    assert.equal(actor.reach, 'ACCOUNT');
    assert.deepEqual(actor.roleIds, [ROLE.user, id]);
  });
});
