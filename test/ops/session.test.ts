import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import type { Core } from '../../src/core.ts';
import { patch } from '../../src/db/transition.ts';
import { ENROLMENT_MS, SESSION_MS, SESSIONS_PER_USER } from '../../src/domain/session.ts';
import { type OpeningOutcome, openSession, type SessionOpening } from '../../src/ops/session.ts';
import { beforeNextWrite, openCore } from '../support/core.ts';
import { freshDatabase, type TestDatabase } from '../support/database.ts';
import {
  actorOf,
  insertAccount,
  insertDomain,
  insertIdentityProvider,
  insertSession,
  insertUser,
  type PlacedDomain,
  ROLE,
} from '../support/tenants.ts';
import type { Placed } from '../support/world.ts';

describe('opening a session', () => {
  let database: TestDatabase;
  let core: Core;
  let home: PlacedDomain;
  let account: Placed;
  let user: Placed;
  before(async () => {
    database = await freshDatabase();
    core = await openCore(database.url);
    home = await insertDomain(database.db);
    account = await insertAccount(database.db, home, { name: 'acme' });
    user = await insertUser(database.db, account, ROLE.user, { name: 'alice' });
  });
  after(async () => {
    await core.close();
    await database.close();
  });

  const open = (over: Partial<SessionOpening> = {}): Promise<OpeningOutcome> =>
    openSession(core.opsContext, {
      userId: user.id,
      how: 'PASSWORD',
      secondFactor: false,
      via: { address: '2001:db8::7', requestId: 'r-1' },
      userAgent: 'a browser',
      ...over,
    });
  const opened = async (over?: Partial<SessionOpening>) => {
    const outcome = await open(over);
    assert.equal(outcome.kind, 'opened');
    return outcome as Extract<OpeningOutcome, { kind: 'opened' }>;
  };
  /** Somebody who comes by an identity provider. */
  async function external(over: Parameters<typeof insertIdentityProvider>[2] = {}) {
    const { db } = database;
    const provider = await insertIdentityProvider(db, { domain: home, account, role: { id: ROLE.user } }, over);
    const known = { identity_provider_id: provider.id, external_subject: 'subject' };
    return { provider, user: await insertUser(db, account, ROLE.user, known) };
  }
  const rowOf = (id: number) =>
    database.db.selectFrom('session').selectAll().where('id', '=', id).executeTakeFirstOrThrow();
  const lengthOf = ({ created_at, expires_at }: { created_at: string; expires_at: string }): number =>
    Date.parse(expires_at) - Date.parse(created_at);

  it('gives a token that stands for the user, with an event and a change', async () => {
    const heard: unknown[] = [];
    const stop = core.feed.listen((changes) => void heard.push(...changes));
    const { id, token, enrolling } = await opened({ how: 'OIDC', secondFactor: true });
    stop();
    assert.equal(enrolling, false);
    const actor = await actorOf(database.db, token);
    assert.deepEqual([actor.userId, actor.credential], [user.id, { kind: 'session', id }]);
    const row = await rowOf(id);
    assert.deepEqual(
      [row.how, row.second_factor, row.address, row.user_agent],
      ['OIDC', 1, '2001:db8::7', 'a browser'],
    );
    assert.ok(Math.abs(lengthOf(row) - SESSION_MS) < 1_000);
    assert.deepEqual(heard, [{ kind: 'session', id }]);
    const event = await database.db
      .selectFrom('event')
      .select(['type', 'account_id', 'actor'])
      .where('subject_kind', '=', 'session')
      .where('subject_id', '=', id)
      .executeTakeFirstOrThrow();
    const audit = await database.db
      .selectFrom('audit')
      .select(['action', 'outcome', 'user_id', 'credential', 'address', 'account_id', 'request_id'])
      .where('subject_kind', '=', 'session')
      .where('subject_id', '=', id)
      .executeTakeFirstOrThrow();
    assert.deepEqual(audit, {
      action: 'signIn',
      outcome: 'ALLOWED',
      user_id: user.id,
      credential: `session:${id}`,
      address: '2001:db8::7',
      account_id: account.id,
      request_id: 'r-1',
    });
    assert.deepEqual(event, { type: 'session.opened', account_id: account.id, actor: 'acme/alice' });
  });

  it('is for setting up a second factor alone, and short, where the domain asks for one and none was shown', async () => {
    const domain = await insertDomain(database.db, undefined, { require_second_factor: 1 });
    const someone = await insertUser(database.db, await insertAccount(database.db, domain), ROLE.user);
    const { id, token, enrolling } = await opened({ userId: someone.id });
    assert.equal(enrolling, true);
    assert.ok(Math.abs(lengthOf(await rowOf(id)) - ENROLMENT_MS) < 1_000);
    assert.equal((await actorOf(database.db, token)).enrolling, true);
    assert.equal((await opened({ userId: someone.id, secondFactor: true })).enrolling, false);
  });

  it('is shut to a user who is disabled, or in what is', async () => {
    const { db } = database;
    const off = { wanted_state: 'DISABLED' } as const;
    const users = [
      await insertUser(db, account, ROLE.user, off),
      await insertUser(db, await insertAccount(db, await insertDomain(db), off), ROLE.user),
      await insertUser(db, await insertAccount(db, await insertDomain(db, await insertDomain(db, undefined, off))), 3),
      (await external(off)).user,
      { id: 999 },
    ];
    for (const { id } of users) assert.deepEqual(await open({ userId: id }), { kind: 'shut' });
  });

  it('is shut to a user who is disabled between the look and the write', async () => {
    const someone = await insertUser(database.db, account, ROLE.user);
    beforeNextWrite(core, () =>
      database.db.updateTable('user').set({ wanted_state: 'DISABLED' }).where('id', '=', someone.id).execute(),
    );
    assert.deepEqual(await open({ userId: someone.id }), { kind: 'shut' });
  });

  it('is shut to a user whose identity provider is disabled between the look and the write', async () => {
    const { provider, user: someone } = await external();
    beforeNextWrite(core, () =>
      database.db
        .updateTable('identity_provider')
        .set({ wanted_state: 'DISABLED' })
        .where('id', '=', provider.id)
        .execute(),
    );
    assert.deepEqual(await open({ userId: someone.id, how: 'OIDC' }), { kind: 'shut' });
  });

  it('writes nothing when what is to be written with it is refused', async () => {
    const someone = await insertUser(database.db, account, ROLE.user);
    const writes = [patch('user', someone.id, { totp_step: 7 }, { totp_step: 8 })];
    assert.deepEqual(await open({ userId: someone.id, writes }), { kind: 'stale' });
    const sessions = await database.db.selectFrom('session').select('id').where('user_id', '=', someone.id).execute();
    assert.deepEqual(sessions, []);
  });

  it('says the same of it when another session would have to end for it', async () => {
    const someone = await insertUser(database.db, account, ROLE.user);
    for (let i = 0; i < SESSIONS_PER_USER; i++) await insertSession(database.db, someone);
    const writes = [patch('user', someone.id, { totp_step: 7 }, { totp_step: 8 })];
    assert.deepEqual(await open({ userId: someone.id, writes }), { kind: 'stale' });
  });

  it('ends the one that was used the longest ago when there are too many', async () => {
    const someone = await insertUser(database.db, account, ROLE.user);
    const ids: number[] = [];
    for (let i = 0; i < SESSIONS_PER_USER; i++) {
      const last_used_at = new Date(Date.now() - (i + 1) * 1_000);
      ids.push((await insertSession(database.db, someone, { last_used_at })).id);
    }
    await opened({ userId: someone.id });
    const ended = await database.db
      .selectFrom('session')
      .select('id')
      .where('user_id', '=', someone.id)
      .where('deleted_at', 'is not', null)
      .execute();
    assert.deepEqual(ended, [{ id: ids.at(-1) }]);
  });

  it('keeps of what a program says of itself what a person can read', async () => {
    const { id } = await opened({ userAgent: `a\nb\u0000${'c'.repeat(300)}` });
    const { user_agent } = await rowOf(id);
    assert.match(user_agent!, /^a b c+$/);
    assert.equal(user_agent!.length, 255);
  });
});
