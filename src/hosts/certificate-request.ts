import 'reflect-metadata';
import { createHash } from 'node:crypto';
import { Pkcs10CertificateRequest } from '@peculiar/x509';
import { VirtgraphError } from '../domain/errors.ts';

export const ECDSA_P256 = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' };
const MAX_LENGTH = 8_192;

export interface RequestedKey {
  publicKey: CryptoKey;
  /** SHA-256 of the key in its one canonical form. */
  hash: Buffer;
}

/**
 * The key that a PKCS #10 request is for, once its sender has shown that it has the private half. The rest of what is
 * asked for, name and extensions, is not looked at: a certificate says what its issuer knows.
 *
 * @param text PEM
 * @throws VirtgraphError INVALID_INPUT
 */
export async function readRequest(text: string): Promise<RequestedKey> {
  if (text.length > MAX_LENGTH) throw bad('it is too long');
  let request: Pkcs10CertificateRequest;
  try {
    request = new Pkcs10CertificateRequest(text);
  } catch (error) {
    throw bad('it can not be read', error);
  }
  const algorithm = request.publicKey.algorithm as { name: string; namedCurve?: string };
  if (algorithm.name !== ECDSA_P256.name || algorithm.namedCurve !== ECDSA_P256.namedCurve)
    throw bad('its key is not an ECDSA key on P-256');
  const isSigned = await request.verify().catch((error: unknown) => {
    throw bad('its signature can not be checked', error);
  });
  if (!isSigned) throw bad('it is not signed by its own key');
  const publicKey = await request.publicKey.export(ECDSA_P256, ['verify']);
  const spki = Buffer.from(await crypto.subtle.exportKey('spki', publicKey));
  return { publicKey, hash: createHash('sha256').update(spki).digest() };
}

const bad = (why: string, cause?: unknown): VirtgraphError =>
  new VirtgraphError(
    { code: 'INVALID_INPUT', message: `The certificate request is refused: ${why}.`, path: ['certificateRequest'] },
    { cause },
  );
