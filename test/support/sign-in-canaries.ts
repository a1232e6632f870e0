import assert from 'node:assert/strict';
import { Secret, TOTP } from 'otpauth';
import type { ControlApi } from '../../setup/graphql.ts';
import { CLIENT, startOidcProvider } from './oidc-provider.ts';
import { BASE, SEARCHER, startSlapd } from './slapd.ts';

export interface Canaries {
  /** By what they are. */
  secrets: Record<string, string>;
  /** What was answered, and which secrets it may tell: the one time that it does. */
  answers: { text: string; tells: string[] }[];
  /** The bytes of the authenticator's seed, as text in latin1. */
  seed: string;
}

type Answered = Record<string, unknown> & { cookies: string[] };

const SIGN_IN = 'token csrf session { id } errors { code message path }';
const ERRORS = 'errors { code message path }';

const refusalOf = ({ errors }: Record<string, unknown>): string | undefined =>
  (errors as { code: string }[] | undefined)?.[0]?.code;
const allowed = (answered: Answered): Answered => {
  assert.equal(refusalOf(answered), undefined);
  return answered;
};
const kept = (cookies: string[]): string => cookies.map((one) => one.split(';')[0]).join('; ');

/** Somebody who asks by HTTP, and remembers all that he was answered. */
class Asker {
  readonly answers: Canaries['answers'] = [];
  readonly #url: string;

  constructor(url: string) {
    this.#url = url;
  }

  async send(query: string, variables: object, headers: Record<string, string> = {}, tells: string[] = []) {
    const response = await fetch(`${this.#url}/graphql`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', ...headers },
      body: JSON.stringify({ query, variables }),
    });
    const text = await response.text();
    this.answers.push({ text: `${JSON.stringify([...response.headers])} ${text}`, tells });
    return { cookies: response.headers.getSetCookie(), body: JSON.parse(text) as { data?: Record<string, object> } };
  }

  async mutate(
    name: string,
    input: object,
    selection: string,
    headers: Record<string, string> = {},
    tells: string[] = [],
  ): Promise<Answered> {
    const type = `${name[0]!.toUpperCase()}${name.slice(1)}Input!`;
    const query = `mutation ($input: ${type}) { ${name}(input: $input) { ${selection} } }`;
    const { body, cookies } = await this.send(query, { input }, headers, tells);
    return { ...body.data?.[name], cookies };
  }
}

/**
 * All that is secret about signing in, used as it is meant and shown where it does not belong: by a password and a second
 * factor, by a provider and by a directory, each asked with its right secret and with a wrong one.
 */
export async function signInWithCanaries(url: string, api: ControlApi): Promise<Canaries> {
  const asker = new Asker(url);
  const secrets: Record<string, string> = {
    'first password': 'canary of a first password',
    'second password': 'canary of a second password',
    'third password': 'canary of a third password',
    'mistyped password': 'canary of a mistyped password',
    'password of a directory': 'canary of a password in a directory',
    'client secret': CLIENT.secret,
    'wrong client secret': 'canary of a wrong client secret',
    'bind password': SEARCHER.password,
    'wrong bind password': 'canary of a wrong bind password',
  };
  const { domains, roles } = await api.request<Record<'domains' | 'roles', { nodes: { id: string }[] }>>(
    '{ domains { nodes { id } } roles(filter: { name: "root admin" }) { nodes { id } } }',
  );
  const roleId = roles.nodes[0]!.id;
  const inRoot = { domainId: domains.nodes[0]!.id, name: 'canaries' };
  const { account } = await api.mutate<{ account: { id: string } }>('createAccount', inRoot, 'account { id }');
  const proof = await byPassword(url, asker, api, secrets, { accountId: account.id, roleId });
  await byProviders(url, asker, secrets, { accountId: account.id, roleId }, proof);
  const seed = Buffer.from(Secret.fromBase32(secrets['TOTP seed']!).buffer).toString('latin1');
  return { secrets, answers: asker.answers, seed };
}

interface Place {
  accountId: string;
  roleId: string;
}

/** @returns headers of a browser that has signed in */
async function byPassword(
  url: string,
  asker: Asker,
  api: ControlApi,
  secrets: Record<string, string>,
  place: Place,
): Promise<Record<string, string>> {
  const first = secrets['first password']!;
  const create = async (name: string, more: object = {}): Promise<string> => {
    const input = { ...place, name, idempotencyKey: `canary ${name}`, ...more };
    return (await api.mutate<{ user: { id: string } }>('createUser', input, 'user { id }')).user.id;
  };
  const [anna, bert] = [await create('anna', { password: first }), await create('bert')];
  const as = { account: 'canaries', user: 'anna' };

  for (const wrong of [
    { ...as, password: secrets['mistyped password'] },
    // What people mistake for their name may be their password.
    { ...as, user: first, password: first },
    { ...as, account: first, domain: `/${first}`, password: first },
    { ...as, password: `${first}\u0000` },
    { ...as, password: first, code: first.repeat(4) },
    { ...as, password: [first] },
    { user: 'anna', password: first },
  ])
    await asker.mutate('signIn', wrong, SIGN_IN);
  const entered = await asker.mutate('signIn', { ...as, password: first }, SIGN_IN, {}, ['session token']);
  secrets['session token'] = String(entered['token']);
  const bearer = { authorization: `Bearer ${secrets['session token']}` };

  const mistyped = { currentPassword: secrets['mistyped password'], newPassword: `${first}.` };
  assert.equal(refusalOf(await asker.mutate('changePassword', mistyped, ERRORS, bearer)), 'INVALID_INPUT');
  const change = { currentPassword: first, newPassword: secrets['second password'] };
  allowed(await asker.mutate('changePassword', change, ERRORS, bearer));
  const set = { userId: bert, password: secrets['third password'] };
  allowed(await asker.mutate('setPassword', set, ERRORS, bearer));
  assert.equal(refusalOf(await asker.mutate('setPassword', { ...set, userId: anna }, ERRORS, bearer)), 'FORBIDDEN');
  await asker.mutate('setPassword', { ...set, password: `${set.password}\n` }, ERRORS, bearer);

  const begun = await asker.mutate('beginTotp', {}, `secret uri ${ERRORS}`, bearer, ['TOTP seed']);
  secrets['TOTP seed'] = String(begun['secret']);
  await asker.mutate('confirmTotp', { code: secrets['TOTP seed'] }, `recoveryCodes ${ERRORS}`, bearer);
  const code = new TOTP({ secret: secrets['TOTP seed'] }).generate();
  const told = ['recovery code', 'used recovery code'];
  const confirmed = await asker.mutate('confirmTotp', { code }, `recoveryCodes ${ERRORS}`, bearer, told);
  [secrets['recovery code'], secrets['used recovery code']] = confirmed['recoveryCodes'] as [string, string];

  const known = { ...as, password: secrets['second password'] };
  assert.equal(refusalOf(await asker.mutate('signIn', known, SIGN_IN)), 'SECOND_FACTOR_REQUIRED');
  const withCode = { ...known, code: secrets['used recovery code'], cookie: true };
  const inCookies = ['session in a cookie', 'CSRF value'];
  const { csrf, cookies } = allowed(await asker.mutate('signIn', withCode, SIGN_IN, { origin: url }, inCookies));
  secrets['CSRF value'] = String(csrf);
  secrets['session in a cookie'] = /^virtgraph=([^;]+)/.exec(cookies[0]!)![1]!;
  const proof = { cookie: kept(cookies), origin: url, 'x-virtgraph-csrf': secrets['CSRF value'] };
  await asker.send('{ viewer { name session { id } } }', {}, proof);
  await asker.send('{ viewer { name } }', {}, { ...proof, 'x-virtgraph-csrf': `${csrf}x` });
  assert.equal(refusalOf(await asker.mutate('signIn', withCode, SIGN_IN)), 'UNAUTHENTICATED');
  await asker.mutate('removeTotp', { code: secrets['used recovery code'] }, ERRORS, bearer);
  await asker.mutate('revokeSession', { id: secrets['session token'] }, ERRORS, bearer);
  const { id } = entered['session'] as { id: string };
  allowed(await asker.mutate('revokeSession', { id }, ERRORS, proof));
  return proof;
}

async function byProviders(
  url: string,
  asker: Asker,
  secrets: Record<string, string>,
  { accountId, roleId }: Place,
  proof: Record<string, string>,
): Promise<void> {
  const provider = await startOidcProvider([`${url}/sign-in/oidc/callback`], { carl: { groups: ['staff'] } });
  const password = secrets['password of a directory']!;
  const dora = { objectClass: ['inetOrgPerson'], sn: 'x', cn: 'x', uid: 'dora', userPassword: password };
  const directory = await startSlapd({
    [BASE]: { objectClass: ['dcObject', 'organization'], dc: 'example', o: 'Example' },
    [`uid=dora,${BASE}`]: dora,
  });
  try {
    const place = { accountId, roleMapping: [{ group: '*', roleId }] };
    const create = async (name: string, input: object): Promise<string> => {
      const whole = { ...place, name, idempotencyKey: name, ...input };
      const made = await asker.mutate('createIdentityProvider', whole, `identityProvider { id } ${ERRORS}`, proof);
      return (allowed(made)['identityProvider'] as { id: string }).id;
    };
    const oidc = { issuer: provider.issuer, clientId: CLIENT.clientId };
    const ldap = { url: directory.url, bindDn: SEARCHER.dn, baseDn: BASE };
    const both = { ...place, name: 'x', oidc, ldap, secret: secrets['client secret'] };
    assert.equal(refusalOf(await asker.mutate('createIdentityProvider', both, ERRORS, proof)), 'INVALID_INPUT');
    const login = await create('login', { oidc, secret: secrets['wrong client secret'] });
    const people = await create('people', { ldap, secret: secrets['wrong bind password'] });

    const enter = async (isRight: boolean): Promise<void> => {
      const begin = await asker.mutate('beginOidcSignIn', { provider: login }, `url ${ERRORS}`);
      const back = await provider.visit(String(begin['url']), 'carl');
      const answered = await fetch(back, { redirect: 'manual', headers: { cookie: kept(begin.cookies) } });
      assert.equal(answered.status, isRight ? 303 : 401);
      asker.answers.push({ text: await answered.text(), tells: [] });
      const who = { account: 'canaries', user: 'dora', password, cookie: true };
      const entered = await asker.mutate('signIn', who, SIGN_IN, { origin: url });
      assert.equal(refusalOf(entered), isRight ? undefined : 'UNAVAILABLE');
    };
    await enter(false);
    const update = async (id: string, secret: string | undefined): Promise<void> =>
      void allowed(await asker.mutate('updateIdentityProvider', { id, secret }, ERRORS, proof));
    await update(login, secrets['client secret']);
    await update(people, secrets['bind password']);
    await enter(true);
    await asker.send('{ identityProviders { nodes { id events { nodes { changes { before after } } } } } }', {}, proof);
  } finally {
    await provider.close();
    await directory.close();
  }
}
