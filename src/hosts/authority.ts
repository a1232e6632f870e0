import type { Kysely } from 'kysely';
import type { Sealer } from '../db/sealer.ts';
import type { Database } from '../db/tables.ts';
import { emptyTransition, insert } from '../db/transition.ts';
import type { Writer } from '../db/writer.ts';
import { encodeId } from '../domain/ids.ts';
import {
  type ControlPlaneCertificate,
  type Issued,
  type Issuer,
  issueToControlPlane,
  issueToHost,
  newIssuer,
  openIssuer,
  sha256,
} from './certificates.ts';

/** The one row of the table. */
const ID = 1;
const PURPOSE = 'host certificate authority';
const HOST_LIFE_MS = 90 * 24 * 3_600_000;

export interface AuthorityOptions {
  db: Kysely<Database>;
  writer: Writer;
  sealer: Sealer;
  /** How long a host's certificate holds. */
  hostLifeMs?: number;
  now?: () => number;
}

/**
 * Issues what hosts and control planes know each other by. There is one for a database, made by whichever control plane
 * starts first; its key is never outside of the database but sealed.
 */
export class HostAuthority {
  readonly #o: AuthorityOptions;
  readonly #now: () => number;
  #issuer: Issuer | undefined;

  constructor(options: AuthorityOptions) {
    this.#o = options;
    this.#now = options.now ?? Date.now;
  }

  /** Reads it, or makes it where there is none. */
  async open(): Promise<void> {
    this.#issuer = (await this.#read()) ?? (await this.#make());
  }

  get #open(): Issuer {
    if (!this.#issuer) throw new Error('the authority is not open yet');
    return this.#issuer;
  }

  /** PEM */
  get certificate(): string {
    return this.#open.certificate.toString('pem');
  }

  /** SHA-256 of its certificate: a join token carries it, so that a host knows whom it joins. */
  get fingerprint(): Buffer {
    return sha256(Buffer.from(this.#open.certificate.rawData));
  }

  issueToHost(publicKey: CryptoKey, hostUid: Buffer): Promise<Issued> {
    return issueToHost(
      this.#open,
      publicKey,
      encodeId('host', hostUid),
      this.#o.hostLifeMs ?? HOST_LIFE_MS,
      this.#now(),
    );
  }

  issueToControlPlane(): Promise<ControlPlaneCertificate> {
    return issueToControlPlane(this.#open, this.#now());
  }

  async #read(): Promise<Issuer | null> {
    const row = await this.#o.db.selectFrom('host_certificate_authority').selectAll().executeTakeFirst();
    return row ? openIssuer(row.certificate, this.#o.sealer.open(row.sealed_key, PURPOSE)) : null;
  }

  /** Two that make it at once: the row that stands first is it, for both. */
  async #make(): Promise<Issuer> {
    const { certificate, pkcs8 } = await newIssuer(this.#now());
    const row = { id: ID, certificate, sealed_key: this.#o.sealer.seal(pkcs8, PURPOSE) };
    const { kind } = await this.#o.writer.submit({
      ...emptyTransition(),
      writes: [insert('host_certificate_authority', row)],
    });
    const made = await this.#read();
    if (!made) throw new Error(`the authority could not be kept: ${kind}`);
    return made;
  }
}
