import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { TOTP } from 'otpauth';
import { pino } from 'pino';
import { type Control, startControl } from '../../src/control.ts';
import { PasswordHasher } from '../../src/ops/password-hash.ts';
import { freshDatabase, type TestDatabase } from '../support/database.ts';
import {
  idOf,
  insertAccount,
  insertApiKey,
  insertDomain,
  insertUser,
  type PlacedDomain,
  ROLE,
} from '../support/tenants.ts';
import type { Placed } from '../support/world.ts';
import { TestSocket } from './http-fixture.ts';
import { type Answered, SIGN_IN, type SignedIn, type Told } from './sign-in-answers.ts';

const PASSWORD = 'correct horse battery';

describe('signing in', () => {
  let database: TestDatabase;
  let folder: string;
  let control: Control;
  let domain: PlacedDomain;
  let account: Placed;
  let hash: string;
  before(async () => {
    database = await freshDatabase();
    folder = await mkdtemp(join(tmpdir(), 'vg-sign-in-'));
    hash = await new PasswordHasher().hash(PASSWORD);
    domain = await insertDomain(database.db, await insertDomain(database.db, undefined, { name: 'sales' }), {
      name: 'emea',
    });
    account = await insertAccount(database.db, domain, { name: 'acme' });
    const log = pino({ level: 'silent' });
    const options = { databaseUrl: database.url, host: '127.0.0.1', port: 0, log, trustedProxies: ['127.0.0.1'] };
    control = await startControl({ ...options, adminTokenPath: join(folder, 'token') });
  });
  after(async () => {
    await control.close();
    await database.close();
    await rm(folder, { recursive: true });
  });

  /** Each test comes from an address of its own, so that none is limited by the tries of another. */
  let addresses = 0;
  const freshAddress = (): string => `192.0.2.${++addresses}`;

  async function send(query: string, variables: object, headers: Record<string, string> = {}): Promise<Answered> {
    const response = await fetch(`${control.http.url}/graphql`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', 'user-agent': 'a test', ...headers },
      body: JSON.stringify({ query, variables }),
    });
    const { data, errors } = (await response.json()) as Pick<Answered, 'data' | 'errors'>;
    return { status: response.status, cookies: response.headers.getSetCookie(), data, errors };
  }
  async function signIn(input: object, address = freshAddress(), headers: Record<string, string> = {}) {
    const answered = await send(SIGN_IN, { input }, { 'x-forwarded-for': address, ...headers });
    assert.equal(answered.errors, undefined, JSON.stringify(answered.errors));
    return { ...answered, ...(answered.data!['signIn'] as SignedIn) };
  }
  const bearer = (token: string | null) => ({ authorization: `Bearer ${token}` });
  async function mutate(token: string | null, name: string, input: object, selection: string) {
    const query = `mutation ($input: ${name[0]!.toUpperCase()}${name.slice(1)}Input!) {
      ${name}(input: $input) { ${selection} errors { code message path } } }`;
    const { data, errors } = await send(query, { input }, bearer(token));
    assert.equal(errors, undefined, JSON.stringify(errors));
    return data![name] as {
      errors: Told[];
      secret: string;
      uri: string;
      recoveryCodes: string[];
      domain: object;
      user: object;
    };
  }

  let users = 0;
  async function someone(over: Parameters<typeof insertUser>[3] = {}, of = account) {
    const name = `user-${++users}`;
    const user = await insertUser(database.db, of, ROLE.user, { name, password_hash: hash, ...over });
    return { ...user, as: { domain: '/sales/emea', account: 'acme', user: name, password: PASSWORD } };
  }
  const audits = (userId: number | null) =>
    database.db
      .selectFrom('audit')
      .select(['outcome', 'code', 'actor', 'address', 'account_id'])
      .where('action', '=', 'signIn')
      .where('user_id', userId === null ? 'is' : '=', userId)
      .orderBy('seq')
      .execute();

  it('by a password gives a token that is its user, and is on the audit trail with its address', async () => {
    const alice = await someone();
    const { token, session, errors } = await signIn(alice.as, '198.51.100.7');
    assert.deepEqual(errors, []);
    assert.match(token!, /^vgs_/);
    const { id: _, ...shown } = session!;
    assert.deepEqual(shown, {
      how: 'PASSWORD',
      secondFactor: false,
      address: '198.51.100.7',
      userAgent: 'a test',
      isCurrent: true,
      user: { name: alice.as.user },
    });
    const viewer = await send('{ viewer { name session { id } apiKey { id } } }', {}, bearer(token));
    const name = `acme/${alice.as.user}`;
    assert.deepEqual(viewer.data, { viewer: { name, session: { id: session!['id'] }, apiKey: null } });
    const record = { outcome: 'ALLOWED', code: null, actor: name, address: '198.51.100.7', account_id: account.id };
    assert.deepEqual(await audits(alice.id), [record]);
  });

  it('answers a wrong password, and every name that is not there or is shut out, alike', async () => {
    const { as } = await someone();
    const off = { wanted_state: 'DISABLED' } as const;
    const closed = await insertAccount(database.db, domain, { name: 'closed', ...off });
    const shut = await insertDomain(database.db, domain, { name: 'shut', ...off });
    await someone({ name: 'x' }, closed);
    await someone({ name: 'x' }, await insertAccount(database.db, shut, { name: 'acme' }));
    const inputs = [
      { ...as, password: `${PASSWORD}!` },
      { ...as, password: '' },
      { ...as, user: 'nobody' },
      { ...as, user: as.user.toUpperCase() },
      { ...as, user: as.user.replace('e', '\u0435') },
      { ...as, account: 'nothing' },
      { ...as, domain: '/sales' },
      { ...as, domain: '/' },
      { ...as, domain: '/a'.repeat(1_000) },
      (await someone({ password_hash: null })).as,
      (await someone(off)).as,
      (await someone({ deleted_at: new Date() })).as,
      { ...as, account: 'closed', user: 'x' },
      { ...as, domain: '/sales/emea/shut', user: 'x' },
    ];
    const answers = new Set<string>();
    for (const input of inputs) {
      const { status, token, session, errors, cookies } = await signIn(input);
      answers.add(JSON.stringify({ status, token, session, errors, cookies }));
    }
    assert.equal(answers.size, 1);
    const [error] = (JSON.parse([...answers][0]!) as SignedIn).errors;
    assert.deepEqual([error!.code, error!.path], ['UNAUTHENTICATED', null]);
  });

  it('takes as long for a user who is not there as for a wrong password', async () => {
    const { as } = await someone();
    const took: Record<string, number[]> = { wrong: [], nobody: [] };
    for (let i = 0; i < 9; i++)
      for (const [what, input] of Object.entries({
        wrong: { ...as, password: 'x' },
        nobody: { ...as, user: `no-${i}` },
      })) {
        const began = performance.now();
        await signIn(input);
        took[what]!.push(performance.now() - began);
      }
    const median = (what: string): number => took[what]!.sort((a, b) => a - b)[4]!;
    const ratio = median('nobody') / median('wrong');
    assert.ok(ratio > 0.6 && ratio < 1.6, `${ratio}: ${JSON.stringify(took)}`);
  });

  it('names on the audit trail only who there is', async () => {
    const alice = await someone();
    await signIn({ ...alice.as, password: 'wrong' });
    assert.deepEqual(
      (await audits(alice.id)).map(({ outcome, code }) => [outcome, code]),
      [['REFUSED', 'UNAUTHENTICATED']],
    );
    const secret = 'my password typed as a name';
    await signIn({ ...alice.as, user: secret });
    const nobody = (await audits(null)).at(-1)!;
    assert.deepEqual([nobody.actor, nobody.account_id], ['anonymous', null]);
    const rows = JSON.stringify(await database.db.selectFrom('audit').selectAll().execute());
    assert.ok(!rows.includes(secret) && !rows.includes(PASSWORD));
  });

  it('is refused for what can be nobody’s password before anything is hashed', async () => {
    const { as } = await someone();
    for (const password of ['nul\0nul', 'line\nbreak', 'x'.repeat(1_025)]) {
      const { errors, token } = await signIn({ ...as, password });
      assert.deepEqual([errors[0]!.code, errors[0]!.path, token], ['INVALID_INPUT', ['password'], null]);
    }
    const large = await send(SIGN_IN, { input: { ...as, password: 'x'.repeat(1_000_000) } });
    assert.equal(large.status, 413);
    assert.equal(large.errors![0]!.extensions.code, 'LIMIT_EXCEEDED');
  });

  it('is limited by the name from anywhere, alike for one that is not there, and keeps its owner in', async () => {
    const { as } = await someone();
    const home = freshAddress();
    assert.ok((await signIn(as, home)).token);
    for (const user of [as.user, 'not there']) {
      // All at once: what comes back meanwhile is less than one.
      const guess = { ...as, user, password: 'guess' };
      const answers = await Promise.all(Array.from({ length: 14 }, () => signIn(guess)));
      const codes = answers.map(({ errors }) => errors[0]!.code);
      assert.deepEqual(codes.sort().slice(0, 3), ['RATE_LIMITED', 'RATE_LIMITED', 'RATE_LIMITED'], user);
      assert.equal(codes.filter((code) => code === 'UNAUTHENTICATED').length, 10, user);
    }
    // The right one from elsewhere has to wait as well; from where he has signed in before he has not.
    assert.equal((await signIn(as)).errors[0]!.code, 'RATE_LIMITED');
    assert.ok((await signIn(as, home)).token);
  });

  it('is limited by the name however it is typed: with spaces, or composed in another way', async () => {
    const name = `ren\u00e9-${++users}`;
    await insertUser(database.db, account, ROLE.user, { name, password_hash: hash });
    const as = { domain: ' sales / emea ', account: 'acme ', user: name, password: PASSWORD };
    assert.ok((await signIn({ ...as, user: `${name.normalize('NFD')}  ` })).token);
    const guesses = Array.from({ length: 14 }, (_, n) => ({
      ...as,
      user: (n % 2 ? name : name.normalize('NFD')) + ' '.repeat(n),
      account: `acme${' '.repeat(n)}`,
      password: 'guess',
    }));
    const answers = await Promise.all(guesses.map((guess) => signIn(guess)));
    assert.ok(answers.filter(({ errors }) => errors[0]!.code === 'RATE_LIMITED').length >= 3);
  });

  it('is limited by the address, whatever the names', async () => {
    const { as } = await someone();
    const address = freshAddress();
    const guesses = Array.from({ length: 60 }, (_, n) => ({ ...as, user: `guess-${n}`, password: 'x' }));
    const answers = await Promise.all(guesses.map((guess) => signIn(guess, address)));
    const limited = answers.filter(({ errors }) => errors[0]!.code === 'RATE_LIMITED').length;
    assert.ok(limited > 5 && limited <= 10, String(limited));
    assert.ok((await signIn(as)).token);
  });

  it('hashes a password anew that was hashed with weaker parameters', async () => {
    const weak = await new PasswordHasher({ memoryKib: 64, passes: 1, lanes: 1 }).hash(PASSWORD);
    const old = await someone({ password_hash: weak });
    assert.ok((await signIn(old.as)).token);
    const row = () => database.db.selectFrom('user').selectAll().where('id', '=', old.id).executeTakeFirstOrThrow();
    assert.match((await row()).password_hash!, /^\$argon2id\$v=19\$m=19456,t=2,p=1\$/);
    assert.ok((await signIn(old.as)).token);
  });

  describe('without a token', () => {
    const refused = async (query: string, headers = {}) => {
      const answered = await send(query, { input: {} }, headers);
      assert.equal(answered.status, 401, query);
      assert.equal(answered.errors![0]!.extensions.code, 'UNAUTHENTICATED');
    };

    it('is the one thing that may be asked, alone and once', async () => {
      const one = 'signIn(input: { account: "a", user: "b", password: "c" }) { errors { code } }';
      assert.equal((await send(`mutation { __typename a: ${one} }`, {})).status, 200);
      for (const query of [
        `mutation { a: ${one} b: ${one} }`,
        `mutation { ${one} signOut(input: {}) { errors { code } } }`,
        `mutation { ...f } fragment f on Mutation { ${one} }`,
        `mutation { ... on Mutation { ${one} } }`,
        `mutation a { ${one} } mutation b { ${one} }`,
        '{ __schema { types { name } } }',
        '{ __typename }',
        '{ viewer { name } }',
        '{ nothingLikeThis }',
        'subscription { vmChanged { name } }',
      ])
        await refused(query);
    });

    it('is not asked by GET, nor over WebSocket, nor as an event stream', async () => {
      const query = 'mutation { signIn(input: { account: "a", user: "b", password: "c" }) { errors { code } } }';
      const got = await fetch(`${control.http.url}/graphql?query=${encodeURIComponent(query)}`);
      assert.equal(got.status, 401);
      await refused(query, { accept: 'text/event-stream' });
      await using socket = await new TestSocket(control.http.url).open();
      socket.send({ type: 'connection_init' });
      assert.equal((await socket.closed).code, 4403);
    });

    it('a token that is made up is refused, a JWT without a signature too, and with it signing in', async () => {
      const part = (value: object): string => Buffer.from(JSON.stringify(value)).toString('base64url');
      const jwt = `${part({ alg: 'none', typ: 'JWT' })}.${part({ sub: 'acme/admin', role: 'root admin' })}.`;
      for (const token of [jwt, `${jwt}x`, 'vgs_', 'x'])
        for (const query of ['{ viewer { name } }', SIGN_IN]) await refused(query, bearer(token));
      await refused(SIGN_IN, { authorization: 'Basic YTpi' });
    });
  });

  async function enrolled() {
    const user = await someone();
    const { token } = await signIn(user.as);
    const begun = await mutate(token, 'beginTotp', {}, 'secret uri');
    assert.match(begun.uri, /^otpauth:\/\/totp\/Virtgraph:acme/);
    const totp = new TOTP({ secret: begun.secret });
    // The step before: the one that shows now is left for what comes next.
    const code = totp.generate({ timestamp: Date.now() - 30_000 });
    const { recoveryCodes, errors } = await mutate(token, 'confirmTotp', { code }, 'recoveryCodes');
    assert.deepEqual(errors, []);
    return { ...user, token, totp, recoveryCodes };
  }

  describe('with a second factor', () => {
    it('asks for a code, takes each once, and none that was before it', async () => {
      const { as, totp } = await enrolled();
      const without = await signIn(as);
      assert.deepEqual([without.token, without.errors.map(({ code }) => code)], [null, ['SECOND_FACTOR_REQUIRED']]);
      const code = totp.generate();
      const { session, token } = await signIn({ ...as, code });
      assert.ok(token);
      assert.equal(session!['secondFactor'], true);
      const before = totp.generate({ timestamp: Date.now() - 30_000 });
      for (const wrong of [code, before, '000000', 'abc', '1234567'])
        assert.equal((await signIn({ ...as, code: wrong })).errors[0]!.code, 'UNAUTHENTICATED', wrong);
    });

    it('lets one of many that send the same code at once in', async () => {
      const { as, totp } = await enrolled();
      const code = totp.generate();
      const answers = await Promise.all(Array.from({ length: 5 }, () => signIn({ ...as, code })));
      assert.equal(answers.filter(({ token }) => token !== null).length, 1);
    });

    it('takes each recovery code once', async () => {
      const { as, recoveryCodes } = await enrolled();
      assert.equal(new Set(recoveryCodes).size, 10);
      const code = recoveryCodes[3]!;
      assert.ok((await signIn({ ...as, code: ` ${code.toUpperCase()} ` })).token);
      assert.equal((await signIn({ ...as, code })).errors[0]!.code, 'UNAUTHENTICATED');
      assert.ok((await signIn({ ...as, code: recoveryCodes[0] })).token);
    });

    it('limits wrong codes by the hour, from wherever they come', async () => {
      const { as, totp } = await enrolled();
      const home = freshAddress();
      assert.ok((await signIn({ ...as, code: totp.generate() }, home)).token);
      const codes: string[] = [];
      // Fewer than the name alone would be refused for, here as there.
      for (let i = 0; i < 11; i++) {
        const { errors } = await signIn({ ...as, code: '000000' }, i < 6 ? home : freshAddress());
        codes.push(errors[0]!.code);
      }
      assert.deepEqual(codes, [...Array(10).fill('UNAUTHENTICATED'), 'RATE_LIMITED']);
    });

    it('keeps neither its secret nor its recovery codes in clear', async () => {
      const { id, totp, recoveryCodes } = await enrolled();
      const row = await database.db.selectFrom('user').selectAll().where('id', '=', id).executeTakeFirstOrThrow();
      const stored = Buffer.concat([row.totp_seed!, row.recovery_hashes!]);
      assert.equal(stored.indexOf(Buffer.from(totp.secret.buffer)), -1);
      for (const code of recoveryCodes) assert.equal(stored.indexOf(code), -1);
    });

    it('is removed with a code by oneself, and without by who rules its user', async () => {
      const { as, token, totp, ...user } = await enrolled();
      const refused = await mutate(token, 'removeTotp', { code: '000000' }, '');
      assert.equal(refused.errors[0]!.code, 'INVALID_INPUT');
      assert.deepEqual((await mutate(token, 'removeTotp', { code: totp.generate() }, '')).errors, []);
      assert.ok((await signIn(as)).token);
      const other = await enrolled();
      const admin = (await insertApiKey(database.db, await insertUser(database.db, account, ROLE.domainAdmin))).token;
      const peer = (await insertApiKey(database.db, user)).token;
      const input = { userId: idOf('user', other) };
      assert.equal((await mutate(peer, 'removeTotp', input, '')).errors[0]!.code, 'FORBIDDEN');
      assert.deepEqual((await mutate(admin, 'removeTotp', input, '')).errors, []);
      assert.ok((await signIn(other.as)).token);
    });

    it('is set up by nobody with a key, nor twice', async () => {
      const { token, ...user } = await enrolled();
      assert.equal((await mutate(token, 'beginTotp', {}, '')).errors[0]!.code, 'INVALID_STATE');
      const key = (await insertApiKey(database.db, user)).token;
      assert.equal((await mutate(key, 'beginTotp', {}, '')).errors[0]!.code, 'FORBIDDEN');
      const { token: fresh } = await signIn((await someone()).as);
      assert.equal((await mutate(fresh, 'confirmTotp', { code: '123456' }, '')).errors[0]!.code, 'INVALID_STATE');
    });
  });

  it('where the domain asks for a second factor is for setting one up, and then goes on', async () => {
    const admin = (await insertApiKey(database.db, await insertUser(database.db, account, ROLE.domainAdmin))).token;
    const strict = await insertDomain(database.db, domain, { name: 'strict' });
    const guarded = await insertAccount(database.db, strict, { name: 'acme' });
    const user = await someone({}, guarded);
    const as = { ...user.as, domain: '/sales/emea/strict' };
    const early = await signIn(as);
    assert.deepEqual(early.errors, []);
    const required = { id: idOf('domain', strict), requireSecondFactor: true };
    const { domain: changed } = await mutate(admin, 'updateDomain', required, 'domain { requireSecondFactor }');
    assert.deepEqual(changed, { requireSecondFactor: true });
    const { token, errors, session } = await signIn(as);
    assert.deepEqual(
      errors.map(({ code }) => code),
      ['SECOND_FACTOR_ENROLMENT_REQUIRED'],
    );
    assert.ok(session);
    for (const one of [token, early.token]) {
      const query = '{ viewer { permissions { verb } } vms { totalCount } }';
      const seen = await send(query, {}, bearer(one));
      assert.deepEqual(seen.data, { viewer: { permissions: [] }, vms: { totalCount: 0 } });
      const made = await send(
        'mutation ($input: CreateApiKeyInput!) { createApiKey(input: $input) { token errors { code } } }',
        { input: { userId: idOf('user', user), name: 'way around' } },
        bearer(one),
      );
      const code = [{ code: 'SECOND_FACTOR_ENROLMENT_REQUIRED' }];
      assert.deepEqual(made.data, { createApiKey: { token: null, errors: code } });
    }
    const { secret } = await mutate(token, 'beginTotp', {}, 'secret');
    const code = new TOTP({ secret }).generate();
    assert.deepEqual((await mutate(token, 'confirmTotp', { code }, '')).errors, []);
    const full = await send('{ viewer { permissions { verb } session { secondFactor } } }', {}, bearer(token));
    const { permissions, session: now } = full.data!['viewer'] as { permissions: unknown[]; session: unknown };
    assert.ok(permissions.length > 0);
    assert.deepEqual(now, { secondFactor: true });
  });

  describe('passwords', () => {
    it('one’s own is changed with the current one, which ends all other sessions', async () => {
      const { as } = await someone();
      const [one, other] = [await signIn(as), await signIn(as)];
      const newPassword = 'another horse battery';
      const wrong = await mutate(one.token, 'changePassword', { currentPassword: 'x', newPassword }, '');
      assert.deepEqual([wrong.errors[0]!.code, wrong.errors[0]!.path], ['INVALID_INPUT', ['currentPassword']]);
      const right = await mutate(one.token, 'changePassword', { currentPassword: PASSWORD, newPassword }, '');
      assert.deepEqual(right.errors, []);
      assert.equal((await send('{ viewer { name } }', {}, bearer(one.token))).status, 200);
      assert.equal((await send('{ viewer { name } }', {}, bearer(other.token))).status, 401);
      assert.equal((await signIn(as)).token, null);
      assert.ok((await signIn({ ...as, password: newPassword })).token);
    });

    it('another’s is set by who rules him, and nobody else; one’s own only while there is none', async () => {
      const user = await someone({ password_hash: null });
      const { id: _, ...peer } = await someone();
      const ruler = await insertUser(database.db, account, ROLE.domainAdmin);
      const admin = (await insertApiKey(database.db, ruler)).token;
      const input = { userId: idOf('user', user), password: PASSWORD };
      const { token } = await signIn(peer.as);
      assert.equal((await mutate(token, 'setPassword', input, '')).errors[0]!.code, 'FORBIDDEN');
      assert.equal((await signIn(user.as)).token, null);
      assert.deepEqual((await mutate(admin, 'setPassword', input, '')).errors, []);
      assert.ok((await signIn(user.as)).token);
      const above = await insertUser(database.db, account, ROLE.rootAdmin);
      const beyond = await mutate(admin, 'setPassword', { ...input, userId: idOf('user', above) }, '');
      assert.equal(beyond.errors[0]!.code, 'FORBIDDEN');
      const own = { ...input, userId: idOf('user', ruler) };
      assert.deepEqual((await mutate(admin, 'setPassword', own, '')).errors, []);
      assert.equal((await mutate(admin, 'setPassword', own, '')).errors[0]!.code, 'FORBIDDEN');
    });

    it('one is given with the user', async () => {
      const admin = (await insertApiKey(database.db, await insertUser(database.db, account, ROLE.domainAdmin))).token;
      const role = await database.db
        .selectFrom('role')
        .select('uid')
        .where('id', '=', ROLE.user)
        .executeTakeFirstOrThrow();
      const input = {
        accountId: idOf('account', account),
        roleId: idOf('role', role),
        name: 'made',
        password: PASSWORD,
      };
      const { errors, user } = await mutate(admin, 'createUser', input, 'user { passwordChangedAt secondFactorSince }');
      assert.deepEqual(errors, []);
      assert.ok('passwordChangedAt' in user && user.passwordChangedAt);
      assert.ok((await signIn({ domain: 'sales/emea', account: 'acme', user: 'made', password: PASSWORD })).token);
    });
  });

  describe('sessions', () => {
    it('are listed to their user, end one by one, and are of nobody then', async () => {
      const user = await someone();
      const [one, other] = [await signIn(user.as), await signIn(user.as)];
      const list = '{ viewer { user { sessions { totalCount nodes { id isCurrent } } } } sessions { totalCount } }';
      const seen = await send(list, {}, bearer(one.token));
      const ids = [one, other].map(({ session }) => session!['id']);
      const nodes = ids.map((id) => ({ id, isCurrent: id === ids[0] }));
      assert.deepEqual(seen.data, {
        viewer: { user: { sessions: { totalCount: 2, nodes } } },
        sessions: { totalCount: 2 },
      });
      assert.deepEqual((await mutate(one.token, 'revokeSession', { id: ids[1] }, '')).errors, []);
      assert.equal((await send(list, {}, bearer(other.token))).status, 401);
      const stranger = await signIn((await someone()).as);
      const foreign = await mutate(stranger.token, 'revokeSession', { id: ids[0] }, '');
      assert.equal(foreign.errors[0]!.code, 'NOT_FOUND');
      assert.deepEqual((await mutate(one.token, 'signOut', {}, '')).errors, []);
      assert.equal((await send(list, {}, bearer(one.token))).status, 401);
    });
  });
});
