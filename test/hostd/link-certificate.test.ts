import assert from 'node:assert/strict';
import 'reflect-metadata';
import { once } from 'node:events';
import { mkdirSync, rmdirSync } from 'node:fs';
import { readFile, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { Pkcs10CertificateRequest } from '@peculiar/x509';
import { GraphQLError } from 'graphql';
import { type Hostd, type HostdOptions, startHostd } from '../../hostd/daemon.ts';
import { CertificateRefused, JoinTokenRefused, WrongControlPlane } from '../../hostd/given-up.ts';
import { recordingLog } from '../support/core.ts';
import { aStart } from './commands.ts';
import { temporaryFolder } from './temporary-folder.ts';
import { JOIN_SECRET, TestControlPlane } from './test-control-plane.ts';

const TIMING = { backoff: { minMs: 1, maxMs: 20 } };

async function aPlane(t: TestContext): Promise<TestControlPlane> {
  const plane = await TestControlPlane.start();
  t.after(() => plane.stop());
  return plane;
}

async function aHostd(t: TestContext, plane: TestControlPlane, options: Partial<HostdOptions> = {}): Promise<Hostd> {
  const hostd = await startHostd({
    urls: [plane.url],
    name: 'alpha',
    joinToken: plane.joinToken,
    hypervisor: 'fake',
    timing: TIMING,
    ...options,
  });
  t.after(() => hostd.close());
  return hostd;
}

/**
 * Joins and ends: whoever is started in the folder after it renews at once, with time enough to be cut off and come back.
 * A pause between tries is a twentieth of the whole.
 */
async function joinLongAgo(t: TestContext, plane: TestControlPlane, dataPath: string): Promise<void> {
  plane.certificateMs = 30_000;
  plane.certificateAgeMs = 22_000;
  const joined = await aHostd(t, plane, { dataPath });
  await joined.linked();
  await joined.close();
  plane.certificateAgeMs = 0;
}

/** Another token of the same control plane. */
const anotherToken = (plane: TestControlPlane): string =>
  plane.joinToken.replace(JOIN_SECRET, 'vgj_another-secret-of-the-tests');

test('A host tells its join token to nobody but the control plane that made it', async (t) => {
  const [meant, other] = [await aPlane(t), await aPlane(t)];
  const hostd = await aHostd(t, other, { joinToken: meant.joinToken });
  await assert.rejects(hostd.linked(), (error: Error) => {
    assert.ok(error instanceof WrongControlPlane);
    assert.match(error.message, /is not the control plane that made the join token/);
    return true;
  });
  assert.deepEqual(other.said, []);
});

test('A host that has joined speaks with no control plane of another authority', async (t) => {
  const [mine, other] = [await aPlane(t), await aPlane(t)];
  const dataPath = await temporaryFolder();
  const first = await aHostd(t, mine, { dataPath });
  await first.linked();
  await first.close();

  const { log, lines } = recordingLog();
  const second = await aHostd(t, mine, { dataPath, urls: [other.url, mine.url], log });
  await second.linked();
  assert.deepEqual(other.said, []);
  assert.ok(lines.some(({ reason }) => /not a control plane that this host has joined/.test(String(reason))));
});

test('A port that speaks no TLS is told from one that does not answer', async (t) => {
  const plain = createServer().listen(0, '127.0.0.1');
  await once(plain, 'listening');
  t.after(() => plain.close());
  const plane = await aPlane(t);
  const { log, lines } = recordingLog();
  const url = `https://127.0.0.1:${(plain.address() as AddressInfo).port}`;
  const hostd = await aHostd(t, plane, { urls: [url, plane.url], log });
  await hostd.linked();
  assert.ok(lines.some(({ reason }) => /speaks no TLS: hosts have a port of their own/.test(String(reason))));
});

test('A join whose answer is lost is asked for again with the same key, also by the next daemon', async (t) => {
  const plane = await aPlane(t);
  const dataPath = await temporaryFolder();
  const { register } = plane.answers;
  const heard = Promise.withResolvers<void>();
  plane.answers.register = () => {
    heard.resolve();
    return new Promise(() => undefined);
  };
  const first = await aHostd(t, plane, { dataPath });
  const refused = assert.rejects(first.linked());
  await heard.promise;
  await first.kill();
  await refused;
  plane.answers.register = register;
  const second = await aHostd(t, plane, { dataPath });
  await second.linked();
  const [before, after] = plane.all('register').map(({ input }) => keyOf(input.certificateRequest));
  assert.equal(before, after);
});

/** The public key of a request. */
const keyOf = (request: string): string =>
  Buffer.from(new Pkcs10CertificateRequest(request).publicKey.rawData).toString('hex');

test('A certificate is renewed on the link by a new key, and the next session begins with it; VMs run on', async (t) => {
  const plane = await aPlane(t);
  plane.certificateMs = 3_000;
  plane.heartbeatMs = 20;
  const dataPath = await temporaryFolder();
  const hostd = await aHostd(t, plane, { dataPath });
  await hostd.linked();
  plane.command(aStart('job-1.1', 'vm-1', 3));
  await plane.answer('job-1.1');
  await plane.hears('renewCertificate', 2);
  const third = await plane.hears('openSession', 3);
  assert.deepEqual(
    third.input.vms.map(({ vmId, state }) => [vmId, state]),
    [['vm-1', 'RUNNING']],
  );
  const shown = plane.all('openSession').map((one) => one.shown);
  assert.equal(new Set(shown).size, shown.length, 'each session by a certificate of its own');
  assert.deepEqual(
    plane
      .all('renewCertificate')
      .map((one) => one.shown)
      .slice(0, 2),
    shown.slice(0, 2),
    'each renewed by the one before',
  );
  const requests = plane.all('renewCertificate').map(({ certificateRequest }) => keyOf(certificateRequest));
  assert.equal(new Set(requests).size, requests.length, 'each by a new key');
  assert.equal(plane.all('register').length, 1);
});

test('A renewal that is refused is tried again with the same key, and the link stays', async (t) => {
  const plane = await aPlane(t);
  plane.certificateMs = 3_000;
  const { renewCertificate } = plane.answers;
  plane.answers.renewCertificate = (host, request) => {
    if (plane.all('renewCertificate').length < 3) throw new GraphQLError('not now');
    return renewCertificate(host, request);
  };
  const hostd = await aHostd(t, plane);
  await hostd.linked();
  await plane.hears('openSession', 2);
  const asked = plane.all('renewCertificate').map(({ certificateRequest }) => keyOf(certificateRequest));
  assert.deepEqual(asked.slice(0, 3), Array(3).fill(asked[0]));
  assert.equal(
    new Set(
      plane
        .all('renewCertificate')
        .slice(0, 3)
        .map(({ shown }) => shown),
    ).size,
    1,
  );
});

test('A crash before the answer of a renewal leaves the certificate that holds, and the key that was asked for', async (t) => {
  const plane = await aPlane(t);
  const dataPath = await temporaryFolder();
  await joinLongAgo(t, plane, dataPath);
  const { renewCertificate } = plane.answers;
  plane.answers.renewCertificate = () => new Promise(() => undefined);
  const first = await aHostd(t, plane, { dataPath });
  await first.linked();
  const asked = await plane.hears('renewCertificate');
  await first.kill();
  plane.answers.renewCertificate = renewCertificate;

  const second = await aHostd(t, plane, { dataPath, joinToken: undefined });
  await second.linked();
  const again = await plane.hears('renewCertificate', 2);
  assert.equal(keyOf(again.certificateRequest), keyOf(asked.certificateRequest));
  assert.equal(again.shown, asked.shown);
  await plane.hears('openSession', 4);
});

test('A certificate that can not be kept is not used, whatever becomes of the link, and is asked for again by its key', async (t) => {
  const plane = await aPlane(t);
  const dataPath = await temporaryFolder();
  await joinLongAgo(t, plane, dataPath);
  const inTheWay = join(dataPath, 'identity.json.new');
  const { renewCertificate } = plane.answers;
  plane.answers.renewCertificate = (host, request) => {
    const times = plane.all('renewCertificate').length;
    if (times === 1) mkdirSync(inTheWay);
    if (times === 2) plane.cut();
    if (times === 3) rmdirSync(inTheWay);
    return renewCertificate(host, request);
  };
  const hostd = await aHostd(t, plane, { dataPath });
  await hostd.linked();
  await plane.hears('openSession', 4);
  const asked = plane.all('renewCertificate').slice(0, 3);
  const keys = asked.map(({ certificateRequest }) => keyOf(certificateRequest));
  assert.deepEqual(keys, Array(3).fill(keys[0]));
  const [first, again, renewed] = plane
    .all('openSession')
    .slice(1)
    .map(({ shown }) => shown);
  assert.equal(again, first, 'what was not kept is not shown');
  assert.notEqual(renewed, first);
});

test('A host whose certificate is refused gives up, and says what to do', async (t) => {
  const plane = await aPlane(t);
  const dataPath = await temporaryFolder();
  const hostd = await aHostd(t, plane, { dataPath });
  await hostd.linked();
  plane.answers.authenticate = (host) => host === null;
  plane.cut();
  const why = await hostd.givenUp();
  assert.ok(why instanceof CertificateRefused);
  assert.match(why.message, /createHostJoinToken with its hostId \(host_alpha\)/);
  await assert.rejects(hostd.linked(), CertificateRefused);
  assert.equal(plane.all('register').length, 1, 'the token that it joined with is not shown again');
  await hostd.close();

  // With a token that is made for it, it joins again by itself, with another key.
  let refused = 0;
  plane.answers.authenticate = (host) => host === null || plane.all('register').length > 1 || refused++ > 0;
  const again = await aHostd(t, plane, { dataPath, joinToken: anotherToken(plane) });
  await again.linked();
  const [before, after] = plane.all('register').map(({ input }) => keyOf(input.certificateRequest));
  assert.equal(plane.all('register').length, 2);
  assert.notEqual(before, after);
  assert.equal(refused, 1);
});

test('A host whose certificate and join token are both refused gives up', async (t) => {
  const plane = await aPlane(t);
  const dataPath = await temporaryFolder();
  const first = await aHostd(t, plane, { dataPath });
  await first.linked();
  await first.close();
  plane.answers.authenticate = (host) => host === null;
  plane.answers.register = () => {
    throw new GraphQLError('used up', { extensions: { code: 'UNAUTHENTICATED' } });
  };
  const second = await aHostd(t, plane, { dataPath, joinToken: anotherToken(plane) });
  await assert.rejects(second.linked(), JoinTokenRefused);
});

test('What the control plane says is not ours to say is not said again', async (t) => {
  const plane = await aPlane(t);
  const hostd = await aHostd(t, plane);
  await hostd.linked();
  plane.answers.reportCommands = (reports) => {
    if (reports.some(({ commandId }) => commandId === 'foreign'))
      throw new GraphQLError('not yours', { extensions: { code: 'FORBIDDEN' } });
    return true;
  };
  plane.command(aStart('foreign', 'vm-1'), aStart('mine', 'vm-2'));
  const told = () => plane.all('reportCommands').map(({ reports }) => reports.map(({ commandId }) => commandId));
  await plane.until(() => told().some((ids) => ids.join() === 'foreign'));
  plane.command(aStart('last', 'vm-3'));
  await plane.answer('last');
  const from = told().findIndex((ids) => ids.join() === 'foreign') + 1;
  assert.ok(!told().slice(from).flat().includes('foreign'), JSON.stringify(told()));
});

test('A file of a version before certificates is that of a host that has to join', async (t) => {
  const plane = await aPlane(t);
  const dataPath = await temporaryFolder();
  const path = join(dataPath, 'identity.json');
  await writeFile(path, JSON.stringify({ hosts: [{ hostId: 'host_old', credential: 'secret' }] }));
  await assert.rejects(startHostd({ urls: [plane.url], name: 'a', hypervisor: 'fake', dataPath }), /join token/);
  const hostd = await aHostd(t, plane, { dataPath });
  await hostd.linked();
  assert.ok(!(await readFile(path, 'utf8')).includes('secret"'));
});
