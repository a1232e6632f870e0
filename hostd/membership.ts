import type { Logger } from 'pino';
import type { Authorities } from './authority.ts';
import { pause } from './backoff.ts';
import { type Connection, ConnectionLost, connect, RequestFailed } from './connection.ts';
import { CertificateRefused, JoinTokenRefused } from './given-up.ts';
import { certificateRequest, newHostKey } from './host-key.ts';
import { certificateFacts, type Identity, type Kept, type NextKey } from './identity.ts';
import type { JoinToken } from './join-token.ts';
import {
  REGISTER,
  RENEW_CERTIFICATE,
  type RegisterAnswer,
  type RegisterVariables,
  type RenewCertificateAnswer,
} from './operations.ts';

export interface MembershipOptions {
  name: string;
  joinToken: JoinToken | null;
  /** Of all hosts of this process. */
  authorities: Authorities;
  store: { get(): Kept; put(kept: Kept): Promise<void> };
  timing: { keepAliveMs: number; requestTimeoutMs: number };
  signal: AbortSignal;
  log: Logger;
}

/** A certificate is renewed when so much of its time is over; hosts that joined together spread over a little more. */
const RENEW_AT = 2 / 3;
const RENEW_SPREAD = 0.05;
/** A timer holds no longer; what is later is waited for in pieces. */
const PIECE_MS = 20 * 24 * 3_600_000;
const RETRY = { share: 1 / 20, minMs: 100, maxMs: 3_600_000 };

/** How one host becomes and stays known to the control plane: keys, certificates, and the file that they are kept in. */
export class Membership {
  readonly #o: MembershipOptions;
  /** When the certificate came, if this process got it: then no clock of the machine is asked when to renew. */
  #gotAt: number | null = null;
  #refused: string | null = null;

  constructor(options: MembershipOptions) {
    this.#o = options;
  }

  /** The control plane has closed a connection because of the certificate that it was opened with. */
  refused(why: string): void {
    this.#refused = why;
  }

  /**
   * What the host shows at `url`: that which it has, or, where it has none or that was refused, what a join token gets.
   *
   * @throws GivenUp, ConnectionLost, RequestFailed
   */
  async identity(url: string): Promise<Identity> {
    const { joinToken, store } = this.#o;
    const { identity } = store.get();
    if (identity && this.#refused === null) return identity;
    // A token that it has joined with already would only be refused too.
    if (joinToken && joinToken.name !== identity?.joinedBy) return this.#join(url, joinToken);
    throw new CertificateRefused(
      `the control plane does not accept this host: ${this.#refused ?? 'it has not joined'} VMs are left alone. To let it join again, make a token by createHostJoinToken with its hostId${identity ? ` (${identity.hostId})` : ''} and start hostd with it.`,
    );
  }

  async #join(url: string, { secret, fingerprint, name: tokenName }: JoinToken): Promise<Identity> {
    const { name, authorities, timing, signal, store, log } = this.#o;
    const authority = await authorities.fetch(url, fingerprint, { timeoutMs: timing.requestTimeoutMs, signal });
    const key = await this.#keyFor(tokenName);
    const connection = await connect({ url, authority, own: null, ...timing, signal });
    try {
      const input = { name, joinToken: secret, certificateRequest: await certificateRequest(key) };
      const variables: RegisterVariables = { input };
      const { register } = await connection.request<RegisterAnswer>(REGISTER, variables).catch(asRefusal);
      const identity: Identity = { ...register, key, joinedBy: tokenName };
      await store.put({ identity, next: null });
      this.#gotAt = performance.now();
      this.#refused = null;
      log.info({ hostId: register.hostId, name }, 'registered');
      return identity;
    } finally {
      connection.close();
    }
  }

  /**
   * Waits until it is time, gets the next certificate over the connection, and returns once it is kept: the host has to
   * connect anew with it. Returns as well when the signal is aborted.
   *
   * @param identity with which the connection was opened
   * @throws ConnectionLost
   */
  async renew(connection: Connection, identity: Identity, signal: AbortSignal): Promise<void> {
    const { store, log } = this.#o;
    const { notBefore, notAfter, fingerprint } = certificateFacts(identity.certificate);
    const lifeMs = notAfter - notBefore;
    await pauseLong(this.#dueInMs(notBefore, lifeMs), signal);
    while (!signal.aborted) {
      // The connection before was lost while what it had brought was written: asking by another key would undo that.
      if (store.get().identity !== identity) return;
      try {
        const key = await this.#keyFor(fingerprint);
        const request = { certificateRequest: await certificateRequest(key) };
        const answer = await connection.request<RenewCertificateAnswer>(RENEW_CERTIFICATE, request);
        await store.put({ identity: { ...identity, ...answer.renewCertificate, key }, next: null });
        this.#gotAt = performance.now();
        log.info({ hostId: identity.hostId }, 'certificate renewed');
        return;
      } catch (error) {
        if (error instanceof ConnectionLost) throw error;
        // Refused, or a disk that is full: the one that is in use is good for a while.
        log.warn({ err: error }, 'the certificate could not be renewed yet');
        await pause(Math.min(RETRY.maxMs, Math.max(RETRY.minMs, lifeMs * RETRY.share)), signal);
      }
    }
  }

  #dueInMs(notBefore: number, lifeMs: number): number {
    const share = RENEW_AT + Math.random() * RENEW_SPREAD;
    return this.#gotAt === null
      ? notBefore + lifeMs * share - Date.now()
      : this.#gotAt + lifeMs * share - performance.now();
  }

  /** Kept before it is used: an answer that is lost can then be asked for again. */
  async #keyFor(purpose: string): Promise<string> {
    const { store } = this.#o;
    const kept = store.get();
    if (kept.next?.purpose === purpose) return kept.next.key;
    const next: NextKey = { key: await newHostKey(), purpose };
    await store.put({ ...kept, next });
    return next.key;
  }
}

async function pauseLong(ms: number, signal: AbortSignal): Promise<void> {
  const until = performance.now() + ms;
  for (let left = ms; left > 0 && !signal.aborted; left = until - performance.now())
    await pause(Math.min(left, PIECE_MS), signal);
}

/** Throws what it is given; `JoinTokenRefused` in place of the one answer that will never be another. */
function asRefusal(error: unknown): never {
  const refused = error instanceof RequestFailed && error.codes.includes('UNAUTHENTICATED');
  throw refused ? new JoinTokenRefused(error.message, { cause: error }) : error;
}
