import { createHash } from 'node:crypto';

/** A token of `createHostJoinToken`: a secret, and whom it may be told. */
export interface JoinToken {
  secret: string;
  /** SHA-256 of the certificate of the control plane's authority. */
  fingerprint: Buffer;
  /** Names the token without telling it. */
  name: string;
}

const FORM = /^(vgj_[\w-]{16,})\.([\w-]{43})$/;

/** Null for what is none. */
export function parseJoinToken(text: string): JoinToken | null {
  const match = FORM.exec(text);
  if (!match) return null;
  const [, secret, fingerprint] = match as unknown as [string, string, string];
  return {
    secret,
    fingerprint: Buffer.from(fingerprint, 'base64url'),
    name: createHash('sha256').update(secret).digest('base64url').slice(0, 16),
  };
}
