import { createPrivateKey, createPublicKey, generateKeyPair } from 'node:crypto';
import { promisify } from 'node:util';

const ECDSA_P256 = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' };

/** A new private key, in PEM. */
export async function newHostKey(): Promise<string> {
  const { privateKey } = await promisify(generateKeyPair)('ec', { namedCurve: 'P-256' });
  return privateKey.export({ type: 'pkcs8', format: 'pem' }).toString();
}

/** The PKCS #10 request for a certificate of the key, in PEM. */
export async function certificateRequest(key: string): Promise<string> {
  // Only a host that joins or renews needs it, and then not for long.
  await import('reflect-metadata');
  const { Pkcs10CertificateRequestGenerator } = await import('@peculiar/x509');
  const privateKey = createPrivateKey(key);
  const request = await Pkcs10CertificateRequestGenerator.create({
    name: [{ CN: ['host'] }],
    keys: {
      privateKey: privateKey.toCryptoKey(ECDSA_P256, false, ['sign']) as CryptoKey,
      publicKey: createPublicKey(privateKey).toCryptoKey(ECDSA_P256, true, ['verify']) as CryptoKey,
    },
    signingAlgorithm: ECDSA_P256,
  });
  return request.toString('pem');
}
