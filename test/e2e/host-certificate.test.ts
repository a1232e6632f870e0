import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import pino from 'pino';
import { type ConnectionLost, connect } from '../../hostd/connection.ts';
import type { Identity } from '../../hostd/identity.ts';
import type { ControlApi } from '../../setup/graphql.ts';
import { type Control, startControl } from '../../src/control.ts';
import { HostAuthority } from '../../src/hosts/authority.ts';
import { auditCounters } from '../../src/loops/audit.ts';
import { until } from '../support/core.ts';
import { type Estate, endOf, makeEstate, Product, registerTinyLinux } from '../support/product.ts';

interface Created {
  vm: { id: string };
  job: { id: string };
}

interface Stage {
  product: Product;
  control: Control;
  api: ControlApi;
  estate: Estate;
  hostsUrl: string;
}

/** A control plane in this process, so that a test can stand in its way, for a host daemon that is one of its own. */
async function aStage(t: TestContext, hostCertificateMs?: number): Promise<Stage> {
  const product = await Product.open();
  t.after(() => product.close());
  const control = await startControl({
    databaseUrl: product.database.url,
    host: '127.0.0.1',
    port: 0,
    adminTokenPath: join(product.folder, 'admin-token'),
    log: pino({ level: 'silent' }),
    ...(hostCertificateMs === undefined ? {} : { hostCertificateMs }),
  });
  t.after(() => control.close());
  const api = await product.api(control.http.url);
  const estate = await makeEstate(api, '/srv/primary');
  return { product, control, api, estate, hostsUrl: control.http.secure!.url };
}

const FAKE = ['--hypervisor', 'fake'];

async function identityOf({ product }: Stage): Promise<Identity | null> {
  const text = await readFile(join(product.folder, 'hostd', 'identity.json'), 'utf8');
  return (JSON.parse(text) as { hosts: { identity: Identity | null }[] }).hosts[0]!.identity;
}

/** Whether the control plane speaks with whoever shows it; 4403: it does not. */
async function shown({ hostsUrl }: Stage, identity: Identity): Promise<number | null> {
  const url = `${hostsUrl.replace('https', 'wss')}/hostd`;
  const options = { keepAliveMs: 10_000, requestTimeoutMs: 10_000, signal: new AbortController().signal };
  return connect({ url, authority: identity.authority, own: identity, ...options }).then(
    (connection) => {
      connection.close();
      return null;
    },
    (lost: ConnectionLost) => lost.closeCode,
  );
}

/** Resolves when a host has begun so many sessions from now on. */
function sessions({ control }: Stage, count: number): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  const { sessions } = control.core;
  let begun = 0;
  const open = sessions.open.bind(sessions);
  sessions.open = async (...args) => {
    const session = await open(...args);
    begun++;
    if (begun === count) resolve();
    return session;
  };
  return promise;
}

test('a certificate is renewed while a VM runs and a job is under way: nothing is lost, and the old one is of no use', async (t) => {
  const stage = await aStage(t, 6_000);
  const { product, api, estate, control } = stage;
  const again = sessions(stage, 2);
  // Longer than what is left of the certificate.
  const faults = JSON.stringify({ startVm: [{ delayMs: 0, failTimes: 1 }, { delayMs: 6_000 }] });
  await product.hostd([stage.hostsUrl], estate.joinToken, [...FAKE, '--fake', faults]);
  const old = await identityOf(stage);
  const { zoneId, offeringId } = estate;
  const templateId = await registerTinyLinux(api, zoneId);
  const create = (name: string) =>
    api.mutate<Created>('createVm', { name, zoneId, offeringId, templateId }, 'vm { id } job { id }');
  const runs = await create('runs');
  assert.equal((await endOf(api, runs.job.id)).state, 'SUCCEEDED');
  const begun = await create('begun');

  await again;
  const query = '{ jobs(filter: { state: RUNNING }) { nodes { id } } }';
  const { jobs } = await api.request<{ jobs: { nodes: { id: string }[] } }>(query);
  assert.deepEqual(
    jobs.nodes.map(({ id }) => id),
    [begun.job.id],
    'the job was under way',
  );
  assert.equal(await shown(stage, old!), 4403);
  const renewed = await identityOf(stage);
  assert.equal(renewed!.hostId, old!.hostId);
  assert.notEqual(renewed!.key, old!.key);

  assert.equal((await endOf(api, begun.job.id)).state, 'SUCCEEDED');
  const { db } = control.core;
  const vms = await db.selectFrom('vm').select(['state', 'observed_state', 'epoch', 'observed_epoch']).execute();
  assert.deepEqual(
    vms.map((vm) => [vm.state, vm.observed_state, vm.observed_epoch === vm.epoch]),
    Array(2).fill(['RUNNING', 'RUNNING', true]),
  );
  const starts = await db.selectFrom('job_step').select('state').where('command', '=', 'StartVmCommand').execute();
  assert.deepEqual(starts, Array(2).fill({ state: 'DONE' }), 'each was started once');
  assert.deepEqual(await auditCounters(db), []);
});

/** From now on a host daemon is killed in the middle of it. @returns resolves when it was */
function killing({ product, control }: Stage, what: 'register' | 'renew', when: 'before' | 'after'): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  const { identities } = control.core as unknown as { identities: Record<string, (...args: unknown[]) => unknown> };
  const real = identities[what]!;
  identities[what] = async (...args) => {
    if (when === 'after') await real.apply(identities, args);
    identities[what] = real;
    await product.newest.end('SIGKILL');
    resolve();
    return new Promise(() => undefined);
  };
  return promise;
}

for (const when of ['before', 'after'] as const) {
  test(`a host daemon that is killed as it joins, ${when} it is written, is back as one valid host`, async (t) => {
    const stage = await aStage(t);
    const { product, control, estate, hostsUrl } = stage;
    const killed = killing(stage, 'register', when);
    await assert.rejects(product.hostd([hostsUrl], estate.joinToken, FAKE), /ended before it was ready/);
    await killed;
    assert.equal(await identityOf(stage), null);

    await product.hostd([hostsUrl], estate.joinToken, FAKE);
    const hosts = await control.core.db.selectFrom('host').select(['link_state', 'certificate_floor']).execute();
    assert.deepEqual(hosts, [{ link_state: 'UP', certificate_floor: 1 }]);
  });

  test(`a host daemon that is killed as it renews, ${when} it is written, is back with a valid certificate, and renews`, async (t) => {
    const stage = await aStage(t);
    const { product, control, estate, hostsUrl } = stage;
    const { authority, db } = control.core;
    const issue = authority.issueToHost;
    // Most of its time is over: whoever has it renews as soon as it is started.
    const past = new HostAuthority({ ...control.core, now: () => Date.now() - 80 * 24 * 3_600_000 });
    await past.open();
    authority.issueToHost = (...args) => past.issueToHost(...args);
    await (await product.hostd([hostsUrl], estate.joinToken, FAKE)).end();
    const old = await identityOf(stage);
    authority.issueToHost = issue;

    const killed = killing(stage, 'renew', when);
    // It may be killed before it could say that it is ready, or soon after.
    await Promise.allSettled([killed, product.hostd([hostsUrl], estate.joinToken, FAKE)]);
    assert.deepEqual(await identityOf(stage), old);

    const again = sessions(stage, 2);
    await product.hostd([hostsUrl], estate.joinToken, FAKE);
    await again;
    const fresh = await identityOf(stage);
    assert.notEqual(fresh!.certificate, old!.certificate);
    assert.equal(await shown(stage, old!), 4403);
    const host = await until(control.core, 'the host, by its new certificate', () =>
      db
        .selectFrom('host')
        .select(['certificate_floor'])
        .where('link_state', '=', 'UP')
        .executeTakeFirst()
        .then((row) => row ?? null),
    );
    assert.deepEqual(host, { certificate_floor: 2 });
  });
}
