import { createHash } from 'node:crypto';
import { type Kysely, sql } from 'kysely';
import { type Ids, newUid } from '../db/ids.ts';
import type { Inventory } from '../db/inventory.ts';
import type { Database, Host, HostCertificate, HostJoinToken } from '../db/tables.ts';
import {
  emptyTransition,
  hold,
  insert,
  type NewEvent,
  type Outcome,
  patch,
  type Transition,
  takeJoin,
} from '../db/transition.ts';
import type { Writer } from '../db/writer.ts';
import { VirtgraphError } from '../domain/errors.ts';
import { PAST_ALL_ISSUED } from '../domain/host-state.ts';
import { encodeId } from '../domain/ids.ts';
import { nameProblem } from '../domain/name.ts';
import type { HostAuthority } from './authority.ts';
import { type RequestedKey, readRequest } from './certificate-request.ts';
import { type Issued, toPem } from './certificates.ts';
import { type HostRefusals, hostAudit } from './refusals.ts';

/** A host that has shown a certificate that is accepted. */
export interface KnownHost {
  id: number;
  uid: Buffer;
  certificateId: number;
  /** Of its certificate. */
  version: number;
  certificateEnds: Date;
}

export interface Registered {
  hostId: string;
  /** PEM */
  certificate: string;
  /** PEM */
  authority: string;
}

export interface RegisterInput {
  name: string;
  joinToken: string;
  /** PEM */
  certificateRequest: string;
}

export interface IdentitiesOptions {
  db: Kysely<Database>;
  writer: Writer;
  ids: Ids;
  inventory: Inventory;
  authority: HostAuthority;
  refusals: HostRefusals;
}

type JoinToken = HostJoinToken & { isValid: number };

const TRIES = 4;

export const secretHash = (secret: string): Buffer => createHash('sha256').update(secret).digest();

/** Hosts that join, and what they are known by from then on. */
export class HostIdentities {
  readonly #o: IdentitiesOptions;

  constructor(options: IdentitiesOptions) {
    this.#o = options;
  }

  /**
   * Makes a host of whoever has a join token, or gives a host that is there a new certificate, if the token is for that.
   * Asked again with the same key and token, because the answer was lost, it gives the same answer.
   *
   * @param address of whoever asks
   * @throws VirtgraphError UNAUTHENTICATED for a token that is unknown, expired or used up; INVALID_INPUT or ALREADY_EXISTS
   *   for a name; INVALID_INPUT for a request
   */
  async register(input: RegisterInput, address: string | null): Promise<Registered> {
    const { refusals } = this.#o;
    const problem = nameProblem(input.name);
    if (problem)
      throw new VirtgraphError({ code: 'INVALID_INPUT', message: `The host's name: ${problem}`, path: ['name'] });
    const key = await readRequest(input.certificateRequest);
    const token = await this.#token(input.joinToken);
    if (!token) throw await refusals.join(null, 'is unknown', address);
    const before = await this.#joinedWith(token, key);
    if (before) return before;
    if (!token.isValid) throw await refusals.join(token, 'has expired', address);
    const outcome = await (token.host_id === null
      ? this.#join(token, key, input.name, address)
      : this.#joinAgain(token, key, address));
    if ('hostId' in outcome) return outcome;
    // It may have been this same host that was faster, by another connection.
    const meanwhile = await this.#joinedWith(token, key);
    if (meanwhile) return meanwhile;
    const { hosts_joined, hosts_max } = (await this.#token(input.joinToken)) ?? token;
    if (outcome.kind === 'full' || hosts_joined >= hosts_max)
      throw await refusals.join(token, 'is used up or has expired', address);
    if (outcome.kind === 'gone') throw await refusals.join(token, 'is for what is no more', address);
    if (outcome.kind === 'duplicate' && outcome.key === 'host_certificate_key') throw usedKey();
    if (outcome.kind === 'duplicate')
      throw new VirtgraphError({
        code: 'ALREADY_EXISTS',
        message: `The cluster has a host of the name ${input.name} already. A token of createHostJoinToken with its hostId lets it join again.`,
      });
    throw changing();
  }

  async #token(joinToken: string): Promise<JoinToken | undefined> {
    return this.#o.db
      .selectFrom('host_join_token')
      .selectAll()
      .select(sql<number>`expires_at > NOW(6)`.as('isValid'))
      .where('token_hash', '=', secretHash(joinToken))
      .executeTakeFirst();
  }

  /** A host that joined with this very key and never heard so. */
  async #joinedWith(token: HostJoinToken, key: RequestedKey): Promise<Registered | null> {
    const row = await this.#o.db
      .selectFrom('host_certificate as c')
      .innerJoin('host as h', 'h.id', 'c.host_id')
      .select(['h.uid', 'c.certificate'])
      .where('c.public_key_hash', '=', key.hash)
      .where('c.join_token_id', '=', token.id)
      .whereRef('c.version', '>=', 'h.certificate_floor')
      .where('h.deleted_at', 'is', null)
      .executeTakeFirst();
    return row ? this.#answer(row.uid, row.certificate) : null;
  }

  async #join(
    token: JoinToken,
    key: RequestedKey,
    name: string,
    address: string | null,
  ): Promise<Registered | Outcome> {
    const { writer, ids, inventory } = this.#o;
    if (!inventory.get('cluster', token.cluster_id)) await inventory.load();
    const cluster = inventory.get('cluster', token.cluster_id);
    if (!cluster) return { kind: 'gone' };
    const id = await ids.take();
    const uid = newUid();
    const issued = await this.#o.authority.issueToHost(key.publicKey, uid);
    const outcome = await writer.submit({
      ...emptyTransition(),
      writes: [
        hold('cluster', cluster.id),
        insert('host', {
          id,
          uid,
          zone_id: cluster.zone_id,
          pod_id: cluster.pod_id,
          cluster_id: cluster.id,
          name,
          capabilities: '[]',
        }),
        await this.#row({ hostId: id, version: 1, issued, key, tokenId: token.id }),
        takeJoin(token.id),
      ],
      changes: [{ kind: 'host', id }],
      events: [hostEvent(id, 'host.joined', serialChange(null, issued))],
      audits: [{ ...hostAudit('register', { kind: 'host', id }, { address }), changes: serialChange(null, issued) }],
    });
    return outcome.kind === 'written' ? this.#answer(uid, issued.certificate) : outcome;
  }

  /** A host that has lost its certificate, or whose certificate was revoked: what it had before is over. */
  async #joinAgain(token: JoinToken, key: RequestedKey, address: string | null): Promise<Registered | Outcome> {
    const { db, writer } = this.#o;
    for (let tries = 0; tries < TRIES; tries++) {
      const host = await db
        .selectFrom('host')
        .selectAll()
        .where('id', '=', token.host_id)
        .where('deleted_at', 'is', null)
        .executeTakeFirst();
      if (!host) return { kind: 'gone' };
      const version = host.certificate_floor + PAST_ALL_ISSUED;
      const issued = await this.#o.authority.issueToHost(key.publicKey, host.uid);
      const outcome = await writer.submit({
        ...emptyTransition(),
        writes: [
          patch(
            'host',
            host.id,
            { certificate_floor: host.certificate_floor, deleted_at: null },
            { certificate_floor: version, certificate_revoked_at: null },
          ),
          await this.#row({ hostId: host.id, version, issued, key, tokenId: token.id }),
          takeJoin(token.id),
        ],
        changes: [{ kind: 'host', id: host.id }],
        events: [hostEvent(host.id, 'host.joined_again', serialChange(null, issued))],
        audits: [
          { ...hostAudit('register', { kind: 'host', id: host.id }, { address }), changes: serialChange(null, issued) },
        ],
      });
      if (outcome.kind === 'written') return this.#answer(host.uid, issued.certificate);
      if (outcome.kind !== 'stale') return outcome;
    }
    return { kind: 'stale' };
  }

  /**
   * The host of a certificate that was checked to be of this authority. The first use of a newer one is the end of those
   * before it.
   *
   * @param fingerprint SHA-256 of the certificate
   * @throws VirtgraphError UNAUTHENTICATED
   */
  async authenticate(fingerprint: Buffer): Promise<KnownHost> {
    for (let tries = 0; tries < TRIES; tries++) {
      const found = await this.#o.db
        .selectFrom('host_certificate as c')
        .innerJoin('host as h', 'h.id', 'c.host_id')
        .select([
          'h.id',
          'h.uid',
          'h.certificate_floor',
          'h.deleted_at',
          'c.version',
          'c.serial',
          'c.id as certificateId',
        ])
        .select([
          sql<number>`c.not_after <= NOW(6)`.as('isOver'),
          sql<number>`UNIX_TIMESTAMP(c.not_after) * 1000`.as('ends'),
        ])
        .where('c.fingerprint', '=', fingerprint)
        .executeTakeFirst();
      if (!found || found.deleted_at !== null) throw unknownHost('Nobody has this certificate any more.');
      if (found.isOver) throw unknownHost('The certificate of this host has expired.');
      if (found.version < found.certificate_floor) throw notAccepted();
      const { id, uid, certificateId, version } = found;
      const known = { id, uid, certificateId, version, certificateEnds: new Date(+found.ends) };
      if (found.version === found.certificate_floor || (await this.#raise(found))) return known;
    }
    throw changing();
  }

  /** @throws VirtgraphError UNAUTHENTICATED */
  async mustBeAccepted({ id, version }: KnownHost): Promise<void> {
    const host = await this.#o.db
      .selectFrom('host')
      .select(['certificate_floor', 'deleted_at'])
      .where('id', '=', id)
      .executeTakeFirstOrThrow();
    if (host.deleted_at !== null || version < host.certificate_floor) throw notAccepted();
  }

  async #raise(host: Pick<Host, 'id' | 'certificate_floor'> & Pick<HostCertificate, 'version' | 'serial'>) {
    const { id, version, certificate_floor } = host;
    const outcome = await this.#o.writer.submit({
      ...emptyTransition(),
      writes: [patch('host', id, { certificate_floor, deleted_at: null }, { certificate_floor: version })],
      changes: [{ kind: 'host', id }],
      events: [hostEvent(id, 'host.certificate_renewed', serialChange(null, host))],
    });
    return outcome.kind === 'written';
  }

  /**
   * The certificate that is to follow the host's own, which stays good until this one is used. A host has one such at a
   * time: another key takes the place of one that was never used, and the same key gets the same again.
   *
   * @throws VirtgraphError INVALID_INPUT, UNAUTHENTICATED, CONFLICT
   */
  async renew(
    host: KnownHost,
    certificateRequest: string,
    address: string | null = null,
  ): Promise<Omit<Registered, 'hostId'>> {
    const key = await readRequest(certificateRequest);
    const version = host.version + 1;
    for (let tries = 0; tries < TRIES; tries++) {
      const { db } = this.#o;
      const next = await db
        .selectFrom('host_certificate')
        .selectAll()
        .where('host_id', '=', host.id)
        .where('version', '=', version)
        .executeTakeFirst();
      if (next?.public_key_hash.equals(key.hash)) return this.#answer(host.uid, next.certificate);
      const issued = await this.#o.authority.issueToHost(key.publicKey, host.uid);
      const outcome = await this.#o.writer.submit(
        await this.#following({ ...host, address }, version, issued, key, next),
      );
      if (outcome.kind === 'written') return this.#answer(host.uid, issued.certificate);
      if (outcome.kind === 'duplicate' && outcome.key === 'host_certificate_key') throw usedKey();
      const { certificate_floor } = await db
        .selectFrom('host')
        .select('certificate_floor')
        .where('id', '=', host.id)
        .executeTakeFirstOrThrow();
      if (certificate_floor !== host.version) throw notAccepted();
    }
    throw changing();
  }

  async #following(
    host: KnownHost & { address: string | null },
    version: number,
    issued: Issued,
    key: RequestedKey,
    next: HostCertificate | undefined,
  ): Promise<Transition> {
    const columns = columnsOf(issued, key);
    return {
      ...emptyTransition(),
      writes: [
        // Changes nothing: it must be the certificate in use that is followed, until the commit.
        patch(
          'host',
          host.id,
          { certificate_floor: host.version, deleted_at: null },
          { certificate_floor: host.version },
        ),
        next
          ? patch('host_certificate', next.id, { serial: next.serial }, columns)
          : await this.#row({ hostId: host.id, version, issued, key, tokenId: null }),
      ],
      audits: [
        {
          ...hostAudit('renewCertificate', { kind: 'host', id: host.id }, host),
          changes: serialChange(next ?? null, issued),
        },
      ],
    };
  }

  async #row(of: { hostId: number; version: number; issued: Issued; key: RequestedKey; tokenId: number | null }) {
    return insert('host_certificate', {
      id: await this.#o.ids.take(),
      host_id: of.hostId,
      version: of.version,
      join_token_id: of.tokenId,
      ...columnsOf(of.issued, of.key),
    });
  }

  #answer(uid: Buffer, certificate: Buffer): Registered {
    return {
      hostId: encodeId('host', uid),
      certificate: toPem(certificate),
      authority: this.#o.authority.certificate,
    };
  }
}

const sqlTime = (date: Date): string => date.toISOString().replace('T', ' ').replace('Z', '');

const columnsOf = ({ serial, fingerprint, certificate, notBefore, notAfter }: Issued, key: RequestedKey) => ({
  serial,
  fingerprint,
  public_key_hash: key.hash,
  certificate,
  not_before: sqlTime(notBefore),
  not_after: sqlTime(notAfter),
});

export const serialChange = (before: { serial: Buffer } | null, after: { serial: Buffer } | null) => [
  {
    field: 'certificate.serial',
    before: before?.serial.toString('hex') ?? null,
    after: after?.serial.toString('hex') ?? null,
  },
];

export const hostEvent = (id: number, type: string, changes: NewEvent['changes']): NewEvent => ({
  type,
  subject: { kind: 'host', id },
  jobId: null,
  actor: 'host',
  reason: null,
  changes,
});

const unknownHost = (message: string): VirtgraphError =>
  new VirtgraphError({
    code: 'UNAUTHENTICATED',
    message,
  });

export const notAccepted = (): VirtgraphError => unknownHost('The certificate of this host was revoked or replaced.');

const usedKey = (): VirtgraphError =>
  new VirtgraphError({
    code: 'INVALID_INPUT',
    message: 'There is a certificate for this key already: make a new key.',
    path: ['certificateRequest'],
  });

const changing = (): VirtgraphError =>
  new VirtgraphError({ code: 'CONFLICT', message: 'The host is changed at the same time. Try again.' });
