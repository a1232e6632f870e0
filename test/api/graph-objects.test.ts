import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { VirtgraphError } from '../../src/domain/errors.ts';
import type { HostAgent, StepProgress } from '../../src/domain/host-agent.ts';
import { encodeId } from '../../src/domain/ids.ts';
import type { GraphContext } from '../../src/graphql/context.ts';
import { freshDatabase, type TestDatabase } from '../support/database.ts';
import { EXECUTORS, testContext } from '../support/graph.ts';
import { insertJob, insertVm, insertWorld, type Placed, type World } from '../support/world.ts';

for (const [engine, run] of Object.entries(EXECUTORS)) {
  describe(`objects under ${engine}`, () => {
    let database: TestDatabase;
    let world: World;
    let vm: Placed;
    const ask = async (source: string, given: Partial<GraphContext> = {}) => {
      const answer = await run(testContext({ db: database.db, ...given }), source);
      return { data: JSON.parse(JSON.stringify(answer.data ?? null)), errors: answer.errors ?? [] };
    };
    const codes = (errors: readonly { originalError?: unknown }[]) =>
      errors.map((error) => (error.originalError as { code?: string } | undefined)?.code);
    const agent = (given: Partial<HostAgent>): HostAgent => ({ progressOf: () => null, ...given }) as HostAgent;

    before(async () => {
      database = await freshDatabase();
      world = await insertWorld(database.db);
      const host = world.hosts[0]!;
      vm = await insertVm(database.db, world, {
        state: 'RUNNING',
        host_id: host.id,
        epoch: 3,
        observed_state: 'RUNNING',
        observed_at: new Date('2026-11-24T12:00:00.125Z'),
        observed_host_id: host.id,
        observed_epoch: 3,
      });
    });
    after(() => database.close());

    test('a VM tells what is wanted, what was seen and what it can do', async () => {
      const { data, errors } = await ask(`{ vm(id: "${encodeId('vm', vm.uid)}") {
        id state allowedActions host { name linkState allowedActions capabilities vms { totalCount } } lastHost { id }
        observed { state at epoch host { name } } usage { cpuNs } volumes { id } queuedJobs { id } deletedAt
      } }`);
      assert.deepEqual(errors, []);
      const host = await database.db.selectFrom('host').select('name').executeTakeFirstOrThrow();
      assert.deepEqual(data.vm, {
        id: encodeId('vm', vm.uid),
        state: 'RUNNING',
        allowedActions: ['STOP', 'REBOOT', 'RESET', 'PAUSE', 'UPDATE', 'DESTROY'],
        host: {
          name: host.name,
          linkState: 'UP',
          allowedActions: ['DISABLE', 'UPDATE', 'DELETE'],
          capabilities: ['x86_64'],
          vms: { totalCount: 1 },
        },
        lastHost: null,
        observed: { state: 'RUNNING', at: '2026-11-24T12:00:00.125Z', epoch: 3, host: { name: host.name } },
        usage: null,
        volumes: [],
        queuedJobs: [],
        deletedAt: null,
      });
    });

    test('numbers beyond 2^53 arrive digit for digit', async () => {
      const cpuNs = 2n ** 60n + 1n;
      await database.db
        .insertInto('vm_usage')
        .values({
          vm_id: vm.id,
          sampled_at: new Date(),
          cpu_ns: cpuNs as unknown as number,
          memory_bytes: 1,
          disk_read_bytes: 2,
          disk_write_bytes: 3,
          network_receive_bytes: null,
          network_transmit_bytes: null,
        })
        .execute();
      const { data } = await ask(
        `{ vm(id: "${encodeId('vm', vm.uid)}") { usage { cpuNs memoryBytes networkReceiveBytes } } }`,
      );
      assert.deepEqual(data.vm.usage, { cpuNs: String(cpuNs), memoryBytes: '1', networkReceiveBytes: null });
    });

    test('any id finds its object, deleted or not; an unknown one finds nothing, and nonsense is refused', async () => {
      const gone = await insertVm(database.db, world, { state: 'EXPUNGED', deleted_at: new Date() });
      const ids = [
        encodeId('zone', world.zone.uid),
        encodeId('vm', gone.uid),
        encodeId('vm', Buffer.alloc(16)),
        encodeId('vm', vm.uid),
        'evt_7',
      ];
      const { data, errors } = await ask(
        `{ nodes(ids: ${JSON.stringify(ids)}) { __typename id ... on Vm { state } ... on Zone { wantedState } } node(id: "${ids[1]}") { id } }`,
      );
      assert.deepEqual(errors, []);
      assert.deepEqual(data, {
        nodes: [
          { __typename: 'Zone', id: ids[0], wantedState: 'ENABLED' },
          { __typename: 'Vm', id: ids[1], state: 'EXPUNGED' },
          null,
          { __typename: 'Vm', id: ids[3], state: 'RUNNING' },
          null,
        ],
        node: { id: ids[1] },
      });
      for (const refused of [
        'node(id: "vm_x")',
        'vm(id: "")',
        `vm(id: "${ids[0]}")`,
        `nodes(ids: [${'"x",'.repeat(101)}])`,
      ]) {
        const { errors: refusals } = await ask(`{ ${refused} { id } }`);
        assert.deepEqual(codes(refusals), ['INVALID_INPUT'], refused);
      }
      const { errors: unknown } = await ask(`{ node(id: "${ids[0]}") { id } }`, { actor: { kind: 'anonymous' } });
      assert.deepEqual(codes(unknown), ['UNAUTHENTICATED']);
    });

    test('an event tells who did what to what, and is found by its id', async () => {
      const job = await insertJob(database.db, vm, { state: 'SUCCEEDED' });
      await database.db
        .insertInto('event')
        .values({
          seq: 12,
          type: 'vm.started',
          subject_kind: 'vm',
          subject_id: vm.id,
          job_id: job.id,
          actor: 'root-admin',
          reason: 'because',
          changes: '[{"field":"state","before":"STOPPED","after":"RUNNING"}]',
        })
        .execute();
      const fields = 'id seq type actor reason subject { __typename id } job { kind } changes { field before after }';
      const { data, errors } = await ask(`{
        node(id: "evt_12") { ... on Event { ${fields} } }
        vm(id: "${encodeId('vm', vm.uid)}") { events { nodes { ${fields} } } }
        of: events(filter: { subjectId: "${encodeId('vm', vm.uid)}", type: "vm.started" }) { nodes { ${fields} } }
        by: events(filter: { jobId: "${encodeId('job', job.uid)}" }) { nodes { ${fields} } }
        zone(id: "${encodeId('zone', world.zone.uid)}") { events { totalCount } }
        none: events(filter: { subjectId: "${encodeId('job', job.uid)}" }) { totalCount }
      }`);
      assert.deepEqual(errors, []);
      const event = {
        id: 'evt_12',
        seq: '12',
        type: 'vm.started',
        actor: 'root-admin',
        reason: 'because',
        subject: { __typename: 'Vm', id: encodeId('vm', vm.uid) },
        job: { kind: 'START_VM' },
        changes: [{ field: 'state', before: 'STOPPED', after: 'RUNNING' }],
      };
      assert.deepEqual(data, {
        node: event,
        vm: { events: { nodes: [event] } },
        of: { nodes: [event] },
        by: { nodes: [event] },
        zone: { events: { totalCount: 0 } },
        none: { totalCount: 0 },
      });
    });

    test('a job shows the progress of its open step as its host told it last', async () => {
      const parent = await insertJob(database.db, vm, {
        state: 'NEEDS_ATTENTION',
        error_code: 'no such code',
        error_message: 'stuck',
      });
      const job = await insertJob(database.db, vm, { step: 2, progress: 40, step_percent: 20, parent_id: parent.id });
      const step = {
        job_id: job.id,
        direction: 'DO',
        host_id: world.hosts[0]!.id,
        command: null,
        payload: null,
      } as const;
      await database.db
        .insertInto('job_step')
        .values([
          { ...step, seq: 1, name: 'reserve', state: 'DONE' },
          { ...step, seq: 2, name: 'copy', state: 'OPEN' },
        ])
        .execute();
      const live: StepProgress = { jobId: job.id, seq: 2, done: 50, total: 100, unit: 'bytes', rate: 25 };
      const { data, errors } = await ask(
        `{ job(id: "${encodeId('job', job.uid)}") {
          progressPercent etaMs cancellable resolutions error { code }
          currentStep { name done total unit rate etaMs host { name } errorCode } steps { name state done }
          parent { resolutions cancellable error { code message path } currentStep { name } children { nodes { id } totalCount } }
        } }`,
        { agent: agent({ progressOf: (id) => (id === job.id ? live : null) }) },
      );
      assert.deepEqual(errors, []);
      const host = await database.db.selectFrom('host').select('name').executeTakeFirstOrThrow();
      assert.deepEqual(data.job, {
        progressPercent: 50,
        etaMs: 2000,
        cancellable: true,
        resolutions: [],
        error: null,
        currentStep: {
          name: 'copy',
          done: '50',
          total: '100',
          unit: 'bytes',
          rate: 25,
          etaMs: 2000,
          host: { name: host.name },
          errorCode: null,
        },
        steps: [
          { name: 'reserve', state: 'DONE', done: null },
          { name: 'copy', state: 'OPEN', done: '50' },
        ],
        parent: {
          resolutions: ['RETRY_STEP', 'SKIP_STEP', 'ROLL_BACK'],
          cancellable: false,
          error: { code: 'INTERNAL', message: 'stuck', path: null },
          currentStep: null,
          children: { nodes: [{ id: encodeId('job', job.uid) }], totalCount: 1 },
        },
      });
    });

    test('a VM shows its active job and those that wait behind it, not the active one twice', async () => {
      const busy = await insertVm(database.db, world);
      const active = await insertJob(database.db, busy, { state: 'QUEUED' });
      const waiting = await insertJob(database.db, busy, { state: 'QUEUED' });
      await database.db.updateTable('vm').set({ active_job_id: active.id }).where('id', '=', busy.id).execute();
      const { data } = await ask(`{ vm(id: "${encodeId('vm', busy.uid)}") { activeJob { id } queuedJobs { id } } }`);
      assert.deepEqual(data.vm, {
        activeJob: { id: encodeId('job', active.uid) },
        queuedJobs: [{ id: encodeId('job', waiting.uid) }],
      });
    });

    test('a host is asked for the screen and the serial log of a VM, and its refusal costs only that field', async () => {
      const id = encodeId('vm', vm.uid);
      const asked: unknown[] = [];
      const answering = agent({
        screenshot: async (...args) => {
          asked.push(args);
          return Buffer.from('png');
        },
        serialLog: async (...args) => {
          asked.push(args);
          return Buffer.from('login:');
        },
      });
      const { data, errors } = await ask(
        `{ vmScreenshot(id: "${id}") { mimeType base64 takenAt } vm(id: "${id}") { serialLog(lastBytes: 6) } }`,
        { agent: answering },
      );
      assert.deepEqual(errors, []);
      assert.equal(data.vmScreenshot.mimeType, 'image/png');
      assert.equal(data.vmScreenshot.base64, Buffer.from('png').toString('base64'));
      assert.equal(data.vm.serialLog, 'login:');
      assert.deepEqual(asked, [
        [world.hosts[0]!.id, vm.uid],
        [world.hosts[0]!.id, vm.uid, 6],
      ]);
      const away = async () => {
        throw new VirtgraphError({ code: 'HOST_UNREACHABLE', message: 'It does not answer.' });
      };
      const refused = await ask(`{ vmScreenshot(id: "${id}") { base64 } vm(id: "${id}") { name serialLog } }`, {
        agent: agent({ screenshot: away, serialLog: away }),
      });
      assert.deepEqual(codes(refused.errors), ['HOST_UNREACHABLE', 'HOST_UNREACHABLE']);
      assert.equal(refused.data.vmScreenshot, null);
      assert.equal(refused.data.vm.serialLog, null);
      assert.match(refused.data.vm.name, /^vm-/);
      const off = await insertVm(database.db, world);
      const offId = encodeId('vm', off.uid);
      const never = await ask(
        `{ vmScreenshot(id: "${offId}") { base64 } vm(id: "${offId}") { serialLog } none: vmScreenshot(id: "${encodeId('vm', Buffer.alloc(16))}") { base64 } }`,
      );
      assert.deepEqual(codes(never.errors), ['INVALID_STATE']);
      assert.deepEqual(never.data, { vmScreenshot: null, vm: { serialLog: null }, none: null });
      const tooMuch = await ask(`{ vm(id: "${id}") { serialLog(lastBytes: 0) } }`);
      assert.deepEqual(codes(tooMuch.errors), ['INVALID_INPUT']);
    });

    test('the viewer is who asks, and nobody is no one', async () => {
      const { data } = await ask('{ viewer { name kind } }');
      assert.deepEqual(data.viewer, { name: 'root-admin', kind: 'ROOT_ADMIN' });
      const { data: nobody } = await ask('{ viewer { name } }', { actor: { kind: 'anonymous' } });
      assert.equal(nobody.viewer, null);
    });
  });
}
