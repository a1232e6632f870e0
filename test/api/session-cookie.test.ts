import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { pino } from 'pino';
import { type Control, startControl } from '../../src/control.ts';
import { PasswordHasher } from '../../src/ops/password-hash.ts';
import { freshDatabase, type TestDatabase } from '../support/database.ts';
import { insertAccount, insertUser, ROLE, ROOT_DOMAIN } from '../support/tenants.ts';
import { TestSocket } from './http-fixture.ts';

const PASSWORD = 'correct horse battery';
const LISTED = 'https://console.example.com';
const SIGN_IN = `mutation ($cookie: Boolean) { signIn(input: {
  account: "acme", user: "alice", password: "${PASSWORD}", cookie: $cookie }) { token csrf errors { code } } }`;
const VIEWER = '{ viewer { name } }';
const KNOWN = { viewer: { name: 'acme/alice' } };

describe('a session in a cookie', () => {
  let database: TestDatabase;
  let folder: string;
  let control: Control;
  let ours: string;
  before(async () => {
    database = await freshDatabase();
    folder = await mkdtemp(join(tmpdir(), 'vg-cookie-'));
    const password_hash = await new PasswordHasher().hash(PASSWORD);
    const account = await insertAccount(database.db, ROOT_DOMAIN, { name: 'acme' });
    await insertUser(database.db, account, ROLE.user, { name: 'alice', password_hash });
    const log = pino({ level: 'silent' });
    const options = { databaseUrl: database.url, host: '127.0.0.1', port: 0, log, origins: [LISTED] };
    control = await startControl({ ...options, adminTokenPath: join(folder, 'token') });
    ours = control.http.url;
  });
  after(async () => {
    await control.close();
    await database.close();
    await rm(folder, { recursive: true });
  });

  interface Answered {
    status: number;
    cookies: string[];
    data: Record<string, unknown> | undefined;
    code: string | undefined;
  }
  async function send(query: string, headers: Record<string, string> = {}, variables = {}): Promise<Answered> {
    const response = await fetch(`${ours}/graphql`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', ...headers },
      body: JSON.stringify({ query, variables }),
    });
    const body = (await response.json()) as {
      data?: Record<string, unknown>;
      errors?: { extensions: { code: string } }[];
    };
    const code = body.errors?.[0]?.extensions.code;
    return { status: response.status, cookies: response.headers.getSetCookie(), data: body.data, code };
  }
  async function signedIn(headers: Record<string, string> = { origin: ours }) {
    const { data, cookies } = await send(SIGN_IN, headers, { cookie: true });
    const { token, csrf, errors } = data!['signIn'] as { token: null; csrf: string; errors: unknown[] };
    assert.deepEqual([token, errors], [null, []]);
    const cookie = cookies.map((one) => one.split(';')[0]).join('; ');
    return { cookies, csrf, cookie, proof: { cookie, origin: ours, 'x-virtgraph-csrf': csrf } };
  }

  it('is set so that no script reads it and no other site sends it, and its token is told to nobody', async () => {
    const { cookies, csrf } = await signedIn();
    assert.equal(cookies.length, 2);
    assert.match(cookies[0]!, /^virtgraph=vgs_[\w-]{43}; HttpOnly; Path=\/; SameSite=Strict$/);
    assert.equal(cookies[1], `virtgraph-csrf=${csrf}; Path=/; SameSite=Strict`);
  });

  it('is for TLS and this host alone where the page came over TLS', async () => {
    for (const headers of [{ origin: LISTED }, { 'x-forwarded-proto': 'https' }] as Record<string, string>[]) {
      const { cookies } = await signedIn(headers);
      assert.match(cookies[0]!, /^__Host-virtgraph=vgs_[\w-]{43}; HttpOnly; Path=\/; SameSite=Strict; Secure$/);
      assert.match(cookies[1]!, /^__Host-virtgraph-csrf=[\w-]{43}; Path=\/; SameSite=Strict; Secure$/);
    }
  });

  it('is not set unless it is asked for', async () => {
    const { cookies, data } = await send(SIGN_IN, { origin: ours });
    assert.deepEqual(cookies, []);
    assert.match((data!['signIn'] as { token: string }).token, /^vgs_/);
  });

  it('counts on a POST from our own page or a listed one, with what belongs to the session', async () => {
    const { proof, cookie, csrf } = await signedIn();
    const header = { cookie, 'x-virtgraph-csrf': csrf };
    for (const headers of [proof, { ...header, origin: LISTED }, { ...header, 'sec-fetch-site': 'same-origin' }]) {
      const { status, data } = await send(VIEWER, headers);
      assert.deepEqual([status, data], [200, KNOWN]);
    }
  });

  it('counts for nothing where it may have been added to what another page asks', async () => {
    const { proof, cookie, csrf } = await signedIn();
    const other = await signedIn();
    const forged: Record<string, string>[] = [
      { cookie, origin: ours },
      { cookie, origin: ours, 'x-virtgraph-csrf': '' },
      { cookie, origin: ours, 'x-virtgraph-csrf': `${csrf}x` },
      { cookie, origin: ours, 'x-virtgraph-csrf': other.csrf },
      { cookie, 'x-virtgraph-csrf': csrf },
      { cookie, 'x-virtgraph-csrf': csrf, 'sec-fetch-site': 'cross-site' },
      { cookie, 'x-virtgraph-csrf': csrf, 'sec-fetch-site': 'same-site' },
      { ...proof, origin: 'https://evil.example' },
      { ...proof, origin: 'null' },
    ];
    for (const headers of forged) {
      const { status, data } = await send(VIEWER, headers);
      assert.deepEqual([status, data], [403, undefined], JSON.stringify(headers));
    }
  });

  it('never counts on GET', async () => {
    const { proof } = await signedIn();
    for (const query of [VIEWER, 'mutation { signOut(input: {}) { errors { code } } }']) {
      const response = await fetch(`${ours}/graphql?query=${encodeURIComponent(query)}`, { headers: proof });
      assert.equal(response.status, 403);
    }
    assert.deepEqual((await send(VIEWER, proof)).data, KNOWN);
  });

  it('that means nobody any more does not keep its browser from signing in again', async () => {
    const cookie = 'virtgraph=vgs_of-long-ago';
    assert.equal((await send(VIEWER, { cookie, origin: ours })).code, 'FORBIDDEN');
    const again = await signedIn({ cookie, origin: ours });
    assert.deepEqual((await send(VIEWER, again.proof)).data, KNOWN);
    await send('mutation { signOut(input: {}) { errors { code } } }', again.proof);
    assert.equal((await send(VIEWER, again.proof)).status, 401);
    await signedIn(again.proof);
  });

  it('is forgotten with signing out', async () => {
    const { proof } = await signedIn();
    const { cookies, data } = await send('mutation { signOut(input: {}) { errors { code } } }', proof);
    assert.deepEqual(data, { signOut: { errors: [] } });
    assert.deepEqual(cookies, [
      'virtgraph=; Max-Age=0; Path=/; SameSite=Strict',
      'virtgraph-csrf=; Max-Age=0; Path=/; SameSite=Strict',
    ]);
  });

  it('opens a WebSocket of our own pages and of no other', async () => {
    const { cookie } = await signedIn();
    for (const origin of [ours, LISTED]) {
      await using socket = new TestSocket(ours, '/graphql', { cookie, origin });
      await socket.signIn({});
      socket.subscribe('1', VIEWER);
      assert.deepEqual(await socket.next(), KNOWN);
    }
    const { socket: evil } = new TestSocket(ours, '/graphql', { cookie, origin: 'https://evil.example' });
    const [, response] = (await once(evil, 'unexpected-response')) as [unknown, { statusCode: number }];
    evil.terminate();
    assert.equal(response.statusCode, 403);
    // Programs say no origin; nor do they have a cookie that somebody else could make them send.
    await using program = await new TestSocket(ours, '/graphql', { cookie }).open();
    program.send({ type: 'connection_init', payload: {} });
    assert.equal((await program.closed).code, 4403);
  });
});
