import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { readdir, readFile, stat, writeFile } from 'node:fs/promises';
import { join, relative } from 'node:path';
import { createInterface } from 'node:readline';
import { after, before, describe, it } from 'node:test';
import { createClient } from 'graphql-ws';
import { sql } from 'kysely';
import { WebSocket } from 'ws';
import { certificateRequest, newHostKey } from '../../hostd/host-key.ts';
import type { ControlApi } from '../../setup/graphql.ts';
import { endOf, makeEstate, Product, registerTinyLinux } from '../support/product.ts';
import { type Canaries, signInWithCanaries } from '../support/sign-in-canaries.ts';

const ROOT = join(import.meta.dirname, '../..');
const needsDatabase = { skip: process.env['DATABASE_URL'] ? false : 'needs a database: npm test brings one' };

/** A program of the product and all that it ever wrote to its standard streams. */
interface Overheard {
  child: ChildProcess;
  output: () => string;
  ended: Promise<unknown>;
}

function overhear(file: string, args: string[], environment: Record<string, string>): Overheard {
  const child = spawn(process.execPath, [join(ROOT, file), ...args], {
    env: { PATH: process.env['PATH'], LOG_LEVEL: 'trace', ...environment },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let output = '';
  for (const stream of [child.stdout!, child.stderr!])
    stream.setEncoding('utf8').on('data', (text) => (output += text));
  return { child, output: () => output, ended: once(child, 'close') };
}

async function ready({ child, output, ended }: Overheard): Promise<Record<string, unknown>> {
  const line = await Promise.race([once(createInterface({ input: child.stdout! }), 'line'), ended.then(() => null)]);
  if (line === null) throw new Error(`ended before it was ready:\n${output()}`);
  return JSON.parse(String(line[0])) as Record<string, unknown>;
}

/** Tells what it has to tell to anybody. */
class Unwary extends WebSocket {
  constructor(url: string, protocol: string) {
    super(url, protocol, { rejectUnauthorized: false });
  }
}

describe('secrets', { ...needsDatabase, timeout: 120_000 }, () => {
  let product: Product;
  let control: Overheard;
  let hostd: Overheard;
  let url: string;
  let hostsUrl: string;
  let api: ControlApi;
  /** By what they are. */
  const secrets: Record<string, string> = {};
  const refusals: string[] = [];
  let vmId: string;
  let canaries: Canaries;

  const found = (text: string): string[] =>
    Object.entries(secrets).flatMap(([name, secret]) => (text.includes(secret) ? [name] : []));

  before(async () => {
    product = await Product.open();
    const environment = {
      DATABASE_URL: product.database.url,
      VIRTGRAPH_DATA: product.folder,
      VIRTGRAPH_EGRESS_ALLOW: '127.0.0.1',
    };
    control = overhear('src/main.ts', ['--port', '0'], environment);
    const addresses = await ready(control);
    url = String(addresses['url']);
    hostsUrl = String(addresses['hostsUrl']);
    secrets['admin token'] = (await readFile(join(product.folder, 'admin-token'), 'utf8')).trim();
    api = await product.api(url);

    const estate = await makeEstate(api, '/srv/primary');
    // What stands behind the dot says whom the rest may be told.
    secrets['join token'] = estate.joinToken.split('.')[0]!;
    const tokenFile = join(product.folder, 'join-token');
    await writeFile(tokenFile, estate.joinToken, { mode: 0o600 });
    const to = ['--url', hostsUrl, '--token-file', tokenFile, '--data', join(product.folder, 'hostd')];
    hostd = overhear('hostd/main.ts', [...to, '--hypervisor', 'fake', '--name', 'canary-host'], {});
    await ready(hostd);
    const identity = await readFile(join(product.folder, 'hostd', 'identity.json'), 'utf8');
    const { hosts } = JSON.parse(identity) as { hosts: { identity: { key: string } }[] };
    // The first line between the words that begin and end it.
    secrets['host key'] = hosts[0]!.identity.key.split('\n')[1]!;

    secrets['API key'] = await apiKey();
    canaries = await signInWithCanaries(url, api);
    Object.assign(secrets, canaries.secrets);
    await live(estate.zoneId, estate.offeringId);
    await beRefused(estate.zoneId);
  });

  after(async () => {
    for (const program of [hostd, control]) {
      program?.child.kill('SIGTERM');
      await program?.ended;
    }
    await product?.close();
  });

  /** Of a user who may do everything, so that it is used like the admin's token. */
  async function apiKey(): Promise<string> {
    const { accounts, roles } = await api.request<Record<'accounts' | 'roles', { nodes: { id: string }[] }>>(
      '{ accounts { nodes { id } } roles(filter: { name: "root admin" }) { nodes { id } } }',
    );
    const input = { accountId: accounts.nodes[0]!.id, roleId: roles.nodes[0]!.id, name: 'canary' };
    const { user } = await api.mutate<{ user: { id: string } }>('createUser', input, 'user { id }');
    const made = { userId: user.id, name: 'canary', idempotencyKey: 'canary' };
    return (await api.mutate<{ token: string }>('createApiKey', made, 'token')).token;
  }

  /** A small life of a VM, with all that is logged of it. */
  async function live(zoneId: string, offeringId: string): Promise<void> {
    const templateId = await registerTinyLinux(api, zoneId);
    const { vm, job } = await api.mutate<{ vm: { id: string }; job: { id: string } }>(
      'createVm',
      { name: 'canary', zoneId, offeringId, templateId },
      'vm { id } job { id }',
    );
    vmId = vm.id;
    assert.equal((await endOf(api, job.id)).state, 'SUCCEEDED');
    for (const name of ['pauseVm', 'resumeVm', 'destroyVm', 'expungeVm']) {
      const { job } = await api.mutate<{ job: { id: string } }>(name, { id: vmId }, 'job { id }');
      assert.equal((await endOf(api, job.id)).state, 'SUCCEEDED', name);
    }
  }

  /** Every secret shown where it does not belong, and what was answered. */
  async function beRefused(zoneId: string): Promise<void> {
    const join = secrets['join token']!;
    for (const secret of [join, secrets['host key']!, `${secrets['admin token']!}x`]) {
      refusals.push(await post('{ zones { nodes { id } } }', {}, secret));
      refusals.push(await overWebSocket('/graphql', { authorization: `Bearer ${secret}` }, '{ viewer { name } }'));
    }
    assert.match(await post('{ viewer { name } }', {}, secrets['API key']), /canary/);
    refusals.push(await post('{', {}));
    refusals.push(await post('{ nothing }', {}));
    const pod = 'mutation ($input: CreatePodInput!) { createPod(input: $input) { errors { code message path } } }';
    for (const secret of Object.values(secrets))
      refusals.push(await post(pod, { input: { zoneId: secret, name: 'pod', idempotencyKey: 'k' } }));
    // An id is kept in the audit trail as it was asked for: if it is one.
    for (const secret of Object.values(secrets))
      await post('mutation ($id: ID!) { deleteZone(input: { id: $id }) { errors { code } } }', { id: secret });
    // The one host that it admitted is there; and this one is nobody's.
    for (const joinToken of [join, 'not-a-join-token']) {
      const input = { name: 'another', joinToken, certificateRequest: await certificateRequest(await newHostKey()) };
      const register = 'mutation ($input: RegisterInput!) { register(input: $input) { hostId } }';
      refusals.push(await overWebSocket('/hostd', {}, register, { input }));
    }
    refusals.push(await overWebSocket('/hostd', { authorization: `Bearer ${join}` }, '{ protocolVersion }'));
    refusals.push(
      await post('mutation ($id: ID!) { deleteZone(input: { id: $id }) { errors { message } } }', { id: zoneId }),
    );
  }

  async function post(query: string, variables: object, token = secrets['admin token']!): Promise<string> {
    const response = await fetch(`${url}/graphql`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', authorization: `Bearer ${token}` },
      body: JSON.stringify({ query, variables }),
    });
    return `${response.status} ${JSON.stringify([...response.headers])} ${await response.text()}`;
  }

  async function overWebSocket(
    path: string,
    connectionParams: object,
    query: string,
    variables: Record<string, unknown> = {},
  ): Promise<string> {
    const client = createClient({
      url: `${(path === '/hostd' ? hostsUrl : url).replace('http', 'ws')}${path}`,
      webSocketImpl: Unwary,
      connectionParams: { ...connectionParams },
      retryAttempts: 0,
    });
    try {
      const { value } = await client.iterate({ query, variables }).next();
      return JSON.stringify(value);
    } catch (error) {
      const { code, reason, message } = error as { code?: number; reason?: string; message?: string };
      return `${code} ${reason} ${message} ${JSON.stringify(error)}`;
    } finally {
      await client.dispose();
    }
  }

  it('are these, none of them so short that it could be found by chance', () => {
    assert.deepEqual(Object.keys(secrets), [
      ...['admin token', 'join token', 'host key', 'API key'],
      ...['first password', 'second password', 'third password', 'mistyped password', 'password of a directory'],
      ...['client secret', 'wrong client secret', 'bind password', 'wrong bind password'],
      ...['session token', 'TOTP seed', 'recovery code', 'used recovery code', 'CSRF value', 'session in a cookie'],
    ]);
    for (const [name, secret] of Object.entries(secrets)) assert.ok(secret.length >= 17, name);
  });

  it('of signing in are told once, to who asked, and in no other answer', () => {
    assert.ok(canaries.answers.length > 25);
    for (const { text, tells } of canaries.answers) assert.deepEqual(found(text).sort(), tells.sort(), text);
  });

  it('are in no log, however much is logged', () => {
    assert.ok(control.output().includes('"msg":"request"'), 'the control plane logs what it is asked');
    assert.ok(hostd.output().includes('canary-host'), 'the host daemon logs what it does');
    assert.deepEqual(found(control.output()), []);
    assert.deepEqual(found(hostd.output()), []);
  });

  it('are in the database as hashes alone', async () => {
    const { db } = product.database;
    const { rows: tables } = await sql<{ name: string }>`
      select table_name as name from information_schema.tables
      where table_schema = database() and table_type = 'BASE TABLE'`.execute(db);
    assert.ok(tables.length > 15);
    let hashes = 0;
    for (const { name } of tables) {
      const { rows } = await sql<Record<string, unknown>>`select * from ${sql.table(name)}`.execute(db);
      for (const value of rows.flatMap((row) => Object.values(row))) {
        const text = Buffer.isBuffer(value) ? value.toString('latin1') : String(value);
        assert.deepEqual(found(text), [], name);
        assert.ok(!text.includes(canaries.seed), name);
        for (const secret of Object.values(secrets))
          if (Buffer.isBuffer(value) && value.equals(createHash('sha256').update(secret).digest())) hashes++;
      }
    }
    // Recovery codes stand behind one another, and passwords are hashed with a salt.
    assert.equal(hashes, 5, 'each token is known by its hash: of the admin, to join, of the API and of two sessions');
  });

  it('are in no record of the audit trail, which has what was refused with them', async () => {
    const query = '{ auditRecords(first: 500) { nodes { action code subjectId reason changes { before after } } } }';
    const graph = await post(query, {});
    const headers = { authorization: `Bearer ${secrets['admin token']}` };
    const exported = await (await fetch(`${url}/audit.jsonl`, { headers })).text();
    for (const text of [graph, exported]) {
      assert.ok(text.includes('createApiKey') && text.includes('createHostJoinToken'));
      assert.equal(
        text.match(/"action":"deleteZone","(outcome":"REFUSED",")?code":"INVALID_INPUT"/g)?.length,
        Object.keys(secrets).length,
      );
      assert.deepEqual(found(text), []);
    }
  });

  it('are on no command line', async () => {
    const lines: string[] = [];
    for (const entry of await readdir('/proc')) {
      if (!/^\d+$/.test(entry)) continue;
      // A process may end while the list is read.
      lines.push(await readFile(`/proc/${entry}/cmdline`, 'utf8').catch(() => ''));
    }
    assert.ok(lines.some((line) => line.includes('canary-host')));
    assert.deepEqual(found(lines.join('\n')), []);
  });

  it('are in no answer that refuses something', () => {
    assert.ok(refusals.length >= 15);
    for (const refusal of refusals) assert.deepEqual(found(refusal), [], refusal);
    assert.ok(refusals.some((refusal) => refusal.includes('UNAUTHENTICATED')));
    assert.ok(refusals.some((refusal) => refusal.includes('INVALID_INPUT')));
    assert.ok(refusals.some((refusal) => refusal.includes('The join token is unknown, expired or used up.')));
  });

  it('lie in files of their owner alone', async () => {
    const holding: Record<string, string[]> = {};
    for (const entry of await readdir(product.folder, { recursive: true, withFileTypes: true })) {
      if (!entry.isFile()) continue;
      const path = join(entry.parentPath, entry.name);
      const names = found(await readFile(path, 'latin1'));
      if (names.length === 0) continue;
      holding[relative(product.folder, path)] = names;
      assert.equal((await stat(path)).mode & 0o777, 0o600, path);
    }
    assert.deepEqual(holding, {
      'admin-token': ['admin token'],
      'join-token': ['join token'],
      'hostd/identity.json': ['host key'],
    });
  });

  it('of the database are not told when it refuses them', async () => {
    const wrong = new URL(product.database.url);
    wrong.username = 'nobody';
    wrong.password = 'canary-of-the-database';
    const refused = overhear('src/main.ts', ['--port', '0'], {
      DATABASE_URL: wrong.href,
      VIRTGRAPH_DATA: product.folder,
    });
    await refused.ended;
    assert.equal(refused.child.exitCode, 1);
    assert.match(refused.output(), /could not start/);
    assert.ok(!refused.output().includes('canary-of-the-database'));
  });
});
