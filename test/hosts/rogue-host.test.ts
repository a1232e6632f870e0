import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { type Client, createClient } from 'graphql-ws';
import { pino } from 'pino';
import { WebSocket } from 'ws';
import { CONTROL_PLANE_NAME } from '../../hostd/connection.ts';
import { certificateRequest, newHostKey } from '../../hostd/host-key.ts';
import { parseJoinToken } from '../../hostd/join-token.ts';
import { type Control, startControl } from '../../src/control.ts';
import type { Core } from '../../src/core.ts';
import { decodeIdOf, encodeId } from '../../src/domain/ids.ts';
import { hostdSchema } from '../../src/hostd-api/schema.ts';
import type { Registered } from '../../src/hosts/identities.ts';
import { accepted, createInput, vmRow } from '../jobs/cases.ts';
import { ADMIN, jobEnded } from '../support/core.ts';
import { freshDatabase, type TestDatabase } from '../support/database.ts';
import { type Command, JournalHost } from '../support/journal-host.ts';
import { TestAuthority } from '../support/test-authority.ts';
import { insertWorld, type World } from '../support/world.ts';

interface Shown {
  key: string;
  cert: string;
}
type Answer = { data?: Record<string, unknown> | null; errors?: readonly { extensions?: { code?: string } }[] };

const FACTS = { hypervisor: 'FAKE', version: '1', capabilities: [], vcpusTotal: 64, memoryTotalMib: 65_536 };
const USAGE = { cpuNs: '7', memoryBytes: '7', diskReadBytes: '7', diskWriteBytes: '7' };

describe('a host with a certificate of its own that speaks of what is not its own', () => {
  let database: TestDatabase;
  let folder: string;
  let world: World;
  let control: Control;
  let core: Core;
  let honest: JournalHost;
  let rogue: { id: number; publicId: string; shown: Shown; client: Client; sessionId: string };
  let vm: { number: number; id: string };

  before(async () => {
    database = await freshDatabase();
    folder = await mkdtemp(join(tmpdir(), 'vg-rogue-'));
    world = await insertWorld(database.db, { hosts: 1 });
    const log = pino({ level: 'silent' });
    const adminTokenPath = join(folder, 'admin-token');
    control = await startControl({ databaseUrl: database.url, host: '127.0.0.1', port: 0, adminTokenPath, log });
    ({ core } = control);
    honest = new JournalHost(world.hosts[0]!.id);
    await honest.link(core);
    const input = createInput({ world }, { hostId: encodeId('host', world.hosts[0]!.uid) });
    const { id, jobId } = accepted(await core.ops.createVm(ADMIN, input));
    assert.equal((await jobEnded(core, jobId)).state, 'SUCCEEDED');
    vm = { number: id, id: encodeId('vm', (await vmRow(core, id)).uid) };
    rogue = await aRogue();
  });
  after(async () => {
    await rogue?.client.dispose();
    await honest?.close();
    await control?.close();
    await database?.close();
    await rm(folder, { recursive: true });
  });

  /** @param shown null: no certificate */
  function connectAs(shown: Shown | null, closed: (event: { code: number; reason: string }) => void = () => undefined) {
    const ca = core.authority.certificate;
    class Trusting extends WebSocket {
      constructor(url: string, protocol: string) {
        super(url, protocol, { ca, ...{ servername: CONTROL_PLANE_NAME }, ...shown });
      }
    }
    return createClient({
      url: `${control.http.secure!.url.replace('https', 'wss')}/hostd`,
      webSocketImpl: Trusting,
      retryAttempts: 0,
      lazy: false,
      onNonLazyError: (event) => closed(event as { code: number; reason: string }),
    });
  }
  async function ask(client: Client, query: string, variables: Record<string, unknown> = {}): Promise<Answer> {
    const { value } = await client.iterate({ query, variables }).next();
    return value as Answer;
  }
  /** How a connection ends that is refused. */
  async function refusal(shown: Shown): Promise<{ code: number; reason: string }> {
    const { promise, resolve } = Promise.withResolvers<{ code: number; reason: string }>();
    const client = connectAs(shown, resolve);
    const { code, reason } = await promise;
    await client.dispose();
    return { code, reason };
  }
  async function joinToken(): Promise<string> {
    const made = await core.ops.createHostJoinToken(ADMIN, { clusterId: encodeId('cluster', world.cluster.uid) });
    return parseJoinToken(made.token!)!.secret;
  }
  async function joined(name: string): Promise<{ registered: Registered; shown: Shown }> {
    const key = await newHostKey();
    const client = connectAs(null);
    const input = { name, joinToken: await joinToken(), certificateRequest: await certificateRequest(key) };
    const query = 'mutation ($input: RegisterInput!) { register(input: $input) { hostId certificate authority } }';
    const { data } = await ask(client, query, { input });
    await client.dispose();
    const registered = data!['register'] as Registered;
    return { registered, shown: { key, cert: registered.certificate } };
  }
  async function aRogue(): Promise<typeof rogue> {
    const { registered, shown } = await joined('rogue');
    const client = connectAs(shown);
    const query = 'mutation ($input: OpenSessionInput!) { openSession(input: $input) { sessionId } }';
    const { data } = await ask(client, query, { input: { ...FACTS, vms: [] } });
    const row = await database.db
      .selectFrom('host')
      .select('id')
      .where('uid', '=', decodeIdOf('host', registered.hostId)!)
      .executeTakeFirstOrThrow();
    const { sessionId } = data!['openSession'] as { sessionId: string };
    return { id: row.id, publicId: registered.hostId, shown, client, sessionId };
  }

  /** The next command that the honest host hears, which it does not answer by itself. */
  function heard(): Promise<Command> {
    return new Promise((resolve) => {
      honest.script = (command) => {
        resolve(command);
        return 'silence';
      };
    });
  }

  /** A command of the honest host that it has not answered. */
  async function openCommand(): Promise<{ command: Command; jobId: number; ended: () => Promise<void> }> {
    const held = heard();
    const { jobId } = accepted(await core.ops.pauseVm(ADMIN, { id: vm.id }));
    const command = await held;
    return {
      command,
      jobId,
      async ended() {
        honest.script = () => 'works';
        honest.act(command);
        await honest.report(core, command.commandId);
        assert.equal((await jobEnded(core, jobId)).state, 'SUCCEEDED');
        const resumed = accepted(await core.ops.resumeVm(ADMIN, { id: vm.id }));
        assert.equal((await jobEnded(core, resumed.jobId)).state, 'SUCCEEDED');
      },
    };
  }

  /** Everything that a forged message might have changed. */
  async function everything(): Promise<string> {
    const { db } = database;
    const [vms, jobs, steps, usage, hosts, volumes] = await Promise.all([
      db.selectFrom('vm').selectAll().orderBy('id').execute(),
      db.selectFrom('job').selectAll().orderBy('id').execute(),
      db.selectFrom('job_step').selectAll().orderBy('job_id').orderBy('seq').execute(),
      db.selectFrom('vm_usage').selectAll().orderBy('vm_id').execute(),
      db.selectFrom('host').selectAll().where('id', '!=', rogue.id).orderBy('id').execute(),
      db.selectFrom('volume').selectAll().orderBy('id').execute(),
    ]);
    // The lease of a job is its owner's to renew.
    const still = jobs.map(({ due_at, lease_epoch, lease_owner, ...job }) => job);
    return JSON.stringify([vms, still, steps, usage, hosts, volumes], null, 1);
  }
  const refusals = async () => {
    const rows = await database.db
      .selectFrom('audit')
      .select(['action', 'outcome', 'code', 'address', 'credential', 'reason'])
      .where('subject_kind', '=', 'host')
      .where('subject_id', '=', rogue.id)
      .where('outcome', '=', 'REFUSED')
      .orderBy('seq')
      .execute();
    const events = await database.db
      .selectFrom('event')
      .select('reason')
      .where('type', '=', 'host.message_refused')
      .where('subject_id', '=', rogue.id)
      .orderBy('seq')
      .execute();
    return { rows, events };
  };

  /** Each forgery: what it sends, and whether it is refused at once, in words of the audit. */
  const FORGERIES: Record<
    string,
    {
      query: string;
      variables: (command: Command) => Record<string, unknown>;
      says: RegExp;
      /** It is answered as if it were well: the rest of the message is. */
      quiet?: true;
      after?: () => Promise<void>;
    }
  > = {
    'openSession that has the VM': {
      query: 'mutation ($input: OpenSessionInput!) { openSession(input: $input) { sessionId } }',
      variables: () => ({ input: { ...FACTS, vms: [{ vmId: vm.id, state: 'RUNNING', epoch: 99 }] } }),
      says: /^openSession: VMs of others/,
      quiet: true,
    },
    'heartbeat in its session': {
      query: 'mutation ($input: HeartbeatInput!) { heartbeat(input: $input) }',
      variables: () => ({ input: { sessionId: honest.sessionId, cpuLoad: 1, memoryUsedMib: 1, vms: [] } }),
      says: /^heartbeat: a session of another/,
    },
    'heartbeat that counts for the VM': {
      query: 'mutation ($input: HeartbeatInput!) { heartbeat(input: $input) }',
      variables: () => ({
        input: { sessionId: rogue.sessionId, cpuLoad: 1, memoryUsedMib: 1, vms: [{ vmId: vm.id, ...USAGE }] },
      }),
      says: /^heartbeat: VMs of others/,
      quiet: true,
      after: () => core.usage.flush(),
    },
    'reportCommands that answers its command': {
      query: 'mutation ($reports: [CommandReportInput!]!) { reportCommands(reports: $reports) }',
      variables: ({ commandId }) => ({ reports: [{ commandId, result: {} }] }),
      says: /^reportCommands: commands of others/,
    },
    'reportCommands that fails its command': {
      query: 'mutation ($reports: [CommandReportInput!]!) { reportCommands(reports: $reports) }',
      variables: ({ commandId }) => ({
        reports: [
          { commandId: '1.1', result: {} },
          { commandId, error: { code: 'QEMU_FAILED', message: 'forged' } },
        ],
      }),
      says: /^reportCommands: commands of others/,
    },
    'reportProgress of its command': {
      query: 'mutation ($progress: [ProgressInput!]!) { reportProgress(progress: $progress) }',
      variables: ({ commandId }) => ({ progress: [{ commandId, done: '1', total: '2', unit: 'bytes' }] }),
      says: /^reportProgress: commands of others/,
    },
    'reportVms in its session': {
      query: 'mutation ($s: ID!, $vms: [VmObservationInput!]!) { reportVms(sessionId: $s, vms: $vms) }',
      variables: () => ({ s: honest.sessionId, vms: [{ vmId: vm.id, state: 'CRASHED', epoch: 1 }] }),
      says: /^reportVms: a session of another/,
    },
    'sendSerial into a log that is watched': {
      query: 'mutation ($c: ID!) { sendSerial(commandId: $c, offset: "0", base64: "Zm9yZ2Vk") }',
      variables: () => ({ c: '' }),
      says: /^sendSerial: another host's log/,
    },
    'commands of its session': {
      query: 'subscription ($s: ID!) { commands(sessionId: $s) { commandId } }',
      variables: () => ({ s: honest.sessionId }),
      says: /^commands: a session of another/,
    },
  };
  for (const state of ['ABSENT', 'CRASHED', 'PAUSED', 'RUNNING', 'STARTING', 'STOPPED'])
    FORGERIES[`reportVms that sees the VM ${state}`] = {
      query: 'mutation ($s: ID!, $vms: [VmObservationInput!]!) { reportVms(sessionId: $s, vms: $vms) }',
      variables: () => ({ s: rogue.sessionId, vms: [{ vmId: vm.id, state, epoch: 99 }] }),
      says: /^reportVms: VMs of others/,
    };

  it('is tried with every field of the protocol that says something', () => {
    const fields = [hostdSchema.getMutationType()!, hostdSchema.getSubscriptionType()!].flatMap((type) =>
      Object.keys(type.getFields()),
    );
    const tried = new Set(Object.keys(FORGERIES).map((name) => name.split(' ')[0]!));
    // These speak of nobody but whoever asks: test/hosts/identities.test.ts is about them.
    assert.deepEqual(
      fields.filter((field) => !tried.has(field)),
      ['register', 'renewCertificate'],
    );
  });

  for (const [name, { query, variables, says, quiet, after }] of Object.entries(FORGERIES)) {
    if (name.startsWith('sendSerial')) continue;
    it(`${name} changes nothing, and stands in the audit`, async () => {
      const { command, ended } = await openCommand();
      const before = await everything();
      const answer = await ask(rogue.client, query, variables(command));
      await after?.();
      const code = answer.errors?.[0]?.extensions?.code;
      assert.equal(code, quiet ? undefined : 'FORBIDDEN');
      assert.equal(await everything(), before);
      if (name.startsWith('openSession'))
        rogue.sessionId = (answer.data!['openSession'] as { sessionId: string }).sessionId;
      const { rows, events } = await refusals();
      // Those that are alike share a record, for a minute.
      const about = rows.filter(({ reason }) => says.test(reason ?? ''));
      assert.ok(about.length >= 1, JSON.stringify(rows));
      for (const row of about) assert.deepEqual([row.action, row.code], ['hostMessage', 'FORBIDDEN']);
      assert.ok(events.some(({ reason }) => says.test(reason ?? '')));
      await ended();
    });
  }

  it('sendSerial into a log that is watched changes nothing, and stands in the audit', async () => {
    const asks = heard();
    const watch = core.linkedAgent.watchSerial(honest.id, decodeIdOf('vm', vm.id)!, 100);
    const next = watch.next();
    const { commandId } = await asks;
    const { query, says } = FORGERIES['sendSerial into a log that is watched']!;
    const answer = await ask(rogue.client, query, { c: commandId });
    assert.equal(answer.errors?.[0]?.extensions?.code, 'FORBIDDEN');
    assert.ok((await refusals()).rows.some(({ reason }) => says.test(reason ?? '')));
    core.linkedAgent.serialPiece(honest.id, commandId, { offset: 0, bytes: Buffer.from('true') });
    assert.deepEqual((await next).value, { offset: 0, bytes: Buffer.from('true') });
    await watch.return!(undefined);
  });

  it('an answer to a question that another was asked is refused, and the question stays open', async () => {
    const asks = heard();
    const asked = core.links.ask(honest.id, 'ScreenshotRequest', { vmId: vm.id }, 10_000);
    const { commandId } = await asks;
    const query = 'mutation ($reports: [CommandReportInput!]!) { reportCommands(reports: $reports) }';
    const forged = { reports: [{ commandId, result: { base64: 'Zm9yZ2Vk' } }] };
    const answer = await ask(rogue.client, query, forged);
    assert.equal(answer.errors?.[0]?.extensions?.code, 'FORBIDDEN');
    core.links.answered(honest.id, commandId, { base64: 'dHJ1ZQ==' }, null);
    assert.deepEqual(await asked, { base64: 'dHJ1ZQ==' });
  });

  it('the same again and again is kept once', async () => {
    const { query, variables } = FORGERIES['heartbeat in its session']!;
    const before = (await refusals()).rows.length;
    for (let n = 0; n < 20; n++) await ask(rogue.client, query, variables({} as Command));
    assert.equal((await refusals()).rows.length, before);
  });

  it('who it is and where from stands with what was refused', async () => {
    const { rows } = await refusals();
    assert.ok(rows.some(({ address, credential }) => address === '127.0.0.1' && /^certificate:\d+$/.test(credential!)));
  });

  describe('is not listened to', () => {
    it('without a certificate, but for joining', async () => {
      const client = connectAs(null);
      const answer = await ask(
        client,
        'mutation ($r: String!) { renewCertificate(certificateRequest: $r) { certificate } }',
        {
          r: 'x',
        },
      );
      assert.equal(answer.errors?.[0]?.extensions?.code, 'UNAUTHENTICATED');
      await client.dispose();
    });

    it('with a certificate of another authority, whatever name stands in it', async () => {
      const key = await newHostKey();
      const authority = await TestAuthority.make();
      const cert = await authority.ofHost(encodeId('host', world.hosts[0]!.uid), await certificateRequest(key));
      assert.deepEqual(await refusal({ key, cert }), {
        code: 4403,
        reason: 'The certificate is none of this control plane.',
      });
    });

    it('from the moment at which its certificate is revoked, with what it has open', async () => {
      const { registered, shown } = await joined('revoked');
      const closed = Promise.withResolvers<{ code: number; reason: string }>();
      const client = connectAs(shown, closed.resolve);
      await ask(client, '{ protocolVersion }');
      assert.deepEqual((await core.ops.revokeHostCertificate(ADMIN, { id: registered.hostId })).errors, []);
      const { code, reason } = await closed.promise;
      assert.deepEqual([code, reason], [4403, 'The certificate of this host was revoked or replaced.']);
      assert.equal((await refusal(shown)).code, 4403);
      await client.dispose();
    });

    it('when it is deleted, with what it has open', async () => {
      const { registered, shown } = await joined('deleted');
      const closed = Promise.withResolvers<{ code: number; reason: string }>();
      const client = connectAs(shown, closed.resolve);
      await ask(client, '{ protocolVersion }');
      assert.deepEqual((await core.ops.deleteHost(ADMIN, { id: registered.hostId })).errors, []);
      assert.equal((await closed.promise).code, 4403);
      assert.equal((await refusal(shown)).code, 4403);
      await client.dispose();
    });

    it('on the port of people', async () => {
      const socket = new WebSocket(`${control.http.url.replace('http', 'ws')}/hostd`, 'graphql-transport-ws');
      const { promise, resolve } = Promise.withResolvers<string>();
      socket.once('error', (error) => resolve(error.message));
      assert.match(await promise, /404/);
    });
  });
});
