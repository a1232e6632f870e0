import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { type ExecutionResult, parse, subscribe, validate } from 'graphql';
import { sql } from 'kysely';
import { Feed } from '../../src/db/feed.ts';
import { VirtgraphError } from '../../src/domain/errors.ts';
import type { HostAgent, StepProgress } from '../../src/domain/host-agent.ts';
import { encodeId } from '../../src/domain/ids.ts';
import type { GraphContext } from '../../src/graphql/context.ts';
import { schema } from '../../src/graphql/schema.ts';
import { Watch } from '../../src/graphql/watch.ts';
import { freshDatabase, recordStatements, type TestDatabase } from '../support/database.ts';
import { testContext } from '../support/graph.ts';
import { insertHost, insertJob, insertVm, insertWorld, type Placed, type World } from '../support/world.ts';

type Message = ExecutionResult<Record<string, unknown>>;

describe('subscriptions', () => {
  let database: TestDatabase;
  let world: World;
  let feed: Feed;
  let watch: Watch;
  let statements: string[];
  const progress = new Map<number, StepProgress>();
  const progressListeners = new Set<(progress: StepProgress) => void>();
  const serial: Partial<HostAgent> = {};
  let warned: (entry: unknown) => void = () => undefined;
  const agent = {
    progressOf: (jobId: number) => progress.get(jobId) ?? null,
    listenProgress(listener: (progress: StepProgress) => void) {
      progressListeners.add(listener);
      return () => progressListeners.delete(listener);
    },
    watchSerial: (...args: Parameters<HostAgent['watchSerial']>) => serial.watchSerial!(...args),
  } as unknown as HostAgent;

  before(async () => {
    database = await freshDatabase();
    world = await insertWorld(database.db, { hosts: 2 });
    const recorded = recordStatements(database.pool);
    statements = recorded.statements;
    feed = new Feed(recorded.db, 'test');
    watch = new Watch({
      db: recorded.db,
      feed,
      agent,
      log: { warn: (entry: unknown) => warned(entry) } as never,
    });
  });
  after(async () => {
    watch.close();
    await database.close();
  });

  const context = (given: Partial<GraphContext> = {}) => testContext({ db: database.db, feed, watch, agent, ...given });

  async function begin(source: string, variables: Record<string, unknown> = {}, given: Partial<GraphContext> = {}) {
    const document = parse(source);
    assert.deepEqual(validate(schema, document), []);
    return subscribe({ schema, document, variableValues: variables, contextValue: context(given) });
  }
  async function open(source: string, variables: Record<string, unknown> = {}, given: Partial<GraphContext> = {}) {
    const stream = await begin(source, variables, given);
    if (!(Symbol.asyncIterator in stream)) throw new Error(JSON.stringify(stream.errors));
    return stream as AsyncGenerator<Message, void, void>;
  }
  const refusal = async (
    source: string,
    variables: Record<string, unknown> = {},
    given: Partial<GraphContext> = {},
  ) => {
    const result = (await begin(source, variables, given)) as Message;
    return (result.errors?.[0]?.originalError as { code?: string } | undefined)?.code;
  };
  async function next(
    stream: AsyncGenerator<Message, void, void>,
    field: string,
  ): Promise<Record<string, unknown> | null> {
    const { value, done } = await stream.next();
    if (done || !value) return null;
    assert.deepEqual(value.errors ?? [], []);
    return JSON.parse(JSON.stringify(value.data![field]));
  }
  const setVm = async (
    vm: Placed,
    values: Partial<{ state: string; host_id: number | null; deleted_at: Date; name: string }>,
  ) => {
    await database.db
      .updateTable('vm')
      .set(values as never)
      .where('id', '=', vm.id)
      .execute();
    feed.publish([{ kind: 'vm', id: vm.id }], 'self');
  };

  test('a VM is told as it is, then each change at once and in order, with what hangs on it read anew', async () => {
    const vm = await insertVm(database.db, world, { state: 'STOPPED' });
    const stream = await open('subscription ($id: ID!) { vmChanged(id: $id) { state host { name } zone { name } } }', {
      id: encodeId('vm', vm.uid),
    });
    const zone = await database.db.selectFrom('zone').select('name').executeTakeFirstOrThrow();
    const host = await database.db
      .selectFrom('host')
      .select('name')
      .where('id', '=', world.hosts[0]!.id)
      .executeTakeFirstOrThrow();
    assert.deepEqual(await next(stream, 'vmChanged'), { state: 'STOPPED', host: null, zone });
    await setVm(vm, { state: 'STARTING', host_id: world.hosts[0]!.id });
    assert.deepEqual(await next(stream, 'vmChanged'), { state: 'STARTING', host, zone });
    await database.db.updateTable('host').set({ name: 'renamed' }).where('id', '=', world.hosts[0]!.id).execute();
    await setVm(vm, { state: 'RUNNING' });
    assert.deepEqual(await next(stream, 'vmChanged'), { state: 'RUNNING', host: { name: 'renamed' }, zone });
    await stream.return();
  });

  test('a hundred subscribers of one VM cost one read per change', async () => {
    const vm = await insertVm(database.db, world);
    const source = 'subscription ($id: ID!) { vmChanged(id: $id) { state } }';
    const streams = await Promise.all(Array.from({ length: 100 }, () => open(source, { id: encodeId('vm', vm.uid) })));
    await Promise.all(streams.map((stream) => next(stream, 'vmChanged')));
    // One that came while another's present was read may have been told of it twice: all have caught up with this one.
    const until = async (stream: AsyncGenerator<Message, void, void>, state: string) => {
      for (;;) if ((await next(stream, 'vmChanged'))?.['state'] === state) return;
    };
    await setVm(vm, { state: 'STARTING' });
    await Promise.all(streams.map((stream) => until(stream, 'STARTING')));
    statements.length = 0;
    await setVm(vm, { state: 'RUNNING' });
    await Promise.all(streams.map((stream) => until(stream, 'RUNNING')));
    // And one that may have been under way.
    assert.ok(statements.length <= 2, statements.join('\n'));
    await Promise.all(streams.map((stream) => stream.return()));
    statements.length = 0;
    await setVm(vm, { state: 'STOPPED' });
    assert.equal(statements.length, 0, 'nobody watches, so nothing is read');
  });

  test('a set is told as it is, then whoever changes, enters and, once more, leaves', async () => {
    const host = await insertHost(database.db, world);
    const vms = [];
    for (let i = 0; i < 3; i++)
      vms.push(await insertVm(database.db, world, { name: `set-${i}`, host_id: host.id, state: 'RUNNING' }));
    const outside = await insertVm(database.db, world, { name: 'outside' });
    const stream = await open('subscription ($id: ID!) { vmChanged(hostId: $id) { name state host { id } } }', {
      id: encodeId('host', host.uid),
    });
    const told: string[] = [];
    // The present may still be read when something changes, so that one is told twice of the same.
    const until = async (message: string) => {
      while (told.at(-1) !== message) {
        const vm = await next(stream, 'vmChanged');
        told.push(`${vm?.['name']} ${vm?.['state']}${vm?.['host'] ? '' : ' elsewhere'}`);
      }
    };
    await until('set-2 RUNNING');
    assert.deepEqual(told, ['set-0 RUNNING', 'set-1 RUNNING', 'set-2 RUNNING']);
    await setVm(outside, { state: 'STARTING', host_id: host.id });
    await until('outside STARTING');
    await setVm(vms[0]!, { state: 'STOPPED', host_id: null });
    await until('set-0 STOPPED elsewhere');
    await setVm(vms[0]!, { state: 'DESTROYED' });
    await setVm(vms[1]!, { state: 'PAUSED' });
    await until('set-1 PAUSED');
    assert.deepEqual([...new Set(told)].slice(3), ['outside STARTING', 'set-0 STOPPED elsewhere', 'set-1 PAUSED']);
    await stream.return();
  });

  test('a zone of hundreds of VMs is told page by page, and an expunged one leaves it', async () => {
    const other = await insertWorld(database.db, { vms: 450 });
    const stream = await open('subscription ($id: ID!) { vmChanged(zoneId: $id) { id state } }', {
      id: encodeId('zone', other.zone.uid),
    });
    const seen = new Set<unknown>();
    for (let i = 0; i < 450; i++) seen.add((await next(stream, 'vmChanged'))?.['id']);
    assert.equal(seen.size, 450);
    await setVm(other.vms[7]!, { state: 'EXPUNGED', deleted_at: new Date() });
    assert.deepEqual(await next(stream, 'vmChanged'), { id: encodeId('vm', other.vms[7]!.uid), state: 'EXPUNGED' });
    await stream.return();
  });

  test('hosts are watched alone and by cluster', async () => {
    const id = world.hosts[1]!.id;
    const change = async (link_state: 'UP' | 'UNREACHABLE') => {
      await database.db.updateTable('host').set({ link_state }).where('id', '=', id).execute();
      feed.publish([{ kind: 'host', id }], 'others');
    };
    const one = await open('subscription ($id: ID!) { hostChanged(id: $id) { linkState } }', {
      id: encodeId('host', world.hosts[1]!.uid),
    });
    assert.deepEqual(await next(one, 'hostChanged'), { linkState: 'UP' });
    const many = await open('subscription ($id: ID!) { hostChanged(clusterId: $id) { id linkState } }', {
      id: encodeId('cluster', world.cluster.uid),
    });
    const hosts = await database.db
      .selectFrom('host')
      .select('id')
      .where('cluster_id', '=', world.cluster.id)
      .execute();
    for (const _host of hosts) assert.equal((await next(many, 'hostChanged'))?.['linkState'], 'UP');
    await change('UNREACHABLE');
    assert.deepEqual(await next(one, 'hostChanged'), { linkState: 'UNREACHABLE' });
    assert.deepEqual(await next(many, 'hostChanged'), {
      id: encodeId('host', world.hosts[1]!.uid),
      linkState: 'UNREACHABLE',
    });
    await change('UP');
    await one.return();
    await many.return();
  });

  test('refuses what can not be watched before anything is told', async () => {
    const vmChanged = 'subscription ($id: ID, $zoneId: ID) { vmChanged(id: $id, zoneId: $zoneId) { id } }';
    const vm = await insertVm(database.db, world);
    const id = encodeId('vm', vm.uid);
    const zoneId = encodeId('zone', world.zone.uid);
    assert.equal(await refusal(vmChanged), 'INVALID_INPUT');
    assert.equal(await refusal(vmChanged, { id, zoneId }), 'INVALID_INPUT');
    assert.equal(await refusal(vmChanged, { id: zoneId }), 'INVALID_INPUT');
    assert.equal(await refusal(vmChanged, { id: encodeId('vm', Buffer.alloc(16)) }), 'NOT_FOUND');
    assert.equal(await refusal(vmChanged, { id }, { actor: { kind: 'anonymous' } }), 'UNAUTHENTICATED');
    const jobProgress = 'subscription ($id: ID!) { jobProgress(id: $id) { id } }';
    assert.equal(await refusal(jobProgress, { id: encodeId('job', Buffer.alloc(16)) }), 'NOT_FOUND');
    const appended =
      'subscription ($after: String, $id: ID) { eventAppended(afterSeq: $after, subjectId: $id) { seq } }';
    assert.equal(await refusal(appended, {}, { actor: { kind: 'anonymous' } }), 'UNAUTHENTICATED');
    for (const after of ['-1', 'x', '99999999999999999999', '999999999']) {
      assert.equal(await refusal(appended, { after }), 'INVALID_INPUT', after);
    }
    assert.equal(await refusal(appended, { id: 'x' }), 'INVALID_INPUT');
    const serialOutput = 'subscription ($id: ID!, $n: Int) { vmSerialOutput(vmId: $id, lastBytes: $n) { text } }';
    assert.equal(await refusal(serialOutput, { id }), 'INVALID_STATE');
    assert.equal(await refusal(serialOutput, { id, n: 0 }), 'INVALID_INPUT');
    assert.equal(await refusal(serialOutput, { id: encodeId('vm', Buffer.alloc(16)) }), 'NOT_FOUND');
  });

  test("a job's progress never goes back, and its end is told before the subscription ends", async () => {
    const vm = await insertVm(database.db, world);
    const job = await insertJob(database.db, vm, { step: 1, progress: 10, step_percent: 40 });
    await database.db
      .insertInto('job_step')
      .values({
        job_id: job.id,
        seq: 1,
        name: 'copy',
        direction: 'DO',
        state: 'OPEN',
        host_id: null,
        command: null,
        payload: null,
      })
      .execute();
    const stream = await open(
      'subscription ($id: ID!) { jobProgress(id: $id) { state progressPercent currentStep { done } } }',
      {
        id: encodeId('job', job.uid),
      },
    );
    const tell = (done: number) => {
      const now = { jobId: job.id, seq: 1, done, total: 100, unit: 'bytes', rate: null };
      progress.set(job.id, now);
      for (const listener of progressListeners) listener(now);
    };
    const percent = async () => (await next(stream, 'jobProgress'))?.['progressPercent'];
    assert.equal(await percent(), 10);
    statements.length = 0;
    tell(50);
    assert.deepEqual(await next(stream, 'jobProgress'), {
      state: 'RUNNING',
      progressPercent: 30,
      currentStep: { done: '50' },
    });
    assert.equal(statements.length, 0, 'progress is told without reading the job');
    // The step is tried again, from its beginning.
    tell(5);
    assert.equal(await percent(), 30);
    await database.db
      .updateTable('job')
      .set({ state: 'FAILED', progress: 10, step_percent: 0, finished_at: new Date() })
      .where('id', '=', job.id)
      .execute();
    feed.publish([{ kind: 'job', id: job.id }], 'self');
    assert.deepEqual(await next(stream, 'jobProgress'), { state: 'FAILED', progressPercent: 30, currentStep: null });
    assert.equal(await next(stream, 'jobProgress'), null);
  });

  test('a job that has ended already is told once', async () => {
    const job = await insertJob(database.db, await insertVm(database.db, world), { state: 'SUCCEEDED', progress: 100 });
    const stream = await open('subscription ($id: ID!) { jobProgress(id: $id) { state progressPercent } }', {
      id: encodeId('job', job.uid),
    });
    assert.deepEqual(await next(stream, 'jobProgress'), { state: 'SUCCEEDED', progressPercent: 100 });
    assert.equal(await next(stream, 'jobProgress'), null);
  });

  test('a job whose row is trimmed ends its subscription', async () => {
    const job = await insertJob(database.db, await insertVm(database.db, world));
    const stream = await open('subscription ($id: ID!) { jobProgress(id: $id) { state } }', {
      id: encodeId('job', job.uid),
    });
    assert.deepEqual(await next(stream, 'jobProgress'), { state: 'RUNNING' });
    await database.db.deleteFrom('job').where('id', '=', job.id).execute();
    feed.publish([{ kind: 'job', id: job.id }], 'self');
    assert.equal(await next(stream, 'jobProgress'), null);
  });

  let seq = 0;
  const append = async (count: number, subject: Placed = world.zone, kind: 'zone' | 'vm' = 'zone') => {
    const rows = Array.from({ length: count }, (_, at) => ({
      // Every other number is a change.
      seq: seq + 2 * (at + 1),
      type: 'tested',
      subject_kind: kind,
      subject_id: subject.id,
      job_id: null,
      actor: 'test',
      reason: null,
      changes: '[]',
    }));
    seq += 2 * count;
    await database.db.insertInto('event').values(rows).execute();
    await database.db.updateTable('feed_head').set({ seq }).execute();
    feed.publish([{ kind: 'zone', id: world.zone.id }], 'self');
  };
  const seqs = async (stream: AsyncGenerator<Message, void, void>, count: number) => {
    const found: number[] = [];
    for (let i = 0; i < count; i++) found.push(Number((await next(stream, 'eventAppended'))?.['seq']));
    return found;
  };
  const evens = (from: number, count: number) => Array.from({ length: count }, (_, i) => from + 2 * i);
  const APPENDED = 'subscription ($after: String, $id: ID) { eventAppended(afterSeq: $after, subjectId: $id) { seq } }';

  test('events follow from now on, or after a number without a gap over pages, memory and what comes meanwhile', async () => {
    await append(1_203);
    const now = await open(APPENDED);
    const behind = await open(APPENDED, { after: '100' });
    await append(2);
    assert.deepEqual(await seqs(now, 2), evens(2_408, 2));
    assert.deepEqual(await seqs(behind, 1_155), evens(102, 1_155));
    // More than is kept in memory, for one who does not read meanwhile.
    await append(1_500);
    await append(1_500);
    assert.deepEqual(await seqs(behind, 3_000), evens(2_412, 3_000));
    assert.deepEqual(await seqs(now, 3_000), evens(2_412, 3_000));
    const pending = now.next();
    await now.return();
    assert.equal((await pending).done, true);
    await behind.return();
  });

  test('events of one object are told alone', async () => {
    const vm = await insertVm(database.db, world);
    const from = seq;
    const id = encodeId('vm', vm.uid);
    await append(1, vm, 'vm');
    const stream = await open(APPENDED, { after: String(from), id });
    assert.deepEqual(await seqs(stream, 1), [from + 2]);
    await append(5);
    await append(1, vm, 'vm');
    assert.deepEqual(await seqs(stream, 1), [from + 2 + 12]);
    await stream.return();
  });

  test('ten followers cost one read of new events', async () => {
    const streams = await Promise.all(Array.from({ length: 10 }, () => open(APPENDED)));
    await append(1);
    await Promise.all(streams.map((stream) => seqs(stream, 1)));
    statements.length = 0;
    await append(3);
    await Promise.all(streams.map((stream) => seqs(stream, 3)));
    // And one that may have been under way.
    assert.ok(statements.filter((statement) => statement.includes('from event')).length <= 2, statements.join('\n'));
    await Promise.all(streams.map((stream) => stream.return()));
  });

  test('a number that is trimmed is refused, at the beginning and on the way', async () => {
    const slow = await open(APPENDED, { after: '4' });
    await database.db.updateTable('feed_head').set({ event_trimmed_to: 10 }).execute();
    await database.db.deleteFrom('event').where('seq', '<=', 10).execute();
    assert.equal(await refusal(APPENDED, { after: '9' }), 'LOG_TRIMMED');
    const { value } = await slow.next();
    const error = value?.errors?.[0]?.originalError as { code?: string } | undefined;
    assert.equal(error?.code, 'LOG_TRIMMED');
    assert.equal((await slow.next()).done, true);
    const fits = await open(APPENDED, { after: '10' });
    assert.deepEqual(await seqs(fits, 1), [12]);
    await fits.return();
  });

  test('a database that fails once loses no change', async () => {
    const vm = await insertVm(database.db, world, { state: 'STOPPED' });
    const stream = await open('subscription ($id: ID!) { vmChanged(id: $id) { state } }', {
      id: encodeId('vm', vm.uid),
    });
    await next(stream, 'vmChanged');
    await sql`rename table vm to vm_away`.execute(database.db);
    const { promise: failed, resolve } = Promise.withResolvers<unknown>();
    warned = resolve;
    await sql`update vm_away set state = 'RUNNING' where id = ${vm.id}`.execute(database.db);
    feed.publish([{ kind: 'vm', id: vm.id }], 'self');
    await failed;
    await sql`rename table vm_away to vm`.execute(database.db);
    assert.deepEqual(await next(stream, 'vmChanged'), { state: 'RUNNING' });
    await stream.return();
  });

  test('serial output arrives as text, characters whole, until the subscriber leaves', async () => {
    const vm = await insertVm(database.db, world, { state: 'RUNNING', host_id: world.hosts[0]!.id });
    const bytes = Buffer.from('grün');
    const waiting = Promise.withResolvers<IteratorResult<{ offset: number; bytes: Buffer }>>();
    let returned = 0;
    const pieces = [
      { offset: 7, bytes: bytes.subarray(0, 3) },
      { offset: 10, bytes: bytes.subarray(3) },
    ];
    const asked: unknown[] = [];
    serial.watchSerial = (...args) => {
      asked.push(...args);
      return {
        next: async () => {
          const value = pieces.shift();
          return value ? { done: false, value } : waiting.promise;
        },
        async return() {
          returned++;
          waiting.resolve({ done: true, value: undefined });
          return { done: true, value: undefined };
        },
        [Symbol.asyncIterator]() {
          return this;
        },
      };
    };
    const source = 'subscription ($id: ID!) { vmSerialOutput(vmId: $id) { offset text } }';
    const stream = await open(source, { id: encodeId('vm', vm.uid) });
    assert.deepEqual(await next(stream, 'vmSerialOutput'), { offset: '7', text: 'gr' });
    assert.deepEqual(await next(stream, 'vmSerialOutput'), { offset: '10', text: 'ün' });
    assert.deepEqual(asked, [world.hosts[0]!.id, vm.uid, 4096]);
    const pending = stream.next();
    await stream.return();
    assert.equal((await pending).done, true);
    assert.equal(returned, 1);
    serial.watchSerial = () => ({
      next: () => Promise.reject(new VirtgraphError({ code: 'HOST_UNREACHABLE', message: 'It is gone.' })),
      [Symbol.asyncIterator]() {
        return this;
      },
    });
    const broken = await open(source, { id: encodeId('vm', vm.uid) });
    const { value } = await broken.next();
    assert.equal((value?.errors?.[0]?.originalError as { code?: string } | undefined)?.code, 'HOST_UNREACHABLE');
    assert.equal((await broken.next()).done, true);
  });
});
