import { readRequest } from '../../src/hosts/certificate-request.ts';
import {
  type ControlPlaneCertificate,
  type Issuer,
  issueToControlPlane,
  issueToHost,
  newIssuer,
  openIssuer,
  sha256,
  toPem,
} from '../../src/hosts/certificates.ts';

/** An authority that is no control plane's: for the other side of host daemons, and for rogues. */
export class TestAuthority {
  readonly #issuer: Issuer;

  private constructor(issuer: Issuer) {
    this.#issuer = issuer;
  }

  static async make(): Promise<TestAuthority> {
    const { certificate, pkcs8 } = await newIssuer(Date.now());
    return new TestAuthority(await openIssuer(certificate, pkcs8));
  }

  /** PEM */
  get certificate(): string {
    return this.#issuer.certificate.toString('pem');
  }

  get fingerprint(): Buffer {
    return sha256(Buffer.from(this.#issuer.certificate.rawData));
  }

  ofControlPlane(): Promise<ControlPlaneCertificate> {
    return issueToControlPlane(this.#issuer, Date.now());
  }

  /** PEM */
  async ofHost(name: string, certificateRequest: string, lifeMs = 3_600_000, now = Date.now()): Promise<string> {
    const { publicKey } = await readRequest(certificateRequest);
    return toPem((await issueToHost(this.#issuer, publicKey, name, lifeMs, now)).certificate);
  }
}
