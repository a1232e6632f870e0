import assert from 'node:assert/strict';
import type { ServerResponse } from 'node:http';
import { after, before, describe, it } from 'node:test';
import type { OidcSettings } from '../../src/domain/identity-provider.ts';
import { Egress } from '../../src/egress/egress.ts';
import { beginOidc, finishOidc, type OidcClient } from '../../src/sign-in/oidc.ts';
import { ProviderAway, ProviderRefused } from '../../src/sign-in/refused.ts';
import { type Forgery, foreignSignature, publicKeySignature, startHostileOidc } from '../support/hostile-oidc.ts';
import { CLIENT, startOidcProvider, type TestOidcProvider } from '../support/oidc-provider.ts';
import { nobodyKnows } from '../support/resolve.ts';

const REDIRECT = 'http://127.0.0.1:4000/sign-in/oidc/callback';

const settings = (issuer: string, more: Partial<OidcSettings> = {}): OidcSettings => ({
  issuer,
  clientId: CLIENT.clientId,
  scopes: ['profile'],
  groupsClaim: 'groups',
  vouchesForSecondFactor: false,
  caCertificates: null,
  ...more,
});
const client = (issuer: string, more: Partial<OidcClient> = {}): OidcClient => ({
  settings: settings(issuer),
  secret: CLIENT.secret,
  redirectUri: REDIRECT,
  egress: new Egress('127.0.0.1'),
  ...more,
});

describe('sign-in by OpenID Connect', () => {
  let provider: TestOidcProvider;
  before(async () => {
    provider = await startOidcProvider([REDIRECT], {
      'subject-of-anna': { preferred_username: 'anna', groups: ['staff', 'admins'] },
      'subject-of-nobody': { name: 'Nobody' },
      'subject-of-odd': { preferred_username: 7, groups: ['ok', 5, null, { a: 1 }] },
      'subject-of-one': { preferred_username: 'one', groups: 'alone' },
    });
  });
  after(() => provider.close());

  async function signIn(subject: string, of = client(provider.issuer)) {
    const { url, pending } = await beginOidc(of);
    const back = new URL(await provider.visit(url, subject));
    return { pending, query: back.search, back };
  }

  it('asks for a code with PKCE, state and nonce', async () => {
    const { url, pending } = await beginOidc(client(provider.issuer));
    const asked = Object.fromEntries(new URL(url).searchParams);
    const { code_challenge, ...rest } = asked;
    assert.deepEqual(rest, {
      client_id: 'virtgraph',
      redirect_uri: REDIRECT,
      response_type: 'code',
      scope: 'openid profile',
      state: pending.state,
      nonce: pending.nonce,
      code_challenge_method: 'S256',
    });
    assert.notEqual(code_challenge, pending.verifier);
    const other = await beginOidc(client(provider.issuer));
    for (const key of ['state', 'nonce', 'verifier'] as const) {
      assert.ok(pending[key].length >= 43);
      assert.notEqual(pending[key], other.pending[key]);
    }
  });

  it('answers with who has signed in there, and the groups that the provider tells when asked', async () => {
    const of = client(provider.issuer);
    const { pending, query, back } = await signIn('subject-of-anna', of);
    assert.equal(back.origin + back.pathname, REDIRECT);
    assert.deepEqual(await finishOidc(of, pending, query), {
      subject: 'subject-of-anna',
      name: 'anna',
      groups: ['staff', 'admins'],
      secondFactor: false,
    });
  });

  it('takes no group that is no text, and a name from what there is', async () => {
    for (const [subject, expected] of Object.entries({
      'subject-of-nobody': { name: 'Nobody', groups: [] },
      'subject-of-odd': { name: 'subject-of-odd', groups: ['ok'] },
      'subject-of-one': { name: 'one', groups: ['alone'] },
    })) {
      const of = client(provider.issuer);
      const { pending, query } = await signIn(subject, of);
      assert.deepEqual(await finishOidc(of, pending, query), { subject, ...expected, secondFactor: false });
    }
  });

  it('takes a code once', async () => {
    const of = client(provider.issuer);
    const { pending, query } = await signIn('subject-of-anna', of);
    await finishOidc(of, pending, query);
    await assert.rejects(finishOidc(of, pending, query), ProviderRefused);
  });

  it('refuses what another browser began, and what was changed on its way', async () => {
    const of = client(provider.issuer);
    const other = (await beginOidc(of)).pending;
    for (const change of [{ state: other.state }, { nonce: other.nonce }, { verifier: other.verifier }]) {
      const { pending, query } = await signIn('subject-of-anna', of);
      await assert.rejects(finishOidc(of, { ...pending, ...change }, query), ProviderRefused, JSON.stringify(change));
    }
    const { pending, query } = await signIn('subject-of-anna', of);
    for (const changed of [
      '',
      '?',
      `?state=${pending.state}`,
      `${query}x`,
      `${query}&state=x`,
      query.replace(/iss=[^&]+/, 'iss=x'),
    ])
      await assert.rejects(finishOidc(of, pending, changed), ProviderRefused, changed);
    assert.equal((await finishOidc(of, pending, query)).name, 'anna', 'none of which used it up');
  });

  it('tells that the provider refused, with its words for the log', async () => {
    const { pending } = await beginOidc(client(provider.issuer));
    const query = `?error=access_denied&error_description=no&state=${pending.state}&iss=${provider.issuer}`;
    await assert.rejects(finishOidc(client(provider.issuer), pending, query), (error: Error) => {
      assert.ok(error instanceof ProviderRefused);
      return true;
    });
  });

  it('refuses a wrong secret of the client', async () => {
    const of = client(provider.issuer, { secret: 'wrong' });
    const { pending, query } = await signIn('subject-of-anna', of);
    await assert.rejects(finishOidc(of, pending, query), ProviderRefused);
  });

  it('goes nowhere inside unless the operator allows it', async () => {
    await assert.rejects(beginOidc(client(provider.issuer, { egress: new Egress() })), (error: Error) => {
      assert.ok(error instanceof ProviderRefused);
      assert.match(error.message, /VIRTGRAPH_EGRESS_ALLOW/);
      return true;
    });
  });

  it('says that a provider is away, and asks again the next time', async () => {
    const gone = await startHostileOidc(CLIENT.clientId);
    const of = client(gone.issuer);
    await gone.close();
    await assert.rejects(beginOidc(of), ProviderAway);
    const nowhere = new Egress('', nobodyKnows);
    await assert.rejects(beginOidc(client('http://nothing.invalid', { egress: nowhere })), ProviderAway);
  });
});

describe('a hostile OpenID provider', () => {
  let hostile: Awaited<ReturnType<typeof startHostileOidc>>;
  before(async () => {
    hostile = await startHostileOidc(CLIENT.clientId);
  });
  after(() => hostile.close());

  async function answer(forgery: Forgery): Promise<unknown> {
    hostile.forge(forgery, '');
    // An egress of its own: what was learned of the provider before is not known to it.
    const of = client(hostile.issuer, { egress: new Egress('127.0.0.1') });
    const { pending } = await beginOidc(of);
    hostile.forge(forgery, pending.nonce);
    return finishOidc(of, pending, `?code=code&state=${pending.state}`);
  }

  it('is believed while its token is good', async () => {
    const good = { subject: 'mallory', name: 'mallory', groups: ['staff'] };
    assert.deepEqual(await answer({}), { ...good, secondFactor: false });
    assert.deepEqual(await answer({ claims: { amr: ['pwd', 'mfa'] } }), { ...good, secondFactor: true });
    assert.deepEqual(await answer({ claims: { amr: 'mfa' } }), { ...good, secondFactor: false });
  });

  const past = Math.floor(Date.now() / 1000) - 3_600;
  const forgeries: Record<string, Forgery> = {
    'no signature (alg none)': { header: { alg: 'none' }, signature: () => '' },
    'alg none, announced as all it has': {
      header: { alg: 'none' },
      signature: () => '',
      metadata: { id_token_signing_alg_values_supported: ['none'] },
    },
    'alg None': { header: { alg: 'None' }, signature: () => '' },
    'no signature under RS256': { signature: () => '' },
    'the signature of another key': { signature: foreignSignature },
    'a key that it does not have': { header: { kid: 'other' } },
    'another issuer': { claims: { iss: 'https://login.example.com' } },
    'another audience': { claims: { aud: 'another client' } },
    'several audiences without an authorised party': { claims: { aud: ['virtgraph', 'another client'] } },
    'several audiences for another party': { claims: { aud: ['virtgraph', 'x'], azp: 'x' } },
    'another nonce': { claims: { nonce: 'x' } },
    'no nonce': { claims: { nonce: undefined } },
    'a token that has expired': { claims: { iat: past - 60, exp: past } },
    'a token without an end': { claims: { exp: undefined } },
    'a token of later': { claims: { nbf: Math.floor(Date.now() / 1000) + 3_600 } },
    'no subject': { claims: { sub: undefined } },
    'an empty subject': { claims: { sub: '' } },
    'a subject longer than any': { claims: { sub: 's'.repeat(256) } },
    'a subject that is no text': { claims: { sub: 7 } },
    'no token': {
      token: (response) =>
        response.setHeader('content-type', 'application/json').end('{"access_token":"a","token_type":"bearer"}'),
    },
    'an answer that is no JSON': { token: (response) => response.end('<html>') },
    'a redirect in place of an answer': {
      token: (response) => response.writeHead(302, { location: 'http://169.254.169.254/' }).end(),
    },
    'a token in several lines': {
      token: (response) =>
        response
          .setHeader('content-type', 'application/json')
          .end('{"access_token":"a","token_type":"bearer","id_token":"a.b.c"}'),
    },
  };
  for (const [what, forgery] of Object.entries(forgeries))
    it(`is not believed with ${what}`, async () => {
      await assert.rejects(answer(forgery), ProviderRefused);
    });

  it('is not believed with its public key as a shared secret', async () => {
    const forgery = { header: { alg: 'HS256' }, signature: publicKeySignature(hostile.publicKey) };
    await assert.rejects(answer(forgery), ProviderRefused);
  });

  it('is not believed when it says that it is another', async () => {
    await assert.rejects(answer({ metadata: { issuer: 'https://login.example.com' } }), ProviderRefused);
  });

  it('is away when it answers without end', async () => {
    const endless = { token: (response: ServerResponse) => void response.end('x'.repeat(2 ** 21)) };
    await assert.rejects(answer(endless), ProviderAway);
    await assert.rejects(answer({ token: (response) => void response.writeHead(503).end() }), ProviderAway);
  });
});
