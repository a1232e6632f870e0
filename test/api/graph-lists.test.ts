import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { sql } from 'kysely';
import { openDatabase, openPool } from '../../src/db/pool.ts';
import { encodeId } from '../../src/domain/ids.ts';
import { freshDatabase, recordStatements, type TestDatabase } from '../support/database.ts';
import { EXECUTORS, testContext } from '../support/graph.ts';
import {
  insertCluster,
  insertHost,
  insertJob,
  insertOffering,
  insertPod,
  insertTemplate,
  insertVm,
  insertVolume,
  insertWorld,
  insertZone,
  type World,
} from '../support/world.ts';

for (const [engine, run] of Object.entries(EXECUTORS)) {
  describe(`lists under ${engine}`, () => {
    let database: TestDatabase;
    let world: World;
    const names = ['b', 'a', 'c', 'a', 'd'];
    const ask = async (source: string, variables: Record<string, unknown> = {}) => {
      const answer = await run(testContext({ db: database.db }), source, variables);
      assert.deepEqual(answer.errors ?? [], []);
      // Plain objects: executors make them without a prototype.
      return JSON.parse(JSON.stringify(answer.data));
    };
    const codeOf = async (source: string, variables: Record<string, unknown> = {}) => {
      const answer = await run(testContext({ db: database.db }), source, variables);
      return (answer.errors?.[0]?.originalError as { code?: string } | undefined)?.code;
    };

    before(async () => {
      database = await freshDatabase();
      world = await insertWorld(database.db, { hosts: 2 });
      for (const [at, name] of names.entries())
        world.vms.push(
          await insertVm(database.db, world, {
            name,
            state: at < 2 ? 'RUNNING' : 'STOPPED',
            host_id: at < 2 ? world.hosts[at]!.id : null,
          }),
        );
      await insertVm(database.db, world, { name: 'gone', state: 'EXPUNGED', deleted_at: new Date() });
    });
    after(() => database.close());

    const PAGE = `query ($first: Int, $after: String, $last: Int, $before: String, $orderBy: VmOrder) {
      vms(first: $first, after: $after, last: $last, before: $before, orderBy: $orderBy) {
        edges { cursor node { name } } nodes { name } totalCount
        pageInfo { hasNextPage hasPreviousPage startCursor endCursor }
      }
    }`;

    test('pages forwards through every row once, ties of the order included, without those that are deleted', async () => {
      for (const [orderBy, expected] of [
        [null, ['b', 'a', 'c', 'a', 'd']],
        [{ field: 'ID', direction: 'DESC' }, ['d', 'a', 'c', 'a', 'b']],
        [{ field: 'NAME', direction: 'ASC' }, ['a', 'a', 'b', 'c', 'd']],
        [{ field: 'NAME', direction: 'DESC' }, ['d', 'c', 'b', 'a', 'a']],
      ] as const) {
        const seen: string[] = [];
        let after: string | null = null;
        do {
          const { vms } = await ask(PAGE, { first: 2, after, orderBy });
          assert.equal(vms.totalCount, 5);
          assert.deepEqual(
            vms.edges.map((edge: { node: unknown }) => edge.node),
            vms.nodes,
          );
          assert.equal(vms.pageInfo.hasPreviousPage, after !== null);
          assert.equal(vms.pageInfo.endCursor, vms.edges.at(-1).cursor);
          seen.push(...vms.nodes.map((vm: { name: string }) => vm.name));
          after = vms.pageInfo.hasNextPage ? vms.pageInfo.endCursor : null;
        } while (after);
        assert.deepEqual(seen, expected);
      }
    });

    test('pages backwards from the end in the order of the list', async () => {
      const orderBy = { field: 'NAME', direction: 'ASC' };
      const { vms: end } = await ask(PAGE, { last: 2, orderBy });
      assert.deepEqual(
        end.nodes.map((vm: { name: string }) => vm.name),
        ['c', 'd'],
      );
      assert.deepEqual([end.pageInfo.hasPreviousPage, end.pageInfo.hasNextPage], [true, false]);
      const { vms: start } = await ask(PAGE, { last: 5, before: end.pageInfo.startCursor, orderBy });
      assert.deepEqual(
        start.nodes.map((vm: { name: string }) => vm.name),
        ['a', 'a', 'b'],
      );
      assert.deepEqual([start.pageInfo.hasPreviousPage, start.pageInfo.hasNextPage], [false, true]);
    });

    test('takes fifty unless told, and an empty page has no cursors', async () => {
      const { vms } = await ask(
        '{ vms(filter: { name: "nobody" }) { nodes { id } totalCount pageInfo { startCursor endCursor hasNextPage } } }',
      );
      assert.deepEqual(vms, {
        nodes: [],
        totalCount: 0,
        pageInfo: { startCursor: null, endCursor: null, hasNextPage: false },
      });
      const { vms: none } = await ask('{ vms(first: 0) { nodes { id } pageInfo { hasNextPage } } }');
      assert.deepEqual(none, { nodes: [], pageInfo: { hasNextPage: true } });
    });

    test('refuses sizes, cursors and ids that can not be meant', async () => {
      const { vms } = await ask(PAGE, { first: 1 });
      for (const refused of [
        { first: -1 },
        { first: 501 },
        { last: 501 },
        { first: 1, last: 1 },
        { after: 'nonsense' },
        { after: Buffer.from('{}').toString('base64url') },
        { after: Buffer.from('["ID","1"]').toString('base64url') },
        { after: Buffer.from('["NAME",1]').toString('base64url'), orderBy: { field: 'NAME' } },
        { after: vms.pageInfo.endCursor, orderBy: { field: 'NAME' } },
      ])
        assert.equal(await codeOf(PAGE, refused), 'INVALID_INPUT', JSON.stringify(refused));
      assert.equal(await codeOf('{ vms(filter: { zoneId: "zone_1" }) { nodes { id } } }'), 'INVALID_INPUT');
      const vmId = encodeId('vm', world.vms[0]!.uid);
      assert.equal(await codeOf(`{ vms(filter: { zoneId: "${vmId}" }) { nodes { id } } }`), 'INVALID_INPUT');
    });

    test('narrows by every filter alone and together', async () => {
      const count = async (filter: string) =>
        (await ask(`{ vms(filter: ${filter}) { totalCount nodes { id } } }`)).vms.nodes.length;
      assert.equal(await count('{ state: [RUNNING] }'), 2);
      assert.equal(await count('{ state: [RUNNING, STOPPED] }'), 5);
      assert.equal(await count('{ state: [] }'), 0);
      assert.equal(await count('{ name: "a" }'), 2);
      assert.equal(await count('{ namePrefix: "a" }'), 2);
      assert.equal(await count('{ namePrefix: "%" }'), 0);
      assert.equal(await count(`{ zoneId: "${encodeId('zone', world.zone.uid)}" }`), 5);
      assert.equal(await count(`{ podId: "${encodeId('pod', world.pod.uid)}" }`), 5);
      assert.equal(await count(`{ clusterId: "${encodeId('cluster', world.cluster.uid)}", state: [RUNNING] }`), 2);
      assert.equal(await count(`{ hostId: "${encodeId('host', world.hosts[0]!.uid)}" }`), 1);
      assert.equal(await count(`{ offeringId: "${encodeId('offering', world.offering.uid)}" }`), 5);
      assert.equal(await count(`{ templateId: "${encodeId('template', world.template.uid)}" }`), 5);
      assert.equal(await count(`{ hostId: "${encodeId('host', Buffer.alloc(16))}" }`), 0);
    });

    test('shows nothing to someone who has not said who it is', async () => {
      const context = testContext({ db: database.db, actor: { kind: 'anonymous' } });
      const { errors = [] } = await run(context, '{ vms { nodes { id } } }');
      assert.equal((errors[0]?.originalError as { code?: string } | undefined)?.code, 'UNAUTHENTICATED');
    });

    test('puts the newest jobs and events first', async () => {
      const vm = world.vms[0]!;
      const older = await insertJob(database.db, vm, { state: 'SUCCEEDED' });
      const newer = await insertJob(database.db, vm);
      const id = encodeId('vm', vm.uid);
      const { jobs } = await ask(
        `{ jobs(filter: { targetId: "${id}", kind: "START_VM" }) { nodes { id target { id __typename } } } }`,
      );
      assert.deepEqual(
        jobs.nodes,
        [newer, older].map((job) => ({ id: encodeId('job', job.uid), target: { id, __typename: 'Vm' } })),
      );
      const { jobs: running } = await ask('{ jobs(filter: { state: [RUNNING] }) { totalCount } }');
      assert.equal(running.totalCount, 1);
    });

    test('the volumes, jobs and use of a hundred VMs take one statement each', async () => {
      const vms = await Promise.all(Array.from({ length: 100 }, () => insertVm(database.db, world, { name: 'many' })));
      for (const vm of vms) await insertVolume(database.db, world, vm);
      const { db, statements } = recordStatements(database.pool);
      const answer = await run(
        testContext({ db }),
        `{ vms(first: 100, filter: { name: "many" }) { nodes {
          name zone { name } offering { vcpus } template { name } activeJob { id } queuedJobs { id }
          volumes { sizeBytes primaryStorage { name } } usage { cpuNs } jobs(first: 1) { nodes { id } } allowedActions
        } } }`,
      );
      assert.deepEqual(answer.errors ?? [], []);
      const { vms: page } = answer.data as unknown as { vms: { nodes: { volumes: unknown[] }[] } };
      assert.equal(page.nodes[99]?.volumes.length, 1);
      // vms, zone, offering, template, queued jobs, volumes, usage, jobs, storage
      assert.equal(statements.length, 9, statements.join('\n'));
    });
  });
}

test('the first page of a zone reads what is on it, however many VMs were expunged before', async () => {
  const database = await freshDatabase();
  const world = await insertWorld(database.db, { vms: 1 });
  const template = await database.db.selectFrom('vm').selectAll().executeTakeFirstOrThrow();
  const copies = (from: number, count: number, deleted_at: Date | null) =>
    database.db
      .insertInto('vm')
      .values(
        Array.from({ length: count }, (_, at) => {
          const uid = Buffer.alloc(16);
          uid.writeUInt32BE(from + at);
          return { ...template, id: from + at, uid, deleted_at };
        }),
      )
      .execute();
  await copies(1, 6_000, new Date());
  await copies(10_000, 4_000, null);
  const pool = openPool(database.url, { connections: 1 });
  const db = openDatabase(pool);
  await sql`analyze table vm`.execute(db);
  await sql`flush status`.execute(db);
  const { errors = [] } = await EXECUTORS['graphql-js'](
    testContext({ db }),
    `{ zone(id: "${encodeId('zone', world.zone.uid)}") { vms { nodes { id } } } }`,
  );
  assert.deepEqual(errors, []);
  const { rows } = await sql<{ Value: string }>`show session status like 'Handler_read%'`.execute(db);
  const read = rows.reduce((sum, row) => sum + Number(row.Value), 0);
  await db.destroy();
  await database.close();
  assert.ok(read < 100, `${read} rows read`);
});

describe('the tree from a zone to its 1,280 VMs', () => {
  let database: TestDatabase;
  before(async () => {
    database = await freshDatabase();
    const { db } = database;
    const zone = await insertZone(db);
    const offering = await insertOffering(db);
    const template = await insertTemplate(db, zone);
    for (let p = 0; p < 2; p++) {
      const pod = await insertPod(db, zone);
      for (let c = 0; c < 4; c++) {
        const cluster = await insertCluster(db, { zone, pod });
        for (let h = 0; h < 8; h++) {
          const host = await insertHost(db, { zone, pod, cluster });
          const vm = () =>
            insertVm(db, { zone, pod, cluster, offering, template }, { host_id: host.id, state: 'RUNNING' });
          await Promise.all(Array.from({ length: 20 }, vm));
        }
      }
    }
  });
  after(() => database.close());

  for (const [engine, run] of Object.entries(EXECUTORS)) {
    test(`takes at most 12 statements with counts and references back, under ${engine}`, async () => {
      const { db, statements } = recordStatements(database.pool);
      const answer = await run(
        testContext({ db }),
        `{ zones { totalCount nodes { name pods { totalCount nodes { name zone { name } clusters { totalCount nodes {
          name pod { name } hosts { totalCount nodes { name cluster { name } vms(first: 15) { totalCount nodes {
            id name host { name } zone { name } } pageInfo { hasNextPage } } } } } } } } } } }`,
      );
      assert.deepEqual(answer.errors ?? [], []);
      assert.ok(statements.length <= 12, statements.join('\n'));
      const hosts = JSON.stringify(answer.data).split('"totalCount":20').length - 1;
      assert.equal(hosts, 64);
      assert.equal(JSON.stringify(answer.data).split('"vm_').length - 1, 64 * 15);
    });
  }
});
