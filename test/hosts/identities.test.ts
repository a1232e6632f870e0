import assert from 'node:assert/strict';
import 'reflect-metadata';
import { createPrivateKey, createPublicKey, generateKeyPairSync, X509Certificate } from 'node:crypto';
import { after, before, describe, it } from 'node:test';
import { Pkcs10CertificateRequestGenerator } from '@peculiar/x509';
import { certificateRequest, newHostKey } from '../../hostd/host-key.ts';
import { parseJoinToken } from '../../hostd/join-token.ts';
import type { Core } from '../../src/core.ts';
import { decodeIdOf, encodeId } from '../../src/domain/ids.ts';
import type { KnownHost, Registered } from '../../src/hosts/identities.ts';
import { warnOfExpiry } from '../../src/loops/certificate-expiry.ts';
import { ADMIN, beforeNextWrite, openCore } from '../support/core.ts';
import { freshDatabase, type TestDatabase } from '../support/database.ts';
import { insertCluster, insertWorld, type Placed, type World } from '../support/world.ts';

const ADDRESS = '192.0.2.7';
const REFUSED = { code: 'UNAUTHENTICATED' };

const aRequest = async (): Promise<string> => certificateRequest(await newHostKey());
const fingerprintOf = ({ certificate }: { certificate: string }): Buffer =>
  Buffer.from(new X509Certificate(certificate).fingerprint256.replaceAll(':', ''), 'hex');

describe('what hosts are known by', () => {
  let database: TestDatabase;
  let world: World;
  let core: Core;
  before(async () => {
    database = await freshDatabase();
    world = await insertWorld(database.db);
    core = await openCore(database.url);
  });
  after(async () => {
    await core.close();
    await database.close();
  });

  /** What a host tells of a new token. */
  async function newToken(more: Record<string, unknown> = {}, cluster = world.cluster): Promise<string> {
    const payload = await core.ops.createHostJoinToken(ADMIN, { clusterId: encodeId('cluster', cluster.uid), ...more });
    assert.deepEqual(payload.errors, []);
    return parseJoinToken(payload.token!)!.secret;
  }
  const register = async (name: string, joinToken: string, request?: string, by = core): Promise<Registered> =>
    by.identities.register({ name, joinToken, certificateRequest: request ?? (await aRequest()) }, ADDRESS);
  const join = async (name: string): Promise<Registered> => register(name, await newToken());
  const known = (of: { certificate: string }): Promise<KnownHost> => core.identities.authenticate(fingerprintOf(of));
  const hostRow = (publicId: string) =>
    database.db
      .selectFrom('host')
      .selectAll()
      .where('uid', '=', decodeIdOf('host', publicId)!)
      .executeTakeFirstOrThrow();
  const hostsNamed = (name: string) =>
    database.db.selectFrom('host').select('id').where('name', 'like', name).execute();
  const refusalsOf = async (subject: Placed, kind: 'cluster' | 'host'): Promise<(string | null)[]> => {
    const rows = await database.db
      .selectFrom('event')
      .select('reason')
      .where('subject_kind', '=', kind)
      .where('subject_id', '=', subject.id)
      .where('type', 'in', ['cluster.join_refused', 'host.message_refused'])
      .orderBy('seq')
      .execute();
    return rows.map(({ reason }) => reason);
  };

  describe('when they join', () => {
    it('they get an id and a certificate for a token, once', async () => {
      const joinToken = await newToken();
      const joined = await register('once', joinToken);
      const row = await hostRow(joined.hostId);
      assert.deepEqual([row.name, row.link_state, row.cluster_id], ['once', 'CONNECTING', world.cluster.id]);
      const certificate = new X509Certificate(joined.certificate);
      assert.ok(certificate.verify(new X509Certificate(joined.authority).publicKey));
      assert.equal(certificate.subject, `CN=${joined.hostId}`);
      assert.equal(certificate.subjectAltName, `URI:virtgraph:${joined.hostId}`);
      assert.deepEqual(certificate.keyUsage, ['1.3.6.1.5.5.7.3.2'], 'for clients alone');
      assert.equal(certificate.ca, false);
      assert.equal((await known(joined)).id, row.id);
      await assert.rejects(register('twice', joinToken), REFUSED);
    });

    it('the same key and token get the same answer, for the first may have been lost', async () => {
      const [joinToken, request] = [await newToken(), await aRequest()];
      const unheard = await register('unheard', joinToken, request);
      assert.deepEqual(await register('unheard', joinToken, request), unheard);
      await database.db
        .updateTable('host_join_token')
        .set({ expires_at: new Date(Date.now() - 1_000) })
        .execute();
      assert.deepEqual(await register('unheard', joinToken, request), unheard, 'however late');
      await assert.rejects(register('unheard', joinToken), REFUSED, 'another key is another host');
    });

    it('of many who show the last place of a token at once, one gets it, and each other is told and kept', async () => {
      const cluster = await insertCluster(database.db, world);
      await core.inventory.load();
      const joinToken = await newToken({}, cluster);
      const other = await openCore(database.url);
      const results = await Promise.allSettled(
        Array.from({ length: 10 }, (_, n) => register(`racer-${n}`, joinToken, undefined, n % 2 ? other : core)),
      );
      await other.close();
      assert.equal(results.filter((r) => r.status === 'fulfilled').length, 1);
      for (const r of results) if (r.status === 'rejected') assert.equal(r.reason.code, 'UNAUTHENTICATED');
      assert.equal((await hostsNamed('racer-%')).length, 1);
      // Each control plane keeps what is alike once a minute.
      assert.deepEqual(
        await refusalsOf(cluster, 'cluster'),
        Array(2).fill(`The join token is used up or has expired; it was shown from ${ADDRESS}.`),
      );
    });

    it('of many who show one token under one name, one gets it, and the name is not blamed', async () => {
      const joinToken = await newToken();
      const results = await Promise.allSettled(Array.from({ length: 5 }, () => register('namesake', joinToken)));
      const codes = results.map((r) => (r.status === 'fulfilled' ? 'joined' : r.reason.code));
      assert.deepEqual(codes.sort(), [...Array(4).fill('UNAUTHENTICATED'), 'joined']);
    });

    it('a token that is unknown or expired is refused, and kept where it is known whose it is', async () => {
      await assert.rejects(register('x', 'vgj_guess'), REFUSED);
      const cluster = await insertCluster(database.db, world);
      await core.inventory.load();
      const joinToken = await newToken({ maxHosts: 5 }, cluster);
      await database.db
        .updateTable('host_join_token')
        .set({ expires_at: new Date(Date.now() - 1_000) })
        .execute();
      await assert.rejects(register('late', joinToken), REFUSED);
      assert.deepEqual(await hostsNamed('late'), []);
      const [kept, ...more] = await refusalsOf(cluster, 'cluster');
      assert.ok(kept?.startsWith(`The join token has expired; it was shown from ${ADDRESS}.`), String(kept));
      assert.deepEqual(more, []);
    });

    it('a name that is taken is refused, and leaves the token as it was', async () => {
      const joinToken = await newToken({ maxHosts: 2 });
      await register('taken', joinToken);
      await assert.rejects(register('taken', joinToken), { code: 'ALREADY_EXISTS' });
      await register('free', joinToken);
    });

    it('no host ends up in a cluster that is deleted at the same moment', async () => {
      for (let round = 0; round < 20; round++) {
        const cluster = await insertCluster(database.db, world);
        const joinToken = await newToken({}, cluster);
        const request = await aRequest();
        const [joined, deleted] = await Promise.allSettled([
          register('raced', joinToken, request),
          core.ops.deleteCluster(ADMIN, { id: encodeId('cluster', cluster.uid) }),
        ]);
        const row = await database.db
          .selectFrom('cluster')
          .select('deleted_at')
          .where('id', '=', cluster.id)
          .executeTakeFirstOrThrow();
        const inside = await database.db.selectFrom('host').select('id').where('cluster_id', '=', cluster.id).execute();
        assert.equal(inside.length, joined.status === 'fulfilled' ? 1 : 0);
        assert.ok(row.deleted_at === null || inside.length === 0, `round ${round}: a host in a deleted cluster`);
        assert.equal(deleted.status, 'fulfilled');
      }
    });
  });

  describe('requests for certificates', () => {
    const refuses = async (request: string, why: RegExp): Promise<void> => {
      const joinToken = await newToken();
      await assert.rejects(register('bad', joinToken, request), { code: 'INVALID_INPUT', message: why });
      await register(`good-${joinToken.slice(4, 12)}`, joinToken);
    };
    const withKey = (key: ReturnType<typeof createPrivateKey>) =>
      key.export({ type: 'pkcs8', format: 'pem' }).toString();

    for (const [what, text] of [
      ['garbage', 'garbage'],
      ['empty', ''],
      ['no request', '-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n'],
    ] as const)
      it(`that are ${what} are refused, and leave the token as it was`, () => refuses(text, /can not be read/));

    it('that are endless are refused before they are read', () => refuses('A'.repeat(10_000), /too long/));

    it('by a key on another curve are refused', async () => {
      const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-384' });
      await refuses(await requestWith(withKey(privateKey), 'P-384'), /not an ECDSA key on P-256/);
    });

    it('whose key its sender does not have are refused', async () => {
      const der = Buffer.from((await aRequest()).split('\n').slice(1, -1).join(''), 'base64');
      // The last byte is of the signature.
      der[der.length - 1]! ^= 1;
      const pem = `-----BEGIN CERTIFICATE REQUEST-----\n${der.toString('base64')}\n-----END CERTIFICATE REQUEST-----`;
      await refuses(pem, /not signed by its own key|can not be checked/);
    });

    it('by a key that another certificate has are refused', async () => {
      const request = await aRequest();
      await register('first-of-the-key', await newToken(), request);
      await assert.rejects(register('second-of-the-key', await newToken(), request), {
        code: 'INVALID_INPUT',
        message: /make a new key/,
      });
    });
  });

  describe('when they renew', () => {
    it('the old certificate holds until the new one is used, and not after', async () => {
      const old = await join('renewing');
      const host = await known(old);
      const fresh = await core.identities.renew(host, await aRequest());
      assert.equal((await known(old)).version, 1);
      assert.deepEqual([(await known(fresh)).id, (await known(fresh)).version], [host.id, 2]);
      await assert.rejects(known(old), REFUSED);
      await assert.rejects(core.identities.renew(host, await aRequest()), REFUSED, 'by an old connection');
    });

    it('the same key gets the same answer; another takes the place of one that was never used', async () => {
      const host = await known(await join('asking-again'));
      const request = await aRequest();
      const first = await core.identities.renew(host, request);
      assert.deepEqual(await core.identities.renew(host, request), first);
      const second = await core.identities.renew(host, await aRequest());
      await assert.rejects(known(first), REFUSED);
      assert.equal((await known(second)).version, 2);
    });

    it('many at once leave one that follows', async () => {
      const host = await known(await join('at-once'));
      const answers = await Promise.allSettled(
        Array.from({ length: 6 }, async () => core.identities.renew(host, await aRequest())),
      );
      for (const one of answers) if (one.status === 'rejected') assert.equal(one.reason.code, 'CONFLICT');
      const rows = await database.db
        .selectFrom('host_certificate')
        .select('version')
        .where('host_id', '=', host.id)
        .orderBy('version')
        .execute();
      assert.deepEqual(
        rows.map(({ version }) => version),
        [1, 2],
      );
    });
  });

  describe('when they are revoked', () => {
    const revoke = (hostId: string) => core.ops.revokeHostCertificate(ADMIN, { id: hostId, reason: 'stolen' });

    it('what was issued before holds no more, nor what was about to follow', async () => {
      const joined = await join('revoked');
      const host = await known(joined);
      const next = await core.identities.renew(host, await aRequest());
      assert.deepEqual((await revoke(joined.hostId)).errors, []);
      for (const certificate of [joined, next]) await assert.rejects(known(certificate), REFUSED);
      await assert.rejects(core.identities.renew(host, await aRequest()), REFUSED);
      await assert.rejects(core.identities.mustBeAccepted(host), REFUSED);
      assert.deepEqual((await revoke(joined.hostId)).errors, [], 'again is no error');
    });

    it('what is renewed at the same moment is revoked too', async () => {
      const joined = await join('renewing-late');
      const host = await known(joined);
      beforeNextWrite(core, () => revoke(joined.hostId));
      await assert.rejects(core.identities.renew(host, await aRequest()), REFUSED);
      const rows = await database.db
        .selectFrom('host_certificate')
        .select('id')
        .where('host_id', '=', host.id)
        .execute();
      assert.equal(rows.length, 1);
    });

    it('what is used for the first time at the same moment is revoked too', async () => {
      const joined = await join('used-late');
      const next = await core.identities.renew(await known(joined), await aRequest());
      beforeNextWrite(core, () => revoke(joined.hostId));
      await assert.rejects(known(next), REFUSED);
    });

    it('the token that they joined with does not bring back what was revoked', async () => {
      const [joinToken, request] = [await newToken({ maxHosts: 2 }), await aRequest()];
      const joined = await register('replaying', joinToken, request);
      await revoke(joined.hostId);
      await assert.rejects(register('replaying', joinToken, request), (error: { code: string }) =>
        ['INVALID_INPUT', 'ALREADY_EXISTS'].includes(error.code),
      );
    });

    it('they join again, as the same host, with a token that is made for them', async () => {
      const joined = await join('returning');
      await revoke(joined.hostId);
      const joinToken = await newToken({ clusterId: null, hostId: joined.hostId });
      const request = await aRequest();
      const again = await register('another name', joinToken, request);
      assert.equal(again.hostId, joined.hostId);
      assert.deepEqual(await register('another name', joinToken, request), again);
      assert.equal((await known(again)).id, (await hostRow(joined.hostId)).id);
      await assert.rejects(known(joined), REFUSED);
      await assert.rejects(register('returning', joinToken), REFUSED, 'once');
      const row = await hostRow(joined.hostId);
      assert.deepEqual([row.name, row.certificate_revoked_at], ['returning', null]);
    });

    it('a host that only lost its key joins again likewise, and its old certificate is over', async () => {
      const joined = await join('forgetful');
      const again = await register('forgetful', await newToken({ clusterId: null, hostId: joined.hostId }));
      await assert.rejects(known(joined), REFUSED);
      assert.equal((await known(again)).version, 3);
    });
  });

  it('a host that is deleted is nobody', async () => {
    const joined = await join('deleted');
    assert.deepEqual((await core.ops.deleteHost(ADMIN, { id: joined.hostId })).errors, []);
    await assert.rejects(known(joined), REFUSED);
  });

  it('a certificate that is over is refused whatever the clock of its reader says', async () => {
    const joined = await join('over');
    await database.db
      .updateTable('host_certificate')
      .set({ not_after: new Date(Date.now() - 1_000) })
      .where('fingerprint', '=', fingerprintOf(joined))
      .execute();
    await assert.rejects(known(joined), { ...REFUSED, message: /has expired/ });
  });

  it('a certificate that nobody renews in time is told of, once', async () => {
    const joined = await join('sleeping');
    const { id } = await known(joined);
    await warnOfExpiry(database.db, core.writer);
    await database.db
      .updateTable('host_certificate')
      .set({
        not_after: new Date(Date.now() + 3 * 24 * 3_600_000),
        not_before: new Date(Date.now() - 87 * 24 * 3_600_000),
      })
      .where('host_id', '=', id)
      .execute();
    assert.equal(await warnOfExpiry(database.db, core.writer), 1);
    assert.equal(await warnOfExpiry(database.db, core.writer), 0);
    const told = await database.db
      .selectFrom('event')
      .select(['actor', 'reason'])
      .where('type', '=', 'host.certificate_ends')
      .where('subject_id', '=', id)
      .execute();
    assert.deepEqual(
      told.map(({ actor }) => actor),
      ['system'],
    );
    assert.match(told[0]!.reason!, /^Its certificate ends at .* and was not renewed/);
  });

  it('two control planes that start on an empty database have one authority', async () => {
    const empty = await freshDatabase();
    const cores = await Promise.all(Array.from({ length: 4 }, () => openCore(empty.url)));
    const authorities = new Set(cores.map(({ authority }) => authority.certificate));
    assert.equal(authorities.size, 1);
    const again = await openCore(empty.url);
    assert.ok(authorities.has(again.authority.certificate), 'and keep it');
    for (const one of [...cores, again]) await one.close();
    await empty.close();
  });

  it('a token tells whom it may be told: the fingerprint of the authority', async () => {
    const payload = await core.ops.createHostJoinToken(ADMIN, { clusterId: encodeId('cluster', world.cluster.uid) });
    const told = new X509Certificate(core.authority.certificate).fingerprint256.replaceAll(':', '');
    assert.equal(parseJoinToken(payload.token!)!.fingerprint.toString('hex').toUpperCase(), told);
  });
});

async function requestWith(key: string, namedCurve: string): Promise<string> {
  const algorithm = { name: 'ECDSA', namedCurve, hash: 'SHA-256' };
  const privateKey = createPrivateKey(key);
  const request = await Pkcs10CertificateRequestGenerator.create({
    keys: {
      privateKey: privateKey.toCryptoKey(algorithm, false, ['sign']) as CryptoKey,
      publicKey: createPublicKey(privateKey).toCryptoKey(algorithm, true, ['verify']) as CryptoKey,
    },
    signingAlgorithm: algorithm,
  });
  return request.toString('pem');
}
