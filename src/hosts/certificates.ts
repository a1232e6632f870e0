// What @peculiar/x509 is wired with needs it, and loads before it.
import 'reflect-metadata';
import { createHash, randomBytes } from 'node:crypto';
import {
  AuthorityKeyIdentifierExtension,
  BasicConstraintsExtension,
  ExtendedKeyUsage,
  ExtendedKeyUsageExtension,
  type Extension,
  KeyUsageFlags,
  KeyUsagesExtension,
  PemConverter,
  SubjectAlternativeNameExtension,
  SubjectKeyIdentifierExtension,
  X509Certificate,
  X509CertificateGenerator,
} from '@peculiar/x509';
import { ECDSA_P256 } from './certificate-request.ts';

const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;
const AUTHORITY_LIFE_MS = 20 * 365 * DAY_MS;
const CONTROL_PLANE_LIFE_MS = 30 * DAY_MS;
/** So that a host whose clock is somewhat behind takes what was issued a moment ago; of a short life, less. */
const BACKDATED = { ms: HOUR_MS, share: 0.1 };
const SERIAL_BYTES = 16;

/**
 * What every control plane is called in its certificate. A host looks for this and not for the address that it dialled:
 * only control planes are given it, and a balancer or another address needs no other certificate.
 */
export const CONTROL_PLANE_NAME = 'control-plane.virtgraph';

/** Who signs. */
export interface Issuer {
  certificate: X509Certificate;
  key: CryptoKey;
  /** Of its key, as it stands in all that it issues. */
  keyIdentifier: AuthorityKeyIdentifierExtension;
}

export interface Issued {
  serial: Buffer;
  /** SHA-256 of the certificate. */
  fingerprint: Buffer;
  /** DER */
  certificate: Buffer;
  notBefore: Date;
  notAfter: Date;
}

export interface ControlPlaneCertificate {
  /** PEM, with the issuer's behind it. */
  cert: string;
  /** PEM */
  key: string;
  renewAt: Date;
}

/** A new authority: its certificate in DER, its key as PKCS #8. */
export async function newIssuer(now: number): Promise<{ certificate: Buffer; pkcs8: Buffer }> {
  const keys = await newKeys();
  const certificate = await X509CertificateGenerator.createSelfSigned({
    serialNumber: newSerial().toString('hex'),
    name: [{ CN: ['Virtgraph hosts'] }],
    notBefore: toSeconds(now - DAY_MS),
    notAfter: toSeconds(now + AUTHORITY_LIFE_MS),
    keys,
    signingAlgorithm: ECDSA_P256,
    extensions: [
      new BasicConstraintsExtension(true, 0, true),
      new KeyUsagesExtension(KeyUsageFlags.keyCertSign | KeyUsageFlags.cRLSign, true),
      await SubjectKeyIdentifierExtension.create(keys.publicKey),
    ],
  });
  const pkcs8 = Buffer.from(await crypto.subtle.exportKey('pkcs8', keys.privateKey));
  return { certificate: Buffer.from(certificate.rawData), pkcs8 };
}

export async function openIssuer(certificate: Buffer, pkcs8: Buffer): Promise<Issuer> {
  const key = await crypto.subtle.importKey('pkcs8', toArrayBuffer(pkcs8), ECDSA_P256, false, ['sign']);
  const own = new X509Certificate(toArrayBuffer(certificate));
  return { certificate: own, key, keyIdentifier: await AuthorityKeyIdentifierExtension.create(own.publicKey) };
}

/** Good for a client alone: a host can not pose as a control plane. */
export const issueToHost = (
  issuer: Issuer,
  publicKey: CryptoKey,
  hostId: string,
  lifeMs: number,
  now: number,
): Promise<Issued> =>
  issue(issuer, publicKey, hostId, lifeMs, now, [
    new ExtendedKeyUsageExtension([ExtendedKeyUsage.clientAuth]),
    new SubjectAlternativeNameExtension([{ type: 'url', value: `virtgraph:${hostId}` }]),
  ]);

/** With a key of its own, which is kept nowhere. */
export async function issueToControlPlane(issuer: Issuer, now: number): Promise<ControlPlaneCertificate> {
  const keys = await newKeys();
  const { certificate } = await issue(issuer, keys.publicKey, CONTROL_PLANE_NAME, CONTROL_PLANE_LIFE_MS, now, [
    new ExtendedKeyUsageExtension([ExtendedKeyUsage.serverAuth]),
    new SubjectAlternativeNameExtension([{ type: 'dns', value: CONTROL_PLANE_NAME }]),
  ]);
  const key = await crypto.subtle.exportKey('pkcs8', keys.privateKey);
  return {
    // A host that joins knows the authority by its fingerprint alone, so it has to be shown.
    cert: `${toPem(certificate)}\n${issuer.certificate.toString('pem')}\n`,
    key: PemConverter.encode(key, PemConverter.PrivateKeyTag),
    renewAt: new Date(now + (CONTROL_PLANE_LIFE_MS * 2) / 3),
  };
}

async function issue(
  { certificate: authority, key, keyIdentifier }: Issuer,
  publicKey: CryptoKey,
  commonName: string,
  lifeMs: number,
  now: number,
  extensions: Extension[],
): Promise<Issued> {
  const serial = newSerial();
  const notBefore = toSeconds(now - Math.min(BACKDATED.ms, BACKDATED.share * lifeMs));
  const notAfter = toSeconds(now + lifeMs);
  const certificate = await X509CertificateGenerator.create({
    serialNumber: serial.toString('hex'),
    subject: [{ CN: [commonName] }],
    issuer: authority.subjectName,
    notBefore,
    notAfter,
    publicKey,
    signingKey: key,
    signingAlgorithm: ECDSA_P256,
    extensions: [
      new BasicConstraintsExtension(false, undefined, true),
      new KeyUsagesExtension(KeyUsageFlags.digitalSignature, true),
      keyIdentifier,
      ...extensions,
    ],
  });
  const der = Buffer.from(certificate.rawData);
  return { serial, fingerprint: sha256(der), certificate: der, notBefore, notAfter };
}

const newKeys = (): Promise<CryptoKeyPair> => crypto.subtle.generateKey(ECDSA_P256, true, ['sign', 'verify']);

/** Positive, and without a leading zero byte, which one reader would drop and another keep. */
function newSerial(): Buffer {
  const serial = randomBytes(SERIAL_BYTES);
  serial[0] = (serial[0]! & 0x7f) | 0x40;
  return serial;
}

/** A certificate tells no less than a second. */
const toSeconds = (ms: number): Date => new Date(Math.floor(ms / 1000) * 1000);

export const sha256 = (bytes: Buffer): Buffer => createHash('sha256').update(bytes).digest();

export const toPem = (der: Buffer): string => PemConverter.encode(toArrayBuffer(der), PemConverter.CertificateTag);

/** The bytes alone: a Buffer may be a view of a larger piece of memory. */
const toArrayBuffer = (bytes: Buffer): ArrayBuffer => new Uint8Array(bytes).buffer;
