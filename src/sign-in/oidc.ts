import * as oidc from 'openid-client';
import { type ExternalIdentity, isSubject, type OidcSettings, SUBJECT_MAX } from '../domain/identity-provider.ts';
import { type Egress, EgressRefused } from '../egress/egress.ts';
import { FetchLimit, fetchOutside } from '../egress/fetch.ts';
import { ProviderAway, ProviderRefused } from './refused.ts';

/** What an OpenID Connect provider is asked with. */
export interface OidcClient {
  settings: OidcSettings;
  /** Null: a client without a secret; PKCE alone protects the code. */
  secret: string | null;
  /** Where the provider sends people back to. */
  redirectUri: string;
  egress: Egress;
}

/** What has to come back, known to the browser alone until then. */
export interface OidcPending {
  state: string;
  nonce: string;
  verifier: string;
}

const TIMEOUT_MS = 5_000;
const ANSWER_BYTES = 1_048_576;

/**
 * Where to send someone who wants to sign in, and what his answer is checked by.
 *
 * @throws ProviderAway, ProviderRefused
 */
export async function beginOidc(client: OidcClient): Promise<{ url: string; pending: OidcPending }> {
  return told(async () => {
    const configuration = await configurationOf(client);
    const pending = { state: oidc.randomState(), nonce: oidc.randomNonce(), verifier: oidc.randomPKCECodeVerifier() };
    const url = oidc.buildAuthorizationUrl(configuration, {
      redirect_uri: client.redirectUri,
      scope: ['openid', ...client.settings.scopes].join(' '),
      state: pending.state,
      nonce: pending.nonce,
      code_challenge: await oidc.calculatePKCECodeChallenge(pending.verifier),
      code_challenge_method: 'S256',
    });
    return { url: url.href, pending };
  });
}

/**
 * Who has signed in there, once his answer is checked: state, code, and the token's signature, issuer, audience, nonce
 * and time.
 *
 * @param query of the URL that the provider sent him back to
 * @throws ProviderAway, ProviderRefused
 */
export async function finishOidc(client: OidcClient, pending: OidcPending, query: string): Promise<ExternalIdentity> {
  return told(async () => {
    const configuration = await configurationOf(client);
    const answered = new URL(client.redirectUri);
    answered.search = query;
    const tokens = await oidc.authorizationCodeGrant(configuration, answered, {
      expectedState: pending.state,
      expectedNonce: pending.nonce,
      pkceCodeVerifier: pending.verifier,
      idTokenExpected: true,
    });
    const claims = tokens.claims()!;
    const { groupsClaim } = client.settings;
    // Many providers keep the token short and tell the rest when they are asked.
    const asks = claims[groupsClaim] === undefined && configuration.serverMetadata().userinfo_endpoint !== undefined;
    const more = asks ? await oidc.fetchUserInfo(configuration, tokens.access_token, claims.sub) : {};
    return identityOf({ ...more, ...claims }, client.settings);
  });
}

function identityOf(
  claims: Record<string, unknown>,
  { groupsClaim, vouchesForSecondFactor }: OidcSettings,
): ExternalIdentity {
  const subject = claims['sub'];
  if (!isSubject(subject))
    throw new ProviderRefused(
      `The provider names people by something that is no text of up to ${SUBJECT_MAX}, or ends with a space.`,
    );
  const names = [claims['preferred_username'], claims['email'], claims['name'], subject];
  const name = names.find((one): one is string => typeof one === 'string' && one.trim() !== '')!;
  const listed = claims[groupsClaim];
  const groups = (Array.isArray(listed) ? listed : [listed]).filter((group) => typeof group === 'string');
  const methods = claims['amr'];
  const secondFactor = vouchesForSecondFactor || (Array.isArray(methods) && methods.includes('mfa'));
  return { subject, name, groups, secondFactor };
}

/** How often a provider is asked what it is: whoever begins to sign in is nobody yet, and must not cause more. */
const KNOWN_MS = 300_000;
const KNOWN_MAX = 200;

interface Known {
  configuration: Promise<oidc.Configuration>;
  /** On the monotonic clock, in milliseconds. */
  until: number;
}
/** By all that was used to ask; the oldest first. */
const KNOWN = new WeakMap<Egress, Map<string, Known>>();

function configurationOf(client: OidcClient): Promise<oidc.Configuration> {
  const { settings, secret, egress } = client;
  const key = JSON.stringify([settings, secret]);
  const known = KNOWN.get(egress) ?? new Map<string, Known>();
  KNOWN.set(egress, known);
  const before = known.get(key);
  if (before && before.until > performance.now()) return before.configuration;
  const entry = { configuration: discover(client), until: performance.now() + KNOWN_MS };
  known.delete(key);
  known.set(key, entry);
  if (known.size > KNOWN_MAX) known.delete(known.keys().next().value!);
  // What could not be learned is asked again.
  entry.configuration.catch(() => known.get(key) === entry && known.delete(key));
  return entry.configuration;
}

function discover({ settings, secret, egress }: OidcClient): Promise<oidc.Configuration> {
  const issuer = new URL(settings.issuer);
  const { caCertificates } = settings;
  const limits = { timeoutMs: TIMEOUT_MS, maxBytes: ANSWER_BYTES, caCertificates };
  return oidc.discovery(issuer, settings.clientId, {}, secret === null ? oidc.None() : bySecret(secret), {
    // A token's signature is checked although it came from the provider itself: TLS may end before it.
    execute: [oidc.enableNonRepudiationChecks, ...(issuer.protocol === 'http:' ? [oidc.allowInsecureRequests] : [])],
    timeout: TIMEOUT_MS / 1000,
    [oidc.customFetch]: (url, { method, headers, body, signal }) =>
      fetchOutside(egress, url, { method, headers, body: bodyOf(body), signal }, limits),
  });
}

/** In the way that the provider takes; both are in use. @see OpenID Connect Discovery 1.0, token_endpoint_auth_methods_supported */
const bySecret =
  (secret: string): oidc.ClientAuth =>
  (server, ...request) => {
    const takes = server.token_endpoint_auth_methods_supported ?? ['client_secret_basic'];
    const way = takes.includes('client_secret_basic') ? oidc.ClientSecretBasic : oidc.ClientSecretPost;
    return way(secret)(server, ...request);
  };

/** The library sends forms; its type allows more. */
function bodyOf(body: oidc.FetchBody): string | Uint8Array | null {
  if (body === null || body === undefined || typeof body === 'string' || body instanceof Uint8Array)
    return body ?? null;
  return String(body);
}

/** What goes wrong in one of the two ways in which it can. */
async function told<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (error instanceof ProviderRefused) throw error;
    const causes = chainOf(error);
    const inside = causes.find((cause) => cause instanceof EgressRefused);
    if (inside) throw new ProviderRefused(inside.message, { cause: error });
    const words = causes.map((cause) => cause.message).join(': ');
    if (causes.some(isAway)) throw new ProviderAway(`The provider does not answer: ${words}`, { cause: error });
    throw new ProviderRefused(`What the provider says is refused: ${words}`, { cause: error });
  }
}

function chainOf(error: unknown): Error[] {
  const chain: Error[] = [];
  for (let at = error; at instanceof Error && chain.length < 8; at = at.cause) chain.push(at);
  return chain;
}

/** What the network says has a code of the system; what the library says begins with OAUTH or ERR. */
const isAway = (error: Error): boolean =>
  error instanceof FetchLimit || ('syscall' in error && 'errno' in error) || statusOf(error) >= 500;

const statusOf = (error: Error): number => {
  const { cause } = error;
  return cause instanceof Response ? cause.status : 0;
};
