import { createHmac, generateKeyPairSync, type KeyObject, sign } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

export interface Forgery {
  header?: Record<string, unknown>;
  claims?: Record<string, unknown>;
  /** In place of the provider's own signature. */
  signature?: (signed: string) => string;
  metadata?: Record<string, unknown>;
  /** The answer of the token endpoint itself. */
  token?: (response: ServerResponse) => void;
}

const encoded = (value: object): string => Buffer.from(JSON.stringify(value)).toString('base64url');

/** Signs with a key that the provider does not have. */
export function foreignSignature(signed: string): string {
  const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
  return sign('sha256', Buffer.from(signed), privateKey).toString('base64url');
}

/** HMAC with the public key as secret, which is known to all: the confusion of RS256 with HS256. */
export const publicKeySignature =
  (key: KeyObject) =>
  (signed: string): string =>
    createHmac('sha256', key.export({ type: 'spki', format: 'pem' }))
      .update(signed)
      .digest('base64url');

/** A provider that says whatever it is told to. Without a forgery its token is good. */
export async function startHostileOidc(clientId: string) {
  const { publicKey, privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
  let forgery: Forgery = {};
  let nonce = '';
  const server = createServer((request, response) => {
    const path = new URL(request.url!, 'http://x').pathname;
    const json = (body: object) => response.setHeader('content-type', 'application/json').end(JSON.stringify(body));
    if (path === '/.well-known/openid-configuration')
      return json({
        issuer,
        authorization_endpoint: `${issuer}/auth`,
        token_endpoint: `${issuer}/token`,
        jwks_uri: `${issuer}/jwks`,
        response_types_supported: ['code'],
        subject_types_supported: ['public'],
        id_token_signing_alg_values_supported: ['RS256', 'HS256', 'none'],
        ...forgery.metadata,
      });
    if (path === '/jwks') return json({ keys: [{ ...publicKey.export({ format: 'jwk' }), kid: 'k', use: 'sig' }] });
    if (forgery.token) return forgery.token(response);
    return json({ access_token: 'access', token_type: 'bearer', id_token: idToken() });
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const issuer = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;

  function idToken(): string {
    const now = Math.floor(Date.now() / 1000);
    const claims = { iss: issuer, aud: clientId, sub: 'mallory', iat: now, exp: now + 60, nonce, groups: ['staff'] };
    const header = { alg: 'RS256', kid: 'k', ...forgery.header };
    const signed = `${encoded(header)}.${encoded({ ...claims, ...forgery.claims })}`;
    const own = (text: string) => sign('sha256', Buffer.from(text), privateKey).toString('base64url');
    return `${signed}.${(forgery.signature ?? own)(signed)}`;
  }

  return {
    issuer,
    publicKey,
    /** From now on. @param expected the nonce that the client waits for */
    forge(next: Forgery, expected: string): void {
      forgery = next;
      nonce = expected;
    },
    async close(): Promise<void> {
      server.closeAllConnections();
      server.close();
      await once(server, 'close');
    },
  };
}
