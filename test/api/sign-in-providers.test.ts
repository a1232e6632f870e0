import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { pino } from 'pino';
import { type Control, startControl } from '../../src/control.ts';
import { freshDatabase, type TestDatabase } from '../support/database.ts';
import { CLIENT, startOidcProvider, type TestOidcProvider } from '../support/oidc-provider.ts';
import { BASE, SEARCHER, startSlapd, type TestDirectory } from '../support/slapd.ts';
import { idOf, insertAccount, insertDomain, insertRole, insertUser, ROLE } from '../support/tenants.ts';
import type { Placed } from '../support/world.ts';

interface Told {
  code: string;
  message: string;
}

describe('signing in by a provider', () => {
  let database: TestDatabase;
  let folder: string;
  let control: Control;
  let root: string;
  let provider: TestOidcProvider;
  let directory: TestDirectory;
  let account: Placed;
  let staff: Placed;
  let oidc: string;
  before(async () => {
    database = await freshDatabase();
    const { db } = database;
    folder = await mkdtemp(join(tmpdir(), 'vg-providers-'));
    const domain = await insertDomain(db, undefined, { name: 'sales' });
    account = await insertAccount(db, domain, { name: 'acme' });
    staff = await insertRole(db, [{ effect: 'ALLOW', verb: 'read', kind: 'account' }], { name: 'staff' });
    const person = { objectClass: ['inetOrgPerson'], sn: 'x', cn: 'x' };
    directory = await startSlapd({
      [BASE]: { objectClass: ['dcObject', 'organization'], dc: 'example', o: 'Example' },
      [`uid=dora,${BASE}`]: { ...person, uid: 'dora', userPassword: 'password of dora' },
      [`uid=guest,${BASE}`]: { ...person, uid: 'guest', userPassword: 'password of guest' },
      [`cn=staff,${BASE}`]: { objectClass: ['groupOfNames'], cn: 'staff', member: `uid=dora,${BASE}` },
    });
    const adminTokenPath = join(folder, 'token');
    const log = pino({ level: 'silent' });
    const options = { databaseUrl: database.url, host: '127.0.0.1', port: 0, log, trustedProxies: ['127.0.0.1'] };
    control = await startControl({ ...options, adminTokenPath, egressAllow: '127.0.0.1' });
    root = (await readFile(adminTokenPath, 'utf8')).trim();
    provider = await startOidcProvider([`${control.http.url}/sign-in/oidc/callback`], {
      anna: { preferred_username: 'anna', groups: ['staff'] },
      nobody: { preferred_username: 'nobody', groups: [] },
    });
    oidc = await create({
      name: 'Example login',
      secret: CLIENT.secret,
      oidc: { issuer: provider.issuer, clientId: CLIENT.clientId },
      roleMapping: [{ group: 'staff', roleId: idOf('role', staff) }],
    });
    await create({
      name: 'Example directory',
      secret: SEARCHER.password,
      ldap: { url: directory.url, bindDn: SEARCHER.dn, baseDn: BASE },
      roleMapping: [{ group: `cn=staff,${BASE}`, roleId: idOf('role', staff) }],
    });
  });
  after(async () => {
    await control?.close();
    await provider?.close();
    await directory?.close();
    await database?.close();
    await rm(folder, { recursive: true });
  });

  let addresses = 0;
  async function send(query: string, variables: object, headers: Record<string, string> = {}) {
    const response = await fetch(`${control.http.url}/graphql`, {
      method: 'POST',
      headers: {
        'content-type': 'application/json',
        'x-forwarded-for': `192.0.2.${++addresses}`,
        ...headers,
      },
      body: JSON.stringify({ query, variables }),
    });
    const body = (await response.json()) as { data: Record<string, unknown> | null; errors?: unknown };
    assert.equal(body.errors, undefined, JSON.stringify(body));
    return { data: body.data!, cookies: response.headers.getSetCookie() };
  }
  async function create(input: object): Promise<string> {
    const query = `mutation ($input: CreateIdentityProviderInput!) {
      createIdentityProvider(input: $input) { identityProvider { id } errors { code message path } } }`;
    const full = { accountId: idOf('account', account), ...input };
    const { data } = await send(query, { input: full }, { authorization: `Bearer ${root}` });
    const made = data['createIdentityProvider'] as { identityProvider: { id: string } | null; errors: Told[] };
    assert.deepEqual(made.errors, []);
    return made.identityProvider!.id;
  }
  /** As a browser: the cookies that an answer has set, for the next request. */
  const kept = (cookies: string[]): string =>
    cookies
      .filter((one) => !one.includes('Max-Age=0'))
      .map((one) => one.split(';', 1)[0])
      .join('; ');

  async function begin(id = oidc, headers: Record<string, string> = {}) {
    const query = `mutation ($input: BeginOidcSignInInput!) {
      beginOidcSignIn(input: $input) { url errors { code message } } }`;
    const { data, cookies } = await send(query, { input: { provider: id } }, headers);
    return { cookies, ...(data['beginOidcSignIn'] as { url: string | null; errors: Told[] }) };
  }
  const comeBack = (url: string, cookie: string): Promise<Response> =>
    fetch(url, { redirect: 'manual', headers: { cookie, 'x-forwarded-for': `192.0.2.${++addresses}` } });
  const viewerOf = async (cookies: string[]) => {
    const cookie = kept(cookies);
    const csrf = /virtgraph-csrf=([^;]+)/.exec(cookie)![1]!;
    const headers = { cookie, 'x-virtgraph-csrf': csrf, origin: control.http.url };
    return (await send('{ viewer { name } }', {}, headers)).data['viewer'];
  };
  async function signIn(user: string, password: string) {
    const query = `mutation ($input: SignInInput!) { signIn(input: $input) {
      token session { how user { name role { name } identityProvider { name } } } errors { code message } } }`;
    const { data } = await send(query, { input: { domain: '/sales', account: 'acme', user, password } });
    return data['signIn'] as { token: string | null; session: Record<string, unknown> | null; errors: Told[] };
  }

  it('is offered to anybody by the name of a domain, and nothing of one that is not there', async () => {
    const offered = async (domain: string) => {
      const query = 'query ($domain: String!) { signInProviders(domain: $domain) { name type } }';
      return (await send(query, { domain })).data['signInProviders'];
    };
    assert.deepEqual(await offered('/sales'), [
      { name: 'Example directory', type: 'LDAP' },
      { name: 'Example login', type: 'OIDC' },
    ]);
    for (const domain of ['/', '/nowhere', '/sales/below', "/' or ''='"]) assert.deepEqual(await offered(domain), []);
  });

  it('by OpenID Connect ends with a session in a cookie, on our own page', async () => {
    const { url, cookies } = await begin();
    assert.equal(cookies.length, 1);
    assert.match(cookies[0]!, /^virtgraph-pending=[^;]+; Max-Age=600; HttpOnly; Path=\/; SameSite=Lax$/);
    const back = await provider.visit(url!, 'anna');
    const answered = await comeBack(back, kept(cookies));
    assert.deepEqual([answered.status, answered.headers.get('location')], [303, '/']);
    const set = answered.headers.getSetCookie();
    assert.ok(set.some((one) => one.startsWith('virtgraph-pending=;')));
    assert.ok(set.some((one) => /^virtgraph=vgs_[^;]+; HttpOnly; Path=\/; SameSite=Strict/.test(one)));
    assert.deepEqual(await viewerOf(set), { name: 'acme/anna' });
  });

  it('begun over TLS ends with a cookie for TLS alone, though who is led back says nothing of where he is', async () => {
    const { url, cookies } = await begin(oidc, { 'x-forwarded-proto': 'https' });
    assert.match(cookies[0]!, /^__Host-virtgraph-pending=[^;]+; Max-Age=600; HttpOnly; Path=\/; SameSite=Lax; Secure$/);
    const answered = await comeBack(await provider.visit(url!, 'anna'), kept(cookies));
    const names = answered.headers.getSetCookie().map((one) => [one.split('=', 1)[0], one.endsWith('; Secure')]);
    assert.deepEqual(names, [
      ['__Host-virtgraph-pending', true],
      ['__Host-virtgraph', true],
      ['__Host-virtgraph-csrf', true],
    ]);
  });

  it('takes an answer once, from the browser that began, and from no other', async () => {
    const first = await begin();
    const back = await provider.visit(first.url!, 'anna');
    const other = await begin();
    for (const cookie of ['', kept(other.cookies), 'virtgraph-pending=nonsense', `${kept(first.cookies)}x`]) {
      const refused = await comeBack(back, cookie);
      assert.equal(refused.status, 401, cookie);
      assert.ok(!refused.headers.getSetCookie().some((one) => one.includes('vgs_')));
    }
    assert.equal((await comeBack(back, kept(first.cookies))).status, 303);
    const again = await comeBack(back, kept(first.cookies));
    assert.equal(again.status, 401);
    assert.match(await again.text(), /was used already/);
  });

  it('leads nowhere else, shows no text of the provider as markup, and is for GET alone', async () => {
    const { url, cookies } = await begin();
    const back = new URL(await provider.visit(url!, 'anna'));
    back.searchParams.set('returnTo', 'https://evil.example');
    back.searchParams.append('redirect_uri', '//evil.example');
    assert.equal((await comeBack(back.href, kept(cookies))).headers.get('location'), '/');
    const begun = await begin();
    const state = new URL(begun.url!).searchParams.get('state');
    const evil = `${control.http.url}/sign-in/oidc/callback?state=${state}&error=%3Cscript%3E&iss=${provider.issuer}`;
    const page = await comeBack(evil, kept(begun.cookies));
    assert.equal(page.status, 401);
    assert.doesNotMatch(await page.text(), /<script/);
    const posted = await fetch(evil, { method: 'POST' });
    assert.deepEqual([posted.status, posted.headers.get('allow')], [405, 'GET']);
  });

  it('says so to who is known there and in no group that is let in', async () => {
    const { url, cookies } = await begin();
    const answered = await comeBack(await provider.visit(url!, 'nobody'), kept(cookies));
    assert.equal(answered.status, 403);
    assert.match(await answered.text(), /none of your groups there is let in here/);
  });

  it('is over for a provider that is switched off, and one that is not there is not begun', async () => {
    const { url, cookies } = await begin();
    const back = await provider.visit(url!, 'anna');
    const { id } = await database.db
      .selectFrom('identity_provider')
      .select('id')
      .where('name', '=', 'Example login')
      .executeTakeFirstOrThrow();
    const state = (wanted_state: 'ENABLED' | 'DISABLED') =>
      database.db.updateTable('identity_provider').set({ wanted_state }).where('id', '=', id).execute();
    await state('DISABLED');
    assert.equal((await comeBack(back, kept(cookies))).status, 401);
    const refused = await begin();
    assert.deepEqual([refused.url, refused.errors[0]?.code, refused.cookies], [null, 'NOT_FOUND', []]);
    await state('ENABLED');
  });

  it('leaves a record of whatever is refused, with the provider and the user as far as they are known', async () => {
    const { db } = database;
    const refusals = async (from: number) =>
      db
        .selectFrom('audit')
        .select(['seq', 'outcome', 'code', 'actor', 'subject_kind', 'account_id'])
        .where('action', '=', 'signIn')
        .where('outcome', '=', 'REFUSED')
        .where('seq', '>', from)
        .orderBy('seq')
        .execute();
    const last = (await refusals(0)).at(-1)?.seq ?? 0;
    const { url, cookies } = await begin();
    const back = await provider.visit(url!, 'anna');
    await comeBack(back, '');
    await db.updateTable('user').set({ wanted_state: 'DISABLED' }).where('name', '=', 'anna').execute();
    assert.equal((await comeBack(back, kept(cookies))).status, 403);
    await db.updateTable('user').set({ wanted_state: 'ENABLED' }).where('name', '=', 'anna').execute();
    await comeBack(back, kept(cookies));
    const begun = await begin();
    const state = new URL(begun.url!).searchParams.get('state');
    const no = `${control.http.url}/sign-in/oidc/callback?state=${state}&error=access_denied&iss=${provider.issuer}`;
    await comeBack(no, kept(begun.cookies));
    const known = { actor: 'identity provider Example login', account_id: account.id };
    const nobody = { code: 'UNAUTHENTICATED', actor: 'anonymous', subject_kind: null, account_id: null };
    assert.deepEqual(
      (await refusals(last)).map(({ seq: _, outcome: __, ...told }) => told),
      [
        nobody,
        { ...known, code: 'FORBIDDEN', subject_kind: 'user' },
        nobody,
        { ...known, code: 'UNAUTHENTICATED', subject_kind: 'identity_provider' },
      ],
    );
  });

  it('by a directory is by the password that its people have there', async () => {
    const { token, session, errors } = await signIn('dora', 'password of dora');
    assert.deepEqual(errors, []);
    assert.match(token!, /^vgs_/);
    const { data } = await send(
      '{ viewer { name user { identityProvider { name } } } }',
      {},
      { authorization: `Bearer ${token}` },
    );
    assert.equal((data['viewer'] as { name: string }).name, 'acme/dora');
    assert.equal(session!['how'], 'LDAP');
  });

  it('answers alike for a name that is not there and a password that is wrong, and says more to who was right', async () => {
    const wrong = await signIn('dora', 'wrong');
    const nobody = await signIn('nobody at all', 'password of dora');
    assert.deepEqual(wrong, nobody);
    assert.equal(wrong.errors[0]!.code, 'UNAUTHENTICATED');
    assert.equal((await signIn('dora', '')).errors[0]!.code, wrong.errors[0]!.code);
    assert.equal((await signIn('guest', 'password of guest')).errors[0]!.code, 'FORBIDDEN');
    const disabled = await database.db
      .selectFrom('user')
      .select('id')
      .where('name', '=', 'dora')
      .executeTakeFirstOrThrow();
    await database.db.updateTable('user').set({ wanted_state: 'DISABLED' }).where('id', '=', disabled.id).execute();
    assert.deepEqual(await signIn('dora', 'password of dora'), wrong);
    await database.db.updateTable('user').set({ wanted_state: 'ENABLED' }).where('id', '=', disabled.id).execute();
  });

  it('gives no password here to who is known elsewhere', async () => {
    const { id, uid } = await database.db
      .selectFrom('user')
      .select(['id', 'uid'])
      .where('name', '=', 'dora')
      .executeTakeFirstOrThrow();
    const query = `mutation ($input: SetPasswordInput!) { setPassword(input: $input) { errors { code message } } }`;
    const input = { userId: idOf('user', { uid }), password: 'correct horse battery' };
    const { data } = await send(query, { input }, { authorization: `Bearer ${root}` });
    assert.deepEqual(
      (data['setPassword'] as { errors: Told[] }).errors.map(({ code }) => code),
      ['INVALID_STATE'],
    );
    const row = await database.db
      .selectFrom('user')
      .select('password_hash')
      .where('id', '=', id)
      .executeTakeFirstOrThrow();
    assert.equal(row.password_hash, null);
  });

  it('says that a directory is away, not that the password is wrong', async () => {
    await insertUser(database.db, account, ROLE.user, { name: 'local' });
    await directory.cut();
    for (const user of ['dora', 'local', 'nobody'])
      assert.deepEqual((await signIn(user, 'password of dora')).errors, [
        { code: 'UNAVAILABLE', message: 'Example directory does not answer. Try again in a moment.' },
      ]);
  });
});
