import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { VirtgraphError } from '../../src/domain/errors.ts';
import { encodeId } from '../../src/domain/ids.ts';
import type { Ops } from '../../src/graphql/context.ts';
import { freshDatabase, type TestDatabase } from '../support/database.ts';
import { ADMIN, EXECUTORS, testContext } from '../support/graph.ts';
import { insertJob, insertWorld, type World } from '../support/world.ts';

for (const [engine, run] of Object.entries(EXECUTORS)) {
  describe(`mutations under ${engine}`, () => {
    let database: TestDatabase;
    let world: World;
    before(async () => {
      database = await freshDatabase();
      world = await insertWorld(database.db, { vms: 1 });
    });
    after(() => database.close());

    const ask = async (ops: Partial<Ops>, source: string, variables: Record<string, unknown> = {}) => {
      const answer = await run(testContext({ db: database.db, ops: ops as Ops }), source, variables);
      return { data: JSON.parse(JSON.stringify(answer.data ?? null)), errors: answer.errors ?? [] };
    };
    const CREATE = `mutation ($input: CreateVmInput!) { createVm(input: $input) {
      vm { id state } job { id kind } errors { __typename code message path
        ... on InvalidStateError { state allowedActions }
        ... on InsufficientCapacityError { rejections { hostName rule required available unit message host { id } } } } } }`;
    const input = () => ({
      name: 'web',
      zoneId: encodeId('zone', world.zone.uid),
      offeringId: encodeId('offering', world.offering.uid),
      templateId: encodeId('template', world.template.uid),
    });

    test('hands the input as it came to the operation of the same name, and reads what it answers', async () => {
      const vm = world.vms[0]!;
      const job = await insertJob(database.db, vm, { kind: 'CREATE_VM' });
      const called: unknown[] = [];
      const { data, errors } = await ask(
        {
          createVm: async (actor, given) => {
            called.push(actor, { ...given });
            return { id: vm.id, jobId: job.id, errors: [] };
          },
        },
        CREATE,
        { input: input() },
      );
      assert.deepEqual(errors, []);
      assert.deepEqual(called, [ADMIN, { ...input(), start: true }]);
      assert.deepEqual(data.createVm, {
        vm: { id: encodeId('vm', vm.uid), state: 'STOPPED' },
        job: { id: encodeId('job', job.uid), kind: 'CREATE_VM' },
        errors: [],
      });
    });

    test('an error that is answered and one that is thrown look alike, each of its type', async () => {
      const capacity = {
        code: 'INSUFFICIENT_CAPACITY' as const,
        message: 'No host has room.',
        path: null,
        rejections: [
          {
            hostId: world.hosts[0]!.id,
            hostName: 'h1',
            rule: 'MEMORY' as const,
            message: 'Not enough memory.',
            required: 128,
            available: 64,
            unit: 'MiB',
          },
        ],
      };
      const state = {
        code: 'INVALID_STATE' as const,
        message: 'It is off.',
        path: null,
        state: 'STOPPED',
        allowedActions: ['START'],
      };
      const field = { code: 'INVALID_INPUT' as const, message: 'Too long.', path: ['name'] };
      const answered = await ask(
        { createVm: async () => ({ id: null, jobId: null, errors: [capacity, state, field] }) },
        CREATE,
        { input: input() },
      );
      assert.deepEqual(answered.errors, []);
      const { hostId: _hostId, ...rejection } = capacity.rejections[0]!;
      assert.deepEqual(answered.data.createVm, {
        vm: null,
        job: null,
        errors: [
          {
            __typename: 'InsufficientCapacityError',
            code: 'INSUFFICIENT_CAPACITY',
            message: 'No host has room.',
            path: null,
            rejections: [{ ...rejection, host: { id: encodeId('host', world.hosts[0]!.uid) } }],
          },
          { __typename: 'InvalidStateError', ...state },
          { __typename: 'FieldError', ...field },
        ],
      });
      for (const [at, data] of [capacity, state, field].entries()) {
        const thrown = await ask(
          {
            createVm: async () => {
              throw new VirtgraphError(data);
            },
          },
          CREATE,
          { input: input() },
        );
        assert.deepEqual(thrown.errors, []);
        assert.deepEqual(thrown.data.createVm.errors, [answered.data.createVm.errors[at]]);
      }
    });

    test('what is no fault of the input stands at the top of the answer', async () => {
      for (const error of [
        new VirtgraphError({ code: 'UNAUTHENTICATED', message: 'Who?' }),
        new VirtgraphError({ code: 'UNAVAILABLE', message: 'Not now.' }),
        new VirtgraphError({ code: 'INTERNAL', message: 'Oh.' }),
        new TypeError('a bug'),
      ]) {
        const { data, errors } = await ask(
          {
            createVm: async () => {
              throw error;
            },
          },
          CREATE,
          { input: input() },
        );
        assert.equal(data, null);
        assert.deepEqual(
          errors.map((top) => top.originalError),
          [error],
        );
      }
    });

    test('each mutation of a document sees what the one before it wrote', async () => {
      const vm = world.vms[0]!;
      const rename = (name: string) => database.db.updateTable('vm').set({ name }).where('id', '=', vm.id).execute();
      const { data, errors } = await ask(
        {
          updateVm: async (_actor, given) => {
            await rename(given.name!);
            return { id: vm.id, jobId: null, errors: [] };
          },
        },
        `mutation ($id: ID!) {
          a: updateVm(input: { id: $id, name: "first" }) { vm { name } job { id } }
          b: updateVm(input: { id: $id, name: "second" }) { vm { name } }
        }`,
        { id: encodeId('vm', vm.uid) },
      );
      assert.deepEqual(errors, []);
      assert.deepEqual(data, { a: { vm: { name: 'first' }, job: null }, b: { vm: { name: 'second' } } });
    });

    test('deleting answers with the public id, and with none when it is refused', async () => {
      const id = encodeId('zone', world.zone.uid);
      const source = `mutation { deleteZone(input: { id: "${id}" }) { id errors { code } } }`;
      const done = await ask({ deleteZone: async () => ({ id: world.zone.id, jobId: null, errors: [] }) }, source);
      assert.deepEqual(done.data.deleteZone, { id, errors: [] });
      const refused = await ask(
        {
          deleteZone: async () => {
            throw new VirtgraphError({ code: 'NOT_EMPTY', message: 'It has pods.' });
          },
        },
        source,
      );
      assert.deepEqual(refused.data.deleteZone, { id: null, errors: [{ code: 'NOT_EMPTY' }] });
    });

    test('a mutation about a job answers with the job', async () => {
      const job = await insertJob(database.db, world.vms[0]!);
      const { data, errors } = await ask(
        {
          resolveJob: async (_actor, { resolution }) => {
            assert.equal(resolution, 'SKIP_STEP');
            return { id: job.id, jobId: null, errors: [] };
          },
        },
        `mutation { resolveJob(input: { id: "${encodeId('job', job.uid)}", resolution: SKIP_STEP }) { job { id } errors { code } } }`,
      );
      assert.deepEqual(errors, []);
      assert.deepEqual(data.resolveJob, { job: { id: encodeId('job', job.uid) }, errors: [] });
    });

    test('a join token is told in clear, or refused like anything else', async () => {
      const source = `mutation { createHostJoinToken(input: { clusterId: "${encodeId('cluster', world.cluster.uid)}" }) { token expiresAt errors { code } } }`;
      const expiresAt = new Date('2026-12-01T00:00:00.000Z');
      const made = await ask(
        { createHostJoinToken: async () => ({ id: 1, jobId: null, errors: [], token: 'secret', expiresAt }) },
        source,
      );
      assert.deepEqual(made.data.createHostJoinToken, {
        token: 'secret',
        expiresAt: expiresAt.toISOString(),
        errors: [],
      });
      const refused = await ask(
        {
          createHostJoinToken: async () => {
            throw new VirtgraphError({ code: 'NOT_FOUND', message: 'There is no such cluster.' });
          },
        },
        source,
      );
      assert.deepEqual(refused.data.createHostJoinToken, {
        token: null,
        expiresAt: null,
        errors: [{ code: 'NOT_FOUND' }],
      });
    });

    test('placement is explained by the operation that judges it', async () => {
      const { data, errors } = await ask(
        {
          explainPlacement: async () => ({
            candidates: [{ hostId: world.hosts[0]!.id, hostName: 'h1', storageId: world.storage.id, score: 0.5 }],
            rejections: [],
          }),
        },
        `{ explainPlacement(input: { zoneId: "${encodeId('zone', world.zone.uid)}", offeringId: "${encodeId('offering', world.offering.uid)}" }) {
          candidates { host { id } hostName storage { id } score } rejections { rule } } }`,
      );
      assert.deepEqual(errors, []);
      assert.deepEqual(data.explainPlacement, {
        candidates: [
          {
            host: { id: encodeId('host', world.hosts[0]!.uid) },
            hostName: 'h1',
            storage: { id: encodeId('primary_storage', world.storage.uid) },
            score: 0.5,
          },
        ],
        rejections: [],
      });
    });
  });
}
